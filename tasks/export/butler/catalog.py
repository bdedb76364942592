"""The rows of all datasets of one type to one Parquet file, a row group for each dataset."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from absurd.tasks.artifact import write_aside
from absurd.tasks.export.butler.errors import ButlerRepositoryError, CatalogSchemaError, FilterIdsError
from absurd.tasks.export.butler.filter_ids import Ids, mark, read_filter_ids
from absurd.tasks.export.butler.parts import Parts, kept_parts
from absurd.tasks.export.butler.schema import fit, unify
from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.export.row_group import COMPRESSIONS

if TYPE_CHECKING:
    from absurd.tasks.export.butler.repository import Dataset, Repository

DEFAULT_DATASET_TYPE = "dia_source_visit"
DEFAULT_TARGET_COLUMN = "diaSourceId"


@dataclass(frozen=True, slots=True)
class CatalogResult:
    """What was written."""

    rows: int
    bytes: int
    """Size of the file."""
    row_groups: int
    """As many as datasets with rows."""
    datasets: int
    columns: tuple[str, ...]
    unified: tuple[str, ...]
    """A sentence for each dataset whose columns are not those of the file."""
    taken_over: int
    """Datasets that a run before had done already."""


@dataclass(frozen=True, slots=True)
class _Filter:
    column: str
    ids: Ids

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.ids.tobytes()).hexdigest()


def extract_catalog(
    out: str | os.PathLike[str],
    repo: str,
    collections: str | Sequence[str],
    *,
    dataset_type: str = DEFAULT_DATASET_TYPE,
    filter_ids: str | os.PathLike[str] | None = None,
    filter_column: str | None = None,
    target_column: str = DEFAULT_TARGET_COLUMN,
    compression: str = "zstd",
    jobs: int = 2,
    progress: Callable[[int, int, int], None] | None = None,
    private: str | os.PathLike[str] | None = None,
) -> CatalogResult:
    """Write the datasets of a type, found in `collections` of the Butler repository `repo`, to a Parquet file.

    One dataset for each data ID: that of the first collection that has it, chains followed.  They come in the order
    of their data IDs, each as one row group; those without rows leave none.  With `filter_ids`, a Parquet file, only
    rows whose `target_column` is among the ids in its `filter_column` (default: the first) are taken.  `jobs` datasets
    are read side by side; memory is bounded by twice as many.  `progress` is called with datasets done, datasets in
    all, and rows.

    The file appears under its name when it is whole.  Until then the datasets that are done lie in a hidden folder
    beside it: the same call after a kill goes on with them, and the file is the same, byte for byte.  `private` is
    where to write the file itself instead, as ``ctx.artifact`` gives it.

    Raises
    ------
    ButlerRepositoryError
        There is no such repository, collection or type, or no dataset.
    FilterIdsError
        What is to be filtered by is not int64.
    CatalogSchemaError
        The columns of a dataset do not go together with those of the others; dataset and column are named.
    CatalogReadError
        A dataset cannot be read.
    ExportConfigError
        An option has a value that cannot be used.
    ConflictError
        Another process writes the same file.
    OSError
        A file cannot be read or written.
    """
    from absurd.tasks.export.butler.repository import Repository

    if compression not in COMPRESSIONS:
        raise ExportConfigError(f"compression is {compression!r}; it must be one of {', '.join(COMPRESSIONS)}")
    if jobs < 1:
        raise ExportConfigError(f"jobs is {jobs}; it must be at least 1")
    names = [collections] if isinstance(collections, str) else list(collections)
    wanted = None if filter_ids is None else _Filter(target_column, read_filter_ids(filter_ids, filter_column))
    final = Path(out)
    repository = Repository(repo, jobs)
    datasets = repository.find(dataset_type, names)
    if not datasets:
        raise ButlerRepositoryError(f"there are no datasets of type {dataset_type!r} in {', '.join(names)}")
    with ThreadPoolExecutor(jobs) as pool:
        schemas = list(pool.map(repository.schema, datasets))
        for dataset, schema in zip(datasets, schemas, strict=True):
            if wanted is not None and wanted.column not in schema.names:
                raise CatalogSchemaError(
                    f"dataset {dataset} has no column {wanted.column!r} to pick rows by", dataset=dataset.id
                )
        schema, unified = unify(zip(map(str, datasets), schemas, strict=True))
        plan = _plan(datasets, schema, wanted, compression)
        told: dict[str, Any] = {"dataset_type": dataset_type, "collections": names, "find_first": True}
        if wanted is not None:
            told |= {"target_column": wanted.column, "filter_ids": len(wanted.ids), "filter_sha256": wanted.sha256}
        with (
            kept_parts(final.with_name(f".{final.name}.parts"), plan) as parts,
            write_aside(private or final, private=private is not None) as part,
            pq.ParquetWriter(part, schema, compression=compression, **_layout(schema)) as writer,
        ):
            rows = row_groups = 0
            listed: list[dict[str, Any]] = []
            for number, table in enumerate(_tables(repository, datasets, schema, wanted, parts, pool, 2 * jobs)):
                dataset = datasets[number]
                listed.append({"id": dataset.id, "run": dataset.run, "data_id": dataset.data_id, "rows": len(table)})
                if len(table):
                    writer.write_table(table, row_group_size=len(table))
                    row_groups += 1
                    rows += len(table)
                if progress is not None:
                    progress(number + 1, len(datasets), rows)
            told["datasets"] = listed
            footer = {"absurd.butler": json.dumps(told), "absurd.rows": str(rows), "absurd.version": version("absurd")}
            writer.add_key_value_metadata(footer)
    return CatalogResult(
        rows=rows,
        bytes=Path(private or final).stat().st_size,
        row_groups=row_groups,
        datasets=len(datasets),
        columns=tuple(schema.names),
        unified=tuple(unified),
        taken_over=parts.found,
    )


def _tables(
    repository: Repository,
    datasets: Sequence[Dataset],
    schema: Any,
    wanted: _Filter | None,
    parts: Parts,
    pool: ThreadPoolExecutor,
    ahead: int,
) -> Iterator[Any]:
    """The table of each dataset in turn, while others are read.

    Each one is taken from where it is kept: whichever run kept it, the file is made of the same pieces.
    """

    def make(number: int) -> Any:
        table = parts.load(number)
        if table is None:
            parts.save(number, fit(_rows(repository, datasets[number], wanted), schema))
            table = parts.load(number)
        return table

    running: deque[Future[Any]] = deque()
    try:
        for number in range(len(datasets)):
            running.append(pool.submit(make, number))
            if len(running) >= ahead:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for each in running:
            each.cancel()


def _rows(repository: Repository, dataset: Dataset, wanted: _Filter | None) -> Any:
    if wanted is None:
        return repository.table(dataset)
    where = f"column {wanted.column!r} of dataset {dataset}"
    column = repository.table(dataset, [wanted.column])[wanted.column]
    try:
        found = mark(column.combine_chunks(), wanted.ids, where)
    except FilterIdsError as error:
        raise CatalogSchemaError(error.message, dataset=dataset.id) from None
    if not found.any():  # the other columns need not be read
        return repository.schema(dataset).empty_table()
    return repository.table(dataset).filter(pa.array(found))


def _plan(datasets: Sequence[Dataset], schema: Any, wanted: _Filter | None, compression: str) -> str:
    """What tells whether tables that lie there are of the same extraction."""
    digest = hashlib.sha256(schema.serialize().to_pybytes())
    for dataset in datasets:
        digest.update(dataset.id.encode())
    picked = "all rows" if wanted is None else f"{wanted.column} {wanted.sha256}"
    return f"{digest.hexdigest()}\n{picked}\n{compression}\n{version('absurd')} {pa.__version__}\n"


def _layout(schema: Any) -> dict[str, Any]:
    """Strings get a dictionary and floats are split by byte, as in every export."""
    texts = [field.name for field in schema if field.type in (pa.string(), pa.large_string(), pa.binary())]
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    return {"use_dictionary": texts or False, "use_byte_stream_split": floats or False, "write_page_index": True}
