"""The grid of a mosaic: a tangent plane on which all tiles lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from absurd.tasks.imaging.mosaicking.resample import REACH, WIDEST_STEP
from absurd.tasks.imaging.mosaicking.tile import Tile, lattice
from absurd.tasks.radio.errors import MosaickingError, ValidationError
from absurd.tasks.radio.sky_pixels import frame_of, pixels_to_sky, separation_rad, sky_to_pixels

_WIDEST_RAD = np.radians(60)
"""From the centre of a tangent plane, beyond which pixels grow too far apart."""
_MOST_PIXELS = 4_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Pixels of a mosaic."""

    wcs: Any
    """Gnomonic (TAN), north up, east to the left, in the frame of the first tile."""
    shape: tuple[int, int]
    """Pixels along (y, x)."""


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of the mosaic that a tile may reach, within its shape."""

    rows: range
    columns: range


def circular_mean(lon_deg: Sequence[float], lat_deg: Sequence[float]) -> tuple[float, float]:
    """Direction of the sum of unit vectors, degrees, longitude from 0 to 360: 350, 5 and 10 have the mean 1.7.

    Raises MosaickingError where they cancel one another.
    """
    lon, lat = np.radians(lon_deg), np.radians(lat_deg)
    x, y, z = np.sum([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    if np.hypot(np.hypot(x, y), z) < 1e-6 * len(lon):
        raise MosaickingError("tiles lie all around the sky: they have no centre")
    return float(np.degrees(np.arctan2(y, x)) % 360), float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def make_grid(
    tiles: Sequence[Tile],
    *,
    least_gain: float,
    centre: tuple[float, float] | None = None,
    cell_deg: float | None = None,
    shape: tuple[int, int] | None = None,
) -> Grid:
    """A grid that holds all of the tiles where their gain is not below `least_gain`.

    `centre` is in the frame of the first tile, degrees; without it the circular mean of the tiles' centres.  Pixels are
    as large as the smallest of the tiles', or `cell_deg`.  With a `shape` (y, x), the centre lies in the middle of it.

    Raises MosaickingError for tiles that are no part of the plane, ValidationError for one too large.
    """
    from astropy.coordinates import SkyCoord

    first = tiles[0].image.wcs
    if centre is None:
        found = []
        for each in tiles:
            frame = frame_of(each.image.wcs)
            moved = SkyCoord(*each.centre, unit="deg", frame=frame).transform_to(frame_of(first)).spherical
            found.append((float(moved.lon.deg), float(moved.lat.deg)))
        centre = circular_mean(*zip(*found, strict=True))
    cell = min(each.image.cell_deg for each in tiles) if cell_deg is None else cell_deg
    wcs = _tangent_plane(first, centre, cell)
    if shape is None:
        low = np.full(2, np.inf)
        high = -low
        for each in tiles:
            x, y = _reached(each, wcs, least_gain)
            if not np.isfinite(x).any():
                continue
            low = np.minimum(low, [np.nanmin(x), np.nanmin(y)])
            high = np.maximum(high, [np.nanmax(x), np.nanmax(y)])
        if not np.isfinite(low).all():
            raise MosaickingError(f"no tile has a gain of {least_gain:g} anywhere")
        low, high = np.floor(low), np.ceil(high)
        wcs.wcs.crpix -= low
        width, height = (int(each) + 1 for each in high - low)
        shape = height, width
    else:
        wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    if shape[0] * shape[1] > _MOST_PIXELS:
        raise ValidationError(
            f"a mosaic of {shape[1]} x {shape[0]} pixels is too large", advice="give larger cells, or fewer tiles"
        )
    return Grid(wcs, shape)


def box_of(tile: Tile, grid: Grid, least_gain: float) -> Box:
    """The box of the mosaic's pixels outside of which the tile adds nothing."""
    x, y = _reached(tile, grid.wcs, least_gain)
    if not np.isfinite(x).any():
        return Box(range(0), range(0))
    height, width = grid.shape
    # between nodes the gain may be what is asked for while it is below at both
    margin = int(np.ceil(tile.every * tile.image.cell_deg / abs(grid.wcs.wcs.cdelt[1]))) + REACH
    # begins with a multiple, so that positions are interpolated between the same nodes whatever the blocks
    left, right = _aligned(int(np.nanmin(x)) - margin), min(int(np.nanmax(x)) + margin + 1, width)
    bottom, top = _aligned(int(np.nanmin(y)) - margin), min(int(np.nanmax(y)) + margin + 1, height)
    return Box(range(bottom, max(top, bottom)), range(left, max(right, left)))


def _aligned(pixel: int) -> int:
    return max(pixel, 0) // WIDEST_STEP * WIDEST_STEP


def _reached(tile: Tile, wcs: Any, least_gain: float) -> tuple[Any, Any]:
    """Positions on a plane of a tile's nodes where its gain is high enough, of the outermost: between them are all."""
    y, x = lattice(tile.image.shape)
    ny, nx = tile.image.shape
    seen = np.pad(tile.gain >= least_gain, 1)
    inner = seen[:-2, 1:-1] & seen[2:, 1:-1] & seen[1:-1, :-2] & seen[1:-1, 2:]
    seen = seen[1:-1, 1:-1] & ~inner
    lon, lat = pixels_to_sky(tile.image.wcs, np.minimum(x[seen], nx - 1), np.minimum(y[seen], ny - 1))
    on_sky = np.isfinite(lon)
    far = separation_rad(lon[on_sky], lat[on_sky], *wcs.wcs.crval)
    if far.size and far.max() > _WIDEST_RAD:
        raise MosaickingError(
            f"{tile.image.path} reaches {np.degrees(far.max()):.0f} degrees from the centre of the mosaic; a "
            f"tangent plane takes 60: make several mosaics"
        )
    return sky_to_pixels(wcs, lon, lat, frame_of(tile.image.wcs))


def _tangent_plane(like: Any, centre: tuple[float, float], cell_deg: float) -> Any:
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    axes = [each.split("-")[0] for each in like.wcs.ctype]
    wcs.wcs.ctype = [f"{name:-<5}TAN" if len(name) == 4 else f"{name:-<4}-TAN" for name in axes]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = centre
    wcs.wcs.crpix = [1, 1]
    wcs.wcs.cdelt = [-cell_deg, cell_deg]
    wcs.wcs.radesys = like.wcs.radesys
    if np.isfinite(like.wcs.equinox):
        wcs.wcs.equinox = like.wcs.equinox
    wcs.wcs.set()
    return wcs
