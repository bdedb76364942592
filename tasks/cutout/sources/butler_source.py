"""Images of a Butler repository by position: positions to patches, patches to datasets in one query, those to files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.bands import by_wavelength
from absurd.tasks.cutout.errors import RippleError
from absurd.tasks.cutout.images import ImageRef
from absurd.tasks.cutout.sources.exposure import LAYOUT, ExposureFile
from absurd.tasks.cutout.sources.folder import version_of
from absurd.tasks.cutout.sources.footprint import Polygons, unit_vectors
from absurd.tasks.cutout.sources.region_map import Located, SkyMap

CELL = 5.0
"""Degrees of right ascension and declination of the cells by which visits are asked for."""
MARGIN = 1e-3
"""Degrees around positions within which visits are asked for: a circle of radius 0 overlaps nothing."""


class Client(Protocol):
    """What is asked of a `ButlerClient`."""

    @property
    def place(self) -> str: ...
    def get_skymap(self) -> SkyMap: ...
    def locate(
        self, patches: Iterable[tuple[int, int]], *, dataset_type: str = "image"
    ) -> dict[tuple[int, int], list[Located]]: ...
    def test_connection(self) -> bool: ...
    def cleanup(self) -> None: ...


class ButlerSource:
    """The coadds of a repository.

    `dataset_type` is a kind or a name, see `ButlerClient.dataset_type`.  `sky_map`, as a CoordinateConverter, tells
    tract and patch of positions; without it, the regions in the registry do.  The headers of a file
    are read once, and again when it has changed.  A file that is gone or damaged has a reference all the same, so
    that it is an error of the positions on it and not of all.
    """

    def __init__(self, client: Client, *, dataset_type: str = "image", sky_map: SkyMap | None = None) -> None:
        self.client = client
        self.name = f"{client.place} {dataset_type}"
        self._dataset_type = dataset_type
        self._sky_map = sky_map
        self._known: dict[str, ImageRef] = {}

    def find(self, positions: NDArray[np.float64], bands: Sequence[str] = ()) -> list[list[ImageRef]]:
        """For each of (n, 2) positions the images that hold it, first that of its own patch; see `Source`."""
        if not len(positions):
            return []
        sky_map = self._sky_map or self.client.get_skymap()
        own = np.stack(sky_map.owning(*positions.T), axis=1).tolist()
        holding: list[list[tuple[int, int]]] = [[(tract, patch)] if patch >= 0 else [] for tract, patch in own]
        for index, tract, patch in np.stack(sky_map.overlapping(*positions.T), axis=1).tolist():
            if [tract, patch] != own[index]:
                holding[index].append((tract, patch))
        alike = {tuple(keys) for keys in holding}
        located = self.client.locate({key for keys in alike for key in keys}, dataset_type=self._dataset_type)
        refs = {keys: self._refs(keys, located, bands) for keys in alike}
        return [list(refs[tuple(keys)]) for keys in holding]

    def test_connection(self) -> bool:
        """Whether the repository answers, and has the collections; see `ButlerClient.test_connection`."""
        return self.client.test_connection()

    def close(self) -> None:
        """Give back connections, and forget headers."""
        self._known.clear()
        self.client.cleanup()

    def _refs(
        self, keys: Sequence[tuple[int, int]], located: Mapping[tuple[int, int], list[Located]], bands: Sequence[str]
    ) -> list[ImageRef]:
        """The images of patches, by band, and in each band in the order of the patches."""
        there = [(each, key) for key in keys for each in located.get(key, [])]
        order: Sequence[str | None] = bands or sorted({each.band for each, _ in there}, key=by_wavelength)
        return [self._ref(each, *key) for band in order for each, key in there if each.band == band]

    def _ref(self, located: Located, tract: int | None = None, patch: int | None = None) -> ImageRef:
        uri, band = located.uri, located.band
        if "://" in uri:
            return ImageRef(uri, band, LAYOUT, tract, patch, located.dataset)
        try:
            version = version_of(Path(uri))
            known = self._known.get(uri)
            if known is None or known.version != version:
                known = self._known[uri] = ExposureFile(uri, band).ref(tract=tract, patch=patch)
        except (OSError, RippleError):  # told again, with its reason, where the pixels are read
            return ImageRef(uri, band, LAYOUT, tract, patch)
        return known


class VisitClient(Client, Protocol):
    """What is asked of a `ButlerClient` about single exposures."""

    def locate_visits(
        self, centre: tuple[float, float], radius: float, *, dataset_type: str = "visit_image"
    ) -> list[tuple[Located, NDArray[np.float64]]]: ...


class VisitSource(ButlerSource):
    """The images of single exposures of a repository, one for each visit and detector; else as `ButlerSource`.

    They are found by the regions of visit and detector in the registry, which follow the true borders of an image to
    some arcseconds.
    """

    client: VisitClient

    def __init__(self, client: VisitClient, *, dataset_type: str = "visit_image") -> None:
        super().__init__(client, dataset_type=dataset_type)

    def find(self, positions: NDArray[np.float64], bands: Sequence[str] = ()) -> list[list[ImageRef]]:
        """For each of (n, 2) positions the images whose region holds it, in each band the deepest first."""
        found: list[list[tuple[float, Located]]] = [[] for _ in positions]
        for some, centre, radius in _around(positions):
            located = self.client.locate_visits(centre, radius, dataset_type=self._dataset_type)
            polygons = Polygons([corners for _, corners in located])
            for number, held, deep in polygons.holding(positions[some]):
                for index, depth in zip(some[held], deep, strict=True):
                    found[index].append((float(depth), located[number][0]))
        return [self._in_order(each, bands) for each in found]

    def _in_order(self, found: list[tuple[float, Located]], bands: Sequence[str]) -> list[ImageRef]:
        ranked = [each for _, each in sorted(found, key=lambda each: (-each[0], each[1].dataset))]
        order: Sequence[str | None] = bands or sorted({each.band for each in ranked}, key=by_wavelength)
        return [self._ref(each) for band in order for each in ranked if each.band == band]


def _around(positions: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.intp], tuple[float, float], float]]:
    """Positions in groups of one cell of the sky each: which, and a circle around them, (ra, dec) and radius, degrees.

    As many as there are cells, however many positions.
    """
    cells = np.floor(positions / CELL).astype(np.int64)
    _, member = np.unique(cells, axis=0, return_inverse=True)
    for cell in range(int(member.max(initial=-1)) + 1):
        some = np.flatnonzero(member.ravel() == cell)
        points = unit_vectors(positions[some])
        middle = points.mean(axis=0)
        middle /= np.linalg.norm(middle)
        apart = np.linalg.norm(points - middle, axis=1).max()
        ra, dec = np.degrees([np.arctan2(middle[1], middle[0]), np.arcsin(np.clip(middle[2], -1, 1))])
        yield some, (float(ra % 360), float(dec)), float(np.degrees(2 * np.arcsin(min(1.0, apart / 2)))) + MARGIN
