"""Sources in turn, row by row: what one does not have, or cannot read, is asked of the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from absurd.errors import InvalidInputError
from absurd.tasks.cutout.errors import (
    BandNotFoundError,
    NotOnSkyError,
    PlaneNotFoundError,
    PositionOutsideError,
    RippleError,
)
from absurd.tasks.cutout.fetch import Find, fetch_chunk
from absurd.tasks.cutout.fetched import Fetched
from absurd.tasks.cutout.kept import KeptCutouts
from absurd.tasks.cutout.request import CutoutRequest
from absurd.tasks.cutout.resilience import may_be_elsewhere, none_answered
from absurd.tasks.cutout.retry import ONCE, RetryPolicy


def fetch_in_turn(
    sources: Mapping[str, Find],
    requests: Iterable[CutoutRequest],
    *,
    chunk: int = 32,
    reduced: bool = False,
    threads: int | None = None,
    kept: KeptCutouts | None = None,
    retry: RetryPolicy = ONCE,
) -> Iterator[Fetched]:
    """As `fetch`, of several sources by name: each request is asked of the first that has all of it.

    With `reduced`, what is not whole anywhere is given by the source that has most bands of it, then most planes.  A
    row has the name of its source, and what those before it said.  Raises what a source says that keeps every request
    from being served, if none of the others answers: AllSourcesFailedError, or the error of the only source.
    """
    waiting, first = iter(requests), 0
    while some := list(islice(waiting, chunk)):
        yield from _chunk(sources, some, first, reduced=reduced, threads=threads, kept=kept, retry=retry)
        first += len(some)


def _chunk(
    sources: Mapping[str, Find],
    requests: Sequence[CutoutRequest],
    first: int,
    *,
    reduced: bool,
    threads: int | None,
    kept: KeptCutouts | None,
    retry: RetryPolicy,
) -> list[Fetched]:
    rows: dict[int, Fetched] = {}
    said: list[dict[str, Fetched | Exception]] = [{} for _ in requests]
    away: dict[str, Exception] = {}
    waiting = list(range(len(requests)))
    for name, find in sources.items():
        if not waiting:
            break
        try:
            some = [requests[place] for place in waiting]
            found = fetch_chunk(find, some, reduced=reduced, threads=threads, kept=kept, retry=retry)
        except Exception as error:
            if len(sources) == 1 or not may_be_elsewhere(error):
                raise
            away[name] = error
            for place in waiting:
                said[place][name] = error
            continue
        left = []
        for place, row in zip(waiting, found, strict=True):
            told = replace(row, row=first + place, source=name, **_before(said[place]))
            if _is_whole(row) or not _of_the_source(row):
                rows[place] = told
            else:
                said[place][name] = told
                left.append(place)
        waiting = left
    if waiting and len(away) == len(sources):
        raise none_answered(away)
    return [rows[place] if place in rows else _best(said[place]) for place in range(len(requests))]


def _is_whole(row: Fetched) -> bool:
    return row.error is None and not row.without


def _of_the_source(row: Fetched) -> bool:
    """Whether another source may do better."""
    unless = isinstance(row.error, InvalidInputError)
    return not unless or isinstance(row.error, PositionOutsideError | NotOnSkyError)


def _best(said: Mapping[str, Fetched | Exception]) -> Fetched:
    """Of what no source has wholly: the most that one has, else the errors of all."""
    rows = {name: each for name, each in said.items() if isinstance(each, Fetched)}
    some = [each for each in rows.values() if each.error is None]
    if some:
        best = max(some, key=lambda each: (len(each.bands), len(each.planes)))
        others = {name: each for name, each in said.items() if name != best.source}
        return replace(best, **_before(others))
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


def _before(said: Mapping[str, Fetched | Exception]) -> dict[str, Any]:
    """What a row tells of the sources that did not answer."""
    reasons = {
        name: str(each) if isinstance(each, Exception) else each.reason or each.note for name, each in said.items()
    }
    return {"passed_over": reasons, "passing": _is_passing(said)}


def _is_passing(said: Mapping[str, Fetched | Exception]) -> bool:
    """Whether any source may do better another time; what it does not have, or what is wrong, stays so."""
    for each in said.values():
        error = each.error if isinstance(each, Fetched) else each
        if error is None:
            assert isinstance(each, Fetched)
            if each.passing or any(left.failed for left in each.without):
                return True
        elif not isinstance(error, InvalidInputError | BandNotFoundError | PlaneNotFoundError):
            return True
    return False
