"""From many sky positions to pixels, in one call for each WCS."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.quiet import quiet

_TOLERANCE, _MOST_STEPS = 1e-4, 20
"""Of `WCS.all_world2pix`, in pixels, and its corrections at most."""


def to_pixels(wcs: Any, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixel positions (x, y) of (n, 2) ICRS positions in degrees, as `geometry.to_pixel` has them one by one.

    NaN where the WCS has none, on the far side of the sky or where a distortion cannot be inverted; and for what is
    no position, see `is_position`.
    """
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from astropy.wcs import WCSSUB_LATITUDE, WCSSUB_LONGITUDE
    from astropy.wcs.utils import wcs_to_celestial_frame

    pixels = np.full((len(positions), 2), np.nan)
    known = np.flatnonzero(is_position(positions))
    if not len(known):
        return pixels
    with quiet(), np.errstate(invalid="ignore", over="ignore"):
        sky = wcs.sub([WCSSUB_LONGITUDE, WCSSUB_LATITUDE])
        try:
            frame = wcs_to_celestial_frame(sky)
        except ValueError:  # it is on some sky, but not on this one
            return pixels
        there = SkyCoord(*positions[known].T, unit=u.deg, frame="icrs").transform_to(frame).spherical
        angles = zip((there.lon, there.lat), sky.wcs.cunit, strict=True)
        found = _invert(sky, np.column_stack([angle.to_value(u.Unit(unit)) for angle, unit in angles]))
    found[~np.isfinite(found).all(axis=1)] = np.nan
    if wcs.wcs.lng > wcs.wcs.lat:  # the pixel along longitude is first, also where that is y
        found = found[:, ::-1]
    pixels[known] = found
    return pixels


def to_sky(wcs: Any, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) ICRS positions in degrees of pixels (x, y), with all distortions; NaN where there is none."""
    from astropy.wcs.utils import pixel_to_skycoord

    along = pixels if wcs.wcs.lng < wcs.wcs.lat else pixels[:, ::-1]
    with quiet(), np.errstate(invalid="ignore"):
        sky = pixel_to_skycoord(*along.T, wcs, origin=0, mode="all").icrs
    return np.column_stack([sky.ra.deg, sky.dec.deg])


def is_position(positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of (n, 2) are numbers of degrees within their ranges, as `geometry.check_position` has them."""
    ra, dec = positions.T
    return np.asarray((ra >= 0) & (ra <= 360) & (dec >= -90) & (dec <= 90))


def same_wcs(one: Any, other: Any) -> bool:
    """Whether two WCS give the same pixel to each position."""
    from astropy.wcs import WCSCOMPARE_ANCILLARY

    if one is other:
        return True
    if not one.wcs.compare(other.wcs, WCSCOMPARE_ANCILLARY) or _frame(one) != _frame(other):
        return False
    tables = ((wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2) for wcs in (one, other))
    if any(table is not None for each in tables for table in each):
        return False  # rarely the same, and then asked twice
    if one.sip is None or other.sip is None:
        return one.sip is other.sip
    return all(np.array_equal(getattr(one.sip, name), getattr(other.sip, name)) for name in ("crpix", "a", "b"))


def _frame(wcs: Any) -> tuple[str, ...]:
    """What of the frame on the sky counts as ancillary in the comparison of wcslib."""
    moving = any(kind.startswith(("TLON", "TLAT")) for kind in wcs.wcs.ctype)
    return wcs.wcs.radesys, str(wcs.wcs.equinox), wcs.wcs.dateobs if moving else ""


def _invert(wcs: Any, world: NDArray[np.float64]) -> NDArray[np.float64]:
    """World to pixel with distortions: each position is corrected as often as `all_world2pix` does it alone.

    In a common call all would be corrected until the last one is right, and one that never is would fail them all.
    """
    first: NDArray[np.float64] = _core(wcs, world)
    if not wcs.has_distortion:
        return first
    pixels = first.copy()
    correction = wcs.pix2foc(pixels, 0) - first
    pixels -= correction
    error = (correction**2).sum(axis=1)
    open_ = np.flatnonzero(error >= _TOLERANCE**2)
    for _ in range(1, _MOST_STEPS):
        if not len(open_):
            break
        correction = wcs.pix2foc(pixels[open_], 0) - first[open_]
        before, error[open_] = error[open_], (correction**2).sum(axis=1)
        diverging = ~((error[open_] < before) | (error[open_] < _TOLERANCE**2))
        pixels[open_] -= correction
        pixels[open_[diverging]] = np.nan
        open_ = open_[~diverging & (error[open_] >= _TOLERANCE**2)]
    pixels[open_] = np.nan  # not found in as many steps
    return pixels


def _core(wcs: Any, world: NDArray[np.float64]) -> NDArray[np.float64]:
    """World to pixel without distortions; one by one where the projection fails for some."""
    with contextlib.suppress(ValueError):
        return np.asarray(wcs.wcs_world2pix(world, 0))
    pixels = np.full(world.shape, np.nan)
    for i, each in enumerate(world):
        with contextlib.suppress(ValueError):
            pixels[i] = wcs.wcs_world2pix(each[None], 0)[0]
    return pixels
