"""Images of the sky: their pixels with beam and colour bar, how the noise scatters, and what a mosaic is made of."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import AsinhNorm
from matplotlib.patches import Ellipse, Polygon
from numpy.typing import NDArray

from absurd.tasks.pipeline.plots import style
from absurd.tasks.qa.images import files_beside
from absurd.tasks.quiet import quiet
from absurd.tasks.radio.robust import robust_rms
from absurd.tasks.radio.sky_image import SkyImage, open_sky_image, planes_of
from absurd.tasks.radio.sky_pixels import sky_to_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
MOST_PIXELS = 1200
"""Along either side of a picture: of larger images the highest of each block is drawn, so that no source is lost."""
MOST_PLANES = 12
MOST_COUNTED = 4_000_000
"""Pixels of a histogram: of larger images one line in so many is taken."""
MOST_NAMED = 24
_REACH = 8.0
"""Deviations to which a histogram goes."""
_LEAST_BEAM = 1 / 40
"""Of a picture's side: a smaller beam is drawn magnified."""


@dataclass(frozen=True, slots=True)
class SkyPicture:
    """An image or mosaic, and the files that lie beside it."""

    planes: tuple[SkyImage, ...]
    """By frequency; of an image of one plane that one."""
    beside: dict[str, str]
    """Paths of the residual, primary beam and noise map, of those that are there."""

    @property
    def image(self) -> SkyImage:
        return self.planes[0]

    @property
    def tiles(self) -> Any:
        """What it is a mosaic of, as its file tells: rows with NAME, NOISE and CORNERS; None where it is none."""
        from astropy.io import fits

        with quiet(), fits.open(self.image.path) as hdus:
            return hdus["TILES"].data.copy() if "TILES" in hdus else None


def open_picture(path: str | os.PathLike[str]) -> SkyPicture | None:
    """The image of a FITS file; None if it holds none.  Raises DataError for a file that is no FITS."""
    count = planes_of(path)
    if count == 0:
        return None
    planes = tuple(open_sky_image(path, plane=number) for number in range(min(count, MOST_PLANES)))
    return SkyPicture(planes, files_beside(os.fspath(path)))


# Pixels ------------------------------------------------------------------------------------------


def draw_image(picture: SkyPicture, title: str) -> Figure:
    """The pixels of each plane, the scale linear around the noise and logarithmic above; the restoring beam below."""
    image = picture.image
    small, block = zip(*(reduced(each) for each in picture.planes), strict=True)
    rms = robust_rms(sampled(image))
    columns = math.ceil(math.sqrt(len(small)))
    lines = math.ceil(len(small) / columns)
    width = 9.0 if columns == 1 else 13.0
    tall = width / columns * lines * image.shape[0] / image.shape[1]
    told = _told(image, rms, block[0], len(small))
    made = style.figure(title, told, width=width, height=min(14.0, max(4.0, tall)) + 0.6)
    panels: Any = made.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(small) :]:
        axes.set_axis_off()
    factor, unit = (1e3, "mJy/beam") if image.unit == "jy/beam" else (1.0, image.unit or "as in the file")
    for axes, each, pixels in zip(panels.flat, picture.planes, small, strict=False):
        frequency = "" if len(small) == 1 or each.frequency_hz is None else f"{each.frequency_hz / 1e6:.1f} MHz"
        _dress(axes, each, frequency)
        if not np.isfinite(pixels).any():
            style.empty(axes, "no pixel has a value")
            continue
        shown = axes.imshow(
            style.masked(factor * pixels), origin="lower", cmap=style.with_missing("inferno"), extent=_extent(each),
            norm=_norm(factor * pixels, factor * rms), interpolation="nearest", aspect="auto",
        )  # fmt: skip
        axes.set_aspect("equal")
        style.picture(axes)
        style.bar(made, shown, axes, unit)
        _beam(axes, each)
    return made


def _told(image: SkyImage, rms: float, block: int, planes: int) -> str:
    """Where and when it was observed, how deep it is, and what of it is drawn."""
    ra, dec = (float(each) for each in image.wcs.wcs.crval)
    told = [f"around {ra:.4f}°, {dec:+.4f}°"]
    if image.observed is not None:
        told.append(f"{image.observed:%Y-%m-%d %H:%M:%S} UTC")
    if image.frequency_hz is not None and planes == 1:
        told.append(f"{image.frequency_hz / 1e6:.1f} MHz")
    if math.isfinite(rms) and image.unit == "jy/beam":
        told.append(f"scatter {1e3 * rms:.3g} mJy/beam")
    if block > 1:
        told.append(f"the highest of {block} × {block} pixels is drawn")
    return "; ".join(told)


def _norm(pixels: Floats, rms: float) -> AsinhNorm:
    lowest, highest = float(np.nanmin(pixels)), float(np.nanmax(pixels))
    width = 2 * rms if math.isfinite(rms) and rms > 0 else (highest - lowest) / 10 or 1.0
    low = max(lowest, -3 * width)
    return AsinhNorm(width, vmin=low, vmax=highest if highest > low else low + width)


def reduced(image: SkyImage) -> tuple[Pixels, int]:
    """The highest of each block of n x n pixels, and n: not more of them than are drawn; a strip of it at a time."""
    ny, nx = image.shape
    block = -(-max(ny, nx) // MOST_PIXELS)
    lines = []
    width = nx // block * block or nx
    for first in range(0, ny // block * block, block):
        strip = image.window(slice(first, first + block), slice(0, width))
        strip[~np.isfinite(strip)] = -np.inf
        lines.append(strip.reshape(block, width // block, block).max(axis=(0, 2)))
    made = np.array(lines, np.float32)
    made[np.isinf(made)] = np.nan
    return made, block


def sampled(image: SkyImage) -> Floats:
    """Pixels that are numbers, of lines all over the image."""
    step = max(1, -(-image.shape[0] * image.shape[1] // MOST_COUNTED))
    pixels = image.window(slice(None, None, step), slice(None)).astype(np.float64)
    found: Floats = pixels[np.isfinite(pixels)]
    return found


# Where things are --------------------------------------------------------------------------------


def _offsets(image: SkyImage, x: Any, y: Any) -> tuple[Any, Any]:
    """Degrees to the east and north of the reference position, on the image's plane, of 0-based pixels."""
    wcs = image.wcs.wcs
    scale = image.wcs.pixel_scale_matrix
    return (np.asarray(x) + 1 - wcs.crpix[0]) * scale[0, 0], (np.asarray(y) + 1 - wcs.crpix[1]) * scale[1, 1]


def _extent(image: SkyImage) -> tuple[float, float, float, float]:
    ny, nx = image.shape
    (left, right), (bottom, top) = _offsets(image, [-0.5, nx - 0.5], [-0.5, ny - 0.5])
    return left, right, bottom, top


def _dress(axes: Axes, image: SkyImage, title: str = "") -> None:
    style.dress(axes, "East of the reference (degrees)", "North of the reference (degrees)", title)
    left, right, bottom, top = _extent(image)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")


def _beam(axes: Axes, image: SkyImage) -> None:
    """The restoring beam in the corner at the lower left, and its size in words."""
    if image.beam is None:
        return
    left, right, bottom, top = _extent(image)
    side = min(abs(right - left), abs(top - bottom))
    times = next(
        (each for each in (1, 2, 5, 10, 20, 50, 100, 200) if each * image.beam.major_deg > _LEAST_BEAM * side), 500
    )
    middle = left + 0.06 * (right - left), bottom + 0.06 * (top - bottom)
    axes.add_patch(
        Ellipse(
            middle, times * image.beam.major_deg, times * image.beam.minor_deg, angle=90 - image.beam.angle_deg,
            facecolor="white", edgecolor=style.INK, linewidth=0.8,
        )
    )  # fmt: skip
    sizes = f"{3600 * image.beam.major_deg:.1f}″ × {3600 * image.beam.minor_deg:.1f}″, {image.beam.angle_deg:.0f}°"
    axes.text(
        0.11, 0.06, f"beam {sizes}" + (f" (drawn {times} times as large)" if times > 1 else ""),
        transform=axes.transAxes, fontsize=8, va="center", color=style.INK,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.5},
    )  # fmt: skip


# How pixels scatter ------------------------------------------------------------------------------


def draw_residuals(picture: SkyPicture, title: str) -> Figure:
    """How often pixels have which value in units of the noise, beside a Gaussian of that noise.

    Of an image those that cleaning has left, where they lie beside it; of a mosaic over its noise map.
    """
    of, values, noise = _scattered(picture)
    made = style.figure(title, of, width=9, height=5.6)
    axes = made.subplots()
    style.dress(axes, "Value over the noise", "Pixels", "")
    if not len(values) or not noise > 0:
        style.empty(axes, "no pixel has a value" if not len(values) else "the pixels do not scatter")
        return made
    ratio = values / noise
    edges = np.linspace(-_REACH, _REACH, 129)
    counts, _ = np.histogram(np.clip(ratio, -_REACH, _REACH), edges)
    middles = (edges[1:] + edges[:-1]) / 2
    expected = len(ratio) * (edges[1] - edges[0]) / math.sqrt(math.tau) * np.exp(-(middles**2) / 2)
    axes.stairs(counts, edges, fill=True, color=style.BLUE, alpha=0.35)
    axes.stairs(counts, edges, color=style.BLUE, label=f"{len(ratio):,} pixels, variance {robust_rms(ratio) ** 2:.3f}")
    axes.plot(middles, expected, color=style.RED, linewidth=1.2, label="Gaussian of the noise")
    beyond = int((np.abs(ratio) > 5).sum())
    axes.plot([], [], " ", label=f"{beyond:,} beyond 5 deviations, from {ratio.min():.1f} to {ratio.max():.1f}")
    axes.set(xlim=(-_REACH, _REACH), yscale="log", ylim=(0.5, 2.5 * max(counts.max(), expected.max())))
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    return made


def _scattered(picture: SkyPicture) -> tuple[str, Floats, float]:
    """In words what is shown, its values, and their noise."""
    image = picture.image
    if "noise" in picture.beside:
        noise = open_sky_image(picture.beside["noise"])
        step = slice(None, None, max(1, -(-image.shape[0] * image.shape[1] // MOST_COUNTED)))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = (image.window(step, slice(None)) / noise.window(step, slice(None))).astype(np.float64)
        return "over the noise map: 1 is where it tells the scatter", ratio[np.isfinite(ratio)], 1.0
    left = (
        open_sky_image(picture.beside["residual"])
        if "residual" in picture.beside and len(picture.planes) == 1
        else image
    )
    values = sampled(left)
    rms = robust_rms(values)
    told = f"{os.path.basename(left.path)}: scatter {1e3 * rms:.4g} mJy/beam"
    if image.thermal_jy is not None:
        told += f", {rms / image.thermal_jy:.3f} times what the weights promise"
    return told, values, rms


# What a mosaic is made of ------------------------------------------------------------------------


def draw_footprint(picture: SkyPicture, title: str) -> Figure:
    """The outlines of a mosaic's tiles on its noise map, each with its number, name and noise."""
    image, tiles = picture.image, picture.tiles
    made = style.figure(title, style.counted((len(tiles), "tile")), width=12, height=6)
    axes = made.subplots()
    _dress(axes, image)
    if "noise" in picture.beside:
        noise, _ = reduced(open_sky_image(picture.beside["noise"]))
        if np.isfinite(noise).any():
            top = 4 * float(np.nanmedian(noise))
            shown = axes.imshow(
                style.masked(1e3 * noise.astype(np.float64)), origin="lower", cmap=style.with_missing("Greys"),
                extent=_extent(image), vmin=0, vmax=1e3 * top, interpolation="nearest",
            )  # fmt: skip
            style.bar(made, shown, axes, "noise, mJy/beam")
    style.picture(axes)
    corners = np.concatenate([_corners(image, each) for each in tiles])
    for number, each in enumerate(tiles):
        colour = style.POLARISATIONS[number % len(style.POLARISATIONS)]
        outline = _corners(image, each)
        axes.add_patch(Polygon(outline, facecolor=colour, alpha=0.08, edgecolor="none"))
        label = f"{number + 1}: {each['NAME']}, {1e3 * each['NOISE']:.3g} mJy/beam" if number < MOST_NAMED else None
        axes.add_patch(Polygon(outline, fill=False, edgecolor=colour, linewidth=1.2, label=label))
        east, north = (float(each) for each in outline.mean(axis=0))
        axes.text(east, north, str(number + 1), color=colour, ha="center", va="center", fontweight="bold")
    left, right, bottom, top = _extent(image)
    axes.set(
        xlim=(max(left, corners[:, 0].max()), min(right, corners[:, 0].min())),
        ylim=(min(bottom, corners[:, 1].min()), max(top, corners[:, 1].max())),
    )
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.16, 1.0))
    return made


def _corners(image: SkyImage, tile: Any) -> Floats:
    """(4, 2): degrees to the east and north on the plane of the mosaic."""
    from astropy.coordinates import ICRS

    places = np.asarray(tile["CORNERS"], np.float64).reshape(4, 2)
    x, y = sky_to_pixels(image.wcs, places[:, 0], places[:, 1], ICRS())
    return np.column_stack(_offsets(image, x, y))
