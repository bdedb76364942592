"""Images of known skies: positions, fluxes, noise, and what each key does."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from house import ROOT
from imaged import drift, middle_of, pixel_of, source
from pydantic import ValidationError as PydanticError
from single_run import fail, run, run_with_products

from absurd.tasks.calibration.sky_model import Component
from absurd.tasks.imaging.grid import Grid
from absurd.tasks.imaging.imager import ImagingResult, image_visibilities
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.samples import samples_of
from absurd.tasks.imaging.weighting import imaging_weights
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.sky_image import open_sky_image
from absurd.tasks.visibility.measurement_set import write_measurement_set
from absurd.tasks.visibility.visibilities import Visibilities

SKY = ((31.0, 17.0, 1.0), (-43.0, 9.0, 0.5), (12.0, -38.0, 0.25))
"""Off the centre, and not symmetric: arcminutes east and north, Jy."""
SMALL: dict[str, Any] = {"image_size": 512, "cell_size": "15arcsec", "niter": 2000, "threshold": "3mJy",
                         "primary_beam": "none"}  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Visibilities:
    return drift(SKY, noise_jy=0.05)


def imaged(visibilities: Visibilities, **changes: Any) -> ImagingResult:
    return image_visibilities(visibilities, ImagingParameters(**SMALL | changes))


def components(visibilities: Visibilities) -> list[Component]:
    ra, dec = (math.radians(each) for each in middle_of(visibilities))
    return [source(ra, dec, *each) for each in SKY]


def peak_near(image: Any, x: float, y: float, reach: int = 3) -> tuple[float, float, float]:
    """x, y and value of the highest pixel's parabola within a few pixels."""
    column, row = round(x), round(y)
    part = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
    top = np.unravel_index(int(part.argmax()), part.shape)
    at_y, at_x = row - reach + int(top[0]), column - reach + int(top[1])
    found = []
    for before, here, after in (image[at_y, at_x - 1 : at_x + 2], image[at_y - 1 : at_y + 2, at_x]):
        found.append((before - after) / (2 * (before - 2 * here + after)))
    return at_x + float(found[0]), at_y + float(found[1]), float(part.max())


@pytest.mark.parametrize("gridder", ["wproject", "wgridder"])
@pytest.mark.parametrize("deconvolver", ["clark", "hogbom", "multiscale"])
def test_sources_are_where_they_are(seen: Visibilities, gridder: str, deconvolver: str) -> None:
    """Each source of an asymmetric sky has its place to a tenth of a pixel and its flux to half a per cent."""
    result = imaged(seen, gridder=gridder, deconvolver=deconvolver)

    assert result.stopped_by == "threshold"
    for each in components(seen):
        x, y = pixel_of(result.geometry, each)
        found_x, found_y, _ = peak_near(result.image, x, y)
        assert (found_x, found_y) == pytest.approx((x, y), abs=0.1)
        point = min(result.points, key=lambda point: math.hypot(point.x - x, point.y - y))
        assert (point.x, point.y) == pytest.approx((x, y), abs=0.02)
        assert point.mean_jy == pytest.approx(each.flux_jy, rel=0.005)
    assert result.statistics["rms_jy"] < 1.1 * result.statistics["thermal_jy"]


def test_w_has_the_right_sign(seen: Visibilities) -> None:
    """With w taken the other way, or not at all, the sources are not where they are: the sky under test would show."""
    turned = seen.with_(uvw_m=seen.uvw_m * (1.0, 1.0, -1.0), phase_centres=(seen.phase_centres[3],) * 6)
    one = seen.with_(phase_centres=(seen.phase_centres[3],) * 6)
    right, wrong, flat = (
        imaged(each, gridder=gridder, niter=0)
        for each, gridder in ((one, "wgridder"), (turned, "wgridder"), (one, "standard"))
    )

    assert right.image.max() > wrong.image.max()
    assert not np.allclose(right.image, flat.image, atol=0.02)


def test_the_slant_grid_is_that_of_all_w(seen: Visibilities) -> None:
    """On the slant plane of the array and with all of w the same visibilities are predicted, to a thousandth."""
    samples = samples_of(seen, ImagingParameters(**SMALL))
    slant, full = (
        Grid(samples, imaging_weights(samples, parameters), parameters)
        for parameters in (ImagingParameters(**SMALL), ImagingParameters(**SMALL, gridder="wgridder"))
    )
    assert abs(slant.geometry.slant[1]) > 0.1
    assert not slant.with_w
    model = np.zeros(full.geometry.shape, np.float32)
    model[400, 100] = 1.0
    moved = np.zeros_like(model)
    # The same direction in the other image, to a pixel of the first that is hit exactly.
    ra, dec = slant.geometry.wcs.wcs_pix2world([[100, 400]], 0)[0]
    x, y = full.geometry.wcs.wcs_world2pix([[ra, dec]], 0)[0]
    moved[400, 100] = 1.0
    phase = _phase(full, x, y)

    assert np.abs(slant.predict(model) - phase).max() < 2e-3
    assert np.abs(full.predict(moved) - _phase(full, 100, 400)).max() < 1e-4


def _phase(grid: Grid, x: float, y: float) -> Any:
    """exp(2 pi i (u l + v m + w (n - 1))) by the formula."""
    east, north = grid.geometry.plane(y, x)
    cosines = np.array([east, north, grid.geometry.depth(east, north)])
    delay = grid.samples.uvw_m @ cosines / 299_792_458.0
    return np.exp(2j * np.pi * delay[:, None] * grid.samples.frequencies_hz)


def test_an_array_that_is_no_plane_is_gridded_with_all_of_w() -> None:
    """With antennas hundreds of metres above the others the guard takes all of w, and sources keep their place."""
    rough = drift(SKY, noise_jy=0.05, height_m=300.0)
    result = imaged(rough, deconvolver="clark")

    assert result.geometry.slant == (0.0, 0.0)
    for each in components(rough):
        x, y = pixel_of(result.geometry, each)
        assert peak_near(result.image, x, y)[:2] == pytest.approx((x, y), abs=0.1)


def test_the_drift_is_followed() -> None:
    """Behind the beam of a dish that stands still, points leave noise alone, ten times less than steady components."""
    beam = beam_named("airy", 4.65)
    seen = drift(((55.0, 10.0, 20.0), (-20.0, -31.0, 2.0)), noise_jy=0.05, beam=beam, times=8)
    followed = imaged(seen, deconvolver="clark", primary_beam="airy")
    steady = imaged(seen, deconvolver="clark", point_snr=1e9)

    assert followed.statistics["rms_jy"] < 1.1 * followed.statistics["thermal_jy"]
    assert followed.statistics["dynamic_range"] > 3 * steady.statistics["dynamic_range"]
    assert np.ptp([each.terms_jy[1] for each in followed.points]) > 0.01
    ra, dec = (math.radians(each) for each in middle_of(seen))
    for east, north, flux in ((55.0, 10.0, 20.0), (-20.0, -31.0, 2.0)):
        x, y = pixel_of(followed.geometry, source(ra, dec, east, north, flux))
        point = min(followed.points, key=lambda point: math.hypot(point.x - x, point.y - y))
        assert point.mean_jy / followed.pb[round(y), round(x)] == pytest.approx(flux, rel=0.005)


def test_what_is_wide_keeps_its_flux() -> None:
    """A source three beams wide, and a field of blends, have their integrated flux to 2 %."""
    ra, dec = middle_of(drift(()))
    wide = source(math.radians(ra), math.radians(dec), 14.0, -9.0, 3.0, width_arcmin=2.9)
    seen = drift([wide], noise_jy=0.02)
    result = imaged(seen, deconvolver="multiscale", scales=[0, 4, 8, 16], threshold="0.5mJy", niter=30000)
    assert _integrated(result, wide, 28) == pytest.approx(3.0, rel=0.02)

    places = [(20.0, 15.0, 0.6), (21.1, 15.4, 0.4), (20.3, 13.9, 0.5), (-31.0, 22.0, 0.8), (-30.2, 22.9, 0.3)]
    blended = imaged(drift(places, noise_jy=0.02), deconvolver="clark")
    for east, north, flux in ((20.5, 14.7, 1.5), (-30.7, 22.3, 1.1)):
        group = source(math.radians(ra), math.radians(dec), east, north, flux)
        assert _integrated(blended, group, 16) == pytest.approx(flux, rel=0.02)


def _integrated(result: ImagingResult, component: Component, reach: int) -> float:
    x, y = (round(each) for each in pixel_of(result.geometry, component))
    part = result.image[y - reach : y + reach + 1, x - reach : x + reach + 1]
    return float(part.sum()) * result.geometry.cell_rad**2 / result.beam.solid_angle_sr


KEYS: dict[str, Any] = {
    "image_size": (512, 256),
    "cell_size": "10arcsec",
    "centre": (127.0, 54.0),
    "weighting": "natural",
    "robust": -1.5,
    "uvrange": ">500lambda",
    "gridder": "standard",
    "wprojplanes": 1,
    "deconvolver": "multiscale",
    "niter": 10,
    "threshold": "700mJy",
    "gain": 0.3,
    "mgain": 0.5,
    "auto_mask": 400.0,
    "scales": [3, 9],
    "mask": "around.reg",
    "auto_threshold": 500.0,
    "point_snr": 1e9,
    "primary_beam": "gaussian",
}
OF_FILES: dict[str, Any] = {"planes": 3, "pblimit": 0.97, "pbcor": False, "engine": "wsclean"}
"""What only shows in the products of the task."""


@pytest.fixture(scope="module")
def little() -> tuple[Visibilities, ImagingResult]:
    """A smaller one, and its image with the usual keys."""
    seen = drift(SKY, noise_jy=0.05, antennas=40, times=3, channels=3)
    return seen, imaged(seen)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_changes_something(
    little: tuple[Visibilities, ImagingResult], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key is there for nothing."""
    monkeypatch.chdir(tmp_path)
    Path("around.reg").write_text("image; circle(380, 190, 40)")
    with_it: dict[str, Any] = {"deconvolver": "multiscale", "niter": 100} if key == "scales" else {}
    usual = imaged(little[0], **with_it) if with_it else little[1]
    changed = imaged(little[0], **with_it, **{key: KEYS[key]})

    assert any(
        getattr(usual, name).shape != getattr(changed, name).shape
        or not np.array_equal(getattr(usual, name), getattr(changed, name))
        for name in ("image", "model", "residual", "psf", "pb")
    )


def test_each_key_of_files_changes_them(little: tuple[Visibilities, ImagingResult], tmp_path: Path) -> None:
    """So does each of those that only show in the products; there is no key beside these and the ones above."""
    assert KEYS.keys() | OF_FILES.keys() == ImagingParameters.model_fields.keys()
    write_measurement_set(little[0], tmp_path / "tile.ms")
    usual = {"ms": str(tmp_path / "tile.ms"), **SMALL, "primary_beam": "airy", "niter": 50}

    def made(**changes: Any) -> dict[str, Any]:
        told, _ = run("imaging.image", {**usual, "out": str(tmp_path / "-".join(["made", *changes])), **changes})
        return told

    before = made()
    assert len(made(planes=OF_FILES["planes"])["planes"]) == 3 > len(before["planes"])
    assert "pbcor" in before["paths"]
    assert "pbcor" not in made(pbcor=OF_FILES["pbcor"])["paths"]
    seen = [
        int(np.isfinite(fits.getdata(each["paths"]["pbcor"])).sum())
        for each in (before, made(pblimit=OF_FILES["pblimit"]))
    ]
    assert seen[0] > 1.5 * seen[1] > 0
    if shutil.which("wsclean"):
        assert (before["engine"], made(engine=OF_FILES["engine"])["engine"]) == ("embedded", "wsclean")
    else:
        assert fail("imaging.image", usual | {"out": "x", "engine": "wsclean"})["code"] == "pipeline_dependency"


def test_values_that_cannot_be_meant_are_refused() -> None:
    """Sizes that are odd, units that there are not, and keys of nothing are refused where they are given."""
    for wrong in ({"image_size": 511}, {"threshold": "1mK"}, {"cell_size": "3 parsec"}, {"gain": 0}, {"nitre": 3}):
        with pytest.raises(PydanticError):
            ImagingParameters(**wrong)
    assert ImagingParameters(threshold="1mJy").threshold_jy == pytest.approx(1e-3)
    assert ImagingParameters.model_validate({"image_size": 64}).image_size == (64, 64)


def test_the_task_writes_images_that_others_read(seen: Visibilities, tmp_path: Path) -> None:
    """`imaging.image` makes FITS files with position, beam, unit and frequency, a picture, and the same bits again."""
    write_measurement_set(seen, tmp_path / "tile.ms")
    params = {"ms": str(tmp_path / "tile.ms"), "out": str(tmp_path / "night.fits"), **SMALL, "primary_beam": "airy"}
    result, kinds = run("imaging.image", params)
    assert sorted(kinds) == sorted(f"imaging.{each}" for each in result["paths"])
    assert set(result["paths"]) == {"image", "model", "residual", "psf", "pb", "pbcor", "png"}
    with fits.open(result["paths"]["image"]) as units:
        pixels, header = units[0].data[0, 0], units[0].header
    for each in components(seen):
        x, y = WCS(header).celestial.wcs_world2pix([[math.degrees(each.ra_rad), math.degrees(each.dec_rad)]], 0)[0]
        assert peak_near(pixels, x, y)[:2] == pytest.approx((x, y), abs=0.1)
    assert header["BUNIT"] == "Jy/beam"
    assert header["BMAJ"] * 3600 == pytest.approx(result["beam_arcsec"][0])
    assert header["CTYPE3"] == "FREQ"
    assert 1.3e9 < header["CRVAL3"] < 1.4e9
    before = {name: Path(path).read_bytes() for name, path in result["paths"].items()}
    again, (product,) = run_with_products("imaging.image", params)
    assert product["kind"] == "image"
    row = product["row"]
    assert (row["path"], row["inputs"]) == (result["paths"]["image"], [{"path": params["ms"], "role": "visibilities"}])
    assert (row["ra"], row["declination"]) == pytest.approx((header["CRVAL1"], header["CRVAL2"]))
    assert row["observed_from"][:19] == header["DATE-OBS"][:19]
    begin, end = (datetime.fromisoformat(row[each]) for each in ("observed_from", "observed_until"))
    assert (end - begin).total_seconds() == pytest.approx(float(seen.exposure_s[0]) * 6, abs=1e-3)
    observed = open_sky_image(result["paths"]["pbcor"]).observed
    assert observed is not None
    assert (observed - begin).total_seconds() == pytest.approx((end - begin).total_seconds() / 2, abs=0.002)
    assert (row["rms_jy"], row["thermal_jy"]) == pytest.approx((header["NOISE"], header["THERMAL"]))
    assert row["beam_major_arcsec"] == pytest.approx(result["beam_arcsec"][0])
    assert row["facts"]["paths"] == result["paths"]
    assert before == {name: Path(path).read_bytes() for name, path in again["paths"].items()}
    assert json.loads(json.dumps(again)) == result
    few, _ = run("imaging.image", params | {"out": str(tmp_path / "few.fits"), "niter": 0, "kept": "read"})
    assert set(few["paths"]) == {"image", "pb", "pbcor", "png"}


_RUN = """
import json, sys
from absurd.context import RunContext
from single_run import run
RunContext.progress = lambda self, done, total=None, message=None: print(message, flush=True)
run("imaging.image", json.loads(sys.argv[1]))
"""


def test_a_killed_run_leaves_nothing(little: tuple[Visibilities, ImagingResult], tmp_path: Path) -> None:
    """Killed wherever, a run leaves no file under a final name, and the next one makes what one alone makes."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    write_measurement_set(little[0], tmp_path / "tile.ms")
    params = {"ms": str(tmp_path / "tile.ms"), **SMALL, "primary_beam": "airy"}
    (tmp_path / "alone").mkdir()
    alone, _ = run("imaging.image", {**params, "out": str(tmp_path / "alone" / "night")})
    other = {**params, "out": str(tmp_path / "killed" / "night")}
    for chosen in random.Random(seed).sample(range(1, 7), 2):
        command = [sys.executable, "-c", _RUN, json.dumps(other)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for number, _ in enumerate(process.stdout):
                if number == chosen:
                    process.kill()
        assert process.returncode == -signal.SIGKILL
        assert not [each for each in (tmp_path / "killed").glob("*") if not each.name.startswith(".")]
    result, _ = run("imaging.image", other)
    for name, path in result["paths"].items():
        assert Path(path).read_bytes() == Path(alone["paths"][name]).read_bytes()


def test_planes_are_images_by_frequency(seen: Visibilities, tmp_path: Path) -> None:
    """A cube has a plane for each part of the band, with a beam of its own that narrows with frequency."""
    write_measurement_set(seen, tmp_path / "tile.ms")
    result, _ = run(
        "imaging.image", {"ms": str(tmp_path / "tile.ms"), "out": str(tmp_path / "cube"), **SMALL, "planes": 2}
    )
    with fits.open(result["paths"]["image"]) as units:
        assert units[0].data.shape == (1, 2, 512, 512)
        beams = units["BEAMS"].data
        assert beams["BMAJ"][0] > beams["BMAJ"][1]
        assert WCS(units[0].header).pixel_to_world_values(0, 0, 1, 0)[2] == pytest.approx(beams["FREQ"][1])
