"""What exports are asked for with: the params of the executors."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from absurd.tasks.export.config import check_exports
from absurd.tasks.export.destination import place_to_write

Compression = Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"]


def _database_field() -> Any:
    return Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Service to export from, as pg_service.conf on the worker's machine names it; without it the "
        "queue's own database.  Addresses and passwords belong there, not here.",
    )


class Options(BaseModel):
    """How a file is to be made; what is not said is the default."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)  # an address may hold a password

    row_group_size: int | None = Field(
        default=None,
        ge=1,
        description="Rows in a row group, 1,000,000 by default; fewer where 48 MiB are reached first.",
    )
    compression: Compression | None = Field(
        default=None, description="Compression of the file's pages, zstd by default."
    )
    connections: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Connections that read side by side where the query can be split, 2 by default.",
    )
    on_unfit: Literal["error", "null", "text"] | None = Field(
        default=None,
        description="What becomes of a value that its column's type cannot keep: an error (default), NULL, which the "
        "result counts, or the server's text for the whole column.",
    )
    decimal: tuple[int, int] | None = Field(
        default=None, description="Digits in all and after the point, for numeric without a precision; else text."
    )
    type_map: dict[str, str] | None = Field(
        default=None, description='PostgreSQL types, by name or OID, to Arrow types, as in {"numeric": "float64"}.'
    )
    limit_mib_per_second: float | None = Field(
        default=None, gt=0, description="MiB that are read in a second at most; without it as many as can be."
    )
    block_size: int | None = Field(
        default=None,
        ge=1,
        description="Bytes that may be read ahead of what is written, 64 MiB by default; a longer row is no problem.",
    )
    partition_by: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None,
        min_length=1,
        description="Columns whose values make the folders of a dataset, `out`, and are left out of its files.",
    )
    max_rows_per_file: int | None = Field(
        default=None,
        ge=1,
        description="Rows in a file at most: `out` is then a folder of files part-00000.parquet, ...",
    )


class Entry(Options):
    """One query and its file."""

    sql: str = Field(min_length=1, description="The query: one SELECT, VALUES or TABLE, with or without a semicolon.")
    out: str = Field(
        min_length=1,
        description="Parquet file to write, or the folder of a dataset: a path, where a relative one starts in the "
        "worker's working folder, or an address such as s3://bucket/name.parquet, without credentials.",
    )

    @field_validator("out")
    @classmethod
    def _is_place(cls, out: str) -> str:
        place_to_write(out)
        return out


class ExportParams(Entry):
    """What to export, and where to."""

    database: str | None = _database_field()
    keep_temp: bool = Field(
        default=False, description="Keep the unfinished file of an export that fails, as `out` with .part behind it."
    )
    batch: UUID | None = Field(
        default=None, description="Task of `export.batch` whose snapshot is to be seen; set by that task."
    )


class BatchParams(Options):
    """The exports of a batch, and the options of those that do not say otherwise."""

    exports: list[Entry] = Field(
        min_length=1, max_length=10_000, description="Each with `sql`, `out`, and options of its own if it has any."
    )
    database: str | None = _database_field()
    keep_temp: bool = Field(default=False, description="Keep the unfinished files of exports that fail.")
    stop_on_failure: bool = Field(
        default=False, description="Cancel what has not ended once an export has failed for good."
    )

    @model_validator(mode="after")
    def _each_file_once(self) -> BatchParams:
        check_exports(
            [each.model_dump(exclude_none=True) for each in self.exports], "the batch", keep_temp=self.keep_temp
        )
        return self

    def export(self, number: int) -> dict[str, Any]:
        """The params of one export, without those that make its task."""
        common = self.model_dump(exclude={"exports", "stop_on_failure"}, exclude_none=True)
        return common | self.exports[number].model_dump(exclude_none=True)
