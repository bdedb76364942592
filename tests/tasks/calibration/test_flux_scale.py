"""The flux densities of standard calibrators, and the VLA's list."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import SHARED

from absurd.tasks.calibration.flux_scale import FLUX_CALIBRATORS, flux_calibrator
from absurd.tasks.calibration.sky_model import Component, SkyModel, calibrator_component, separation_rad
from absurd.tasks.calibration.vla_calibrators import VlaCalibrator, parse_vla_calibrators
from absurd.tasks.radio.errors import DataError, ValidationError

LIST = SHARED / "data" / "radio-tables" / "vla_calibrators_ra00-11h.txt"
needs_list = pytest.mark.skipif(not LIST.exists(), reason=f"{LIST} is not there")


@pytest.fixture(scope="module")
def listed() -> list[VlaCalibrator]:
    """The real list, right ascensions below 12 hours."""
    return parse_vla_calibrators(LIST.read_text(encoding="ascii"))


@pytest.mark.parametrize(
    ("name", "ghz", "jy"),
    [
        ("3C286", 1.0, 17.705),  # 10^a0 of the paper's Table 6
        ("3C48", 1.0, 21.150),
        ("3C147", 1.0, 28.288),
        ("3C405", 1.0, 2237.7),
        ("3C286", 1.47, 14.7172),  # as pipelines of MeerKAT state them for the scale of 2017
        ("3C138", 1.47, 8.33843),
    ],
)
def test_flux_densities(name: str, ghz: float, jy: float) -> None:
    """The polynomial is in log10 of the frequency in GHz, and gives Jy."""
    assert flux_calibrator(name).flux_jy(np.array([ghz * 1e9]))[0] == pytest.approx(jy, rel=1e-4)


def test_all_twenty_are_there_once() -> None:
    """Each source of the table, no name twice, each bright at 1 GHz or where it is fitted, where it is known to be."""
    names = [each.name for each in FLUX_CALIBRATORS]

    assert len(names) == len(set(names)) == 20
    for each in FLUX_CALIBRATORS:
        middle = math.sqrt(each.lowest_hz * each.highest_hz)
        assert 2 < each.flux_jy(np.array([middle]))[0] < 1e5


@pytest.mark.parametrize("name", ["3C 286", "3c_286", "J1331+3030", "1331+305", "1328+307", " 3C286 "])
def test_other_names(name: str) -> None:
    """Capitals, spaces and underscores do not matter, and names by position are known."""
    assert flux_calibrator(name).name == "3C286"
    assert flux_calibrator("Cas-A").name == flux_calibrator("CASSIOPEIA_A").name == "3C461"


@pytest.mark.parametrize(("name", "ghz"), [("3C286", 60.0), ("3C286", 0.049), ("Fornax A", 1.4), ("3C380", 8.0)])
def test_nothing_is_extrapolated(name: str, ghz: float) -> None:
    """Outside of the fitted frequencies there is no flux density, and the error tells both."""
    source = flux_calibrator(name)

    with pytest.raises(ValidationError, match=f"{source.name} is known from .* to .* GHz, not at {ghz:g} GHz"):
        source.flux_jy(np.array([1e9 if source.highest_hz > 1e9 else 0.3e9, ghz * 1e9]))
    with pytest.raises(ValidationError, match="nothing is extrapolated"):
        calibrator_component(name).flux_at(np.array([ghz * 1e9]))


def test_no_source_of_the_scale() -> None:
    """What is not of the scale is refused, with what is."""
    with pytest.raises(ValidationError, match=r"3C454\.3.*3C286"):
        flux_calibrator("3C454.3")


def test_a_component_has_the_spectrum_of_the_scale() -> None:
    """As a component of a sky it has the same flux densities."""
    frequencies = np.geomspace(0.06e9, 49e9, 30)

    for name in ("3C286", "3C147", "3C123"):
        expected = flux_calibrator(name).flux_jy(frequencies)
        assert np.allclose(calibrator_component(name).flux_at(frequencies), expected, rtol=1e-12)


def test_a_sky_survives_json() -> None:
    """Every figure is the same after writing and reading."""
    sky = SkyModel((
        calibrator_component("3C48"),
        Component("gaussian", 0.1, -0.3, 1 / 3, 1.4e9, (-0.7, 0.01), 2e-5, 1e-5, 0.4),
    ))  # fmt: skip

    assert SkyModel.from_json(sky.to_json()) == sky


@pytest.mark.parametrize("text", ["{", "3", '[{"name": "a"}]', '[{"colour": 1}]', "[1]"])
def test_no_sky(text: str) -> None:
    """What is no model of the sky is refused as such."""
    with pytest.raises(DataError, match="no model of the sky"):
        SkyModel.from_json(text)


@needs_list
def test_all_sources_of_the_list_are_read(listed: list[VlaCalibrator]) -> None:
    """All 954 with all 2,772 bands, none outside of its hours, each with its B1950 name."""
    assert len(listed) == 954
    text = LIST.read_text(encoding="ascii")
    lines = [line for line in text.splitlines() if line.strip()[:1].isdigit() and "cm" in line[:8]]
    assert sum(len(each.bands) for each in listed) == len(lines)
    assert all(0 <= each.ra_rad < math.pi for each in listed)
    assert all(each.b1950_name for each in listed)
    assert len({each.name for each in listed}) == 952  # two names stand there twice, at different places


@needs_list
def test_one_source_of_the_list(listed: list[VlaCalibrator]) -> None:
    """Position, qualities, flux densities and limits of baselines are those of the text, moved columns or not."""
    by_name = {each.name: each for each in listed}

    plain = by_name["0003-174"]
    assert plain.ra_rad == pytest.approx(math.radians(15 * (3 / 60 + 21.9969 / 3600)))
    assert plain.dec_rad == pytest.approx(-math.radians(17 + 27 / 60 + 11.781 / 3600))
    assert plain.bands[0].qualities == "XSSS"
    assert (plain.bands[0].flux_jy, plain.bands[0].shortest_wavelengths, plain.bands[0].longest_wavelengths) == (
        7, None, 7000,
    )  # fmt: skip
    assert by_name["0006-063"].bands[0].shortest_wavelengths == 45_000
    moved = {each.letter: each for each in by_name["0013+408"].bands}
    assert (moved["L"].shortest_wavelengths, moved["X"].shortest_wavelengths) == (6000, 200_000)
    assert by_name["0006-000"].other_names == ("3C2",)
    assert by_name["0006-000"].dec_rad < 0


@needs_list
@pytest.mark.parametrize(
    ("name", "listed_as"), [("3C48", "0137+331"), ("3C138", "0521+166"), ("3C147", "0542+498"), ("3C196", "0813+482")]
)
def test_both_lists_agree(name: str, listed_as: str, listed: list[VlaCalibrator]) -> None:
    """Standard calibrators stand where the VLA has them, and are as strong at 20 cm to 8 %."""
    source, entry = flux_calibrator(name), next(each for each in listed if each.name == listed_as)

    angle = separation_rad(*(np.array(each) for each in (source.ra_rad, source.dec_rad, entry.ra_rad, entry.dec_rad)))
    assert np.degrees(angle) * 3600 < 1.0
    assert entry.flux_jy(1.425e9) == pytest.approx(source.flux_jy(np.array([1.425e9]))[0], rel=0.08)


@needs_list
def test_the_list_gives_no_flux_density_far_from_its_bands(listed: list[VlaCalibrator]) -> None:
    """Between bands it is a power law; a quarter beyond the last one, and no further, it is that one's."""
    source = next(each for each in listed if each.name == "0003-174")

    assert source.flux_jy(1.5e9) == pytest.approx(2.2)
    between = math.sqrt(327.5e6 * 1425e6)
    assert source.flux_jy(between) == pytest.approx(math.sqrt(7 * 2.2))
    with pytest.raises(ValidationError, match=r"no flux density of 0003-174 near 5 GHz: it has 0\.3275, 1\.425"):
        source.flux_jy(5e9)
    assert source.component(1.4e9).flux_at(np.array([1.4e9]))[0] == pytest.approx(source.flux_jy(1.4e9))


def test_a_line_that_cannot_be_read() -> None:
    """It is told with its number."""
    with pytest.raises(DataError, match=r"line 2 .*'nonsense'"):
        parse_vla_calibrators("0001+192   J2000  A 00h01m08.6s  19d14'33.8\"\nnonsense\n")
