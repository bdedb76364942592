"""From pixels to the sky, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def frame_of(wcs: Any) -> Any:
    """The celestial frame of a WCS, as astropy has it."""
    from astropy.wcs.utils import wcs_to_celestial_frame

    return wcs_to_celestial_frame(wcs)


def pixels_to_sky(wcs: Any, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude in the frame of the WCS, degrees; NaN off the sky."""
    lon, lat = wcs.all_pix2world(x, y, 0)
    return np.asarray(lon), np.asarray(lat)


def sky_to_pixels(wcs: Any, lon: Floats, lat: Floats, frame: Any) -> tuple[Floats, Floats]:
    """0-based pixels of positions in a frame of astropy, degrees; NaN where the projection has none."""
    from astropy.coordinates import SkyCoord

    own = frame_of(wcs)
    seen = np.isfinite(lon) & np.isfinite(lat)
    lon, lat = np.where(seen, lon, 0.0), np.where(seen, lat, 0.0)
    if not own.is_equivalent_frame(frame):
        moved = SkyCoord(lon, lat, unit="deg", frame=frame).transform_to(own).spherical
        lon, lat = moved.lon.deg, moved.lat.deg
    x, y = (np.asarray(each) for each in wcs.wcs_world2pix(lon, lat, 0))
    # A projection of a hemisphere gives positions of the other one too: only those that lead back are meant.
    back_lon, back_lat = wcs.wcs_pix2world(x, y, 0)
    turned = np.abs((back_lon - lon + 180) % 360 - 180) * np.cos(np.radians(lat))
    seen &= (turned < 1e-6) & (np.abs(back_lat - lat) < 1e-6)
    return np.where(seen, x, np.nan), np.where(seen, y, np.nan)


def separation_rad(lon: Any, lat: Any, lon0: float, lat0: float) -> NDArray[np.float64]:
    """Angles between positions in degrees and one of them, radians (Vincenty's form, right at all distances)."""
    turn, one, other = np.radians(np.asarray(lon) - lon0), np.radians(lat), math.radians(lat0)
    across = np.cos(one) * np.sin(turn)
    along = math.cos(other) * np.sin(one) - math.sin(other) * np.cos(one) * np.cos(turn)
    angle: NDArray[np.float64] = np.arctan2(
        np.hypot(across, along), math.sin(other) * np.sin(one) + math.cos(other) * np.cos(one) * np.cos(turn)
    )
    return angle
