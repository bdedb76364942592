"""Images by position from an index: a look-up gives those that may hold it, their WCS tells whether they do."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from absurd.errors import DatabaseUnavailableError, NotFoundError
from absurd.tasks.cutout.bands import band_in_name
from absurd.tasks.cutout.described import wcs_of_text
from absurd.tasks.cutout.errors import ButlerConnectionError, RippleError, SourceNotFoundError
from absurd.tasks.cutout.fits_image import open_image
from absurd.tasks.cutout.images import ImageRef
from absurd.tasks.cutout.sources.folder import in_order, version_of
from absurd.tasks.cutout.sources.footprint import cap_of, depths, unit_vectors

POSITIONS_AT_ONCE = 5_000
"""Positions of one look-up."""
MOST_WCS = 2_000
"""Images whose WCS is kept, those that were wanted last."""


class LookUp(Protocol):
    """As `SyncAbsurdClient.find_images` of one index."""

    def __call__(
        self, positions: Sequence[tuple[float, float]], bands: Sequence[str], /
    ) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where an image is on the sky."""

    wcs: Any
    shape: tuple[int, int]
    centre: NDArray[np.float64]
    least: float
    """Cosine of the radius of the circle around it."""


class IndexSource:
    """The images of an index, which a task `cutout.index` keeps.

        look_up = partial(client.find_images, "survey")  # and since=, until= for exposures of some time
        fetcher = LsstDataFetcher(ButlerConfig(), sources={"index": IndexSource(look_up)})

    No file is opened, but for an image whose WCS needs tables of its file; each WCS is read once.  A file that has
    vanished has its references all the same, so that it is an error of the positions on it and not of all.  One that
    has changed since it was indexed is looked for where it was.  For several threads, if `look_up` is.  `close` is
    called when the source is closed; what it closes has to open again when `look_up` is called, as a client does.
    """

    def __init__(self, look_up: LookUp, *, name: str = "index", close: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self._look_up = look_up
        self._close = close
        self._known: OrderedDict[tuple[str, str, int], _Place] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, positions: NDArray[np.float64], bands: Sequence[str] = ()) -> list[list[ImageRef]]:
        """For each of (n, 2) positions the images that contain it; see `Source`.  Deeper inside is better."""
        found: list[list[tuple[float, ImageRef]]] = [[] for _ in positions]
        usable = np.flatnonzero(np.isfinite(positions).all(axis=1) & (np.abs(positions[:, 1]) <= 90))
        for start in range(0, len(usable), POSITIONS_AT_ONCE):
            some = usable[start : start + POSITIONS_AT_ONCE]
            for image in self._ask([(float(ra) % 360, float(dec)) for ra, dec in positions[some]], bands):
                candidates = some[image["positions"]]
                ref = _ref(image, bands)
                for place, depth in zip(candidates, self._depths(image, positions[candidates]), strict=True):
                    if depth >= 0:
                        found[place].append((float(depth), ref))
        return [in_order(each, bands) for each in found]

    def test_connection(self) -> bool:
        """Whether the database answers.  Raises SourceNotFoundError if it has no such index."""
        try:
            self._ask([(0.0, 90.0)], ())
        except ButlerConnectionError:
            return False
        return True

    def close(self) -> None:
        """Forget what was read, and give back the connection."""
        with self._lock:
            self._known.clear()
        self._close()

    def _ask(self, positions: Sequence[tuple[float, float]], bands: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        try:
            return self._look_up(positions, bands)
        except DatabaseUnavailableError as error:
            raise ButlerConnectionError(
                f"the {self.name} does not answer: {error.message}", source=self.name
            ) from error
        except NotFoundError as error:
            raise SourceNotFoundError(
                error.message, advice="a task cutout.index makes an index", source=self.name
            ) from error

    def _depths(self, image: Mapping[str, Any], positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels from each position to the nearest edge of an image; negative outside."""
        try:
            place = self._place(image)
        except RippleError:  # told again, with its reason, where the pixels are read
            return np.zeros(len(positions))
        near = unit_vectors(positions) @ place.centre >= place.least
        deep = np.full(len(positions), -np.inf)
        if near.any():
            deep[near] = depths(place.wcs, place.shape, positions[near])
        return deep

    def _place(self, image: Mapping[str, Any]) -> _Place:
        key = (image["uri"], image["version"], image["hdu"])
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        if image["wcs"] is not None:
            wcs = wcs_of_text(image["wcs"])
        else:
            with open_image(Path(image["uri"]), hdu=image["hdu"]) as opened:
                wcs = opened.wcs
        ny, nx = image["shape"]
        centre, radius = cap_of(wcs, (ny, nx))
        place = _Place(wcs, (ny, nx), centre, math.cos(min(radius, math.pi)) - 1e-15)
        with self._lock:
            self._known[key] = place
            while len(self._known) > MOST_WCS:
                self._known.popitem(last=False)
        return place


def _ref(image: Mapping[str, Any], bands: Sequence[str]) -> ImageRef:
    uri, version = image["uri"], image["version"]
    with suppress(OSError):  # told, with its reason, where the pixels are read
        version = version_of(Path(uri))  # for what is kept of it elsewhere
    band = image["band"] if image["band_told"] else band_in_name(Path(uri).name, bands)
    return ImageRef(uri, band, image["hdus"], image["tract"], image["patch"], version)
