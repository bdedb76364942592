"""Choosing the images of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import (
    BandNotFoundError,
    FolderSource,
    ImageUnreadableError,
    InvalidPositionError,
    PositionOutsideError,
    SourceNotFoundError,
    extract,
    find_images,
)
from absurd.tasks.cutout.sources.exposure import ExposureFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two fields in two bands, a weight map, a file that is torn, and one that is none."""
    (tmp_path / "deep").mkdir()
    for ra, name in ((10.0, "one"), (11.0, "two")):
        for band in ("g", "r"):
            write_image(
                tmp_path / "deep" / f"{name}.{band}.fits", pixels_of(), make_wcs(ra), filter=f"{band} DECam SDSS"
            )
    write_image(tmp_path / "weight.fits", pixels_of(), make_wcs(), filter="r", prodtype="wtmap")
    (tmp_path / "torn.fits").write_bytes((tmp_path / "weight.fits").read_bytes()[:500])
    (tmp_path / "notes.txt").write_text("no image")
    write_image(tmp_path / ".hidden.fits", pixels_of(), make_wcs(), filter="z")
    return tmp_path


def test_the_images_that_hold_the_position(folder: Path) -> None:
    """One image for each band, sorted; other fields, weights, torn and hidden files are passed over."""
    found = find_images(folder, 11.0, 20.0)

    assert [(each.path.name, each.band) for each in found] == [("two.g.fits", "g"), ("two.r.fits", "r")]


def test_bands_come_in_the_order_asked(folder: Path) -> None:
    """The wanted bands, in their order; capitals matter only where both exist."""
    assert [each.band for each in find_images(folder, 10.0, 20.0, ["r", "g"])] == ["r", "g"]
    assert [each.band for each in find_images(folder, 10.0, 20.0, ["R"])] == ["r"]
    write_image(folder / "johnson.fits", pixels_of(), make_wcs(), filter="R")
    assert [each.band for each in find_images(folder, 10.0, 20.0, ["R", "r"])] == ["R", "r"]
    told = "no image in band 'z' there; it has g, r, R"
    with pytest.raises(ImageUnreadableError, match=f"{told}; there may be more: torn.fits cannot be read"):
        find_images(folder, 10.0, 20.0, ["z"])
    (folder / "torn.fits").unlink()
    with pytest.raises(BandNotFoundError, match=told):
        find_images(folder, 10.0, 20.0, ["z"])


def test_of_two_images_of_a_band_the_deeper_one(folder: Path) -> None:
    """Where tiles overlap, the image with the position farther from its edge is taken."""
    write_image(folder / "aside.fits", pixels_of(), make_wcs(crpix=(3.5, 3.5)), filter="r")

    assert [each.path.name for each in find_images(folder, 10.0, 20.0, ["r"])] == ["one.r.fits"]


@pytest.mark.parametrize(
    ("name", "cards", "wanted", "band"),
    [
        ("a.fits", {"BAND": "z", "FILTER": "i"}, [], "z"),
        ("a.fits", {"BAND": 1}, [], "1"),
        ("tile_042_i.fits.fz", {}, [], "i"),
        ("deep-HSC-I2-5.fits", {}, ["I2"], "I2"),
        ("g-minus-r.fits", {}, [], None),
        ("image.fits", {}, [], None),
    ],
)
def test_the_band_is_in_the_header_or_the_name(
    tmp_path: Path, name: str, cards: dict[str, object], wanted: list[str], band: str | None
) -> None:
    """BAND goes before FILTER, and both before the file's name, which counts if it names one band only."""
    path = write_image(tmp_path / name, pixels_of(), make_wcs(), **cards)

    assert find_images(path, 10.0, 20.0, wanted)[0].band == band


def test_what_is_not_there(folder: Path, tmp_path: Path) -> None:
    """No folder, no file, no position, only torn files: each its own error."""
    with pytest.raises(SourceNotFoundError, match="there is no file"):
        find_images(folder / "absent", 10.0, 20.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="there is no FITS file in"):
        find_images(tmp_path / "empty", 10.0, 20.0)
    with pytest.raises(ImageUnreadableError, match=r"on none of the 4 images .*: torn.fits cannot be read"):
        find_images(folder, 100.0, 20.0)
    (folder / "torn.fits").unlink()
    with pytest.raises(PositionOutsideError, match="on none of the 4 images"):
        find_images(folder, 100.0, 20.0)
    with pytest.raises(InvalidPositionError):
        find_images(folder, 100.0, 200.0)
    (tmp_path / "empty" / "torn.fits").write_bytes(b"SIMPLE")
    with pytest.raises(ImageUnreadableError):
        find_images(tmp_path / "empty", 10.0, 20.0)


def test_a_band_is_read_from_the_primary_header(tmp_path: Path) -> None:
    """A chip whose filter only the primary header tells."""
    primary = fits.PrimaryHDU()
    primary.header["FILTER"] = "Y"
    path = tmp_path / "chip.fits"
    fits.HDUList([primary, fits.ImageHDU(pixels_of(), make_wcs().to_header())]).writeto(path)

    assert find_images(path, 10.0, 20.0)[0].band == "Y"


@pytest.mark.parametrize("name", ["IMAGE", "SCI"])
def test_an_image_behind_its_planes(tmp_path: Path, name: str) -> None:
    """Whatever stands first in a file, what is called image is the image, for one cut, an exposure and a folder."""
    pixels = pixels_of()
    header = make_wcs().to_header()
    planes = {"VARIANCE": pixels**2, "BACKGROUND": pixels / 2, name: pixels, "MASK": pixels.astype(np.int32)}
    path = tmp_path / "planes_r.fits"
    fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(each, header, name=of) for of, each in planes.items())]).writeto(
        path
    )

    cutout = extract(path, (10.0, 20.0), 10, unit="pixel", planes=["image", "variance"])
    assert cutout.hdu == 3
    assert np.array_equal(cutout.planes["variance"], cutout.image.pixels**2)
    assert np.isin(cutout.image.pixels, pixels).all()

    exposure = ExposureFile(path)
    assert np.array_equal(exposure.read().image, pixels)
    assert exposure.ref().hdus == {"image": 3, "variance": 1, "background": 2, "mask": 4}
    assert np.array_equal(exposure.read((5, 5, 9, 8)).variance, pixels[5:8, 5:9] ** 2)

    (refs,) = FolderSource(tmp_path).find(np.array([[10.0, 20.0]]))
    assert refs[0].hdus["image"] == 3
