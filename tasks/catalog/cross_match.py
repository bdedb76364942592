"""Which sources of two catalogues are the same, and how far their places differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Pairs of sources, each the other's nearest."""

    first: Integers
    """Places in the first catalogue, ascending."""
    second: Integers
    """Those in the second."""
    separation_arcsec: Floats
    crowded: NDArray[np.bool_]
    """Whether either has another candidate within the radius."""

    def offsets_arcsec(self, ra1: Floats, dec1: Floats, ra2: Floats, dec2: Floats) -> tuple[Floats, Floats]:
        """What the second source of each pair lies east and north of the first, arcseconds."""
        one, other = self.first, self.second
        turn = (ra2[other] - ra1[one] + 180) % 360 - 180
        return turn * np.cos(np.radians(dec1[one])) * 3600, (dec2[other] - dec1[one]) * 3600

    def offset_arcsec(self, ra1: Floats, dec1: Floats, ra2: Floats, dec2: Floats) -> tuple[float, float]:
        """Median of what the second catalogue lies east and north of the first, arcseconds; NaN without pairs."""
        if not len(self.first):
            return np.nan, np.nan
        east, north = self.offsets_arcsec(ra1, dec1, ra2, dec2)
        return float(np.median(east)), float(np.median(north))


def cross_match(ra1: Floats, dec1: Floats, ra2: Floats, dec2: Floats, radius_arcsec: float = 10.0) -> Match:
    """Pair sources that are each other's nearest within a radius; degrees of one frame, any place on the sky.

    Distances are chords of the unit sphere: right at the poles and across right ascension 0.
    """
    from scipy.spatial import cKDTree

    chord = 2 * np.sin(np.radians(radius_arcsec / 3600) / 2)
    one, other = cKDTree(_vectors(ra1, dec1)), cKDTree(_vectors(ra2, dec2))
    if not len(ra1) or not len(ra2):
        empty = np.empty(0, np.int64)
        return Match(empty, empty, np.empty(0), np.empty(0, bool))
    far, nearest = other.query(one.data, distance_upper_bound=chord)
    _, back = one.query(other.data, distance_upper_bound=chord)
    first = np.flatnonzero(np.isfinite(far))
    first = first[back[nearest[first]] == first]
    second = nearest[first]
    around = np.array([len(each) for each in other.query_ball_point(one.data[first], chord)], dtype=int)
    behind = np.array([len(each) for each in one.query_ball_point(other.data[second], chord)], dtype=int)
    separation = np.degrees(2 * np.arcsin(far[first] / 2)) * 3600
    return Match(first, second.astype(np.int64), separation, (around > 1) | (behind > 1))


def nearest_arcsec(ra1: Floats, dec1: Floats, ra2: Floats, dec2: Floats) -> Floats:
    """Distance of each source of a catalogue from the nearest of another, arcseconds; infinite if that is empty."""
    from scipy.spatial import cKDTree

    if not len(ra1) or not len(ra2):
        return np.full(len(ra1), np.inf)
    far, _ = cKDTree(_vectors(ra2, dec2)).query(_vectors(ra1, dec1))
    distance: Floats = np.degrees(2 * np.arcsin(np.minimum(far / 2, 1))) * 3600
    return distance


def _vectors(ra: Floats, dec: Floats) -> Floats:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1).reshape(-1, 3)
