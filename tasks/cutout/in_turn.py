"""Sources in turn, row by row: what one does not have, or cannot read, is asked of the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from absurd.errors import InvalidInputError
from absurd.tasks.cutout.errors import (
    BandNotFoundError,
    NotOnSkyError,
    PlaneNotFoundError,
    PositionOutsideError,
    RippleError,
)
from absurd.tasks.cutout.fetch import Find, Scales, bytes_of, fetch_chunk, find_all
from absurd.tasks.cutout.fetched import Fetched, failed
from absurd.tasks.cutout.images import ImageRef, Unread, may_pass, or_unread
from absurd.tasks.cutout.kept import KeptCutouts
from absurd.tasks.cutout.request import CutoutRequest
from absurd.tasks.cutout.resilience import is_away, may_be_elsewhere, none_answered
from absurd.tasks.cutout.retry import ONCE, RetryPolicy

AHEAD = 1_500
"""Requests of a list whose images are found at once, however few of them are cut at once."""

_Found: TypeAlias = "list[list[ImageRef]] | Exception | None"


def fetch_in_turn(
    sources: Mapping[str, Find],
    requests: Iterable[CutoutRequest],
    *,
    unread: Callable[[str], Unread] = lambda _: {},
    chunk: int = 32,
    most_bytes: float = math.inf,
    reduced: bool = False,
    threads: int | None = None,
    kept: KeptCutouts | None = None,
    retry: RetryPolicy = ONCE,
) -> Iterator[list[Fetched]]:
    """As `fetch`, of several sources by name: each request is asked of the first that has all of it.

    A list has the rows that were cut at once.  With `reduced`, what is not whole anywhere is given by the source that
    has most bands of it, then most planes.  A row has the name of its source, and what those before it said.  `unread`:
    what a source, by name, has passed over; where a row may lack what is there, it tells so.  At once are cut `chunk`
    requests at most, of about `most_bytes` of pixels, and one at least.  Where no source answers, the rows have failed,
    with AllSourcesFailedError, or the error of the only source.  Raises what would be the same for every request:
    ConfigurationError, and errors of a program.
    """
    waiting, first = iter(requests), 0
    ahead = max(chunk, AHEAD) if isinstance(requests, Sequence) else chunk
    while window := list(islice(waiting, ahead)):
        how = _How(sources, Scales(retry), unread, reduced=reduced, threads=threads, kept=kept, retry=retry)
        found: _Found = how.found_ahead(window)
        images = found if isinstance(found, list) else []
        for some in _that_fit(window, images, how.scales, chunk, most_bytes):
            yield _chunk(how, window[some], first, images[some] if images else found)
            found = None  # a source that was away is asked again for the next
            first += some.stop - some.start


@dataclass(frozen=True, slots=True)
class _How:
    """What is the same for all requests that are looked for at once."""

    sources: Mapping[str, Find]
    scales: Scales
    unread: Callable[[str], Unread]
    reduced: bool
    threads: int | None
    kept: KeptCutouts | None
    retry: RetryPolicy
    missed: dict[str, dict[str, RippleError]] = field(default_factory=dict)
    """What each source has passed over in any of its answers."""

    def find(self, name: str) -> Find:
        def find(positions: NDArray[np.float64], bands: Sequence[str]) -> list[list[ImageRef]]:
            found = self.sources[name](positions, bands)
            self.missed.setdefault(name, {}).update(self.unread(name))
            return found

        return find

    def found_ahead(self, requests: Sequence[CutoutRequest]) -> list[list[ImageRef]] | Exception:
        """The images of requests in the first source, or what it says."""
        try:
            return find_all(self.find(next(iter(self.sources))), requests)
        except Exception as error:  # it is raised where it counts
            return error

    def fetch(self, name: str, requests: Sequence[CutoutRequest], found: _Found) -> list[Fetched]:
        if isinstance(found, Exception):
            raise found
        how: dict[str, Any] = {"reduced": self.reduced, "threads": self.threads, "kept": self.kept, "retry": self.retry}
        rows = fetch_chunk(self.find(name), requests, found=found, scales=self.scales, **how)
        missed = self.missed.get(name)
        return [beside(each, dict(missed)) for each in rows] if missed else rows


def _that_fit(
    requests: Sequence[CutoutRequest],
    images: Sequence[list[ImageRef]],
    scales: Scales,
    chunk: int,
    most_bytes: float,
) -> Iterator[slice[int, int, None]]:
    """Requests that are cut at once; their images are looked at as late as may be, so that headers are still known."""
    start, held = 0, 0
    for place, each in enumerate(requests):
        size = bytes_of(each, images[place] if images else [], scales) if math.isfinite(most_bytes) else 0
        if place > start and (place - start == chunk or held + size > most_bytes):
            yield slice(start, place, None)
            start, held = place, 0
        held += size
    yield slice(start, len(requests), None)


def _chunk(how: _How, requests: Sequence[CutoutRequest], first: int, found: _Found) -> list[Fetched]:
    """Rows of requests; `found` are their images in the first source, or what that has said, if it was asked."""
    rows: dict[int, Fetched] = {}
    said: list[dict[str, Fetched | Exception]] = [{} for _ in requests]
    waiting = list(range(len(requests)))
    for name in how.sources:
        if not waiting:
            break
        try:
            got = how.fetch(name, [requests[place] for place in waiting], found)
        except Exception as error:
            if not (may_be_elsewhere(error) if len(how.sources) > 1 else is_away(error)):
                raise
            for place in waiting:
                said[place][name] = error
            continue
        finally:
            found = None  # the others are asked for what is left
        left = []
        for place, row in zip(waiting, got, strict=True):
            n_found = next((n for each in said[place].values() if (n := _n_found(each))), row.n_found)
            told = replace(row, row=first + place, source=name, n_found=n_found, **_before(said[place], row))
            if _is_whole(row) or not _of_the_source(row):
                rows[place] = told
            else:
                said[place][name] = told
                left.append(place)
        waiting = left
    for place in waiting:
        rows[place] = _best(first + place, requests[place], said[place])
    return [rows[place] for place in range(len(requests))]


def beside(row: Fetched, unread: Unread) -> Fetched:
    """A row beside files that could not be read; it tells of them if what they hold may be missing in it."""
    error = row.error
    if isinstance(error, PositionOutsideError | BandNotFoundError):
        error = or_unread(error, unread)
        row = replace(row, error=error, reason=error.message)
    elif error is not None or not (not row.request.bands or row.without or (row.quality and row.quality.outside)):
        return row
    return replace(row, unread=unread, passing=row.passing or any(map(may_pass, unread.values())))


def _is_whole(row: Fetched) -> bool:
    return row.error is None and not row.without


def _of_the_source(row: Fetched) -> bool:
    """Whether another source may do better."""
    unless = isinstance(row.error, InvalidInputError)
    return not unless or isinstance(row.error, PositionOutsideError | NotOnSkyError)


def _best(row: int, request: CutoutRequest, said: Mapping[str, Fetched | Exception]) -> Fetched:
    """Of what no source has wholly: the most that one has, else the errors of all."""
    rows = {name: each for name, each in said.items() if isinstance(each, Fetched)}
    some = [each for each in rows.values() if each.error is None]
    if some:
        best = max(some, key=lambda each: (len(each.bands), len(each.planes)))
        others = {name: each for name, each in said.items() if name != best.source}
        return replace(best, **_before(others, best))
    if not rows:
        return _unanswered(row, request, {name: each for name, each in said.items() if isinstance(each, Exception)})
    if len(said) == 1:
        return next(iter(rows.values()))
    errors = {name: each.error if isinstance(each, Fetched) else each for name, each in said.items()}
    # what is broken tells more than what is merely not there
    telling = [each for each in errors.values() if not isinstance(each, PositionOutsideError | BandNotFoundError)]
    error = next((each for each in (*telling, *errors.values()) if isinstance(each, RippleError)), None)
    reasons = "; ".join(f"{name}: {each}" for name, each in errors.items())
    made: RippleError = (type(error) if error else RippleError)(
        reasons, errors={name: str(each) for name, each in errors.items()}
    )
    made.__cause__ = error
    last = list(rows.values())[-1]
    return replace(last, reason=made.message, error=made, passing=_is_passing(said))


def _unanswered(row: int, request: CutoutRequest, errors: Mapping[str, Exception]) -> Fetched:
    """Of what no source has answered."""
    only = next(iter(errors.values())) if len(errors) == 1 else None
    made = failed(row, request, only if isinstance(only, RippleError) else none_answered(errors))
    last = list(errors)[-1] if errors else ""
    return replace(made, source=last, unanswered=True, passing=_is_passing(errors))


def _before(said: Mapping[str, Fetched | Exception], row: Fetched) -> dict[str, Any]:
    """What a row tells of the sources that did not answer."""
    reasons = {
        name: str(each) if isinstance(each, Exception) else each.reason or each.note for name, each in said.items()
    }
    return {"passed_over": reasons, "passing": row.passing or _is_passing(said)}


def _n_found(said: Fetched | Exception) -> int:
    return said.n_found if isinstance(said, Fetched) else 0


def _is_passing(said: Mapping[str, Fetched | Exception]) -> bool:
    """Whether any source may do better another time; what it does not have, or what is wrong, stays so."""
    for each in said.values():
        error = each.error if isinstance(each, Fetched) else each
        if isinstance(each, Fetched) and (error is None or each.unread):
            if each.passing or any(left.failed for left in each.without):
                return True
        elif not isinstance(error, InvalidInputError | BandNotFoundError | PlaneNotFoundError):
            return True
    return False
