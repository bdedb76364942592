"""A sky map as a repository tells of it: name, limits, and the regions of its tracts and patches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.sources.footprint import Polygons, unit_vectors

_TRACTS_AT_ONCE = 500
"""Whose patches are asked for in one query."""


class SkyMap(Protocol):
    """What tells tracts and patches of positions."""

    def owning(self, ra: Any, dec: Any) -> tuple[Any, Any]:
        """Tracts and patches (n,) of right ascensions and declinations (n,) in degrees, ICRS; below 0: none."""
        ...

    def overlapping(self, ra: Any, dec: Any) -> tuple[Any, Any, Any]:
        """All patches whose images hold positions: three arrays (m,), the position's index, the tract and the patch."""
        ...


@dataclass(frozen=True, slots=True)
class SkyMapRecord:
    """The sky map's record in the registry."""

    name: str
    hash: bytes
    """SHA-1 of its definition: two of one hash are the same, whatever their names."""
    tract_max: int
    """Tracts, at most."""
    patch_nx_max: int
    patch_ny_max: int


@dataclass(frozen=True, slots=True)
class Located:
    """An image dataset and where its file is."""

    band: str | None
    uri: str
    """Path of a local file, else an address."""
    dataset: str
    """What tells the dataset from all others, as its UUID."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A convex polygon of a tract or a patch."""

    tract: int
    id: int
    """The patch's number, or the tract's own."""
    vertices: NDArray[np.float64]
    """Unit vectors (m, 3), counter-clockwise seen from outside."""

    @classmethod
    def of(cls, tract: int, number: int, corners: Sequence[Sequence[float]]) -> Self:
        """From corners (ra, dec) in degrees, counter-clockwise on the sky."""
        return cls(tract, number, unit_vectors(np.array(corners, dtype=np.float64)))


class RegionSkyMap:
    """Tracts and patches by the regions that a repository has of them; only those that it has.

    Regions are the outer ones, which overlap: a position is of the tract and the patch that it is deepest in.  Tracts
    are read when they are first asked about, patches with the tract that holds them.  For several threads.
    """

    def __init__(self, record: SkyMapRecord, load: Callable[[Sequence[int] | None], Iterable[Region]]) -> None:
        """`load` gives all tracts for None, else the patches of the tracts with those numbers."""
        self.record = record
        self._load = load
        self._lock = threading.Lock()
        self._tracts: _Numbered | None = None
        self._patches: dict[int, _Numbered] = {}

    def __repr__(self) -> str:
        return f"RegionSkyMap({self.record.name!r})"

    def owning(self, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tracts and patches (n,) of positions (n,) in degrees, ICRS; -1 where there is none.

        Raises ButlerConnectionError.
        """
        positions = np.stack([ra, dec], axis=1)
        patches = np.full(len(positions), -1, dtype=np.int64)
        with self._lock:
            if self._tracts is None:
                self._tracts = _Numbered(self._load(None))
            tracts = self._tracts.of(positions)
            on_map = np.unique(tracts[tracts >= 0])
            self._read_patches([int(tract) for tract in on_map if int(tract) not in self._patches])
            for tract in on_map:
                here = np.flatnonzero(tracts == tract)
                patches[here] = self._patches[int(tract)].of(positions[here])
        return tracts, patches

    def overlapping(
        self, ra: NDArray[np.float64], dec: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All patches, of all tracts, whose regions hold positions (n,): index of the position, tract and patch, (m,).

        Ordered by position, tract and patch.  Raises ButlerConnectionError.
        """
        positions = np.stack([ra, dec], axis=1)
        found = [np.zeros((0, 3), dtype=np.int64)]
        with self._lock:
            if self._tracts is None:
                self._tracts = _Numbered(self._load(None))
            on_tracts = list(self._tracts.holding(positions))
            self._read_patches(sorted({tract for tract, _ in on_tracts} - self._patches.keys()))
            for tract, here in on_tracts:
                for patch, held in self._patches[tract].holding(positions[here]):
                    found.append(np.stack(np.broadcast_arrays(here[held], tract, patch), axis=1))
        index, tracts, patches = np.unique(np.concatenate(found), axis=0).T
        return index, tracts, patches

    def _read_patches(self, tracts: list[int]) -> None:
        for start in range(0, len(tracts), _TRACTS_AT_ONCE):
            some = tracts[start : start + _TRACTS_AT_ONCE]
            of_tract: dict[int, list[Region]] = {tract: [] for tract in some}
            for region in self._load(some):
                of_tract[region.tract].append(region)
            self._patches |= {tract: _Numbered(regions) for tract, regions in of_tract.items()}


class _Numbered:
    """Polygons with numbers."""

    def __init__(self, regions: Iterable[Region]) -> None:
        known = list(regions)
        self._ids = np.array([region.id for region in known], dtype=np.int64)
        self._polygons = Polygons([region.vertices for region in known])

    def of(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """The number of the polygon that each of (n, 2) positions is deepest in; -1 where there is none."""
        inside = self._polygons.deepest(positions)
        found = np.full(len(positions), -1, dtype=np.int64)
        found[inside >= 0] = self._ids[inside[inside >= 0]]
        return found

    def holding(self, positions: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """The number of each polygon that holds any of (n, 2) positions, and which of them."""
        for place, held, _ in self._polygons.holding(positions):
            yield int(self._ids[place]), held
