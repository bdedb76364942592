"""``qa.image`` and ``qa.mosaic``: each gate passes what is right and stops what is not."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from memory_port import MemoryPort
from radio_skies import Field, Source, draw, scattered, write
from single_run import fail, run, run_to_end

from absurd.outcome import Failed
from absurd.tasks.qa import release_from_quarantine
from absurd.tasks.qa.image_params import ImageParams, MosaicParams
from absurd.tasks.qa.images import check_image, check_mosaic, files_beside
from absurd.tasks.qa.report import QualityReport
from absurd.tasks.radio.beam import beam_named

SEED = 4
FIELD = Field(150.0, 54.6, side=300, cell_arcsec=48.0, noise=0.0005)
"""Seen through the primary beam; the restoring beam is 240 arcsec wide."""
WIDTH = 240.0


@dataclass(frozen=True)
class Sky:
    """A catalogue, and images of what it tells."""

    sources: list[Source]
    catalogue: str
    folder: Path

    def image(self, name: str, field: Field = FIELD, *, gain: float = 1.0, lost: int = 0, east: float = 0.0) -> str:
        """An image with its residual and primary beam: of so many sources less, times a gain, arcsec to the east."""
        shift = east / 3600 / np.cos(np.radians(field.dec))
        seen = [(ra + shift, dec, flux * gain) for ra, dec, flux in self.sources[lost:]]
        folder = Path(mkdtemp(dir=self.folder))
        path = write(folder / f"{name}-image.fits", field, draw(field, seen, np.random.default_rng(SEED)))
        write(folder / f"{name}-residual.fits", field, draw(field, [], np.random.default_rng(SEED)))
        row, column = np.mgrid[: field.side, : field.side]
        far = np.hypot(row - field.side / 2, column - field.side / 2) * np.radians(field.cell_arcsec / 3600)
        power = beam_named("airy", 4.65).power(far, np.array(1.405e9))
        write(folder / f"{name}-pb.fits", field, power.astype(np.float32))
        fits.setval(path, "THERMAL", value=0.00045)
        return str(path)

    def judge(self, image: str, **params: Any) -> QualityReport:
        return check_image(ImageParams(image=image, catalogue=self.catalogue, **params), files_beside(image))


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    print(f"seed {SEED}")
    folder = tmp_path_factory.mktemp("sky")
    rng = np.random.default_rng(SEED)
    places = scattered(rng, FIELD.ra, FIELD.dec, 40, across=1.2, up=1.2, apart=0.25)
    sources = [(ra, dec, float(10 ** rng.uniform(-1.5, -0.7))) for ra, dec in places]
    catalogue = folder / "sky.csv"
    with catalogue.open("w") as file:
        csv.writer(file).writerows([["ra", "dec", "flux_jy"], *sources])
    return Sky(sources, str(catalogue), folder)


def verdicts(report: QualityReport) -> dict[str, str]:
    return {each.gate: each.verdict for each in report.measures}


def note(report: QualityReport, gate: str) -> str:
    return next(each.note for each in report.measures if each.gate == gate)


def test_a_right_image_passes_all_gates(sky: Sky) -> None:
    """Each gate measures it, and what it measures is what was put in."""
    report = sky.judge(sky.image("right"))

    assert set(verdicts(report).values()) == {"ok"}, report.warnings + report.reasons
    assert report.value("noise_mjy") == pytest.approx(0.5, rel=0.05)
    assert report.value("thermal_ratio") == pytest.approx(0.5 / 0.45, rel=0.05)
    assert report.value("flux_scale") == pytest.approx(1, abs=0.02)
    assert report.value("completeness") == 1
    assert report.value("astrometry") == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    ("gate", "made", "measured"),
    [
        ("flux_scale", {"gain": 0.7}, 0.7),
        ("flux_scale", {"gain": 1.3}, 1.3),
        ("completeness", {"lost": 20}, None),
        ("astrometry", {"east": 0.4 * WIDTH}, 0.4),
        ("noise_mjy", {"field": replace(FIELD, noise=0.02)}, 20.0),
        ("thermal_ratio", {"field": replace(FIELD, noise=0.0015)}, 1.5 / 0.45),
    ],
)
def test_a_wrong_image_trips_its_gate(sky: Sky, gate: str, made: dict[str, Any], measured: float | None) -> None:
    """Flux scale, completeness, position and noise are measured each time, and fail where they are wrong."""
    report = sky.judge(sky.image("wrong", **made))

    assert verdicts(report)[gate] == "fail"
    assert any(each.startswith(gate) for each in report.reasons)
    if measured is not None:
        assert report.value(gate) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("east", [-30.0, 0.0, 12.0, 60.0])
def test_positions_are_measured(sky: Sky, east: float) -> None:
    """The offset told is that of the image at hand, with its sign, in both axes, whatever it is."""
    report = sky.judge(sky.image("moved", east=east))

    told = note(report, "astrometry").split()
    assert float(told[0]) == pytest.approx(east, abs=1.5)
    north = float(told[told.index("north") - 2])
    assert north == pytest.approx(0, abs=1.5)
    assert report.value("astrometry") == pytest.approx(abs(east) / WIDTH, abs=0.01)


def test_no_dynamic_range(sky: Sky) -> None:
    """An image whose brightest pixel is little above its noise does not pass."""
    field = replace(FIELD, noise=0.005)
    empty = write(sky.folder / "empty-image.fits", field, draw(field, [], np.random.default_rng(SEED)))

    report = check_image(ImageParams(image=str(empty)), {})

    assert verdicts(report) == {
        "noise_mjy": "ok", "thermal_ratio": "none", "dynamic_range": "fail",
        "flux_scale": "none", "completeness": "none", "astrometry": "none",
    }  # fmt: skip


def test_an_image_without_a_value_does_not_pass(sky: Sky) -> None:
    """What cannot be measured fails where it has to be."""
    blank = write(sky.folder / "blank-image.fits", FIELD, np.full((300, 300), np.nan, np.float32))
    report = check_image(ImageParams(image=str(blank)), {})
    assert verdicts(report)["noise_mjy"] == verdicts(report)["dynamic_range"] == "fail"


def test_catalogues_of_other_frequencies(sky: Sky) -> None:
    """Flux densities are brought to the image's frequency by the spectral index, and to Jy."""
    image = sky.image("scaled")
    for params, expected in (
        ({"catalogue_hz": 1.405e9 / 2, "spectral_index": -1.0}, 2.0),
        ({"flux_unit": "mJy"}, None),
    ):
        assert sky.judge(image, **params).value("flux_scale") == (
            None if expected is None else pytest.approx(expected, rel=0.03)
        )


def mosaic(sky: Sky, name: str, *, claimed: float = 1.0, cell: float = 1.0) -> str:
    """A mosaic whose noise map tells so many times its noise, and in one quarter `cell` times that."""
    field = replace(FIELD, attenuated=False)
    folder = Path(mkdtemp(dir=sky.folder))
    path = write(folder / f"{name}.fits", field, draw(field, sky.sources, np.random.default_rng(SEED)))
    noise = np.full((field.side, field.side), field.noise * claimed, np.float32)
    noise[:150, :150] *= cell
    write(folder / f"{name}-noise.fits", field, noise)
    return str(path)


@pytest.mark.parametrize(
    ("made", "failed"),
    [({}, set()), ({"claimed": 0.5}, {"noise_map", "noise_map_worst"}), ({"claimed": 1.5}, {"noise_map"}),
     ({"cell": 0.5}, {"noise_map_worst"})],
)  # fmt: skip
def test_noise_maps_are_held_against_the_scatter(sky: Sky, made: dict[str, Any], failed: set[str]) -> None:
    """One that tells too little or too much does not pass, nor one that is wrong in a part; sources do not matter."""
    path = mosaic(sky, "mosaic", **made)
    report = check_mosaic(MosaicParams(image=path, catalogue=sky.catalogue), files_beside(path))

    assert {gate for gate, each in verdicts(report).items() if each == "fail"} == failed
    if "cell" not in made:
        assert report.value("noise_map") == pytest.approx(1 / made.get("claimed", 1.0) ** 2, rel=0.12)
    assert report.value("flux_scale") == pytest.approx(1, abs=0.02)


def test_the_task_passes_or_puts_away(sky: Sky, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that fails tells why, is not tried again, and leaves the file where nobody looks; limits decide."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    image = sky.image("judged", gain=0.7)
    params = {"image": image, "catalogue": sky.catalogue, "reports": str(sky.folder / "reports")}

    told, _ = run("qa.image", params | {"limits": {"flux_scale": {"fail_below": 0.5, "warn_below": 0.6}}})
    assert told["verdict"] == "ok"
    report = json.loads((sky.folder / "reports" / "judged-image.fits.quality.json").read_text())
    assert report["measures"] == told["measures"]

    outcome = run_to_end("qa.image", params, MemoryPort())
    assert isinstance(outcome, Failed)
    assert (outcome.delay, outcome.error["code"]) == (None, "quality_failed")
    assert "flux_scale 0.69" in outcome.error["message"]
    place = Path(image).parent / "quarantine" / "judged-image.fits"
    assert place.is_file()
    assert not Path(image).exists()
    assert "is in quarantine since" in fail("qa.image", params)["message"]
    release_from_quarantine(place)
    assert Path(image).is_file()
    assert fail("qa.image", params | {"limits": {"flux_scal": {}}})["code"] == "invalid_params"
    path = mosaic(sky, "task")
    assert run("qa.mosaic", {"image": path})[0]["verdict"] == "ok"
    Path(path.replace(".fits", "-noise.fits")).unlink()
    assert "there is no noise map" in fail("qa.mosaic", {"image": path})["message"]
