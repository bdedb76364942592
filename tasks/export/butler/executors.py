"""``export.butler_catalog``: a catalogue of a Butler on the queue."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from absurd.context import RunContext
from absurd.executor import executor
from absurd.tasks.artifact import take_after
from absurd.tasks.export.destination import local_place

for module in ("lsst", "pyarrow"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[butler]", name=module)


class CatalogParams(BaseModel):
    """Which catalogue, and where to."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)  # an address may hold a password

    out: str = Field(
        min_length=1, description="Parquet file to write; a relative path starts in the worker's working folder."
    )
    repo: str = Field(
        min_length=1,
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

    @field_validator("out", "filter_ids")
    @classmethod
    def _is_local(cls, path: str | None) -> str | None:
        if path is not None:
            local_place(path, "this")
        return path

    @field_validator("repo")
    @classmethod
    def _holds_no_secret(cls, repo: str) -> str:
        if "://" in repo and "@" in urlsplit(repo).netloc:
            raise ValueError(
                "the address of the repository holds a user or a password, and a task would keep it where others read "
                "it: leave it out, and give it to the processes that export by their environment"
            )
        return repo


@executor("export.butler_catalog", runs_in="process")
def butler_catalog(ctx: RunContext, params: CatalogParams) -> dict[str, Any]:
    """Export the datasets of one type in a Butler to a Parquet file, one row group for each dataset.

    A run that was killed is gone on with, dataset by dataset.  The result tells the file's path, rows, bytes, SHA-256,
    datasets and row groups, its manifest, and in `unified` each dataset whose columns were not those of the file.
    """
    from absurd.tasks.export.butler.catalog import OUT, extract_catalog
    from absurd.tasks.export.manifest import manifest_path
    from absurd.tasks.export.stage import file_to_write

    def told(done: int, total: int, rows: int) -> None:
        ctx.progress(done, total, f"{done} of {total} datasets, {rows:,} rows")

    given = params.model_dump(exclude={"out", "repo", "collection"})
    final = file_to_write(local_place(params.out, OUT))
    manifest = file_to_write(manifest_path(str(final), is_dataset=False))
    written = {final: ctx.artifact(final, kind="parquet"), manifest: ctx.artifact(manifest, kind="manifest")}
    result = extract_catalog(
        final,
        params.repo,
        params.collection,
        progress=told,
        private=written[final],
        private_manifest=written[manifest],
        **given,
    )
    for place, part in written.items():
        take_after(place, Path(part))
    for each in result.unified:
        ctx.log.warning("catalog_unified", difference=each)
    return {
        "path": str(final),
        "rows": result.rows,
        "bytes": result.bytes,
        "row_groups": result.row_groups,
        "datasets": result.datasets,
        "columns": list(result.columns),
        "unified": list(result.unified),
        "taken_over": result.taken_over,
        "sha256": result.sha256,
        "manifest": str(manifest),
    }
