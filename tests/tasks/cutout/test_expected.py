"""Cut-outs of real images, against numbers computed with astropy's own Cutout2D."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from absurd.tasks.cutout import (
    ButlerConfig,
    CutoutRequest,
    ImageRef,
    LsstDataFetcher,
    NotOnSkyError,
    PositionOutsideError,
    extract,
    write_fits,
    write_preview,
)
from absurd.tasks.cutout.batch import cut_batch
from absurd.tasks.cutout.targets import Targets

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
EXPECTED = SHARED / "optical-images" / "expected_cutouts.json"
IMAGES = json.loads(EXPECTED.read_text()) if EXPECTED.is_file() else []


def cases(*, outside: bool) -> list[Any]:
    """Parameters (image, case): those whose position is outside the image, or the others."""
    if not IMAGES:
        absent = pytest.mark.skip("the folder shared/ with real images is not beside this checkout")
        return [pytest.param({}, {}, marks=absent)]
    return [
        pytest.param(image, case, id=f"{Path(image['file']).stem}-{case['tag']}-{case['size']}")
        for image in IMAGES
        for case in image["cases"]
        if ("error" in case) == outside
    ]


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")  # the images use RADECSYS, as was right once
@pytest.mark.parametrize(("image", "case"), cases(outside=False))
def test_pixels_and_origin_are_those_of_astropy(image: dict[str, Any], case: dict[str, Any], tmp_path: Path) -> None:
    """Pixels and origin are exact, the sum holds to 1e-6, the WCS to 1e-9 degrees, also after a round trip by FITS."""
    cut = extract(
        SHARED / image["file"], (case["ra_deg"], case["dec_deg"]), case["size"], unit="pixel", hdu=image["hdu"]
    )

    pixels = cut.image.pixels
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    assert list(pixels.shape) == case["shape"]
    assert list(cut.box.clipped_origin) == case["origin_xy"]
    assert cut.box.n_outside == case["n_outside"]
    assert _or_none(pixels[0, 0]) == case["p00"]
    assert _or_none(middle) == case["pcenter"]
    assert np.nansum(pixels.astype(float)) == pytest.approx(case["nansum"], rel=1e-6)
    assert cut.image.wcs.all_pix2world(0, 0, 0) == pytest.approx(case["sky00"], abs=1e-9)

    write_fits(cut, tmp_path / "cut.fits", task_id="0199")
    write_preview(cut.image, tmp_path / "cut.png")
    with fits.open(tmp_path / "cut.fits", checksum=True) as written:
        assert np.array_equal(written[0].data, pixels, equal_nan=True)
        assert WCS(written[0].header, fobj=written).all_pix2world(0, 0, 0) == pytest.approx(case["sky00"], abs=1e-9)
        assert written[0].header["ORIGFILE"] == Path(image["file"]).name
        assert written[0].header["ORIGINX"] == cut.box.origin[0]
        assert written[0].header["TASKID"] == "0199"
        assert str(SHARED) not in written[0].header.tostring()


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
@pytest.mark.parametrize("image", [pytest.param(image, id=Path(image["file"]).stem) for image in IMAGES] or [{}])
def test_a_batch_gives_the_same(image: dict[str, Any]) -> None:
    """All positions of an image at once, those outside too: pixels, origin and sky of each are as expected."""
    if not image:
        pytest.skip("the folder shared/ with real images is not beside this checkout")
    ref = ImageRef(str(SHARED / image["file"]), None, {"image": image["hdu"]})
    for size in {case["size"] for case in image["cases"]}:
        those = [case for case in image["cases"] if case["size"] == size]
        asked = np.array([(case["ra_deg"], case["dec_deg"]) for case in those])
        batch = cut_batch(Targets.on(asked, [ref]), (size, size))
        for place, case in enumerate(those):
            if "error" in case:
                assert batch.errors[place, 0].code == "cutout_outside"
                continue
            cut = batch.cutout(place, 0)
            pixels = cut.image.pixels
            assert list(cut.box.clipped_origin) == case["origin_xy"]
            assert batch.n_outside[place, 0] == case["n_outside"]
            assert _or_none(pixels[0, 0]) == case["p00"]
            assert _or_none(pixels[size // 2, size // 2]) == case["pcenter"]
            assert np.nansum(pixels.astype(float)) == pytest.approx(case["nansum"], rel=1e-6)
            assert cut.image.wcs.all_pix2world(0, 0, 0) == pytest.approx(case["sky00"], abs=1e-9)
            alone = extract(ref.uri, tuple(asked[place]), size, unit="pixel", hdu=image["hdu"])
            assert np.array_equal(pixels, alone.image.pixels, equal_nan=True)
            assert cut.header.tostring() == alone.header.tostring()


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
@pytest.mark.parametrize("size", [16, 33])
def test_bands_of_a_camera_are_one_row(shared: Path, size: int) -> None:
    """g, r and z of DECam from one folder, blue before red: no weight and no mask is taken for an image.

    Asked for at the middle of each image in turn, the pixels of its band are the expected ones; those of the others are
    cut there from their own files.
    """
    folder = shared / "data" / "optical-images" / "decam_testcase9"
    images = {Path(each["file"]).name.split("_")[4]: each for each in IMAGES if folder.name in each["file"]}
    cases = [
        next(case for case in images[band]["cases"] if (case["tag"], case["size"]) == ("center", size))
        for band in "grz"
    ]
    requests = [CutoutRequest(case["ra_deg"], case["dec_deg"], size) for case in cases]
    with LsstDataFetcher(ButlerConfig(folder=str(folder))) as fetcher:
        rows = list(fetcher.fetch_batch_cutouts(requests))

    for number, (row, case) in enumerate(zip(rows, cases, strict=True)):
        assert (row.state, row.bands, row.note) == ("accepted", ("g", "r", "z"), "")
        assert [Path(each.uri).name for each in row.images] == [Path(images[band]["file"]).name for band in "grz"]
        pixels = row.pixels[number]
        assert (pixels[0, 0], pixels[size // 2, size // 2]) == (case["p00"], case["pcenter"])
        assert pixels.sum(dtype=float) == pytest.approx(case["nansum"], rel=1e-6)
        assert list(row.box(number).clipped_origin) == case["origin_xy"]
        for band, plane in zip("grz", row.pixels, strict=True):
            source, position = SHARED / images[band]["file"], (row.request.ra, row.request.dec)
            assert np.array_equal(plane, extract(source, position, size, unit="pixel").image.pixels)


@pytest.mark.parametrize(("image", "case"), cases(outside=True))
def test_a_position_outside_is_one_clear_error(image: dict[str, Any], case: dict[str, Any]) -> None:
    """No overlap and a distortion that cannot be inverted there are the same error, with file and position."""
    with pytest.raises(PositionOutsideError, match="is outside") as caught:
        extract(SHARED / image["file"], (case["ra_deg"], case["dec_deg"]), case["size"], unit="pixel", hdu=image["hdu"])

    assert caught.value.code == "cutout_outside"
    assert Path(image["file"]).name in str(caught.value)


@pytest.mark.parametrize("name", ["sep/image.fits", "reproject/image_with_distortion_map.fits"])
def test_an_image_without_celestial_wcs_is_refused(shared: Path, name: str) -> None:
    """An image that is nowhere on the sky gives no cut-out."""
    with pytest.raises(NotOnSkyError, match="no image with a celestial WCS: HDU 0 has no WCS"):
        extract(shared / "data" / "optical-images" / name, (10.0, 20.0), 16, unit="pixel")


def test_reference_positions_fall_on_their_pixels(shared: Path) -> None:
    """Positions published with distorted images fall on their pixel within 0.01, and that pixel is the centre."""
    folder = shared / "data" / "optical-images" / "galsim"
    for each in json.loads((folder / "reference_positions.json").read_text()):
        cut = extract(folder / each["file"], (each["ra_deg"], each["dec_deg"]), 3, unit="pixel")

        assert cut.pixel_position == pytest.approx((each["x_1based"] - 1, each["y_1based"] - 1), abs=0.01)
        assert cut.image.pixels[1, 1] == pytest.approx(each["pixel_in_file"], rel=1e-7)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
