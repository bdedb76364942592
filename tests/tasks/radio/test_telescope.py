"""Telescopes as data: what DSA-110's file says, and what a file may not say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from absurd.tasks.radio.errors import ConfigurationError
from absurd.tasks.radio.telescope import Telescope, geocentric_m, load_telescope, telescope_names

TELESCOPES = Path(__file__).resolve().parents[3] / "tasks" / "radio" / "telescopes"
DSA110 = (TELESCOPES / "dsa110.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def dsa110() -> Telescope:
    """As it comes along."""
    return load_telescope("dsa110")


def test_each_that_comes_along_can_be_loaded() -> None:
    """Every TOML file of the package is a telescope, and DSA-110 is among them."""
    assert "dsa110" in telescope_names()
    for name in telescope_names():
        assert load_telescope(name).band.frequencies_hz.size


def test_dsa110_is_what_its_recordings_say(dsa110: Telescope) -> None:
    """96 antennas in use, 4,560 baselines, 16 sub-bands of 48 channels from 1311.25 to 1498.75 MHz, tiles of 309 s."""
    band, antennas = dsa110.band, len(dsa110.stations)
    frequencies = band.frequencies_hz

    assert antennas == 96
    assert antennas * (antennas - 1) // 2 == 4560
    assert frequencies.size == 768
    assert frequencies[0] - band.channel_width_hz / 2 == 1311.25e6
    assert frequencies[-1] + band.channel_width_hz / 2 == 1498.75e6
    assert dsa110.integrations * dsa110.integration_s == pytest.approx(309.24, abs=0.01)
    assert dsa110.correlations == ("XX", "YY")
    assert dsa110.casa_name == "OVRO_MMA"


def test_subband_0_is_the_highest(dsa110: Telescope) -> None:
    """Sub-bands descend, channels within them ascend, and all of them together are the band, each channel once."""
    parts = [dsa110.band.subband_frequencies_hz(each) for each in range(16)]

    assert parts[0][-1] == dsa110.band.frequencies_hz[-1]
    assert all(np.all(np.diff(each) > 0) for each in parts)
    assert np.array_equal(np.concatenate(parts[::-1]), dsa110.band.frequencies_hz)


def test_the_array_is_as_long_as_it_is(dsa110: Telescope) -> None:
    """The longest baseline has 2.6 km, the core's under 485 m; neighbours in the east-west arm are 5.75 m apart."""
    names, places = dsa110.antenna_names, dsa110.positions_m
    lengths = np.linalg.norm(places[:, None] - places[None], axis=-1)
    core = [at for at, name in enumerate(names) if int(name[3:]) <= 102]

    assert 2550 < lengths.max() < 2750
    assert lengths[np.ix_(core, core)].max() < 485
    assert lengths[names.index("pad001"), names.index("pad002")] == pytest.approx(5.75, abs=0.01)
    assert lengths[names.index("pad068"), names.index("pad069")] == pytest.approx(8.653, abs=0.01)


def test_stations_are_the_surveyed_ones(dsa110: Telescope, shared: Path) -> None:
    """Latitudes, longitudes and heights are those of the array's own table, for all that are in use."""
    table = shared / "data" / "radio-tables" / "DSA110_Station_Coordinates.csv"
    with table.open(encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row[1].startswith("DSA-") and row[2][:1].isdigit()]
    surveyed = {int(row[1][4:]): [float(each) for each in row[2:5] if each] for row in rows}

    assert len(surveyed) == 117
    for name, *place in dsa110.stations:
        told = surveyed[int(name[3:])]
        assert place == told


def test_places_are_geocentric(dsa110: Telescope) -> None:
    """x, y, z are those of ERFA for the ellipsoid of WGS 84, to a micrometre."""
    import erfa

    longitude, latitude = np.radians(dsa110.longitude_deg), np.radians(dsa110.latitude_deg)

    assert np.allclose(dsa110.position_m, erfa.gd2gc(1, longitude, latitude, dsa110.height_m), atol=1e-6, rtol=0)
    assert np.allclose(geocentric_m(np.array(0.0), np.array(0.0), np.array(0.0)), [6378137.0, 0, 0])


def test_an_antenna_alone_hears_eleven_kilojansky(dsa110: Telescope) -> None:
    """SEFD = 2 k T / (efficiency x area): 11.6 kJy of 50 K at 0.7, which is 0.36 mJy in a tile of 96 antennas."""
    tile = dsa110.sefd_jy / np.sqrt(2 * 96 * 95 * 187.5e6 * 309.24)

    assert dsa110.sefd_jy == pytest.approx(11_615, abs=10)
    assert tile == pytest.approx(0.36e-3, abs=0.01e-3)


def test_reference_antennas_are_in_use(dsa110: Telescope) -> None:
    """The chain begins with outriggers, and names none that is not there."""
    assert dsa110.reference_antennas[0] == "pad104"
    assert set(dsa110.reference_antennas) <= set(dsa110.antenna_names)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "DSA-110"', 'nome = "DSA-110"', "the file has no key nome"),
        ("diameter_m", "diametre_m", "dish has no key diametre_m; it has diameter_m"),
        ("diameter_m = 4.65", "diameter_m = 0.0", "dish.diameter_m is 0.0: it should be greater than 0"),
        ("diameter_m = 4.65", "diameter_m = nan", "dish.diameter_m is nan: it should be a finite number"),
        ("aperture_efficiency = 0.7", "aperture_efficiency = 0", "dish.aperture_efficiency is 0: "),
        ("aperture_efficiency = 0.7", "aperture_efficiency = 70", "it should be less than or equal to 1"),
        (
            "latitude_deg = 37.2339",
            'latitude_deg = "north"',
            "site.latitude_deg is 'north': it should be a valid number",
        ),
        ("latitude_deg = 37.2339", "latitude_deg = 372.339", "site.latitude_deg is 372.339: "),
        ("integrations = 24", "integrations = -24", "recording.integrations is -24: "),
        ("integrations = 24", "integrations = 24.5", "recording.integrations is 24.5: "),
        ("channels = 48", "channels = -1", "band.channels is -1: it should be greater than or equal to 1"),
        ("height_m = 1222.0\n", "", "key 'height_m' is missing in site"),
        ("descending = true", "", "key 'descending' is missing in band"),
        (
            'correlations = ["XX", "YY"]',
            'correlations = ["XX", "ZZ"]',
            "correlations.1 is 'ZZ': it should be 'XX', 'XY'",
        ),
        ('correlations = ["XX", "YY"]', 'correlations = ["XX", "XX"]', "correlations has XX twice"),
        ("reference = [104,", "reference = [204,", "antennas.reference has 204, which is no station: take it out"),
        ("reference = [104,", "reference = [10,", "antennas.reference has 10, which is unused: take one"),
        ("unused = [10,", "unused = [1000,", "antennas.unused has 1000, which is no station"),
        ("  [2, 37.2333752, -118.2855760,", "  [1, 37.2333752, -118.2855760,", "antennas.stations has 1 twice"),
        ("  [2, 37.2333752, -118.2855760,", "  [2, 37.2333752, -118.2856408,", "1 and 2 stand at one place"),
        ("[1, 37.2333752, -118.2856408, 1182.6]", "[1, 37.2333752, -118.2856408]", "it should be [number, latitude"),
        ('correlations = ["XX", "YY"]', 'correlations = ["XX"', "dsa.toml"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    """Unknown and missing keys, values of nothing and broken files are refused, with the file and what is wrong."""
    assert old in DSA110
    file = tmp_path / "dsa.toml"
    file.write_text(DSA110.replace(old, new, 1), encoding="utf-8")

    with pytest.raises(ConfigurationError, match=re.escape(told)):
        load_telescope(str(file))


def test_unknown_names_are_told_the_known() -> None:
    """A name that is not known, or a file that is not there, says so."""
    with pytest.raises(ConfigurationError, match=r"'vla' is not known: take dsa110"):
        load_telescope("vla")
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml cannot be read"):
        load_telescope("nowhere.toml")
