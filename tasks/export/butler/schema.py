"""One schema for the tables of many datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from absurd.tasks.export.butler.errors import CatalogSchemaError

_LENGTHS = (b"lsst::arrow::len::", b"table::len::")
_OF_ONE_TABLE = (b"lsst::arrow::rowcount",)


def unify(schemas: Iterable[tuple[str, Any]]) -> tuple[Any, list[str]]:
    """The schema that holds the columns of all, and a sentence for each dataset that differs from it.

    `schemas` are Arrow schemas with the names of their datasets, the first of which gives the order of the columns.
    Numbers widen where nothing is lost (int32 to int64, float32 to float64); a column that a dataset lacks is NULL
    there.  Raises CatalogSchemaError, with dataset and column, for types or units that do not go together.
    """
    fields: dict[str, Any] = {}
    first: dict[str, str] = {}
    metadata: dict[bytes, bytes] = {}
    seen: list[tuple[str, Any]] = []
    for dataset, schema in schemas:
        double = {name for name in schema.names if schema.names.count(name) > 1}
        if double:
            raise CatalogSchemaError(f"dataset {dataset} has several columns {', '.join(sorted(double))}")
        for field in schema:
            if field.name in fields:
                fields[field.name] = _together(fields[field.name], field, dataset, first[field.name])
            else:
                fields[field.name], first[field.name] = field.with_nullable(True), dataset
        metadata = _merged(metadata, schema.metadata or {}, begun=bool(seen))
        seen.append((dataset, schema))
    unified = pa.schema(list(fields.values()), metadata)
    return unified, [sentence for dataset, schema in seen for sentence in _differences(dataset, schema, unified)]


def fit(table: Any, schema: Any) -> Any:
    """`table` under `schema`, as `unify` gives it for its own schema: columns cast, moved, or added with NULLs."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _together(one: Any, other: Any, dataset: str, first: str) -> Any:
    units = [(each.metadata or {}).get(b"unit") for each in (one, other)]
    if units[0] != units[1]:
        told = ["no unit" if each is None else repr(each.decode()) for each in units]
        raise CatalogSchemaError(
            f"column {other.name!r} of dataset {dataset} has {told[1]}, in dataset {first} {told[0]}", dataset=dataset
        )
    kind = _wider(one.type, other.type)
    if kind is None:
        raise CatalogSchemaError(
            f"column {other.name!r} of dataset {dataset} is {other.type}, in dataset {first} it is {one.type}: "
            "no type holds both exactly",
            dataset=dataset,
            column=other.name,
        )
    return one.with_type(kind)


def _wider(one: Any, other: Any) -> Any:
    """The type that holds all values of both; None if there is none."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    narrow, wide = sorted((one, other), key=_width)
    if pa.types.is_floating(one) and pa.types.is_floating(other):
        return wide
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        signs = [pa.types.is_signed_integer(each) for each in (narrow, wide)]
        return wide if signs[0] == signs[1] or (signs[1] and _width(wide) > _width(narrow)) else None
    if {one, other} == {pa.string(), pa.large_string()}:
        return pa.large_string()
    return None


def _width(kind: Any) -> int:
    return kind.bit_width if pa.types.is_primitive(kind) else 0


def _merged(one: Mapping[bytes, bytes], other: Mapping[bytes, bytes], *, begun: bool) -> dict[bytes, bytes]:
    """Metadata that hold for both: longest strings, and what is said alike; not what counts rows."""
    merged: dict[bytes, bytes] = {}
    for key in dict.fromkeys((*one, *other)):
        if key in _OF_ONE_TABLE:
            continue
        values = [each[key] for each in (one, other) if key in each]
        if key.startswith(_LENGTHS):
            merged[key] = max(values, key=int)
        elif not begun or (len(values) == 2 and values[0] == values[1]):
            merged[key] = values[0]
    return merged


def _differences(dataset: str, schema: Any, unified: Any) -> list[str]:
    told = []
    for field in unified:
        if field.name not in schema.names:
            told.append(f"dataset {dataset} has no column {field.name!r}: NULL there")
        elif schema.field(field.name).type != field.type:
            told.append(f"dataset {dataset} has {field.name!r} as {schema.field(field.name).type}: now {field.type}")
    return told
