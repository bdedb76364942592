"""Many cut-outs at once: by file, each header read once, each WCS asked once, each compressed tile decoded once.

The pixels, the boxes and the WCS are those of `engine.extract`, which cuts one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.bare import BareCutout
from absurd.tasks.cutout.boxes import Boxes, boxes_at
from absurd.tasks.cutout.engine import Cutout
from absurd.tasks.cutout.errors import BandNotFoundError, DataIdValidationError, RippleError
from absurd.tasks.cutout.gather import Failures, Pixels
from absurd.tasks.cutout.geometry import Box, check_position, outside, shape_in_pixels
from absurd.tasks.cutout.parsed import ParsedFile, parse
from absurd.tasks.cutout.request import IMAGE, MASK
from absurd.tasks.cutout.retry import ONCE, READING, RetryPolicy
from absurd.tasks.cutout.targets import Targets
from absurd.tasks.cutout.world import is_position, same_wcs, to_pixels

CHUNK = 64 << 20
"""Bytes of pixels that are in memory at once, where nothing else is said."""

ARRAY = 30 << 20
"""Bytes of one array of a chunk: such memory goes on to the next chunk, where larger arrays come anew from the system,
page by page, which takes longer than to fill them (glibc: DEFAULT_MMAP_THRESHOLD_MAX is 32 MiB)."""

BLOCK = 1 << 17
"""Positions on one set of images whose pixels are computed at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Cut-outs of m positions in all bands, along the first two axes of every array."""

    rows: NDArray[np.int64]
    """(m,): which of the positions that were asked for."""
    positions: NDArray[np.float64]
    """(m, 2): right ascension and declination, degrees, ICRS."""
    bands: tuple[str | None, ...]
    shape: tuple[int, int]
    pixels: dict[str, NDArray[Any]]
    """By plane, (m, bands, ny, nx).  NaN, or 0 in integers, beyond the image and where there is an error.

    The image is floating point: single precision if all its files hold that or integers up to 16 bits, else double;
    other planes are of the least type that holds what their files do.
    """
    pixel_positions: NDArray[np.float64]
    """(m, bands, 2): the positions in pixels (x, y) of the images, from 0; NaN where there are none."""
    origins: NDArray[np.int64]
    """(m, bands, 2): (x, y) on the image of the first pixel of each box."""
    n_outside: NDArray[np.int64]
    """(m, bands): pixels of each box that are not on the image."""
    errors: dict[tuple[int, int], RippleError]
    """Why there is no cut-out, or not all planes of it, by place in the batch and in the bands."""
    plane_errors: dict[tuple[int, int, str], RippleError]
    """Which of these are of one plane, by its name; the other planes are there."""
    files: list[list[ParsedFile | None]] = field(repr=False)
    """The image of each place and band; rows on the same images share a list."""

    def __len__(self) -> int:
        return len(self.rows)

    def error(self, place: int, band: int, planes: Sequence[str]) -> RippleError | None:
        """Why these planes cannot be had; None if they are there."""
        if (place, band) not in self.errors:
            return None
        of_planes = {name: self.plane_errors.get((place, band, name)) for name in self.pixels}
        if not any(of_planes.values()):
            return self.errors[place, band]
        return next((error for name in planes if (error := of_planes[name])), None)

    def bare(self, place: int, band: int, planes: Sequence[str] = ()) -> BareCutout:
        """One of them without a header; the pixels are not copied.

        All planes, or those named; the image is needed.  Raises the RippleError of what cannot be had.
        """
        planes = planes or tuple(self.pixels)
        error = self.error(place, band, planes)
        if error is not None:
            raise error
        file = self.files[place][band]
        assert file is not None
        x, y = self.origins[place, band].tolist()
        ra, dec = self.positions[place].tolist()
        at_x, at_y = self.pixel_positions[place, band].tolist()
        return BareCutout(
            file=file,
            band=self.bands[band] or file.band,
            pixels={name: self.pixels[name][place, band] for name in {IMAGE: None, **dict.fromkeys(planes)}},
            box=Box(self.shape, (x, y), file.shape),
            position=(ra, dec),
            pixel_position=(at_x, at_y),
        )

    def cutout(self, place: int, band: int, planes: Sequence[str] = ()) -> Cutout:
        """As `bare`, with its header and WCS, as `engine.extract` gives it.  Raises NotOnSkyError too."""
        return self.bare(place, band, planes).cutout()


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """Some positions on one set of images."""

    rows: NDArray[np.int64]
    files: list[ParsedFile | RippleError]
    """One for each band."""
    pixels: list[NDArray[np.float64]]
    """For each band (rows, 2); bands with the same WCS share one array."""

    def some(self, first: int, last: int) -> _Piece:
        return _Piece(self.rows[first:last], self.files, [each[first:last] for each in self.pixels])


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Boxes of one plane of one file."""

    pixels: Pixels
    band: int
    plane: str
    boxes: Boxes
    out: NDArray[Any]
    places: NDArray[np.int64]

    def run(self, retry: RetryPolicy) -> Failures:
        try:
            return retry.call(lambda _: self.pixels.cut(self.boxes, self.out, self.places))
        except RippleError as error:
            return dict.fromkeys(range(len(self.places)), error)

    def split(self, parts: int) -> list[_Job]:
        """Parts of neighbours, so that few tiles are decoded twice."""
        shares = np.array_split(np.arange(len(self.places)), min(parts, len(self.places)))
        return [replace(self, boxes=self.boxes.take(share), places=self.places[share]) for share in shares]


def cut_batch(
    targets: Targets,
    shape: tuple[int, int],
    planes: Sequence[str] = (IMAGE,),
    *,
    threads: int | None = None,
    retry: RetryPolicy = ONCE,
) -> Batch:
    """Cut boxes of `shape` (ny, nx) around all positions, in their order; everything is in memory in the end.

    What cannot be cut is an error of its own position and band, and never of another.

    Parameters
    ----------
    planes
        "image" and further planes, by their names in the images' references or by EXTNAME.
    threads
        How many decode at once; one for each processor that this process may use if not given.
    retry
        How headers and pixels that could not be read for a while are tried again.

    Raises
    ------
    InvalidSizeError, DataIdValidationError
        The call itself is wrong.
    """
    shape, planes = _checked(shape, planes)
    with _Workers(threads, retry) as workers:
        pieces = list(_pieces(targets, planes, retry))
        return _cut(targets, pieces, shape, planes, workers, np.arange(len(targets.positions)))


def cut_stream(
    targets: Targets,
    shape: tuple[int, int],
    planes: Sequence[str] = (IMAGE,),
    *,
    chunk: int = CHUNK,
    threads: int | None = None,
    retry: RetryPolicy = READING,
) -> Iterator[Batch]:
    """As `cut_batch`, in batches of at most about `chunk` bytes of pixels, in whatever order reads least.

    Each position is in exactly one of them; `Batch.rows` tells which it is.  What cannot be read for a while is tried
    again as an `LsstDataFetcher` does that is not told otherwise.
    """
    shape, planes = _checked(shape, planes)
    plane = max(1, len(targets.bands) * shape[0] * shape[1] * np.dtype(np.float32).itemsize)
    most = max(1, min(chunk // (plane * len(planes)), ARRAY // plane))
    waiting: list[_Piece] = []
    n_waiting = 0
    with _Workers(threads, retry) as workers:
        for piece in _pieces(targets, planes, retry):
            first = 0
            while first < len(piece.rows):
                part = piece.some(first, first + most - n_waiting)
                waiting.append(part)
                n_waiting += len(part.rows)
                first += len(part.rows)
                if n_waiting == most:
                    yield _cut(targets, waiting, shape, planes, workers)
                    waiting, n_waiting = [], 0
        if waiting:
            yield _cut(targets, waiting, shape, planes, workers)


def _checked(shape: tuple[int, int], planes: Sequence[str]) -> tuple[tuple[int, int], tuple[str, ...]]:
    if not planes or len(set(planes)) < len(planes):
        raise DataIdValidationError(f"planes are {', '.join(planes) or 'none'}; each one that is wanted counts once")
    return shape_in_pixels(shape, "pixel", (1.0, 1.0)), tuple(planes)


class _Workers:
    """Threads that work on what does not hold the interpreter's lock."""

    def __init__(self, threads: int | None, retry: RetryPolicy) -> None:
        self.retry = retry
        self.n = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self.n, thread_name_prefix="cutout") if self.n > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def run(self, jobs: Sequence[Callable[[], Failures]]) -> Iterator[Failures]:
        """Results in the order of the jobs."""
        yield from (job() for job in jobs) if self._pool is None else self._pool.map(lambda job: job(), jobs)


def _pieces(targets: Targets, planes: Sequence[str], retry: RetryPolicy) -> Iterator[_Piece]:
    """Positions by the set of their images, within that from low to high y, so that what lies close is read once."""
    if not len(targets.positions):
        return
    sets, member = np.unique(targets.which, axis=0, return_inverse=True)
    order = np.argsort(member.ravel(), kind="stable")
    bounds = np.searchsorted(member.ravel()[order], np.arange(len(sets) + 1))
    for number, chosen in enumerate(sets):
        rows = order[bounds[number] : bounds[number + 1]]
        files = [_file(targets, int(at), planes, band, retry) for at, band in zip(chosen, targets.bands, strict=True)]
        for first in range(0, len(rows), BLOCK):
            some = rows[first : first + BLOCK]
            pixels = _pixels(files, targets.positions[some])
            for each in pixels:
                if np.isfinite(each).any():
                    sorted_ = np.argsort(each[:, 1], kind="stable")
                    some = some[sorted_]
                    by_id = {id(array): array[sorted_] for array in pixels}
                    pixels = [by_id[id(array)] for array in pixels]
                    break
            yield _Piece(some, files, pixels)


def _file(
    targets: Targets, place: int, planes: Sequence[str], band: str | None, retry: RetryPolicy
) -> ParsedFile | RippleError:
    if place < 0:
        return BandNotFoundError(f"no image in band {band!r} is there", band=band)
    try:
        return parse(targets.images[place], planes, retry=retry)
    except RippleError as error:
        return error


def _pixels(files: Sequence[ParsedFile | RippleError], positions: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The positions in pixels of each file."""
    asked: list[tuple[Any, NDArray[np.float64]]] = []
    nowhere = np.full(positions.shape, np.nan)
    found = []
    for file in files:
        if isinstance(file, RippleError):
            found.append(nowhere)
            continue
        pixels = next((pixels for wcs, pixels in asked if same_wcs(wcs, file.wcs)), None)
        if pixels is None:
            pixels = to_pixels(file.wcs, positions)
            asked.append((file.wcs, pixels))
        found.append(pixels)
    return found


def _dtype(pieces: Sequence[_Piece], plane: str) -> np.dtype[Any]:
    """The type that holds a plane of all files."""
    found = [file.planes[plane] for piece in pieces for file in piece.files if isinstance(file, ParsedFile)]
    types = {each.dtype for each in found if not isinstance(each, RippleError)}
    if plane == IMAGE:
        types = {each if each.kind == "f" else np.dtype(f"f{4 if each.itemsize <= 2 else 8}") for each in types}
    return np.result_type(*types) if types else np.dtype(np.int32 if plane == MASK else np.float32)


def _cut(
    targets: Targets,
    pieces: Sequence[_Piece],
    shape: tuple[int, int],
    planes: Sequence[str],
    workers: _Workers,
    rows: NDArray[np.int64] | None = None,
) -> Batch:
    """Cut pieces into one batch: in the order of `rows` if that is given, else in their own."""
    if rows is None:
        rows = np.concatenate([piece.rows for piece in pieces])
        ends = np.cumsum([len(piece.rows) for piece in pieces])
        slots = [np.arange(end - len(piece.rows), end) for piece, end in zip(pieces, ends, strict=True)]
    else:
        slots = [piece.rows for piece in pieces]
    n, bands = len(rows), len(targets.bands)
    batch = Batch(
        rows=rows,
        positions=targets.positions[rows],
        bands=targets.bands,
        shape=shape,
        pixels={plane: np.empty((n, bands, *shape), _dtype(pieces, plane)) for plane in planes},
        pixel_positions=np.full((n, bands, 2), np.nan),
        origins=np.zeros((n, bands, 2), np.int64),
        n_outside=np.full((n, bands), shape[0] * shape[1]),
        errors={},
        plane_errors={},
        files=[[]] * n,
    )
    bad = _bad_positions(batch)
    jobs: list[_Job] = []
    for piece, places in zip(pieces, slots, strict=True):
        files = [file if isinstance(file, ParsedFile) else None for file in piece.files]
        for place in places:
            batch.files[place] = files
        for band, file in enumerate(piece.files):
            if isinstance(file, RippleError):
                batch.errors.update({(int(place), band): file for place in places})
                continue
            boxes = boxes_at(piece.pixels[band], shape, file.shape)
            batch.pixel_positions[places, band] = piece.pixels[band]
            batch.origins[places, band] = boxes.origins
            batch.n_outside[places, band] = boxes.n_outside
            inside = np.flatnonzero(boxes.n_inside)
            for place in places[boxes.n_inside == 0]:
                if int(place) not in bad:
                    ra, dec = batch.positions[place].tolist()
                    batch.errors[int(place), band] = outside(ra, dec, shape, file.name)
            if len(inside):
                jobs += _jobs(batch, file, band, boxes.take(inside), places[inside])
    for place, error in bad.items():
        batch.errors.update({(place, band): error for band in range(bands)})
    _run(batch, jobs, workers)
    for plane, array in batch.pixels.items():
        lost = [slot for slot in batch.errors if batch.error(*slot, (plane,)) is not None]
        if lost:
            array[tuple(np.array(lost).T)] = _fill(array)
    return batch


def _jobs(batch: Batch, file: ParsedFile, band: int, boxes: Boxes, places: NDArray[np.int64]) -> Iterator[_Job]:
    for plane, array in batch.pixels.items():
        pixels = file.planes[plane]
        if isinstance(pixels, RippleError):
            for place in places:
                _lacks(batch, int(place), band, plane, pixels)
            continue
        out = array[:, band]
        out[places[boxes.n_outside > 0]] = _fill(array)
        yield _Job(pixels, band, plane, boxes, out, places)


def _lacks(batch: Batch, place: int, band: int, plane: str, error: RippleError) -> None:
    batch.errors.setdefault((place, band), error)
    batch.plane_errors[place, band, plane] = error


def _run(batch: Batch, jobs: Sequence[_Job], workers: _Workers) -> None:
    if not jobs:
        return
    parts = [part for job in jobs for part in job.split(-(-workers.n // len(jobs)))]
    for job, failures in zip(parts, workers.run([partial(job.run, workers.retry) for job in parts]), strict=True):
        for i, error in failures.items():
            _lacks(batch, int(job.places[i]), job.band, job.plane, error)


def _fill(array: NDArray[Any]) -> float:
    return np.nan if array.dtype.kind == "f" else 0


def _bad_positions(batch: Batch) -> dict[int, RippleError]:
    bad: dict[int, RippleError] = {}
    for place in np.flatnonzero(~is_position(batch.positions)):
        try:
            check_position(*batch.positions[place].tolist())
        except RippleError as error:
            bad[int(place)] = error
    return bad
