"""The rows of all datasets of one type to one Parquet file, a row group for each dataset."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from absurd.tasks.export.butler.errors import ButlerRepositoryError, CatalogSchemaError, FilterIdsError
from absurd.tasks.export.butler.filter_ids import Ids, mark, read_filter_ids
from absurd.tasks.export.butler.parts import Parts, kept_parts
from absurd.tasks.export.butler.schema import fit, unify
from absurd.tasks.export.destination import local_place
from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.export.manifest import ExportedFile, encode_document, manifest_path
from absurd.tasks.export.row_group import COMPRESSIONS
from absurd.tasks.export.sink import HashingSink
from absurd.tasks.export.stage import file_to_write, staged

if TYPE_CHECKING:
    from absurd.tasks.export.butler.repository import Dataset, Repository

DEFAULT_DATASET_TYPE = "dia_source_visit"
DEFAULT_TARGET_COLUMN = "diaSourceId"
OUT, IDS = "a catalogue", "a file of ids"
"""What takes no address, in words."""


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
    sha256: str
    """Of the file."""
    manifest: str
    """Where the file's manifest is."""


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
    private_manifest: str | os.PathLike[str] | None = None,
) -> CatalogResult:
    """Write the datasets of a type, found in `collections` of the Butler repository `repo`, to a Parquet file.

    One dataset for each data ID: that of the first collection that has it, chains followed.  They come in the order
    of their data IDs, each as one row group; those without rows leave none.  With `filter_ids`, a Parquet file, only
    rows whose `target_column` is among the ids in its `filter_column` (default: the first) are taken.  `jobs` datasets
    are read side by side; memory is bounded by twice as many.  `progress` is called with datasets done, datasets in
    all, and rows.

    The file appears under its name when it is whole.  Until then the datasets that are done lie in a hidden folder
    beside it: the same call after a kill goes on with them, and the file is the same, byte for byte.  A manifest is
    written beside it, see `absurd.tasks.export.manifest`.  `private` and `private_manifest` are where to write the
    two instead, as ``ctx.artifact`` gives it.

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
    final = file_to_write(local_place(os.fspath(out), OUT))
    wanted = None
    if filter_ids is not None:
        wanted = _Filter(target_column, read_filter_ids(local_place(os.fspath(filter_ids), IDS), filter_column))
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
            staged(private or final, is_dataset=False, private=private is not None) as stage,
        ):
            rows = row_groups = 0
            listed: list[dict[str, Any]] = []
            with (
                closing(HashingSink(stage.create(final.name))) as sink,
                pq.ParquetWriter(sink.native(), schema, compression=compression, **_layout(schema)) as writer,
            ):
                for number, table in enumerate(_tables(repository, datasets, schema, wanted, parts, pool, 2 * jobs)):
                    listed.append(_told(datasets[number], len(table)))
                    if len(table):
                        writer.write_table(table, row_group_size=len(table))
                        row_groups += 1
                        rows += len(table)
                    if progress is not None:
                        progress(number + 1, len(datasets), rows)
                footer = {"absurd.butler": json.dumps(told | {"datasets": listed}), "absurd.rows": str(rows)}
                writer.add_key_value_metadata(footer | {"absurd.version": version("absurd")})
            result = CatalogResult(
                rows=rows,
                bytes=sink.bytes,
                row_groups=row_groups,
                datasets=len(datasets),
                columns=tuple(schema.names),
                unified=tuple(unified),
                taken_over=parts.found,
                sha256=sink.sha256,
                manifest=manifest_path(str(final), is_dataset=False),
            )
            described = _manifest(final.name, schema, told | {"datasets": len(datasets)}, result)
            stage.conclude(described)
            if private_manifest is not None:
                Path(private_manifest).write_bytes(described)
    return result


def _told(dataset: Dataset, rows: int) -> dict[str, Any]:
    return {"id": dataset.id, "run": dataset.run, "data_id": dataset.data_id, "rows": rows}


def _manifest(name: str, schema: Any, told: Mapping[str, Any], result: CatalogResult) -> bytes:
    """The manifest of a catalogue: as that of an export, where no server has types and a snapshot."""
    file = ExportedFile(name, result.rows, result.bytes, result.row_groups, result.sha256, {})
    return encode_document(
        {
            "query": "",
            "butler": told,
            "rows": result.rows,
            "bytes": result.bytes,
            "row_groups": result.row_groups,
            "partition_by": [],
            "columns": [{"name": field.name, "arrow_type": str(field.type)} for field in schema],
            "files": [asdict(file)],
            "snapshot": "",
        }
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
