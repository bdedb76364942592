"""Which sources gains are solved against: those that the beam shows, and none where the dishes do not look."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import known_gains
import numpy as np
import pytest

from absurd.tasks.calibration.field_model import FieldModel, field_model
from absurd.tasks.calibration.flux_scale import FLUX_CALIBRATORS, flux_calibrator
from absurd.tasks.calibration.vla_calibrators import SHIPPED, VlaCalibrator, parse_vla_calibrators
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.visibility.visibilities import PhaseCentre, Visibilities

BEAM = beam_named("airy", 4.65)
HEAD = "{name}   J2000  A {hours:02d}h{minutes:02d}m{seconds:07.4f}s  {degrees:02d}d00'00.0\"  Aug01\n"
BAND = " 20cm L  {qualities} {flux:10.2f} {shortest:>12} {longest:>12}\n"


def looking(ra_deg: float, dec_deg: float, *, longest_m: float = 300.0, frequency_hz: float = 1.4e9) -> Visibilities:
    """A recording of one field, with baselines up to a length."""
    empty = known_gains.empty(5, 2, 1)
    scale = longest_m / np.hypot(*empty.uvw_m.T[:2]).max()
    return replace(
        empty,
        uvw_m=empty.uvw_m * scale,
        frequencies_hz=np.array([frequency_hz, frequency_hz + 1e6]),
        phase_centres=(PhaseCentre("field", math.radians(ra_deg), math.radians(dec_deg)),),
    )


def listed(
    *sources: tuple[str, float, float], qualities: str = "P P P P", shortest: str = "", longest: str = ""
) -> str:
    """A list with sources at declination 40: name, right ascension in degrees, Jy."""
    text = ""
    for name, ra, flux in sources:
        seconds = ra / 15 * 3600
        text += HEAD.format(
            name=name, hours=int(seconds // 3600), minutes=int(seconds % 3600 // 60), seconds=seconds % 60, degrees=40
        )
        text += BAND.format(qualities=qualities, flux=flux, shortest=shortest, longest=longest)
    return text


def of(tmp_path: Path, text: str, seen: Visibilities, **asked: object) -> FieldModel:
    (tmp_path / "list.txt").write_text(text)
    return field_model(seen, catalogs=str(tmp_path), beam=BEAM, **asked)  # type: ignore[arg-type]


def test_the_brightest_in_the_beam_come_first(tmp_path: Path) -> None:
    """A source near the null of the beam is not brighter than a weaker one in its middle, nor takes its place."""
    seen = looking(100.0, 40.0)
    text = listed(("0640+400", 100.05, 1.0), ("0652+400", 103.8, 6.0), ("0642+400", 100.6, 0.8))

    found = of(tmp_path, text, seen, radius_deg=4.0)
    fewer = of(tmp_path, text, seen, radius_deg=4.0, most_sources=2)
    bright = of(tmp_path, text, seen, radius_deg=4.0, faintest_jy=0.3)

    assert [each.name for each in found.sky] == ["0640+400", "0642+400", "0652+400"]
    assert [each.name for each in fewer.sky] == ["0640+400", "0642+400"]
    assert [each.name for each in bright.sky] == ["0640+400", "0642+400"]


def test_what_a_list_advises_against_is_a_neighbour_alone(tmp_path: Path) -> None:
    """A source marked as no calibrator for any configuration is in the model, and none is taken for it."""
    seen = looking(100.0, 40.0)
    barred = listed(("0640+400", 100.05, 5.0), qualities="X X X X")
    text = barred + listed(("0642+400", 100.6, 0.8))

    found = of(tmp_path, text, seen, radius_deg=4.0)
    with pytest.raises(ValidationError, match="no calibrator is within"):
        of(tmp_path, barred, seen, radius_deg=4.0)

    assert found.source == "0642+400"
    assert [each.name for each in found.sky] == ["0642+400", "0640+400"]


def test_a_second_source_of_the_scale_is_in_the_model() -> None:
    """Of two standard calibrators in a wide field one is the calibrator, and the other its neighbour."""
    one, other = flux_calibrator("3C144"), flux_calibrator("3C138")
    middle = [math.degrees((one.ra_rad + other.ra_rad) / 2), math.degrees((one.dec_rad + other.dec_rad) / 2)]

    found = field_model(looking(*middle, longest_m=50), radius_deg=10.0)

    assert {each.name for each in found.sky} == {"3C144", "3C138"}
    assert found.source == "3C144"


@pytest.mark.parametrize(
    ("away_deg", "radius_deg", "said"),
    [
        (8.0, 2.0, "3C286 is 8.00 degrees from field .*, 2 are allowed"),
        (26.0, 2.0, "3C286 is 26.00 degrees"),
        (2.6, 4.0, r"where the beam has 0\.0\d+ of its power, and 0\.05 is the least"),
    ],
)
def test_a_named_calibrator_has_to_be_where_the_dishes_look(away_deg: float, radius_deg: float, said: str) -> None:
    """Its flux would be that of nothing: what is solved against it agrees with it, whatever it is."""
    source = flux_calibrator("3C286")
    seen = looking(math.degrees(source.ra_rad), math.degrees(source.dec_rad) + away_deg)

    with pytest.raises(ValidationError, match=said):
        field_model(seen, calibrator="3C286", beam=BEAM, radius_deg=radius_deg)
    near = looking(math.degrees(source.ra_rad), math.degrees(source.dec_rad) + 0.5)
    assert field_model(near, calibrator="3C286", beam=BEAM).source == "3C286"


def test_lists_that_are_not_there_are_told(tmp_path: Path) -> None:
    """A folder that does not exist holds no sources by mistake, not by choice."""
    with pytest.raises(DataError, match="there is no folder"):
        field_model(looking(100.0, 40.0), catalogs=str(tmp_path / "absent"))


def test_what_is_no_point_limits_the_baselines(tmp_path: Path) -> None:
    """By its width, or by what the list says; where that leaves out baselines, it is told."""
    wide = flux_calibrator("3C123")  # 44 arcseconds
    place = math.degrees(wide.ra_rad), math.degrees(wide.dec_rad)

    short, long = (field_model(looking(*place, longest_m=each)) for each in (100.0, 2500.0))
    of_list = of(
        tmp_path, listed(("0640+400", 100.0, 1.0), shortest="3", longest="50"), looking(100.0, 40.0, longest_m=20_000)
    )

    assert long.uv_range_wavelengths[1] == pytest.approx(0.172 * 206265 / 44, rel=0.01)
    assert short.warnings == ()
    assert "3C123 is a point on baselines from 0 to 80" in long.warnings[0]
    assert of_list.uv_range_wavelengths == (3000.0, 50_000.0)
    assert "0640+400 is a point on baselines from 3000 to 5e+04" in of_list.warnings[0]


def test_what_is_said_of_a_source_is_told(tmp_path: Path) -> None:
    """That it varies; that the list has it for confused, or not for use, with baselines of such a length."""
    source = flux_calibrator("3C48")
    place = math.degrees(source.ra_rad), math.degrees(source.dec_rad)
    assert any("3C48 varies" in each for each in field_model(looking(*place)).warnings)

    text = listed(("0640+400", 100.0, 1.0), qualities="P P C X")

    assert "not to be used" in of(tmp_path, text, looking(100.0, 40.0, longest_m=900)).warnings[0]
    assert "confused" in of(tmp_path, text, looking(100.0, 40.0, longest_m=3000)).warnings[0]
    assert of(tmp_path, text, looking(100.0, 40.0, longest_m=20_000)).warnings == ()


def test_the_calibrator_of_the_simulator_is_known_without_a_list() -> None:
    """0834+555, as the VLA's manual has it."""
    (source,) = SHIPPED
    seen = looking(math.degrees(source.ra_rad), math.degrees(source.dec_rad))

    found = field_model(seen, beam=BEAM)

    assert found.source == "0834+555"
    assert found.told(seen.frequencies_hz)["jy"]["0834+555"] == pytest.approx(8.8, rel=0.01)
    assert found.warnings == ()


def test_every_source_of_the_scale_says_how_far_it_is_a_point() -> None:
    """From some hundred wavelengths of the widest to tens of thousands."""
    limits = {each.name: each.longest_wavelengths for each in FLUX_CALIBRATORS}
    assert limits["3C48"] > 20_000
    assert limits["3C405"] < 400
    band: list[VlaCalibrator] = parse_vla_calibrators(listed(("0640+400", 100.0, 1.0)))
    assert band[0].band_at(1.5e9).letter == "L"
