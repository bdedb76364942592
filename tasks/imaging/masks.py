"""Where is cleaned: in FITS masks, regions of DS9, and around what was found."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.beam_fit import RestoringBeam
from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.imaging.points import Point
from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DataError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
_SHAPE = re.compile(r"([-+!]?)\s*(circle|ellipse|box|polygon)\s*\(([^)]*)\)", re.IGNORECASE)
_FRAME = re.compile(r"^\s*(icrs|fk5|j2000|image|physical)\s*$", re.IGNORECASE)
_UNITS = {'"': 1 / 3600, "'": 1 / 60, "d": 1.0, "": 1.0}


def read_mask(path: str | Path, geometry: Geometry) -> Mask:
    """(y, x): where a FITS image is not 0 (nor NaN), or what regions of DS9 hold.

    An image on another grid is taken at the nearest pixel.  Regions are circles, ellipses, boxes and polygons, in ICRS
    (or FK5, which is taken for it) or image coordinates; those with a minus are left out.  Raises DataError.
    """
    try:
        if Path(path).suffix.lower() in (".reg", ".ds9"):
            return _regions(Path(path).read_text(encoding="utf-8"), geometry, str(path))
        return _fits(path, geometry)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"mask {path} cannot be read: {error}", path=str(path)) from error


def around(
    model: NDArray[np.float32],
    points: Sequence[Point],
    beam: RestoringBeam,
    cell_rad: float,
    within: Mask | None,
) -> Mask:
    """Pixels within a beam's width of components and points."""
    from scipy.ndimage import binary_dilation

    found = model != 0
    for each in points:
        y, x = round(each.y), round(each.x)
        if 0 <= y < found.shape[0] and 0 <= x < found.shape[1]:
            found[y, x] = True
    reach = max(1, round(beam.major_rad / cell_rad))
    square: Mask = binary_dilation(found, np.ones((1, 2 * reach + 1), np.bool_))
    square = binary_dilation(square, np.ones((2 * reach + 1, 1), np.bool_))
    return square if within is None else square & within


def _fits(path: str | Path, geometry: Geometry) -> Mask:
    from astropy.io import fits
    from astropy.wcs import WCS

    with quiet(), fits.open(path, memmap=False) as units:
        unit = next((each for each in units if each.data is not None), None)
        if unit is None:
            raise ValueError("it has no image")
        inside = np.nan_to_num(np.squeeze(unit.data)) != 0
        theirs = WCS(unit.header).celestial
    if inside.ndim != 2 or not theirs.has_celestial:
        raise ValueError("it is no image of the sky with two axes")
    if inside.shape == geometry.shape and theirs.wcs.compare(geometry.wcs.wcs, tolerance=1e-9):
        return np.ascontiguousarray(inside)
    mask = np.zeros(geometry.shape, np.bool_)
    columns = np.arange(geometry.shape[1])
    for row in range(geometry.shape[0]):
        ra, dec = geometry.wcs.wcs_pix2world(columns, np.full(len(columns), row), 0)
        x, y = theirs.wcs_world2pix(ra, dec, 0)
        near = np.isfinite(x) & np.isfinite(y)
        x, y = (np.where(near, np.round(each), -1).astype(np.int64) for each in (x, y))
        near &= (x >= 0) & (y >= 0) & (x < inside.shape[1]) & (y < inside.shape[0])
        mask[row, near] = inside[y[near], x[near]]
    return mask


def _regions(text: str, geometry: Geometry, path: str) -> Mask:
    mask = np.zeros(geometry.shape, np.bool_)
    frame, count = "image", 0
    for line in re.split(r"[\n;]", re.sub(r"#.*", "", text)):
        if found := _FRAME.match(line):
            frame = found[1].lower()
        for sign, kind, inner in _SHAPE.findall(line):
            _paint(
                mask,
                geometry,
                frame,
                kind.lower(),
                [each.strip() for each in inner.split(",")],
                sign not in "-!" or not sign,
            )
            count += 1
    if not count:
        raise DataError(f"mask {path} has no circle, ellipse, box or polygon", path=path)
    return mask


def _paint(mask: Mask, geometry: Geometry, frame: str, kind: str, values: list[str], inside: bool) -> None:
    sky = frame not in ("image", "physical")
    if kind == "polygon":
        corners = [_place(geometry, sky, *values[at : at + 2]) for at in range(0, len(values), 2)]
        form: Any = np.array(corners)
        low, high = form.min(axis=0), form.max(axis=0)
    else:
        x0, y0 = _place(geometry, sky, *values[:2])
        wanted = {"circle": 1, "ellipse": 3, "box": 3}[kind]
        sizes = [_size(geometry, sky, each) for each in values[2 : 2 + min(wanted, 2)]]
        sizes *= 3 - len(sizes) if len(sizes) == 1 else 1
        # Angles go from the x axis of the sky to the left, which is west to north here as in DS9.
        angle = math.radians(float(values[4])) if len(values) > 4 else 0.0
        reach = math.hypot(*sizes)
        low, high = np.array([x0 - reach, y0 - reach]), np.array([x0 + reach, y0 + reach])
    ny, nx = mask.shape
    left, bottom = (max(0, math.floor(each)) for each in low)
    right, top = min(nx - 1, math.ceil(high[0])), min(ny - 1, math.ceil(high[1]))
    if left > right or bottom > top:
        return
    y, x = np.mgrid[bottom : top + 1, left : right + 1]
    if kind == "polygon":
        within = _in_polygon(form, y, x)
    else:
        dx, dy = x - x0, y - y0
        along, across = dx * math.cos(angle) + dy * math.sin(angle), dy * math.cos(angle) - dx * math.sin(angle)
        if kind == "box":
            within = (np.abs(along) <= sizes[0] / 2) & (np.abs(across) <= sizes[1] / 2)
        else:
            within = (along / sizes[0]) ** 2 + (across / sizes[1]) ** 2 <= 1
    mask[bottom : top + 1, left : right + 1][within] = inside


def _in_polygon(corners: Floats, y: NDArray[Any], x: NDArray[Any]) -> Mask:
    """By how often a ray to the right crosses the border."""
    inside = np.zeros(y.shape, np.bool_)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


def _place(geometry: Geometry, sky: bool, first: str, second: str) -> tuple[float, float]:
    """0-based pixel coordinates."""
    if not sky:
        return float(first) - 1, float(second) - 1
    ra = 15 * _sexagesimal(first) if ":" in first else float(first.rstrip("d"))
    dec = _sexagesimal(second) if ":" in second else float(second.rstrip("d"))
    x, y = geometry.wcs.wcs_world2pix([[ra, dec]], 0)[0]
    return float(x), float(y)


def _size(geometry: Geometry, sky: bool, text: str) -> float:
    """Pixels; on the sky of degrees, or what its unit tells."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in "\"'dip" and text else (text, "")
    if unit in ("i", "p") or not sky:
        return float(number)
    return math.radians(float(number) * _UNITS[unit]) / geometry.cell_rad


def _sexagesimal(text: str) -> float:
    sign = -1.0 if text.strip().startswith("-") else 1.0
    hours, minutes, seconds = (abs(float(each)) for each in text.split(":"))
    return sign * (hours + minutes / 60 + seconds / 3600)
