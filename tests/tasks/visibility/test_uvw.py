"""Coordinates of baselines and phase centres, against astropy and pyuvdata, which reckon them otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import HADec, SkyCoord
from astropy.time import Time
from pyuvdata_places import TELESCOPE, array, pyuvdata_uvw
from recordings import Recording

from absurd.tasks.radio.earth import utc_s
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.uvw import meridian_centres, phase_to, place_of, uvw_m
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

MILLIMETRE = 1e-3


@pytest.mark.parametrize(
    ("begin", "ra_deg", "dec_deg"),
    [
        ("2025-10-05T12:30:00", 202.78, 30.51),
        ("2018-03-01T02:00:00", 10.0, 71.6),
        ("2022-12-31T23:59:50", 359.99, -5.0),
    ],
)
def test_coordinates_are_those_of_pyuvdata(begin: str, ra_deg: float, dec_deg: float) -> None:
    """To 0.005 mm in w and 0.1 mm in u and v on 2.7 km, at any hour angle."""
    time = Time(begin, scale="utc")
    one, two = np.triu_indices(len(TELESCOPE.stations), 1)
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)

    found = uvw_m(
        array(), one, two, np.full(len(one), utc_s(time.jd)), np.zeros(len(one), np.int32), [PhaseCentre("", ra, dec)]
    )

    assert np.linalg.norm(found, axis=1).max() > 2500
    apart = np.abs(found - pyuvdata_uvw(time, ra, dec, one, two)).max(axis=0)
    assert np.all(apart < MILLIMETRE * np.array([0.1, 0.1, 0.005])), apart


def test_a_phase_centre_is_what_stands_on_the_meridian() -> None:
    """One for each time, as astropy has them; w is the same at all times, to what the pole moves."""
    times = Time("2025-10-05T12:30:00", scale="utc") + np.arange(24) * 12.884902 * units.s
    site = Recording().site

    centres = meridian_centres(utc_s(times.jd), np.radians(54.6), array())

    frame = HADec(obstime=times, location=site)
    expected = SkyCoord(np.zeros(24) * units.deg, np.full(24, 54.6) * units.deg, frame=frame).icrs
    found = SkyCoord([each.ra_rad for each in centres], [each.dec_rad for each in centres], unit="rad")
    assert [each.name for each in centres[:2]] == ["meridian_icrs_t0", "meridian_icrs_t1"]
    assert found.separation(expected).arcsec.max() < 0.01  # the recording's site is some metres off the array's
    one, two = np.triu_indices(len(TELESCOPE.stations), 1)
    w = [
        uvw_m(array(), one, two, np.full(len(one), utc_s(times.jd[number])), np.full(len(one), number), centres)[:, 2]
        for number in (0, 23)
    ]
    assert np.abs(w[1] - w[0]).max() < MILLIMETRE


def test_times_that_no_table_reaches() -> None:
    """Are warned of, with the way out: places are off by what the Earth has turned otherwise."""
    one, two = np.array([0]), np.array([1])
    with pytest.warns(RuntimeWarning, match=r"is known from 1973-01-02 to 20\d\d-.*upgrade astropy-iers-data"):
        uvw_m(array(), one, two, np.array([utc_s(2_490_000.5)]), np.zeros(1, np.int32), [PhaseCentre("", 1.0, 0.6)])


def test_a_day_that_ends_with_a_leap_second() -> None:
    """Seconds are counted as CASA does; a minute before midnight it is a minute before midnight."""
    before, after = (utc_s(Time(each, scale="utc").jd) for each in ("2016-12-31T12:00:00", "2017-01-01T12:00:00"))
    late = utc_s(Time("2016-12-31T23:59:00", scale="utc").jd)

    assert before == pytest.approx(57753.5 * 86400, abs=1e-4)
    assert after - before == pytest.approx(86400, abs=1e-4)
    assert late == pytest.approx(57754 * 86400 - 60, abs=1e-4)
    # The same sidereal turn on both sides: coordinates of one phase centre after a sidereal day are what they were.
    one, two = np.array([0]), np.array([len(TELESCOPE.stations) - 1])
    centre, field = [PhaseCentre("", 1.0, 0.6)], np.zeros(1, np.int32)
    first, second = (
        uvw_m(array(), one, two, np.array([each]), field, centre)
        for each in (before, before + 86164.0905 - 1)  # a second was put in between
    )
    assert np.abs(second - first).max() < 0.03


def test_phase_centres_move_and_come_back() -> None:
    """A source has no phase at its own place; there and back gives the same data; the sky by astropy says the same."""
    recording = Recording(seed=0, sources=((0.31, 0.22, 3.0),))
    visibilities = in_memory(recording)
    place = recording.sky[0]

    there = phase_to(visibilities, place.ra.rad, place.dec.rad, name="source")
    first = visibilities.phase_centres[0]
    back = phase_to(there, first.ra_rad, first.dec_rad)

    assert [each.name for each in there.phase_centres] == ["source"]
    assert np.abs(there.data - 3.0).max() < 1e-4
    same = visibilities.field == 0
    assert np.abs(back.data - visibilities.data)[same].max() < 1e-5
    assert np.abs(back.uvw_m - visibilities.uvw_m)[same].max() < 1e-9


def test_turned_coordinates_are_nearly_those_of_positions() -> None:
    """By u, v, w alone a source a third of a degree away has no phase either, but for aberration."""
    recording = Recording(seed=0, sources=((0.31, 0.22, 3.0),))
    visibilities = in_memory(recording)
    place = recording.sky[0]

    there = phase_to(visibilities, place.ra.rad, place.dec.rad, by="uvw")

    assert np.abs(there.data - 3.0).max() < 0.06


def test_positions_that_are_not_those_of_the_data() -> None:
    """Are refused: what the data were phased by cannot be known."""
    visibilities = in_memory(Recording())
    shifted = visibilities.array.positions_m + np.arange(15).reshape(5, 3)
    from dataclasses import replace

    wrong = visibilities.with_(array=replace(visibilities.array, positions_m=shifted))

    with pytest.raises(DataError, match=r"correct the positions, or phase by the coordinates"):
        phase_to(wrong, 1.0, 0.5)


def test_an_array_that_is_nowhere() -> None:
    """Positions that are not geocentric are told from those that are."""
    with pytest.raises(DataError, match=r"0\.1 km from the centre of the Earth"):
        place_of([100.0, 0.0, 0.0])


def in_memory(recording: Recording) -> Visibilities:
    """A recording of four channels, phased to the meridian."""
    frequencies = recording.frequencies_hz(0)
    data = recording.visibilities(frequencies).reshape(-1, 4, len(recording.correlations)).astype(np.complex64)
    rows = len(data)
    one, two = (np.tile(each, recording.integrations).astype(np.int32) for each in recording.pairs)
    centre = np.array([getattr(recording.site, axis).to_value("m") for axis in "xyz"])
    antennas = Array("test", tuple("abcde"), recording.positions_m + centre, 4.65, centre)
    times = utc_s(recording.times.jd)
    field = np.repeat(np.arange(recording.integrations, dtype=np.int32), len(recording.pairs[0]))
    centres = meridian_centres(times, np.radians(recording.declination_deg), antennas)
    return Visibilities(
        data=data,
        flags=np.zeros(data.shape, np.bool_),
        weights=np.ones(data.shape, np.float32),
        uvw_m=uvw_m(antennas, one, two, times[field], field, centres),
        time_s=times[field],
        exposure_s=np.full(rows, recording.integration_s),
        antenna1=one,
        antenna2=two,
        field=field,
        frequencies_hz=frequencies,
        channel_width_hz=np.full(4, 244140.625),
        correlations=("XX", "YY"),
        array=antennas,
        phase_centres=centres,
    )
