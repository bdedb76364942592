"""Cut-outs of made images: agreement with astropy's Cutout2D, every kind of WCS and of pixel, every error."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D, NoOverlapError
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skies import make_wcs, pixels_of, write_image

from absurd.errors import AbsurdError
from absurd.tasks.cutout import (
    ImageUnreadableError,
    InvalidPositionError,
    InvalidSizeError,
    NotOnSkyError,
    PlaneNotFoundError,
    PositionOutsideError,
    SourceNotFoundError,
    extract,
    write_fits,
)


@given(
    ra=st.sampled_from([0.0, 1e-4, 10.0, 180.0, 359.9999]),
    dec=st.sampled_from([-90.0, -89.9999, -45.0, 0.0, 60.0, 89.9999, 90.0]),
    angle=st.floats(0, 360),
    flip=st.booleans(),
    projection=st.sampled_from(["TAN", "SIN", "ZEA", "STG", "ARC"]),
    frame=st.sampled_from(["ICRS", "FK5", "FK4", "galactic"]),
    offset=st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
    size=st.tuples(st.integers(1, 45), st.integers(1, 45)),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_equals_cutout2d(
    tmp_path: Path,
    ra: float,
    dec: float,
    angle: float,
    flip: bool,
    projection: str,
    frame: str,
    offset: tuple[float, float],
    size: tuple[int, int],
) -> None:
    """Anywhere, poles and 0h too, rotated, mirrored, on the image, over its edge or beyond: same pixels, same sky."""
    wcs = make_wcs(ra, dec, angle=angle, flip=flip, projection=projection, frame=frame)
    pixels = pixels_of()
    pixels[3, 4] = np.nan
    path = write_image(tmp_path / "image.fits", pixels, wcs)
    position = wcs.pixel_to_world(20 + offset[0], 15 + offset[1]).icrs
    asked = (position.ra.deg, position.dec.deg)
    with fits.open(path) as opened:  # as written: the header rounds numbers
        theirs_of = WCS(opened[0].header)
        try:
            theirs = Cutout2D(opened[0].data, SkyCoord(*asked, unit="deg"), size, theirs_of, mode="partial", copy=True)
        except NoOverlapError:
            with pytest.raises(PositionOutsideError):
                extract(path, asked, size, unit="pixel")
            return

    ours = extract(path, asked, size, unit="pixel")

    assert np.array_equal(ours.image.pixels, theirs.data, equal_nan=True)
    assert ours.box.clipped_origin == theirs.origin_original
    corners = np.array([(0, 0), (size[1] - 1, size[0] - 1), (3.3, 1.7)])
    there = ours.image.wcs.pixel_to_world(*corners.T)
    assert there.separation(theirs.wcs.pixel_to_world(*corners.T)).max() < 1 * u.microarcsecond


@pytest.mark.parametrize("kind", ["sip", "lookup", "detector", "sip and lookup"])
def test_distortions_are_kept(tmp_path: Path, kind: str) -> None:
    """SIP polynomials and lookup tables move with the box, so that every pixel stays where it is on the sky."""
    path = tmp_path / "distorted.fits"
    header = make_wcs(crpix=(50.5, 50.5)).to_header()
    hdus: list[Any] = [fits.PrimaryHDU(pixels_of((100, 100)), header)]
    if "sip" in kind:
        hdus[0].header["CTYPE1"], hdus[0].header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
        hdus[0].header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 3e-4, "A_1_1": -1e-4, "B_0_2": 2e-4})
    if "lookup" in kind or kind == "detector":
        words, name = (("D2IMDIS", "D2IM"), "D2IMARR") if kind == "detector" else (("CPDIS", "DP"), "WCSDVARR")
        for axis in (1, 2):
            hdus[0].header[f"{words[0]}{axis}"] = "LOOKUP"
            for key, value in (("EXTVER", float(axis)), ("NAXES", 2.0), ("AXIS.1", 1.0), ("AXIS.2", 2.0)):
                hdus[0].header.append((f"{words[1]}{axis}", f"{key}: {value}"), end=True)
            table = np.random.default_rng(axis).normal(0, 0.5, (11, 11)).astype(np.float32)
            hdu = fits.ImageHDU(table, name=name, ver=axis)
            hdu.header.update(
                {"CRPIX1": 1.0, "CRPIX2": 1.0, "CRVAL1": 1.0, "CRVAL2": 1.0, "CDELT1": 10.0, "CDELT2": 10.0}
            )
            hdus.append(hdu)
    fits.HDUList(hdus).writeto(path)
    with fits.open(path) as opened:
        before = WCS(opened[0].header, fobj=opened)
    inside = before.pixel_to_world(61.2, 33.7)

    cut = extract(path, (inside.ra.deg, inside.dec.deg), (21, 25), unit="pixel")
    write_fits(cut, tmp_path / "cut.fits")

    assert cut.pixel_position == pytest.approx((61.2, 33.7), abs=1e-3)
    with fits.open(tmp_path / "cut.fits") as written:
        after = WCS(written[0].header, fobj=written)
        y, x = np.mgrid[0:21, 0:25]
        there = after.pixel_to_world(x, y)
        assert (
            there.separation(before.pixel_to_world(x + cut.box.origin[0], y + cut.box.origin[1])).max() < 1e-9 * u.deg
        )
        assert len(written) == len(hdus)


def test_sizes_in_arcseconds_use_the_scale_of_each_axis(tmp_path: Path) -> None:
    """The height is measured along y and the width along x, rounded to whole pixels."""
    wcs = make_wcs()
    wcs.wcs.cd = np.diag([-0.5, 0.25]) / 3600
    path = write_image(tmp_path / "image.fits", pixels_of(), wcs)

    cut = extract(path, (10.0, 20.0), (2.4, 5.2))

    assert cut.image.shape == (10, 10)
    assert cut.image.pixel_scale == pytest.approx((0.25, 0.5))
    assert extract(path, (10.0, 20.0), 4.0).image.shape == (16, 8)


def test_axes_in_the_other_order_are_understood(tmp_path: Path) -> None:
    """An image whose first axis is declination is cut at the right pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["DEC--TAN", "RA---TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [20.0, 10.0], [20.5, 15.5]
    wcs.wcs.cd = np.diag([0.5, 0.5]) / 3600
    path = write_image(tmp_path / "image.fits", pixels_of(), wcs)
    dec, ra = wcs.all_pix2world(30, 5, 0)

    cut = extract(path, (float(ra), float(dec)), 5, unit="pixel")

    assert cut.pixel_position == pytest.approx((30, 5), abs=1e-6)
    assert np.array_equal(cut.image.pixels, pixels_of()[3:8, 28:33])
    assert cut.image.centre == pytest.approx((float(ra), float(dec)), abs=1e-9)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f4", "f8"])
def test_every_kind_of_pixel(tmp_path: Path, dtype: str) -> None:
    """Integers become floating point without losing a digit, floats keep their precision; NaN fills the rest."""
    pixels = np.arange(30 * 40).reshape(30, 40).astype(dtype) * (1 if dtype == "u1" else 200)
    path = write_image(tmp_path / "image.fits", pixels, make_wcs())

    cut = extract(path, (10.0, 20.0), 60, unit="pixel")

    narrow = dtype in ("u1", "i2", "u2", "f4")
    assert cut.image.pixels.dtype == (np.float32 if narrow else np.float64)
    assert np.array_equal(cut.image.pixels[cut.box.in_box], pixels.astype(np.float64))
    assert np.isnan(cut.image.pixels).sum() == cut.box.n_outside == 60 * 60 - 30 * 40


def test_scaled_and_blank_pixels(tmp_path: Path) -> None:
    """BSCALE and BZERO are applied, BLANK is NaN, and the cut-out's header claims neither."""
    hdu = fits.PrimaryHDU(np.arange(1200, dtype=np.int16).reshape(30, 40), make_wcs().to_header())
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.5, 10.0, 615
    path = tmp_path / "image.fits"
    hdu.writeto(path)
    with fits.open(path) as opened:
        expected = opened[0].data.astype(float)

    cut = extract(path, (10.0, 20.0), (30, 40), unit="pixel")

    assert np.array_equal(cut.image.pixels, expected, equal_nan=True)
    assert not {"BSCALE", "BZERO", "BLANK"} & set(cut.header)


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1"])
def test_compressed_tiles(tmp_path: Path, compression: str) -> None:
    """An image in compressed tiles gives what its tiles hold, with NaN where they are NaN."""
    whole = compression in ("PLIO_1", "HCOMPRESS_1")
    pixels: Any = np.arange(1200, dtype=np.int32).reshape(30, 40) if whole else pixels_of()
    if not whole:
        pixels[14, 19] = np.nan
    options = {"tile_shape": (10, 10)} if compression == "HCOMPRESS_1" else {}
    hdu = fits.CompImageHDU(pixels, make_wcs().to_header(), name="SCI", compression_type=compression, **options)
    path = tmp_path / "image.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    with fits.open(path) as opened:
        expected = opened[1].data[8:22, 12:27]

    cut = extract(path, (10.0, 20.0), (14, 15), unit="pixel")

    assert cut.hdu == 1
    assert np.array_equal(cut.image.pixels, expected, equal_nan=True)


def test_a_compressed_file(tmp_path: Path) -> None:
    """A gzipped file is read like a plain one; one that is cut short is an error."""
    plain = write_image(tmp_path / "image.fits", pixels_of(), make_wcs())
    packed = tmp_path / "image.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    assert np.array_equal(extract(packed, (10.0, 20.0), 5).image.pixels, extract(plain, (10.0, 20.0), 5).image.pixels)

    packed.write_bytes(packed.read_bytes()[:-3000])
    with pytest.raises(ImageUnreadableError):
        extract(packed, (10.0, 20.0), 5)


def test_of_several_images_the_one_that_holds_the_position(tmp_path: Path) -> None:
    """The chip under the position is taken; `hdu` takes another, and tables and empty HDUs are passed over."""
    chips = [fits.ImageHDU(pixels_of(seed=n), make_wcs(10.0 + n).to_header(), name=f"CHIP{n}") for n in range(3)]
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])])
    path = tmp_path / "mosaic.fits"
    fits.HDUList([fits.PrimaryHDU(), table, *chips]).writeto(path)

    assert extract(path, (11.0, 20.0), 4).hdu == 3
    assert extract(path, (10.0, 20.0), 4).hdu == 2
    with pytest.raises(PositionOutsideError):
        extract(path, (11.0, 20.0), 4, hdu=2)
    with pytest.raises(SourceNotFoundError, match="has 5 HDUs"):
        extract(path, (11.0, 20.0), 4, hdu=7)
    with pytest.raises(NotOnSkyError, match="HDU 1 is a table"):
        extract(path, (11.0, 20.0), 4, hdu=1)


def test_planes_are_cut_alike(tmp_path: Path) -> None:
    """Mask and variance are cut at the same pixels; the mask stays integer, with 0 beyond the image."""
    wcs = make_wcs()
    mask = np.arange(1200, dtype=np.int32).reshape(30, 40) + 1
    variance = pixels_of(seed=5) ** 2
    hdus = [fits.ImageHDU(pixels_of(), wcs.to_header(), name="IMAGE")]
    hdus += [fits.ImageHDU(mask, name="MASK"), fits.CompImageHDU(variance, name="VARIANCE", quantize_level=0)]
    hdus += [fits.ImageHDU(np.zeros((5, 5)), name="PSF")]
    path = tmp_path / "planes.fits"
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)

    cut = extract(path, (10.0, 20.0), 50, unit="pixel", planes=["image", "mask", "VARIANCE"])
    write_fits(cut, tmp_path / "cut.fits")

    assert cut.planes["mask"].dtype == np.int32
    assert np.array_equal(cut.planes["mask"][cut.box.in_box], mask)
    assert (cut.planes["mask"] == 0).sum() == cut.box.n_outside
    assert np.isnan(cut.planes["VARIANCE"]).sum() == cut.box.n_outside
    with fits.open(tmp_path / "cut.fits") as written:
        assert [hdu.name for hdu in written] == ["PRIMARY", "MASK", "VARIANCE"]
        assert np.array_equal(written["MASK"].data, cut.planes["mask"])
    with pytest.raises(PlaneNotFoundError, match="has no plane called 'weight'; it has image, mask, variance, psf"):
        extract(path, (10.0, 20.0), 5, planes=["weight"])
    with pytest.raises(PlaneNotFoundError, match=r"has the shape \(5, 5\)"):
        extract(path, (10.0, 20.0), 5, planes=["psf"])


def test_axes_of_length_one_are_dropped(tmp_path: Path) -> None:
    """A radio image with a frequency and a Stokes axis of one element is an image; a cube is refused."""
    header = make_wcs().to_header()
    header.update({"WCSAXES": 4, "CTYPE3": "FREQ", "CRVAL3": 1.4e9, "CRPIX3": 1.0, "CDELT3": 1e6, "CUNIT3": "Hz"})
    header.update({"CTYPE4": "STOKES", "CRVAL4": 1.0, "CRPIX4": 1.0, "CDELT4": 1.0})
    path = tmp_path / "radio.fits"
    fits.PrimaryHDU(pixels_of()[None, None], header).writeto(path)

    cut = extract(path, (10.0, 20.0), 7, unit="pixel")

    assert np.array_equal(cut.image.pixels, pixels_of()[11:18, 16:23])
    assert "CTYPE3" not in cut.header
    fits.PrimaryHDU(np.stack([pixels_of()] * 3)[None], header).writeto(path, overwrite=True)
    with pytest.raises(NotOnSkyError, match="is a cube of shape"):
        extract(path, (10.0, 20.0), 7, unit="pixel")


def test_the_header_says_what_the_image_said(tmp_path: Path) -> None:
    """Exposure and unit stay, also those that only the primary header has; the place on the detector moves."""
    primary = fits.PrimaryHDU()
    primary.header.update({"EXPTIME": 30.0, "FILTER": "r", "TELESCOP": "Test"})
    chip = fits.ImageHDU(pixels_of(), make_wcs().to_header(), name="N1")
    chip.header.update({"BUNIT": "nJy", "LTV1": -3.0, "LTV2": 0.0, "CHECKSUM": "x"})
    path = tmp_path / "chip.fits"
    fits.HDUList([primary, chip]).writeto(path)

    cut = extract(path, (10.0, 20.0), 5, unit="pixel")

    assert (cut.image.unit, cut.band, cut.hdu) == ("nJy", "r", 1)
    assert (cut.header["EXPTIME"], cut.header["TELESCOP"]) == (30.0, "Test")
    assert cut.header["LTV1"] == -3.0 - cut.box.origin[0]
    assert cut.header["CRPIX1"] == 20.5 - cut.box.origin[0]
    assert "CHECKSUM" not in cut.header


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("inherits", [True, False, None])
def test_what_an_extension_inherits(tmp_path: Path, *, inherits: bool | None, compressed: bool) -> None:
    """With INHERIT all of the primary header but what is of that HDU alone; without it what the numbers mean."""
    primary = fits.PrimaryHDU()
    primary.header.update({"MAGZERO": 30.1, "GAIN": 4.0, "PROPID": "2012B-0001", "SEEING": 0.9, "EXTNAME": "FIRST"})
    primary.header.update({"CRVAL1": 1.0, "EQUINOX": 1950.0, "PV1_5": 2.0, "A_ORDER": 3, "CD1_2A": 1.0, "AR_HDU": 5})
    primary.header["HIERARCH ESO DET NAME"] = "a name with spaces"
    primary.header["LONG"] = ("a value that is so long that it goes on " * 4, "and a comment")
    primary.header["COMMENT"] = "of the file"
    primary.add_checksum()
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    chip = kind(pixels_of(), make_wcs().to_header(), name="N1")
    chip.header["GAIN"] = 5.0
    if inherits is not None:
        chip.header["INHERIT"] = inherits
    fits.HDUList([primary, chip]).writeto(tmp_path / "chip.fits", checksum=True)
    alone = fits.HDUList([fits.PrimaryHDU(), chip])
    alone.writeto(tmp_path / "alone.fits")

    cut = extract(tmp_path / "chip.fits", (10.0, 20.0), 5, unit="pixel")
    write_fits(cut, tmp_path / "cut.fits")
    without = extract(tmp_path / "alone.fits", (10.0, 20.0), 5, unit="pixel")

    header = fits.getheader(tmp_path / "cut.fits")
    assert (header["MAGZERO"], header["PROPID"], header["GAIN"]) == (30.1, "2012B-0001", 5.0)
    taken = {"MAGZERO", "PROPID"} | ({"SEEING", "ESO DET NAME", "LONG"} if inherits else set())
    assert set(cut.header) - set(without.header) == taken
    if inherits:
        assert header["LONG"] == primary.header["LONG"]
        assert header["ESO DET NAME"] == "a name with spaces"


# Errors ------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image at ra 10, dec 20."""
    return write_image(tmp_path / "image.fits", pixels_of(), make_wcs())


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ((math.nan, 20.0), "ra is nan; it must be a number of degrees from 0 to 360"),
        ((-1.0, 20.0), "ra is -1"),
        ((400.0, 20.0), "ra is 400"),
        ((math.inf, 20.0), "ra is inf"),
        ((10.0, 90.5), "dec is 90.5; it must be a number of degrees from -90 to 90"),
        ((10.0, math.nan), "dec is nan"),
    ],
)
def test_a_position_that_is_none(image: Path, position: tuple[float, float], message: str) -> None:
    """Each bad coordinate is named with its value and range."""
    with pytest.raises(InvalidPositionError, match=message) as caught:
        extract(image, position, 10)

    assert caught.value.code == "cutout_position_invalid"


@pytest.mark.parametrize("size", [0, -1, math.nan, math.inf, 0.1, (5, 0), 1e9])
@pytest.mark.parametrize("unit", ["arcsec", "pixel"])
def test_a_size_that_is_none(image: Path, size: Any, unit: Any) -> None:
    """Sizes that are no number, not above 0, below a pixel or beyond memory are refused."""
    with pytest.raises(InvalidSizeError, match="size is") as caught:
        extract(image, (10.0, 20.0), size, unit=unit)

    assert caught.value.code == "cutout_size_invalid"


@pytest.mark.parametrize("position", [(10.0, 20.1), (190.0, -20.0), (190.0, 20.0), (10.0, -90.0)])
def test_a_position_elsewhere_on_the_sky(image: Path, position: tuple[float, float]) -> None:
    """Beside the image and on the far side of the sky the error is the same."""
    with pytest.raises(PositionOutsideError, match=r"is outside image\.fits"):
        extract(image, position, 10)


def test_files_that_are_no_image(tmp_path: Path, image: Path) -> None:
    """Absent, foreign, torn in the header and torn in the pixels: each an error that names the file."""
    with pytest.raises(SourceNotFoundError, match=r"there is no file .*absent\.fits"):
        extract(tmp_path / "absent.fits", (10.0, 20.0), 10)
    for name, content in {
        "empty": b"",
        "text": b"no image" * 1000,
        "header": image.read_bytes()[:1000],
        "pixels": image.read_bytes()[:4000],
    }.items():
        path = tmp_path / f"{name}.fits"
        path.write_bytes(content)
        with pytest.raises(ImageUnreadableError, match=rf"{name}\.fits") as caught:
            extract(path, (10.0, 20.0), 10)
        assert caught.value.code == "cutout_image_unreadable"
        assert "ignore_missing" not in str(caught.value)  # nobody here could follow that advice of astropy's


def test_every_error_is_one_of_ours(image: Path) -> None:
    """Whatever goes wrong, callers catch AbsurdError."""
    with pytest.raises(AbsurdError):
        extract(image.parent, (10.0, 20.0), 10)
