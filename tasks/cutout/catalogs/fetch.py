"""A catalogue asked for in one call, and joined with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from absurd.tasks.cutout.catalogs.filters import Where
from absurd.tasks.cutout.catalogs.rows import Rows
from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.regions import Region


class CatalogSource(Protocol):
    """A `ParquetCatalog`, a `ButlerCatalog`, or whatever else has rows on the sky."""

    name: str

    def stream(
        self, region: Region | None, columns: Sequence[str] | None = None, where: Sequence[Where] = ()
    ) -> Rows: ...


@dataclass(frozen=True, slots=True)
class Join:
    """Columns of another `pyarrow.Table`, found by a column that both have."""

    table: Any
    on: str
    """Its values must each be there once; NULL is none."""
    columns: Sequence[str]


def fetch_catalog(
    source: CatalogSource,
    region: Region | None = None,
    columns: Sequence[str] | None = None,
    where: Sequence[Where] = (),
    join: Sequence[Join] = (),
) -> Any:
    """The rows of a catalogue in a region that pass all comparisons, as a `pyarrow.Table`; units are in its fields.

    Each join adds columns with their units: NULL where the other table has no such row, and where the key is NULL.
    Rows stay in their order.
    All rows are in memory; `write_catalog` of what a source's `stream` gives keeps one part of them there at a time.
    Raises as the source's `stream`, and DataIdValidationError for a join that cannot be made.
    """
    table = source.stream(region, columns, where).table()
    for each in join:
        table = _joined(table, each)
    return table


def _joined(table: Any, join: Join) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    for side, names, needed in (
        ("the catalogue", table.column_names, [join.on]),
        ("the table to join", join.table.column_names, [join.on, *join.columns]),
    ):
        unknown = [name for name in needed if name not in names]
        if unknown:
            raise DataIdValidationError(f"{side} has no column {', '.join(unknown)}; it has {', '.join(names)}")
    twice = [name for name in join.columns if name in table.column_names]
    if twice:
        raise DataIdValidationError(f"both tables have a column {', '.join(twice)}", advice="rename it in one of them")
    keys = join.table[join.on].combine_chunks()
    if len(pc.unique(keys.drop_null())) < len(keys.drop_null()):
        raise DataIdValidationError(f"the table to join has values of {join.on!r} more than once")
    keys = pa.chunked_array([keys]).cast(table.schema.field(join.on).type).combine_chunks()
    rows = pc.index_in(table[join.on], keys, skip_nulls=True)
    for name in join.columns:
        table = table.append_column(join.table.schema.field(name).with_nullable(True), join.table[name].take(rows))
    return table
