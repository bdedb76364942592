"""The cut-outs of a part of a batch, their fan-in, and a whole batch here and now."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from absurd.tasks.artifact import remove
from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError, InvalidSizeError, RippleError
from absurd.tasks.cutout.fan_in import MANIFEST, SHEET, TENSORS, At, merge_products
from absurd.tasks.cutout.held import Held
from absurd.tasks.cutout.in_use import HasEnded, in_use
from absurd.tasks.cutout.normalise import preprocessing
from absurd.tasks.cutout.part import Kept, PartWriter
from absurd.tasks.cutout.plan import PARTS, ROWS_OF_A_PART, Plan, forget_others, plan_batch, read_requests
from absurd.tasks.cutout.positions import Position, listed, read_positions
from absurd.tasks.cutout.resume import Beyond, has_its_files, is_kept, is_settled
from absurd.tasks.cutout.sources.places import Indexed, fetcher_for
from absurd.tasks.cutout.vanished import Vanished

if TYPE_CHECKING:
    from absurd.tasks.cutout.fetcher import LsstDataFetcher
    from absurd.tasks.cutout.params import BatchOptions, BatchParams
    from absurd.tasks.cutout.request import CutoutRequest

CHUNK = 32 << 20
"""Bytes of pixels that are cut at once, about; one cut-out at least."""
FETCHERS = 4
"""How many a process keeps open."""

Progress = Callable[[int, int], None]
"""Called with how many rows are done, and of how many."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch, and where it is."""

    rows: int
    accepted: int
    rejected: int
    failed: int
    cut: int
    """Rows that were done now; the others are as an earlier run has left them."""
    manifest: str
    contact_sheet: str
    tensors: str | None


@dataclass(frozen=True, slots=True)
class CutPart:
    """What became of a part of a batch."""

    rows: int
    """Those that were done now."""
    away: RippleError | None = None
    """What a source said that did not answer: the rows it was asked for have failed with it."""


def fetcher_of(options: BatchOptions, indexed: Indexed) -> AbstractContextManager[LsstDataFetcher]:
    """The fetcher of a batch; one process keeps those of its last batches, with what they have read of headers."""
    source, collections = json.dumps(options.source, sort_keys=True), tuple(options.collections)

    def make() -> LsstDataFetcher:
        return fetcher_for(options.source, indexed=indexed, collections=collections, batch_size=ROWS_OF_A_PART)

    return _fetchers.lend((source, collections, indexed), make)


_fetchers: Held[tuple[str, tuple[str, ...], Indexed], LsstDataFetcher] = Held(FETCHERS)


def plan(params: BatchParams, indexed: Indexed) -> Plan:
    """Divide a batch into parts; `indexed` gives the indexes of images that it names.

    Raises what its table raises if it cannot be used, and ButlerConfigError.
    """
    given = params.positions
    if isinstance(given, str):
        positions: Iterable[Position] = read_positions(given)
    else:
        positions = listed(each if isinstance(each, tuple) else each.model_dump() for each in given)
    if params.preprocessing is not None:
        preprocessing(params.preprocessing)  # one that is not known is told of before anything is cut
    with fetcher_of(params, indexed) as fetcher:
        return plan_batch(params, positions, fetcher, Path(params.out) / PARTS)


def cut_part(
    options: BatchOptions,
    name: str,
    indexed: Indexed,
    *,
    thumbnails: int = 0,
    progress: Progress | None = None,
    task_id: UUID | None = None,
) -> CutPart:
    """Cut what a part asks for, unless an earlier run has.

    FITS files tell `task_id`.  What goes wrong with a row is told in it.  Raises OSError, and RippleError of a part
    or of a configuration that cannot be used.
    """
    with fetcher_of(options, indexed) as fetcher:
        return _cut_part(options, name, fetcher, thumbnails, progress, task_id)


def _cut_part(
    options: BatchOptions,
    name: str,
    fetcher: LsstDataFetcher,
    thumbnails: int,
    progress: Progress | None,
    task_id: UUID | None,
) -> CutPart:
    out = Path(options.out)
    path = out / PARTS / f"{name}.arrow"
    if is_kept(path, out, options.bands, fetcher):
        return CutPart(0)
    path.unlink(missing_ok=True)
    hook = None if options.preprocessing is None else preprocessing(options.preprocessing)
    requests: list[CutoutRequest] = []
    asked: list[Position] = []
    beyond, vanished = Beyond(), Vanished()
    away: RippleError | None = None
    kept = Kept(options.fits, options.tensors, hook)
    with PartWriter(path, out, kept, thumbnails=thumbnails, task_id=task_id) as writer:
        planned = list(read_requests(out / PARTS, name))
        for each in planned:
            try:
                requests.append(_request(options, each))
                asked.append(each)
            except RippleError as error:
                writer.refuse(_asked(each), error.code, error.message)
        rows = fetcher.fetch_batch_cutouts(requests, reduced=options.reduced, most_bytes=CHUNK)
        for done, row in enumerate(rows, 1):
            position = asked[done - 1]
            told = vanished.told(replace(row, row=position.row), position.images)
            writer.add(told, n_planned=len(position.images))
            beyond.add(row)
            away = row.error if row.unanswered else away
            if progress is not None:
                progress(done, len(requests))
        beyond.write(path, options.bands, fetcher)
    return CutPart(len(planned), away)


def fan_in(
    options: BatchOptions,
    planned: Plan,
    *,
    cut: int,
    lost: Mapping[str, str] | None = None,
    at: At | None = None,
    private: bool = False,
) -> BatchResult:
    """The products of all parts.  Rows of which a part has left nothing have failed, by the reason in `lost`, by name.

    `at` and `private` as `merge_products`.
    """
    out = Path(options.out)
    paths, lost = [], lost or {}
    for each in planned.parts:
        path = out / PARTS / f"{each.name}.arrow"
        if not (has_its_files(path, out) if each.name in lost else path.is_file()):
            reason = f"its part of the batch failed: {lost.get(each.name, 'its file is gone')}"
            path = path.with_suffix(".lost.arrow")
            with PartWriter(path, out, Kept()) as writer:
                for position in read_requests(out / PARTS, each.name):
                    writer.refuse(_asked(position), CutoutExtractionError.code, reason)
        paths.append(path)
    written: set[str] = set()

    def placed(name: str) -> str | Path:
        written.add(name)
        return out / name if at is None else at(name)

    counts = merge_products(
        paths, placed, tensors=options.tensors, title=f"Cut-outs in {out.resolve().name}", private=private
    )
    forget_others(out / PARTS, planned)
    where = {name: os.path.abspath(out / name) for name in written}
    return BatchResult(
        planned.rows,
        **counts,
        cut=cut,
        manifest=where[MANIFEST],
        contact_sheet=where[SHEET],
        tensors=where.get(TENSORS),
    )


def cut_here(
    params: BatchParams,
    indexed: Indexed,
    *,
    progress: Progress | None = None,
    has_ended: HasEnded = lambda _: False,
) -> BatchResult:
    """A whole batch in this process; what an earlier run of the same has cut is not cut again.

    `has_ended` is asked of the task of a batch that is at work in the same folder.  Raises FolderInUseError, and as
    `plan` and `cut_part`.
    """
    with in_use(Path(params.out) / PARTS, has_ended=has_ended):
        return _cut_here(params, indexed, progress)


def _cut_here(params: BatchParams, indexed: Indexed, progress: Progress | None) -> BatchResult:
    planned = plan(params, indexed)
    cut = done = 0
    for each in planned.parts:

        def told(rows: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + rows, planned.rows)

        cut += cut_part(params, each.name, indexed, thumbnails=each.thumbnails, progress=told).rows
        done += each.rows
    result = fan_in(params, planned, cut=cut)
    if not params.keep_parts and is_done(params, planned):
        remove(Path(params.out) / PARTS)
    return result


def is_done(options: BatchOptions, planned: Plan) -> bool:
    """Whether no later run can make any row better, of the same images."""
    return is_settled(Path(options.out) / PARTS / f"{each.name}.arrow" for each in planned.parts)


def _request(options: BatchOptions, position: Position) -> CutoutRequest:
    if position.problem is not None:
        raise DataIdValidationError(position.problem)
    size = options.size if position.size is None else position.size
    if size is None:
        raise InvalidSizeError("it has no size", advice="give size, or a column of that name")
    return options.request(position.ra, position.dec, size, position.id)


def _asked(position: Position) -> dict[str, Any]:
    """What a row tells of it; what is no number is null there."""
    ra, dec = (each if math.isfinite(each) else None for each in (position.ra, position.dec))
    return {"row": position.row, "id": position.id, "ra": ra, "dec": dec}
