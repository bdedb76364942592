"""Imagers behind one interface, and masks."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from imaged import drift, middle_of, pixel_of, source

from absurd.tasks.imaging.engines import Recording, engine_named
from absurd.tasks.imaging.engines.tclean import job_of
from absurd.tasks.imaging.engines.wsclean import arguments_of
from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.imaging.masks import read_mask
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.visibility.measurement_set import write_measurement_set
from absurd.tasks.visibility.visibilities import PhaseCentre

SMALL = ImagingParameters(image_size=(512, 256), cell_size="15arcsec", niter=2000, threshold="3mJy", mgain=0.8)
OLD = {"threshold", "use-wgridder", "use-idg", "weight"}
NEW = {"abs-threshold", "gridder", "weight"}


def test_what_wsclean_is_told() -> None:
    """Each version gets the names that it has, and mJy are Jy."""
    old, new = arguments_of(SMALL, OLD), arguments_of(SMALL, NEW)

    assert "-use-wgridder" in old
    assert old[old.index("-threshold") + 1] == "0.003"
    assert new[new.index("-gridder") + 1] == "wgridder"
    assert new[new.index("-abs-threshold") + 1] == "0.003"
    assert old[old.index("-size") + 1 : old.index("-size") + 3] == ["512", "256"]
    with pytest.raises(ValidationError, match="mtmfs"):
        arguments_of(SMALL.model_copy(update={"deconvolver": "mtmfs"}), OLD)


def test_what_tclean_is_told() -> None:
    """The same parameters in its words."""
    job = job_of(SMALL)

    assert (job["imsize"], job["cell"], job["threshold"]) == ([512, 256], "15arcsec", "0.003Jy")
    assert job["gridder"] == "wproject"
    with pytest.raises(ValidationError, match="auto_mask"):
        job_of(SMALL.model_copy(update={"auto_mask": 4.0}))


def test_an_engine_that_is_not_known() -> None:
    """It is refused with those that are."""
    with pytest.raises(ValidationError, match="take embedded, wsclean, tclean"):
        engine_named("aips")


@pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed")
def test_wsclean_agrees(tmp_path: Path) -> None:
    """WSClean's image of the same visibilities has the sources where they are, which shows the signs of u, v and w."""
    sky = ((31.0, 17.0, 1.0), (-43.0, 9.0, 0.5))
    seen = drift(sky, noise_jy=0.05)
    write_measurement_set(seen, tmp_path / "tile.ms")
    (result,) = engine_named("wsclean", lambda: tmp_path).image(
        Recording(tmp_path / "tile.ms"), SMALL, lambda stage: None
    )

    ra, dec = (math.radians(each) for each in middle_of(seen))
    for each in sky:
        x, y = (round(place) for place in pixel_of(result.geometry, source(ra, dec, *each)))
        part = result.image[y - 3 : y + 4, x - 3 : x + 4]
        top = np.unravel_index(int(part.argmax()), part.shape)
        assert max(abs(int(top[0]) - 3), abs(int(top[1]) - 3)) <= 1
        assert part.max() == pytest.approx(each[2], rel=0.1)
    assert result.engine == "wsclean"
    assert not any(tmp_path.glob("wsclean_*"))


@pytest.mark.skipif(shutil.which("wsclean") is None, reason="WSClean is not installed")
def test_planes_without_data_are_left_out(tmp_path: Path) -> None:
    """Of three parts of the band one is flagged: both imagers give the two others, at their frequencies."""
    seen = drift(((31.0, 17.0, 1.0),), noise_jy=0.05, antennas=30, times=2)
    flags = seen.flags.copy()
    flags[:, 2:4] = True
    write_measurement_set(seen.with_(flags=flags), tmp_path / "tile.ms")
    cube = SMALL.model_copy(update={"planes": 3, "niter": 20})
    found = {
        engine: engine_named(engine, lambda: tmp_path).image(Recording(tmp_path / "tile.ms"), cube, lambda stage: None)
        for engine in ("wsclean", "embedded")
    }

    frequencies = {engine: [each.frequency_hz for each in planes] for engine, planes in found.items()}
    assert frequencies["embedded"] == pytest.approx([1.3075e9, 1.3675e9], abs=1e5)
    assert frequencies["wsclean"] == pytest.approx(frequencies["embedded"], rel=1e-4)
    for planes in found.values():
        assert [float(each.image.max()) for each in planes] == pytest.approx([1.0, 1.0], rel=0.15)
    with pytest.raises(ValidationError, match="7 planes of 6 channels"):
        engine_named("embedded").image(
            Recording(tmp_path / "tile.ms"), SMALL.model_copy(update={"planes": 7}), lambda stage: None
        )


def test_masks(tmp_path: Path) -> None:
    """Regions of DS9 and FITS masks, also on another grid, mark the same places; others are refused."""
    geometry = Geometry(PhaseCentre("here", 2.0, 0.9), (128, 160), math.radians(10 / 3600))
    (ra, dec), _ = geometry.wcs.wcs_pix2world([[100, 40], [0, 0]], 0)
    text = (
        f'icrs\ncircle({ra},{dec},60")\n-circle({ra},{dec},20")\nimage; box(21,31,10,4,0)\npolygon(60,60,70,60,60,70)\n'
    )
    (tmp_path / "a.reg").write_text(text, encoding="utf-8")
    mask = read_mask(tmp_path / "a.reg", geometry)

    assert mask[40, 105]
    assert not mask[40, 100]
    assert not mask[40, 107]
    assert mask[30, 16:25].all()
    assert not mask[34, 20]
    assert mask[61, 61]
    assert not mask[68, 68]
    fits.writeto(tmp_path / "b.fits", mask.astype(np.float32), geometry.wcs.to_header())
    assert (read_mask(tmp_path / "b.fits", geometry) == mask).all()
    half = Geometry(geometry.centre, (256, 320), geometry.cell_rad / 2)
    assert read_mask(tmp_path / "b.fits", half).sum() == pytest.approx(4 * mask.sum(), rel=0.02)
    (tmp_path / "c.reg").write_text("nothing", encoding="utf-8")
    with pytest.raises(DataError, match="no circle"):
        read_mask(tmp_path / "c.reg", geometry)
