"""``export.butler_catalog``: a catalogue of a Butler on the queue."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from absurd.context import RunContext
from absurd.executor import executor

for module in ("lsst", "pyarrow"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[butler]", name=module)


class CatalogParams(BaseModel):
    """Which catalogue, and where to."""

    model_config = ConfigDict(extra="forbid")

    out: str = Field(
        min_length=1, description="Parquet file to write; a relative path starts in the worker's working folder."
    )
    repo: str = Field(
        min_length=1,
        pattern=r"^[^@]*$",
        description="Butler repository, as a path, an address without a password, or a name of the repository index.",
    )
    collection: str | list[str] = Field(
        description="Collection, or several of which the first that has a dataset gives it; chains are followed."
    )
    dataset_type: str = Field(default="dia_source_visit", min_length=1, description="Type of the datasets.")
    filter_ids: str | None = Field(
        default=None, description="Parquet file with the ids of the rows to take; without it all are taken."
    )
    filter_column: str | None = Field(default=None, description="Column of that file, the first by default: int64.")
    target_column: str = Field(
        default="diaSourceId", min_length=1, description="Column of the datasets that has to hold one of the ids."
    )
    compression: Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"] = Field(
        default="zstd", description="Compression of the file's pages."
    )
    jobs: int = Field(default=2, ge=1, le=64, description="Datasets that are read side by side.")


@executor("export.butler_catalog", runs_in="process")
def butler_catalog(ctx: RunContext, params: CatalogParams) -> dict[str, Any]:
    """Export the datasets of one type in a Butler to a Parquet file, one row group for each dataset.

    A run that was killed is gone on with, dataset by dataset.  The result tells the file's path, rows, bytes, datasets
    and row groups, and in `unified` each dataset whose columns were not those of the file.
    """
    from absurd.tasks.export.butler.catalog import extract_catalog

    def told(done: int, total: int, rows: int) -> None:
        ctx.progress(done, total, f"{done} of {total} datasets, {rows:,} rows")

    given = params.model_dump(exclude={"out", "repo", "collection"})
    result = extract_catalog(
        params.out,
        params.repo,
        params.collection,
        progress=told,
        private=ctx.artifact(params.out, kind="parquet"),
        **given,
    )
    for each in result.unified:
        ctx.log.warning("catalog_unified", difference=each)
    return {
        "path": os.path.abspath(params.out),
        "rows": result.rows,
        "bytes": result.bytes,
        "row_groups": result.row_groups,
        "datasets": result.datasets,
        "columns": list(result.columns),
        "unified": list(result.unified),
        "taken_over": result.taken_over,
    }
