"""From requests to cut-outs: of any source, in the order of the requests, each with what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from absurd.tasks.cutout.bands import is_meant
from absurd.tasks.cutout.batch import Batch, cut_batch
from absurd.tasks.cutout.errors import BandNotFoundError, InvalidSizeError, PositionOutsideError, RippleError
from absurd.tasks.cutout.fetched import Fetched, State, failed
from absurd.tasks.cutout.geometry import shape_in_pixels
from absurd.tasks.cutout.images import ImageRef
from absurd.tasks.cutout.kept import KeptCutouts, Looked
from absurd.tasks.cutout.parsed import parse
from absurd.tasks.cutout.request import IMAGE, CutoutRequest
from absurd.tasks.cutout.resilience import Reduced, reduce_to
from absurd.tasks.cutout.retry import ONCE, RetryPolicy
from absurd.tasks.cutout.sources.folder import is_beside
from absurd.tasks.cutout.straddle import Find, Slot, Stitching, complete
from absurd.tasks.cutout.targets import Targets
from absurd.tasks.image import pixel_scale

__all__ = ["Fetched", "Find", "Scales", "State", "bytes_of", "fetch", "fetch_chunk", "find_all"]

FINEST = 0.04
"""Arcseconds of a pixel of which nothing is known: of space telescopes."""
MOST_BANDS = 6
"""How many there may be, where they are neither named nor known."""


def fetch(
    find: Find, requests: Iterable[CutoutRequest], *, chunk: int = 32, reduced: bool = False, threads: int | None = None
) -> Iterable[Fetched]:
    """Cut all requests, `chunk` at a time, and give what became of each, in their order.

    What goes wrong with a request is its own row; only what goes wrong with the source itself is raised, as `find`
    raises it.  With `reduced`, a request of which not all can be had is given what can: see `reduce_to`.  Memory: the
    pixels of a chunk.
    """
    waiting, first = iter(requests), 0
    while some := list(islice(waiting, chunk)):
        yield from fetch_chunk(find, some, first_row=first, reduced=reduced, threads=threads)
        first += len(some)


def fetch_chunk(
    find: Find,
    requests: Sequence[CutoutRequest],
    *,
    first_row: int = 0,
    reduced: bool = False,
    threads: int | None = None,
    kept: KeptCutouts | None = None,
    retry: RetryPolicy = ONCE,
    found: Sequence[list[ImageRef]] | None = None,
    scales: Scales | None = None,
) -> list[Fetched]:
    """As `fetch`, of requests that are held in memory together with their cut-outs.

    What is in `kept` is taken from there, and small cut-outs are put there.  `retry`: of headers and pixels.  `found`:
    the images of each request, if they are known; `scales` of some of these.
    """
    done: dict[int, Fetched] = {}
    alike: dict[_Kind, list[int]] = {}
    found = find_all(find, requests) if found is None else found
    scales = scales or Scales(retry)
    for place, (request, images) in enumerate(zip(requests, found, strict=True)):
        try:
            kind = _kind_of(request, images, scales, reduced=reduced)
        except RippleError as error:
            done[place] = failed(first_row + place, request, error)
        else:
            alike.setdefault(kind, []).append(place)
    for kind, wanted in alike.items():
        looked: dict[int, Looked] = {}
        places = []
        for place in wanted:
            taken = _of_bands(found[place], kind.bands)
            there = kept.look(requests[place], kind.shape, taken) if kept is not None else None
            if there is not None and there.batch is not None:
                done[place] = _row(first_row + place, requests[place], there.batch, 0, kind, taken, {}, reduced=reduced)
                continue
            if there is not None:
                looked[place] = there
            places.append(place)
        if not places:
            continue
        positions = np.array([(requests[each].ra, requests[each].dec) for each in places], dtype=np.float64)
        targets = Targets.of(positions, [found[each] for each in places])
        batch = cut_batch(targets, kind.shape, kind.planes, threads=threads, retry=retry)
        cut_from = [_of_bands(found[place], kind.bands) for place in places]
        refs = {(number, batch.bands.index(each.band)): each for number, those in enumerate(cut_from) for each in those}
        stitched = complete(find, batch, refs, retry=retry)
        for number, place in enumerate(places):
            done[place] = _row(
                first_row + place, requests[place], batch, number, kind, cut_from[number], stitched, reduced=reduced
            )
            if kept is not None and place in looked:
                kept.put(looked[place], done[place])
    return [_told_of_found(done[place], found[place]) for place in range(len(requests))]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What requests have in common that are cut together."""

    shape: tuple[int, int]
    planes: tuple[str, ...]
    bands: tuple[str | None, ...]
    """As their images call them."""


def find_all(find: Find, requests: Sequence[CutoutRequest]) -> list[list[ImageRef]]:
    """The images of each request, found for all with the same bands at once."""
    found: list[list[ImageRef]] = [[] for _ in requests]
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, request in enumerate(requests):
        alike.setdefault(request.bands, []).append(place)
    for bands, places in alike.items():
        positions = np.array([(requests[each].ra, requests[each].dec) for each in places], dtype=np.float64)
        for place, images in zip(places, find(positions, bands), strict=True):
            found[place] = images
    return found


class Scales:
    """Pixel scales of images, asked of each once, with the planes that are cut: so its headers are read once."""

    def __init__(self, retry: RetryPolicy) -> None:
        self._retry = retry
        self._known: dict[tuple[ImageRef, tuple[str, ...]], tuple[float, float] | RippleError] = {}

    def of(self, image: ImageRef, planes: tuple[str, ...]) -> tuple[float, float] | RippleError:
        """Arcseconds per pixel along (y, x), or why they are not known."""
        asked = (image, planes)
        if asked not in self._known:
            try:
                self._known[asked] = pixel_scale(parse(image, planes, retry=self._retry).wcs)
            except RippleError as error:
                self._known[asked] = error
        return self._known[asked]


def bytes_of(request: CutoutRequest, images: Sequence[ImageRef], scales: Scales) -> int:
    """What the pixels of a request take, about: 4 bytes each.  Where its images tell nothing, the most it may be."""
    bands = tuple(dict.fromkeys(each.band for each in images)) or request.bands
    scale = (FINEST, FINEST)
    if request.unit == "arcsec":
        told = (scales.of(each, request.planes) for each in images)
        scale = next((each for each in told if not isinstance(each, RippleError)), scale)
    try:
        ny, nx = shape_in_pixels(request.size, request.unit, scale)
    except InvalidSizeError:  # nothing will be cut
        return 0
    return 4 * ny * nx * (len(bands) or MOST_BANDS) * len(request.planes)


def _kind_of(request: CutoutRequest, images: Sequence[ImageRef], scales: Scales, *, reduced: bool) -> _Kind:
    if not images and not request.bands:
        raise PositionOutsideError(
            f"ra {request.ra:.6f}, dec {request.dec:+.6f} is on no image of the source", ra=request.ra, dec=request.dec
        )
    bands = tuple(dict.fromkeys(each.band for each in images))
    missing = _missing(request.bands, bands)
    if missing and (not reduced or not bands):
        there = f"; of the others it has {', '.join(str(each) for each in bands)}" if bands else ""
        place = f"ra {request.ra:.6f}, dec {request.dec:+.6f}"
        raise BandNotFoundError(
            f"the source has no image in band {', '.join(missing)} at {place}{there}",
            advice="without bands all there are is cut",
            bands=list(missing),
        )
    size = request.size
    if request.unit == "pixel":
        return _Kind(shape_in_pixels(size, "pixel", (1.0, 1.0)), request.planes, bands)
    return _Kind(_shape_in_arcsec(request, _of_bands(images, bands), scales), request.planes, bands)


def _shape_in_arcsec(request: CutoutRequest, images: Sequence[ImageRef], scales: Scales) -> tuple[int, int]:
    """The shape that a size in arcseconds has in every band; a band that cannot be read is told where it is cut."""
    told = {each.band: scales.of(each, request.planes) for each in images}
    shapes = {
        band: shape_in_pixels(request.size, "arcsec", scale)
        for band, scale in told.items()
        if not isinstance(scale, RippleError)
    }
    for scale in told.values():
        if not shapes and isinstance(scale, RippleError):
            raise scale
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{ny} x {nx} in {band or 'a band that nothing tells'}" for band, (ny, nx) in shapes.items())
        raise InvalidSizeError(
            f"the pixels of the bands differ: a size in arcseconds is {sizes} pixels, and all bands are one array",
            advice="ask for one band at a time, or for a size in pixels",
        )
    return next(iter(shapes.values()))


def _missing(wanted: Sequence[str], there: Sequence[str | None]) -> tuple[str, ...]:
    """Wanted bands that are not there; what is called otherwise is as well, for a source has found what was meant."""
    known = [each for each in there if each is not None]
    return tuple(each for each in wanted if not any(is_meant(each, band) for band in known))


def _of_bands(images: Sequence[ImageRef], bands: Sequence[str | None]) -> tuple[ImageRef, ...]:
    """The first image of each band."""
    return tuple(next(each for each in images if each.band == band) for band in bands)


def _row(
    row: int,
    request: CutoutRequest,
    batch: Batch,
    place: int,
    kind: _Kind,
    images: tuple[ImageRef, ...],
    stitched: dict[Slot, Stitching],
    *,
    reduced: bool,
) -> Fetched:
    """What became of a request that was cut."""
    columns = {band: batch.bands.index(band) for band in kind.bands}
    left = Reduced(kind.bands, request.planes)
    try:
        if reduced:
            left = _reduced(request, batch, place, columns)
        else:
            for column in columns.values():
                if (place, column) in batch.errors:
                    raise batch.errors[place, column]
        beyond = int(max(batch.n_outside[place, columns[band]] for band in left.bands))
        if request.edge == "refuse" and beyond:
            taken = tuple(columns[band] for band in left.bands)
            return replace(failed(row, request, _edge(request, beyond)), batch=batch, place=place, columns=taken)
        return Fetched(
            row,
            request,
            "accepted",
            bands=left.bands,
            planes=left.planes,
            without=left.left_out,
            images=tuple(image for image, band in zip(images, kind.bands, strict=True) if band in left.bands),
            stitched={
                number: stitched[place, columns[band]]
                for number, band in enumerate(left.bands)
                if (place, columns[band]) in stitched
            },
            batch=batch,
            place=place,
            columns=tuple(columns[band] for band in left.bands),
        ).judged()
    except RippleError as error:
        return failed(row, request, error)


def _told_of_found(row: Fetched, found: Sequence[ImageRef]) -> Fetched:
    """A row with how many images there are, and how many of unknown band that it has nothing of and are no planes."""
    row = replace(row, n_found=len(found))
    if None not in row.bands:
        return row
    n, seen = 0, {(image.uri, hdu) for image in row.all_images for hdu in image.hdus.values()}
    for each in found:
        if each.band is None and (each.uri, each.hdus.get(IMAGE)) not in seen and not is_beside(each.uri):
            n += 1
            seen.update((each.uri, hdu) for hdu in each.hdus.values())
    return replace(row, n_nameless=n) if n else row


def _reduced(request: CutoutRequest, batch: Batch, place: int, columns: dict[str | None, int]) -> Reduced:
    """What can be had of a request; the image is needed, else the first plane.  Raises if that is nothing."""
    missing = _missing(request.bands, tuple(columns))
    failures: dict[tuple[str | None, str], Exception | str] = {
        (band, plane): error
        for band, column in columns.items()
        for plane in request.planes
        if (error := batch.error(place, column, (plane,))) is not None
    }
    failures |= {(band, plane): "the source has no image in it" for band in missing for plane in request.planes}
    errors = [each for each in failures.values() if isinstance(each, RippleError)]
    needed = IMAGE if IMAGE in request.planes else request.planes[0]
    if errors and all((band, needed) in failures for band in columns):
        raise errors[0]
    return reduce_to((*columns, *missing), request.planes, failures, needed_planes=(needed,))


def _edge(request: CutoutRequest, n_outside: int) -> PositionOutsideError:
    return PositionOutsideError(
        f"the box around ra {request.ra:.6f}, dec {request.dec:+.6f} has {n_outside} pixels beyond its image",
        advice="ask for a smaller size, or for edge 'fill'",
        ra=request.ra,
        dec=request.dec,
    )
