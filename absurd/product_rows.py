"""Rows of the product tables as documents: which there are, what they hold, and how they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from absurd.call import Call
from absurd.encoding import decode

Document = dict[str, Any]
Kind = Literal["integer", "real", "text", "boolean", "time", "json"]
Operator = Literal["=", "<", "<=", ">", ">=", "like", "in"]


@dataclass(frozen=True, slots=True)
class Table:
    """A kind of rows."""

    columns: Mapping[str, Kind]
    key: tuple[str, ...]
    """Columns that no two rows have alike, none of them null: rows are paged by them."""
    observed: str | None = None
    """When that was observed which the row tells of."""
    indexes: tuple[tuple[str, ...], ...] = ()
    """By which else they are looked for, in a file of products."""


@dataclass(frozen=True, slots=True)
class Query:
    """Rows of which all conditions hold, by the key of their table, from behind a row of it."""

    table: str
    where: tuple[tuple[str, Operator, Any], ...] = ()
    after: tuple[Any, ...] | None = None
    descending: bool = False
    limit: int = 100


def _columns(**kinds: str) -> dict[str, Kind]:
    """``integer="id bytes"`` as columns with their kinds."""
    return {name: kind for kind, names in kinds.items() for name in names.split()}  # type: ignore[misc]


TABLES: dict[str, Table] = {
    "product": Table(
        _columns(
            integer="id bytes",
            text="kind path checksum state reason task_id telescope",
            time="observed_from observed_until stored_at decided_at",
            json="facts",
            real="ra declination frequency_hz bandwidth_hz beam_major_arcsec beam_minor_arcsec beam_angle_deg rms_jy"
            " thermal_jy peak_jy dynamic_range",
        ),
        ("id",),
        "observed_from",
        (("task_id",),),
    ),
    "product_input": Table(
        _columns(integer="product_id input_id", text="path role"), ("product_id", "path"), None, (("input_id",),)
    ),
    "source": Table(
        _columns(integer="id product_id", text="name", real="ra declination", time="found_at"),
        ("id",),
        None,
        (("declination",),),
    ),
    "photometry": Table(
        _columns(
            integer="source_id product_id image_id blend flags",
            text="image name",
            time="observed_at",
            boolean="detected",
            real="frequency_hz flux_jy error_jy integrated_jy rms_jy background_jy snr upper_limit_jy chi_squared",
        ),
        ("source_id", "observed_at", "image"),
        "observed_at",
    ),
    "variability": Table(
        _columns(
            integer="product_id source_id epochs detections",
            text="kind ese_confidence",
            boolean="reference",
            real="mean_jy weighted_mean_jy eta v vs m sigma_deviation false_alarm pair_false_alarm ese_score",
        ),
        ("product_id", "source_id"),
        None,
        (("source_id",),),
    ),
    "qa_result": Table(
        _columns(
            integer="product_id",
            text="gate part unit verdict note path kind state",
            real="value",
            json="limits",
            time="measured_at",
        ),
        ("product_id", "gate", "part"),
    ),
    "gain_set": Table(
        _columns(
            integer="id bytes superseded_by",
            text="telescope path checksum source state reason task_id",
            json="kinds quality provenance",
            real="ra declination strip lowest_hz highest_hz",
            time="observed_from observed_until observed_at valid_from valid_until registered_at decided_at",
        ),
        ("id",),
        "observed_at",
    ),
    "recording": Table(
        _columns(
            integer="id expected",
            text="intake state name content path reason task_id",
            json="product",
            real="declination_deg",
            time="first_stamp last_stamp created_at ended_at",
        ),
        ("id",),
        "first_stamp",
    ),
    "subband": Table(
        _columns(
            integer="id group_id number", text="path state reason", real="declination_deg", time="stamp begins_at"
        ),
        ("group_id", "id"),
        "stamp",
    ),
    "session": Table(
        _columns(
            integer="bytes changed_ns frames_captured error_count warning_count log_entries events telemetry_samples"
            " calibration_results",
            text="folder path state reason sha256 session_id session_type target purpose schema_version task_id",
            boolean="recovered",
            real="duration_seconds",
            json="meta",
            time="start_time end_time stored_at",
        ),
        ("start_time", "session_id", "folder", "path"),
        "start_time",
        (("session_id",),),
    ),
    "artifact": Table(
        _columns(integer="attempt bytes", text="task_id path executor kind sha256", time="published_at"),
        ("task_id", "path"),
        "published_at",
    ),
}
"""By name; ``_product_query`` in SQL knows the same."""


def read_products(query: Query) -> Call[list[Document]]:
    """The rows of a query, at most 10,000, as documents with times in UTC."""
    table = TABLES[query.table]
    where = [
        [column, operator, [plain(each) for each in value] if operator == "in" else plain(value)]
        for column, operator, value in query.where
    ]
    return Call(
        "select r::text as document from {schema}.read_products("
        "$1::text, $2::text[], $3::text::jsonb, $4::text[], $5::boolean, $6::integer) r",
        (
            query.table,
            list(table.key),
            json.dumps(where) if where else None,
            None if query.after is None else [plain(each) for each in query.after],
            query.descending,
            query.limit,
        ),
        lambda rows: [_document(table, each["document"]) for each in rows],
    )


def count_products(table: str, by: Sequence[str] = ()) -> Call[list[Document]]:
    """How many rows of a table there are for each value of the columns `by`: these, and ``count``."""
    return Call(
        "select r::text as document from {schema}.count_products($1::text, $2::text[]) r",
        (table, list(by)),
        lambda rows: [_ordered(decode(each["document"]), (*by, "count")) for each in rows],
    )


def read_consistently() -> Call[None]:
    """All that the open transaction reads from here on is of one moment."""
    return Call("set transaction isolation level repeatable read, read only", (), lambda _: None, repeatable=False)


def with_image(product: Document) -> Document:
    """A product with what is known of it as an image, or null, under ``image``, as `products.get_product` has it."""
    names = TABLES["product"].columns
    image = {name: product[name] for name in (*(n for n, kind in names.items() if kind == "real"), "telescope")}
    rest = {name: value for name, value in product.items() if name not in image}
    return rest | {"image": image if image["ra"] is not None else None}


def plain(value: Any) -> str:
    """A value of a condition or key as text for the database; times look as in documents, so that they compare."""
    if isinstance(value, datetime):
        try:
            whole, dot, fraction = value.astimezone(UTC).replace(tzinfo=None).isoformat().partition(".")
        except OverflowError:  # at the first or last moment of all
            return value.isoformat()
        return f"{whole}{dot}{fraction.rstrip('0')}+00:00"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ordered(found: Document, names: Iterable[str]) -> Document:
    return {name: found[name] for name in names}


def _document(table: Table, text: str) -> Document:
    """A row with its columns in their order, and whole floats as floats: JSON of the database keeps neither."""
    found = _ordered(decode(text), table.columns)
    return found | {
        name: float(found[name]) for name, kind in table.columns.items() if kind == "real" and found[name] is not None
    }
