"""Rows of a catalogue on their way: part after part, with the units of their columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError

DEGREES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "rad": 57.29577951308232, "radian": 57.29577951308232}
"""Degrees of each unit that a column of positions may have; one without a unit is in degrees."""
_TOLD = ("unit", "description")
_ASTROPY = b"table_meta_yaml"
"""Where astropy keeps units in Parquet and Arrow: in the metadata of the schema, for all columns together."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What `CatalogSource.stream` gives."""

    schema: Any
    """`pyarrow.Schema` of the rows; the metadata of its fields have ``unit`` and ``description``, where told."""
    parts: Iterable[Any]
    """`pyarrow.Table` after table, to be gone through once; a type may be another than in `schema`."""

    def table(self) -> Any:
        """All of them in memory.  Raises CutoutExtractionError for parts that differ in their columns."""
        try:
            table = pa.concat_tables([self.schema.empty_table(), *self.parts], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise CutoutExtractionError(f"parts of the catalogue differ in their columns: {error}") from error
        return table.cast(pa.schema([_told_by(self.schema, each) for each in table.schema]))

    def gathered(self, rows: int) -> Iterator[Any]:
        """Tables of the schema, joined from smaller parts until there are so many rows.

        Raises CutoutExtractionError for a part that does not fit the schema.
        """
        waiting: list[Any] = []
        held = 0
        for part in self.parts:
            if not part.num_rows:
                continue
            odd = sorted(set(part.column_names) ^ set(self.schema.names))
            if odd:
                raise CutoutExtractionError(
                    f"parts of the catalogue differ in their columns: not all have {', '.join(odd)}",
                    advice="name the columns that are wanted",
                )
            try:
                waiting.append(part.select(self.schema.names).cast(self.schema))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise CutoutExtractionError(f"parts of the catalogue differ in their columns: {error}") from error
            held += part.num_rows
            if held >= rows:
                yield pa.concat_tables(waiting)
                waiting, held = [], 0
        if waiting:
            yield pa.concat_tables(waiting)


def rows_of(table: Any) -> Rows:
    """A `pyarrow.Table` as it stands."""
    schema = with_units(table.schema)
    return Rows(schema, [table])


def one_schema(found: Any, other: Any, place: str) -> Any:
    """What holds the columns of both: of two types of numbers the wider one.

    Raises CutoutExtractionError, which names `place`, for a column that `other` lacks, or has in another unit or in a
    type that does not go with the first.
    """
    missing = [name for name in found.names if name not in other.names]
    if missing:
        raise CutoutExtractionError(f"{place} has no column {', '.join(missing)}, as the first file has")
    fields = [other.field(name) for name in found.names]
    for first, field in zip(found, fields, strict=True):
        units = about(first).get("unit"), about(field).get("unit")
        if None not in units and units[0] != units[1]:
            raise CutoutExtractionError(f"{first.name} is in {units[1]} in {place}, in {units[0]} in the first file")
    try:
        wider = pa.unify_schemas([found.remove_metadata(), pa.schema(fields)], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CutoutExtractionError(f"{place} differs from the first file in its columns: {error}") from error
    return pa.schema([_told_by(found, each) for each in wider])


def with_units(schema: Any) -> Any:
    """A `pyarrow.Schema` with units and descriptions in its fields, also where astropy has kept them elsewhere.

    What else its metadata tell is left out: it is of all columns and rows that there were, not of those that are taken.
    Raises CutoutExtractionError for what astropy cannot read again.
    """
    told = _told_by_astropy((schema.metadata or {}).get(_ASTROPY))
    return pa.schema([each.with_metadata(told.get(each.name, {}) | about(each)) for each in schema])


def for_astropy(schema: Any) -> Any:
    """The schema with its units as astropy and the Butler read them, beside those in the fields."""
    columns = [{"name": each.name, "datatype": str(each.type), **about(each)} for each in schema]
    return schema.with_metadata({_ASTROPY: json.dumps({"datatype": columns}).encode()})  # JSON is YAML


def about(field: Any) -> dict[str, str]:
    """Unit and description of a `pyarrow.Field`, where they are told."""
    told = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return {key: told[key] for key in _TOLD if told.get(key)}


def degrees_of(field: Any) -> float:
    """How many degrees are one of a column of positions.

    Raises DataIdValidationError for a unit of another kind, and for what are no numbers.
    """
    if not (pa.types.is_floating(field.type) or pa.types.is_integer(field.type)):
        raise DataIdValidationError(
            f"the positions in {field.name!r} are of the type {field.type}; they must be numbers",
            advice="name other columns in position",
        )
    unit = about(field).get("unit", "").strip()
    if unit and unit not in DEGREES:
        raise DataIdValidationError(
            f"the positions in {field.name!r} are in {unit!r}; they must be in degrees or radians",
            advice="name other columns in position",
        )
    return DEGREES.get(unit, 1.0)


def _told_by_astropy(header: bytes | None) -> dict[str, dict[str, str]]:
    if header is None:
        return {}
    from astropy.table import meta

    try:
        columns = meta.get_header_from_yaml(header.decode().split("\n"))["datatype"]
        found: dict[str, dict[str, str]] = {}
        for each in columns:
            told: Mapping[str, Any] = each
            found[told["name"]] = {key: str(told[key]) for key in _TOLD if told.get(key) is not None}
    except (meta.YamlParseError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise CutoutExtractionError(f"the header that astropy has left in the file cannot be read: {error}") from error
    return found


def _told_by(schema: Any, field: Any) -> Any:
    """A field, nullable, with what the field of its name in `schema` tells."""
    return field.with_metadata(schema.field(field.name).metadata).with_nullable(True)
