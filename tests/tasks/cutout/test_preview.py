"""Pictures of cut-outs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pictures
from skies import make_wcs, pixels_of

from absurd.tasks.cutout.preview import (
    NO_DATA,
    SMALLEST,
    aligned,
    combine,
    render,
    render_colour,
    stretch,
    write_preview,
)
from absurd.tasks.image import Image


def test_small_images_are_enlarged_in_whole_steps_with_y_up() -> None:
    """A pixel becomes a square; the first row of the image is the last of the picture."""
    pixels = np.zeros((8, 8), dtype=np.float32)
    pixels[0, 7] = 1.0

    picture = np.asarray(render(Image(pixels, make_wcs())))

    assert picture.shape == (SMALLEST, SMALLEST, 3)
    assert (picture[-1, -1] == 255).all()
    assert (picture[-SMALLEST // 8, -SMALLEST // 8] == 255).all()


def test_large_images_are_reduced() -> None:
    """A picture is never wider than a screen can show."""
    assert render(Image(pixels_of((1500, 3000)), make_wcs())).size == (2048, 1024)


def test_missing_pixels_cannot_be_taken_for_values() -> None:
    """NaN is striped in two blues, which no grey is."""
    pixels = pixels_of((32, 32)).copy()
    pixels[:, :16] = np.nan

    picture = np.asarray(render(Image(pixels, make_wcs())))

    assert {tuple(colour) for colour in picture[100, 20:200].tolist()} == set(NO_DATA)
    right = picture[200:300, 300:400]
    assert (right == right[..., :1]).all()


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_images_without_contrast(value: float) -> None:
    """An image of one value is grey, one of NaN stays NaN, and neither divides by zero."""
    brightness = stretch(np.full((4, 4), value))

    assert np.array_equal(brightness, np.full((4, 4), np.nan if math.isnan(value) else 0.5), equal_nan=True)


def test_brightness_grows_with_the_value() -> None:
    """The stretch keeps the order of values, from 0 to 1, and ignores infinities when it measures the sky."""
    values = pixels_of((64, 64)).astype(float)
    values[5, 5], values[6, 6] = 1e6, np.inf

    brightness = stretch(values)

    order = np.argsort(values.ravel())
    assert (np.diff(brightness.ravel()[order]) >= 0).all()
    assert brightness.min() == 0.0
    assert brightness.max() == brightness[6, 6] == 1.0


def test_colours_follow_the_bands() -> None:
    """What is brighter in the red band is red; what is equal in all, in one unit, is grey."""
    sky = np.random.default_rng(1).normal(0, 1, (3, 64, 64))
    sky[0, 20, 20] += 500
    sky[:, 40, 40] += 500

    colours = combine(*sky, same_unit=True)

    assert colours[20, 20, 0] > 2 * colours[20, 20, 1]
    assert np.ptp(colours[40, 40]) < 0.02


@pytest.mark.parametrize("same_unit", [True, False])
def test_a_missing_band_leaves_colours_of_the_others(same_unit: bool) -> None:
    """It counts neither for their brightness nor for what is white, however small the values are."""
    sky = np.random.default_rng(1).normal(0, 1e-9, (3, 64, 64))
    sky[:, 20:24, 20:24] += 1e-7
    sky[1] = np.nan
    sky[0, 0, 0], sky[2, 0, 0] = np.nan, np.inf

    colours = combine(*sky, same_unit=same_unit)

    assert np.argwhere(np.isnan(colours).any(axis=-1)).tolist() == [[0, 0]]
    assert colours[22, 22, [0, 2]].min() > 0.9
    assert colours[22, 22, 1] < 0.2
    assert np.isnan(combine(*np.full((3, 4, 4), np.nan), same_unit=same_unit)).all()


def test_a_colour_picture_needs_the_same_pixels() -> None:
    """Three images of different places, or shapes, are not laid over one another."""
    one, same = Image(pixels_of(), make_wcs()), Image(pixels_of(seed=1), make_wcs())

    assert aligned(one, same)
    assert aligned(Image(pixels_of(), make_wcs(0.0)), Image(pixels_of(), make_wcs(1e-9)))
    assert not aligned(one, Image(pixels_of(), make_wcs(10.001)))
    assert render_colour([one, same, one]).size == render(one).size
    for other in (Image(pixels_of(), make_wcs(10.001)), Image(pixels_of((30, 30)), make_wcs())):
        with pytest.raises(ValueError, match="three images of the same pixels"):
            render_colour([one, same, other])


def test_a_preview_is_whole_or_absent(tmp_path: Path) -> None:
    """The file opens as PNG; when rendering fails nothing is there, and nothing beside it."""
    write_preview(Image(pixels_of(), make_wcs()), tmp_path / "a" / "good.png", label="r")
    with pytest.raises(ValueError, match="three images"):
        write_preview([Image(pixels_of(), make_wcs())], tmp_path / "a" / "bad.png")

    with Pictures.open(tmp_path / "a" / "good.png") as picture:
        assert picture.format == "PNG"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["good.png"]


@pytest.mark.parametrize("dec", [90.0, -89.99, 0.0])
def test_pictures_at_the_poles(dec: float) -> None:
    """Scale bar and compass are drawn, or left out, anywhere on the sky."""
    assert render(Image(pixels_of(), make_wcs(0.0, dec)), label="r").width >= SMALLEST
