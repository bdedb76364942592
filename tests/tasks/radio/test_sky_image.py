"""Windows of FITS images are what astropy reads, however the file holds its pixels."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from radio_skies import Field, write

from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.sky_image import open_sky_image

FIELD = Field(10.0, 20.0, side=64)


@pytest.mark.parametrize("kind", ["plain", "double", "scaled", "extension", "compressed"])
def test_windows(kind: str, tmp_path: Path) -> None:
    """Boxes, and lines with a step, of floats, doubles, scaled integers, extensions and compressed images."""
    rng = np.random.default_rng(5)
    pixels = np.round(rng.uniform(-1, 1, (64, 64)), 3).astype(np.float32)
    header = fits.getheader(write(tmp_path / "i.fits", FIELD, pixels))
    for key in ("NAXIS3", "NAXIS4"):
        del header[key]
    path = tmp_path / f"{kind}.fits"
    if kind == "plain":
        path = tmp_path / "i.fits"
    elif kind == "double":
        fits.PrimaryHDU(pixels.astype(float)[None, None], header).writeto(path)
    elif kind == "scaled":
        hdu = fits.PrimaryHDU(pixels[None, None], header)
        hdu.scale("int16", bscale=0.001, bzero=0)
        hdu.writeto(path)
    elif kind == "extension":
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels[None, None], header)]).writeto(path)
    else:
        fits.HDUList(
            [fits.PrimaryHDU(), fits.CompImageHDU(pixels, header, compression_type="GZIP_1", quantize_level=0)]
        ).writeto(path)

    image = open_sky_image(path)

    assert image.shape == (64, 64)
    assert image.unit == "jy/beam"
    assert (image.frequency_hz, str(image.observed)) == (1.405e9, "2026-01-01 00:00:00+00:00")
    assert image.pixels() == pytest.approx(pixels, abs=2e-6)
    assert image.window(slice(3, 40, 7), slice(5, 9)) == pytest.approx(pixels[3:40:7, 5:9], abs=2e-6)
    assert image.pixels().dtype == np.float32
    assert image.pixels().dtype.isnative


@pytest.mark.parametrize(
    ("cards", "span", "middle"),
    [
        ({}, ("00:00:00", "00:00:00"), "00:00:00"),
        ({"DATE-END": "2026-01-01T00:05:09"}, ("00:00:00", "00:05:09"), "00:02:34.500000"),
        ({"DATE-END": "2025-12-31T00:00:00"}, ("00:00:00", "00:00:00"), "00:00:00"),
        ({"DATE-OBS": None, "MJD-OBS": 61041.0, "MJD-END": 61041.5}, ("00:00:00", "12:00:00"), "06:00:00"),
        ({"DATE-OBS": "yesterday"}, None, None),
    ],
)
def test_an_image_is_of_the_middle_of_its_recording(
    cards: dict[str, object], span: tuple[str, str] | None, middle: str | None, tmp_path: Path
) -> None:
    """Headers tell begin and end; light curves and rows have the time between them."""
    path = write(tmp_path / "i.fits", FIELD, np.zeros((64, 64), np.float32))
    with fits.open(path, mode="update") as hdus:
        for key, value in cards.items():
            if value is None:
                del hdus[0].header[key]
            else:
                hdus[0].header[key] = value

    image = open_sky_image(path)

    assert image.span == (
        None if span is None else tuple(datetime.fromisoformat(f"2026-01-01T{each}Z") for each in span)
    )
    assert image.observed == (None if middle is None else datetime.fromisoformat(f"2026-01-01T{middle}Z"))


def test_infinities_and_ends(tmp_path: Path) -> None:
    """What is infinite has no value; a file that ends too early is told, not read as zeros."""
    pixels = np.ones((64, 64), np.float32)
    pixels[5, 6] = np.inf
    path = write(tmp_path / "i.fits", FIELD, pixels)

    assert np.isnan(open_sky_image(path).pixels()[5, 6])
    image = open_sky_image(path)
    with path.open("rb+") as file:
        file.truncate(2880 * 3)
    with pytest.raises(DataError, match="ends before"):
        image.pixels()
