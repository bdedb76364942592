"""Predicted visibilities against closed forms, and against the sum written plainly."""

from __future__ import annotations

import math

import known_gains
import numpy as np
import pytest

from absurd.tasks.calibration.predict import direction_cosines, meridian_icrs, predict
from absurd.tasks.calibration.sky_model import Component, SkyModel, separation_rad
from absurd.tasks.radio.beam import AiryBeam, GaussianBeam
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT
from absurd.tasks.visibility.visibilities import PhaseCentre, Visibilities

CENTRE = PhaseCentre("centre", 1.0, 0.6)


def scene(times: int = 2, channels: int = 5, **changes: object) -> Visibilities:
    """A tile with heights, all in one phase centre unless told."""
    empty = known_gains.empty(6, channels, times)
    uvw = empty.uvw_m + np.stack([np.zeros(len(empty.uvw_m))] * 2 + [np.linspace(-300, 300, len(empty.uvw_m))], -1)
    one = {"field": np.zeros_like(empty.field), "phase_centres": (CENTRE,), "uvw_m": uvw}
    return empty.with_(**(one | changes))


def plainly(visibilities: Visibilities, source: Component) -> np.ndarray:
    """(row, channel): the phase of a point, from its direction as a vector."""
    ra, dec = source.ra_rad, source.dec_rad
    towards = np.array([math.cos(dec) * math.cos(ra), math.cos(dec) * math.sin(ra), math.sin(dec)])
    a, d = CENTRE.ra_rad, CENTRE.dec_rad
    east = np.array([-math.sin(a), math.cos(a), 0])
    north = np.array([-math.sin(d) * math.cos(a), -math.sin(d) * math.sin(a), math.cos(d)])
    out = np.array([math.cos(d) * math.cos(a), math.cos(d) * math.sin(a), math.sin(d)])
    delay = visibilities.uvw_m @ np.array([towards @ east, towards @ north, towards @ out - 1]) / SPEED_OF_LIGHT
    return np.asarray(np.exp(2j * np.pi * delay[:, None] * visibilities.frequencies_hz))


def test_a_point_in_the_phase_centre_is_its_flux() -> None:
    """All visibilities are real and equal, in all correlations of one polarisation; others are 0."""
    seen = known_gains.empty(5, 3, 1, correlations=("XX", "XY", "YX", "YY"))
    centre = seen.phase_centres[0]

    model = predict(seen, SkyModel((Component("a", centre.ra_rad, centre.dec_rad, 2.5),)))

    assert np.allclose(model[..., [0, 3]], 2.5, atol=1e-6)
    assert (model[..., [1, 2]] == 0).all()


def test_where_a_sky_does_not_hold_there_is_no_number() -> None:
    """By the projected length at each channel; all else is as it is without a range."""
    seen = scene(channels=64)
    source = SkyModel((Component("a", CENTRE.ra_rad + 0.01, CENTRE.dec_rad, 3.0),))
    lengths = np.hypot(seen.uvw_m[:, 0], seen.uvw_m[:, 1])[:, None] * seen.frequencies_hz / SPEED_OF_LIGHT
    shorter, longer = np.sort(lengths[:, 0])[[8, 20]]  # of the first channel: some of the others are longer
    limits = (float(shorter) * 1.01, float(longer) * 1.01)

    whole, part = predict(seen, source), predict(seen, source, uv_range_wavelengths=limits)

    within = (lengths >= limits[0]) & (lengths <= limits[1])
    assert 0 < within.sum() < within.size
    assert np.array_equal(np.isfinite(part), np.broadcast_to(within[..., None], part.shape))
    assert np.array_equal(part[within], whole[within])


@pytest.mark.parametrize("even", [True, False])
def test_a_point_off_the_centre(even: bool) -> None:
    """Phases are those of V = S exp(+2 pi i (u l + v m + w (n - 1))), to single precision, degrees off the centre."""
    seen = scene(channels=64)
    if not even:
        seen = seen.with_(frequencies_hz=np.sort(np.random.default_rng(2).uniform(1.2e9, 1.5e9, 64)))
    source = Component("a", CENTRE.ra_rad + 0.05, CENTRE.dec_rad - 0.03, 3.0)

    model = predict(seen, SkyModel((source,)))

    assert np.abs(model[..., 0] - 3 * plainly(seen, source)).max() < 3e-6
    assert np.array_equal(model[..., 0], model[..., 1])


def test_components_add_up() -> None:
    """A sky is the sum of its components."""
    seen = scene()
    skies = [SkyModel((Component(f"{each}", 1 + each / 300, 0.6 - each / 200, 1.0 + each),)) for each in range(3)]

    whole = predict(seen, skies[0] + skies[1] + skies[2])

    assert np.allclose(whole, sum(predict(seen, each) for each in skies), atol=1e-5)
    assert (predict(seen, SkyModel(())) == 0).all()


def test_spectra() -> None:
    """The amplitude in a channel is the flux density at its frequency; outside of the spectrum's range nothing is."""
    seen = scene(channels=9)
    source = Component("a", CENTRE.ra_rad, CENTRE.dec_rad, 3.0, 1.4e9, (-0.7, 0.2), lowest_hz=1e9, highest_hz=2e9)

    model = predict(seen, SkyModel((source,)))

    assert np.allclose(model[0, :, 0], source.flux_at(seen.frequencies_hz), rtol=1e-6)
    with pytest.raises(ValidationError, match="is known from 1 to 2 GHz"):
        predict(seen.with_(frequencies_hz=seen.frequencies_hz * 2), SkyModel((source,)))


def test_a_gaussian_falls_off_with_its_width_across_each_baseline() -> None:
    """A baseline along the axis of an ellipse sees exp(-(pi width b)^2 / (4 ln 2)) of it."""
    seen = scene()
    angle, major, minor = 0.5, 4e-5, 1e-5
    along = np.array([math.sin(angle), math.cos(angle), 0])
    across = np.array([math.cos(angle), -math.sin(angle), 0])
    length = np.linspace(100, 2000, len(seen.uvw_m))
    source = Component("a", CENTRE.ra_rad, CENTRE.dec_rad, 2.0, 1e9, (), major, minor, angle)

    for direction, width in ((along, major), (across, minor)):
        model = predict(seen.with_(uvw_m=length[:, None] * direction), SkyModel((source,)))

        waves = length[:, None] * seen.frequencies_hz / SPEED_OF_LIGHT
        expected = 2 * np.exp(-((math.pi * width * waves) ** 2) / (4 * math.log(2)))
        assert np.abs(model[..., 0] - expected).max() < 1e-6


def test_the_beam_follows_the_phase_centre_of_each_row() -> None:
    """At half the beam's width from the phase centre half the power is received, and all of it in the centre."""
    beam = GaussianBeam(4.65)
    seen = scene(channels=1)
    half = beam.fwhm_rad(float(seen.frequencies_hz[0])) / 2
    sky = SkyModel((Component("a", CENTRE.ra_rad, CENTRE.dec_rad + half, 2.0),))
    moved = (CENTRE, PhaseCentre("moved", CENTRE.ra_rad, CENTRE.dec_rad + half))
    rows = np.arange(len(seen.field)) % 2

    model = predict(seen.with_(field=rows.astype(np.int32), phase_centres=moved), sky, beam=beam)

    assert np.allclose(np.abs(model[rows == 0]), 1.0, atol=1e-6)
    assert np.allclose(np.abs(model[rows == 1]), 2.0, atol=1e-6)


def test_the_beam_stands_on_the_meridian_while_the_sky_drifts() -> None:
    """A source is at its strongest when it crosses the meridian, and as much weaker before and after as the beam is."""
    beam = AiryBeam(4.65)
    times = 25
    seen = known_gains.empty(3, 1, times)
    x, y, _ = seen.array.position_m
    time = np.unique(seen.time_s)
    ra, dec = meridian_icrs(time, math.atan2(y, x), 0.6)
    source = Component("a", float(ra[12]), float(dec[12]), 5.0)
    centres = {"field": np.zeros_like(seen.field), "phase_centres": (PhaseCentre("a", source.ra_rad, source.dec_rad),)}

    model = predict(seen.with_(**centres), SkyModel((source,)), beam=beam, pointing="meridian", declination_rad=0.6)

    strength = np.abs(model[:, 0, 0]).reshape(times, -1)[:, 0]
    distance = separation_rad(ra, dec, np.array(source.ra_rad), np.array(source.dec_rad))
    assert strength.argmax() == 12
    assert strength[12] == pytest.approx(5.0, rel=1e-6)
    assert np.allclose(strength, 5 * beam.power(distance, seen.frequencies_hz), rtol=1e-5)
    assert np.degrees(distance[0]) == pytest.approx(15 * math.cos(0.6) * 12 * 12.884902 / 3600, rel=0.01)


def test_the_meridian_is_where_astropy_has_it() -> None:
    """To 20 arcsec, with precession, nutation and aberration."""
    import astropy.units as u
    from astropy.coordinates import CIRS, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers

    longitude = math.radians(-118.2817)
    when = Time("2022-02-15T10:00:00", scale="utc")
    with iers.conf.set_temp("auto_download", False):
        place = EarthLocation.from_geodetic(math.degrees(longitude) * u.deg, 37.2 * u.deg)
        right_ascension = when.earth_rotation_angle(place.lon)
        expected = SkyCoord(right_ascension, 0.6 * u.rad, frame=CIRS(obstime=when)).icrs

    ra, dec = meridian_icrs(np.array([when.mjd * 86_400]), longitude, 0.6)

    angle = separation_rad(ra, dec, np.array(expected.ra.rad), np.array(expected.dec.rad))
    assert np.degrees(angle[0]) * 3600 < 20


def test_direction_cosines_keep_their_digits() -> None:
    """A thousandth of an arcsecond from the centre n - 1 is still that of the angle."""
    tiny = math.radians(1e-3 / 3600)

    _, north, below = direction_cosines(CENTRE, np.array(CENTRE.ra_rad), np.array(CENTRE.dec_rad + tiny))

    assert north == pytest.approx(tiny, rel=1e-6)
    assert below == pytest.approx(-(tiny**2) / 2, rel=1e-6)


def test_a_pointing_that_is_not_known() -> None:
    """It is refused with those that are."""
    with pytest.raises(ValidationError, match="take phase centre or meridian"):
        predict(scene(), SkyModel(()), pointing="zenith")  # type: ignore[arg-type]
