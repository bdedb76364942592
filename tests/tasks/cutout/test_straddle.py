"""Cut-outs beyond the edge of their image: whole where images beside it have the pixels, and saying so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import (
    ButlerConfig,
    CutoutExtractionError,
    CutoutRequest,
    ImageUnreadableError,
    LsstDataFetcher,
    PlaneNotFoundError,
    PositionOutsideError,
    extract,
    manifest,
    write_fits,
    write_products,
)
from absurd.tasks.cutout.grid import ImageGrid
from absurd.tasks.cutout.straddle import _with_bits_of

SHAPE = (120, 150)
LEFT, RIGHT, TOP = (slice(0, 70), slice(0, 80)), (slice(0, 70), slice(70, 150)), (slice(60, 120), slice(0, 150))
BITS = {"BAD": 0, "SAT": 1}


class Tract:
    """An undivided image, and files of parts of it."""

    def __init__(self, folder: Path, **wcs: Any) -> None:
        self.folder = folder
        self.pixels: Any = pixels_of(SHAPE)
        self.mask = np.random.default_rng(1).integers(0, 4, SHAPE, dtype=np.int16)
        self.wcs = make_wcs(150.0, 2.0, crpix=(75.5, 60.5), **wcs)
        self.whole = folder / "whole" / "whole.fits"
        self.whole.parent.mkdir()
        self._write(self.whole, (slice(0, 120), slice(0, 150)), BITS)

    def patch(self, name: str, part: tuple[slice, slice], bits: dict[str, int] = BITS) -> Path:
        path = self.folder / "patches" / f"{name}.fits"
        path.parent.mkdir(exist_ok=True)
        self._write(path, part, bits)
        return path

    def _write(self, path: Path, part: tuple[slice, slice], bits: dict[str, int]) -> None:
        y, x = part
        header = self.wcs[y, x].to_header()
        header["BAND"] = "r"
        mask = np.zeros_like(self.mask[part])
        for name, bit in BITS.items():
            if name in bits:
                mask |= ((self.mask[part] >> bit) & 1) << bits[name]
        hdus = [fits.PrimaryHDU(self.pixels[part], header), fits.ImageHDU(mask, header, name="MASK")]
        hdus[1].header.update({f"MP_{name}": bit for name, bit in bits.items()})
        fits.HDUList(hdus).writeto(path)

    def at(self, x: float, y: float) -> tuple[float, float]:
        ((ra, dec),) = ImageGrid(self.wcs).to_sky(np.array([[x, y]])).tolist()
        return ra, dec

    def fetch(self, requests: Sequence[CutoutRequest], **options: Any) -> list[Any]:
        with LsstDataFetcher(ButlerConfig(folder=str(self.folder / "patches"), batch_size=2)) as fetcher:
            return list(fetcher.fetch_batch_cutouts(requests, **options))


@pytest.fixture
def tract(tmp_path: Path) -> Tract:
    return Tract(tmp_path)


@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_across_patches_is_the_cut_of_the_undivided_image(tmp_path: Path, angle: float) -> None:
    """Pixels, mask and WCS are those of the undivided image; the row has all files, and NaN where no image is."""
    tract = Tract(tmp_path, angle=angle)
    for name, part in (("left", LEFT), ("right", RIGHT), ("top", TOP)):
        tract.patch(name, part)
    at = tract.at(68.2, 60.1)
    requests = [
        CutoutRequest(*at, (40, 60), planes=("image", "mask")),
        CutoutRequest(*tract.at(20, 20), 16),
        CutoutRequest(*tract.at(5, 30), 30),
    ]
    row, within, at_edge = tract.fetch(requests)

    alone = extract(tract.whole, at, (40, 60), unit="pixel", planes=("image", "mask"))
    assert row.state == "accepted" and row.quality.outside == 0
    assert np.array_equal(row.plane("image")[0], alone.image.pixels)
    assert np.array_equal(row.plane("mask")[0], alone.planes["mask"])
    assert row.plane("mask").dtype == np.int16
    here, there = (ImageGrid(each.image.wcs).to_sky(np.array([[0, 0], [59, 39]])) for each in (row.cutout(), alone))
    assert there == pytest.approx(here, abs=1e-9)
    assert {Path(each.uri).name for each in row.all_images} == {"left.fits", "right.fits", "top.fits"}
    assert row.note == "stitched of 3 images"
    assert not within.stitched and within.note == ""
    assert not at_edge.stitched and at_edge.quality.outside == pytest.approx(np.isnan(at_edge.pixels).mean())

    write_fits(row.cutout(), tmp_path / "cut.fits")
    header = fits.getheader(tmp_path / "cut.fits")
    assert header["NOUTSIDE"] == 0
    write_products([row, within], tmp_path / "kept")
    told = list(manifest.read(tmp_path / "kept" / "manifest.parquet"))
    assert [(len(each["sources"]), each["note"]) for each in told] == [(3, "stitched of 3 images"), (1, None)]
    assert {header["ORIGFILE"], header["STITCH1"], header["STITCH2"]} == {"left.fits", "right.fits", "top.fits"}


def test_an_edge_is_refused_only_where_nothing_is_beyond_it(tract: Tract) -> None:
    """Across patches a box is whole; beyond all of them it is refused, or counted as outside."""
    tract.patch("left", LEFT)
    tract.patch("right", RIGHT)
    inside, over = CutoutRequest(*tract.at(75, 30), 20, edge="refuse"), CutoutRequest(*tract.at(75, 65), 20)
    refused = CutoutRequest(*tract.at(75, 65), 20, edge="refuse")
    whole, part, none = tract.fetch([inside, over, refused])

    assert whole.state == "accepted"
    assert part.quality.outside == pytest.approx(np.isnan(part.pixels).mean()) == 0.25
    assert isinstance(none.error, PositionOutsideError)


def test_images_on_another_grid_give_nothing(tract: Tract) -> None:
    """An image of no tract that is half a pixel off, or of another band, is not put beside."""
    tract.patch("left", LEFT)
    shifted = make_wcs(150.0, 2.0, crpix=(6.0, 60.5))
    write_image(tract.folder / "patches" / "other.fits", pixels_of((70, 80)), shifted, BAND="r")
    write_image(tract.folder / "patches" / "blue.fits", pixels_of(SHAPE), tract.wcs, BAND="g")
    (row,) = tract.fetch([CutoutRequest(*tract.at(66, 30), 40, bands=("r",))])

    assert not row.stitched
    assert row.quality.outside == pytest.approx(np.isnan(row.pixels).mean())
    assert row.quality.outside > 0


def test_bits_of_masks_go_by_their_names(tract: Tract) -> None:
    """A neighbour whose mask has other bits for the same names is put beside with those of the own image."""
    tract.patch("left", LEFT)
    tract.patch("right", RIGHT, {"SAT": 5, "BAD": 3})
    at = tract.at(72, 30)
    (row,) = tract.fetch([CutoutRequest(*at, 40, planes=("image", "mask"))])

    assert np.array_equal(
        row.plane("mask")[0], extract(tract.whole, at, 40, unit="pixel", planes=("mask",)).planes["mask"]
    )


def test_the_sign_of_a_mask_is_a_bit_as_others() -> None:
    """The highest bit of a signed mask is moved from and to its place; a bit that the mask has not is an error."""
    at: dict[int, Any] = {bit: SimpleNamespace(name=str(bit), mask_bits={"BAD": bit}) for bit in (0, 31, 32)}
    low, high = np.array([[1, 0]], np.int32), np.array([[-(1 << 31), 0]], np.int32)

    assert np.array_equal(_with_bits_of(at[31], at[0], low), high)
    assert np.array_equal(_with_bits_of(at[0], at[31], high), low)
    with pytest.raises(CutoutExtractionError, match="has no bit"):
        _with_bits_of(at[32], at[0], low)


def test_a_bit_without_a_place_is_an_error(tract: Tract) -> None:
    """A mask plane that the own image does not have cannot be told: the row says which."""
    tract.patch("left", LEFT, {"SAT": 1})
    tract.patch("right", RIGHT)
    at = tract.at(72, 30)
    masked, plain = tract.fetch([CutoutRequest(*at, 40, planes=("image", "mask")), CutoutRequest(*at, 40)])

    assert isinstance(masked.error, CutoutExtractionError) and "are BAD in its mask" in masked.reason
    assert plain.state == "accepted" and plain.stitched


def test_a_neighbour_that_cannot_be_read_is_the_error_of_the_rows_on_it(tract: Tract) -> None:
    """A damaged file beside is named by the rows that reach it, and by no other."""
    tract.patch("left", LEFT)
    damaged = tract.patch("right", RIGHT)
    damaged.write_bytes(damaged.read_bytes()[: 2880 * 5])
    straddling, within = tract.fetch([CutoutRequest(*tract.at(68, 30), 40), CutoutRequest(*tract.at(20, 30), 16)])

    assert isinstance(straddling.error, ImageUnreadableError) and "right.fits" in straddling.reason
    assert within.state == "accepted"


def test_types_grow_with_what_is_put_beside(tract: Tract) -> None:
    """Double precision beside single precision keeps its digits."""
    tract.patch("left", LEFT)
    tract.pixels = np.asarray(tract.pixels, np.float64) + 1e-9
    tract.patch("right", RIGHT)
    (row,) = tract.fetch([CutoutRequest(*tract.at(72.3, 30), (4, 40))])

    x, y = row.box().origin
    assert row.pixels.dtype == np.float64 and Path(row.images[0].uri).name == "left.fits"
    assert np.array_equal(row.pixels[0][:, 80 - x :], tract.pixels[y : y + 4, 80 : x + 40])


def test_point_spread_functions_stay_those_of_the_own_image(tract: Tract) -> None:
    """A plane of them is cut as others are and is NaN beyond its image; a stamp of its own shape is no plane."""
    paths = [tract.patch("left", LEFT), tract.patch("right", RIGHT)]
    for path in paths:
        with fits.open(path, mode="append") as file:
            file.append(fits.ImageHDU(np.full(file[0].shape, 3.0, np.float32), file[0].header, name="PSF"))
            file.append(fits.ImageHDU(np.ones((21, 21), np.float32), name="KERNEL"))
    at = tract.at(72, 30)
    row, stamp = tract.fetch(
        [CutoutRequest(*at, 40, planes=("image", "psf")), CutoutRequest(*at, 40, planes=("image", "kernel"))]
    )

    psf, beyond = row.plane("psf")[0], row.box().origin[0] + 40 - 80
    assert np.isfinite(row.pixels).all() and row.note == "stitched of 2 images"
    assert np.isnan(psf[:, -beyond:]).all() and (psf[:, :-beyond] == 3).all() and beyond > 0
    assert isinstance(stamp.error, PlaneNotFoundError) and "(21, 21)" in stamp.reason
