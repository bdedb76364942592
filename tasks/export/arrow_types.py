"""Which Arrow type keeps each PostgreSQL type exactly, and how its values come over the wire.

A type is read in the binary form of its own where `NATIVE` knows that form.  Any other comes as the server's
text: the text is kept (and the field's metadata say so), or turned into the Arrow type that one has named for it
in `PGOID_TO_ARROW`, with `register_type` or in the ``type_map`` of an export.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from absurd.tasks.export import text_cast
from absurd.tasks.export.errors import ExportConfigError

Form = Literal[
    "bool", "int16", "int32", "int64", "uint32", "float32", "float64", "date", "time", "timestamp", "text", "jsonb",
    "bytes", "uuid", "uuid_text", "decimal", "interval",
]  # fmt: skip
"""How one value is laid out in COPY BINARY, and what is made of it: see `absurd.tasks.export.wire`."""

Way = Literal["native", "parse", "text"]
"""Read in its own binary form; read as text and cast by Arrow; read as text and kept so."""

NUMERIC = 1700
UUID = 2950
WIDEST_DECIMAL = 76
_LARGEST_OID = 2**32 - 1

INTERVAL_TYPE = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("microseconds", pa.int64())])
"""PostgreSQL's own three parts: a month has no fixed number of days, and a day none of hours."""

NATIVE: dict[int, tuple[Form, Any]] = {
    16: ("bool", pa.bool_()),  # boolean
    17: ("bytes", pa.binary()),  # bytea
    19: ("text", pa.string()),  # name
    20: ("int64", pa.int64()),  # bigint
    21: ("int16", pa.int16()),  # smallint
    23: ("int32", pa.int32()),  # integer
    25: ("text", pa.string()),  # text
    26: ("uint32", pa.uint32()),  # oid
    114: ("text", pa.string()),  # json
    700: ("float32", pa.float32()),  # real
    701: ("float64", pa.float64()),  # double precision
    1042: ("text", pa.string()),  # character(n), with its trailing blanks
    1043: ("text", pa.string()),  # character varying
    1082: ("date", pa.date32()),
    1083: ("time", pa.time64("us")),
    1114: ("timestamp", pa.timestamp("us")),
    1184: ("timestamp", pa.timestamp("us", tz="UTC")),
    1186: ("interval", INTERVAL_TYPE),
    1790: ("text", pa.string()),  # refcursor, the name of a cursor
    UUID: ("uuid_text", pa.string()),  # 32 hexadecimal digits in five groups, lower case
    3802: ("jsonb", pa.string()),
}
"""OID of a scalar type: the form of its values, and the Arrow type that keeps them."""

PGOID_TO_ARROW: dict[int, Any] = {
    **{oid: arrow for oid, (_, arrow) in NATIVE.items()},
    NUMERIC: pa.string(),  # decimal128 or decimal256 where the column has a precision
}
"""OID of a scalar type to its Arrow type.  Add to it, or change it, for types of one's own: the values are
then the server's text, cast to that type by Arrow, and a text that does not fit is an error."""
_SHIPPED = dict(PGOID_TO_ARROW)

NAME_TO_ARROW: dict[str, Any] = {}
"""The same by name of the type, for those whose OID differs from database to database: see `register_type`."""


def register_type(name: str, arrow: Any) -> None:
    """Keep a PostgreSQL type as an Arrow type in all exports of this process.

    `name` is the type in SQL (``citext``, ``public.geometry``); one that a database does not have does no harm
    there.  `arrow` is a `pyarrow.DataType` or its name, see `arrow_type`.  The server's text of a value is cast to it.
    """
    NAME_TO_ARROW[name] = arrow_type(arrow)


def registered_types() -> dict[int | str, Any]:
    """What this process keeps otherwise than the table that is shipped: Arrow types by OID, or by name in SQL."""
    text = pa.string()
    changed = {
        oid: PGOID_TO_ARROW.get(oid, text)
        for oid in PGOID_TO_ARROW.keys() | _SHIPPED.keys()
        if PGOID_TO_ARROW.get(oid, text) != _SHIPPED.get(oid, text)
    }
    return changed | NAME_TO_ARROW


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the result, as PostgreSQL describes it and as Arrow is to keep it."""

    name: str
    oid: int
    typmod: int
    postgres_type: str
    """The type in SQL, as ``numeric(10,2)``."""
    form: Form
    """How a value, or an element of a list, is laid out."""
    arrow: Any
    """Arrow type of the column in the file."""
    is_list: bool = False
    text_function: str | None = None
    """SQL name of the function that gives the text to be sent, the one that the type itself names for its output;
    None: the values are sent in the binary form of their type."""
    parse: bool = False
    """Whether the text that arrives is to be turned into `arrow`."""
    kept_as_text: bool = False
    """Whether the file holds the server's text of a type that Arrow has no exact counterpart for."""
    extension: str = ""
    """Extension that the type belongs to."""

    @property
    def element(self) -> Any:
        """Arrow type of the values, or of the lists' elements."""
        return self.arrow.value_type if self.is_list else self.arrow

    @property
    def received(self) -> Any:
        """Arrow type of the values, or elements, before they are parsed."""
        return pa.string() if self.parse else self.element

    @property
    def field(self) -> Any:
        """The Arrow field, with the PostgreSQL type in its metadata."""
        metadata = {"postgres.type": self.postgres_type}
        if self.kept_as_text:
            metadata["absurd.kept_as"] = "text"
        if self.extension:
            metadata["postgres.extension"] = self.extension
        return pa.field(self.name, self.arrow, nullable=True, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Described:
    """What the catalogue of the server says of a column's type; domains are resolved already."""

    name: str
    oid: int
    typmod: int
    postgres_type: str
    is_enum: bool = False
    element_oid: int = 0
    """OID of the elements of an array type; 0: it is no array, or none whose elements can be told apart."""
    element_is_enum: bool = False
    element_typmod: int = -1
    text_function: str = ""
    """SQL name of the type's output function."""
    extension: str = ""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a caller wants otherwise than the table of types has it."""

    types: Mapping[int, Any] = field(default_factory=dict)
    """OID of a scalar or array type to Arrow type, before `PGOID_TO_ARROW`."""
    decimal: tuple[int, int] | None = None
    """Precision and scale of numeric without a precision; None: text."""
    as_text: frozenset[int] = frozenset()
    """Places of columns to keep as the server's text, whatever their type."""


def column_for(described: Described, wishes: Wishes | None = None, *, as_text: bool = False) -> Column:
    """How to read and keep a column."""
    wishes = wishes or Wishes()
    element = described.element_oid
    is_list = element != 0 and described.oid not in wishes.types
    form: Form
    way: Way
    if as_text:
        form, arrow, way = "text", pa.string(), "text"
    elif is_list:
        form, arrow, way = _scalar(element, described.element_typmod, described.element_is_enum, wishes)
    else:
        form, arrow, way = _scalar(described.oid, described.typmod, described.is_enum, wishes)
    if way == "parse" and not text_cast.is_possible(arrow):
        raise ExportConfigError(
            f"column {described.name!r} of type {described.postgres_type} cannot be kept as {arrow}, since Arrow makes "
            "none of text: wish for another type, or cast the column in the query"
        )
    if way == "text":  # of an array as of anything else: the text of the whole
        is_list = False
    return Column(
        name=described.name,
        oid=described.oid,
        typmod=described.typmod,
        postgres_type=described.postgres_type,
        form=form,
        arrow=pa.list_(pa.field("element", arrow)) if is_list else arrow,
        is_list=is_list,
        text_function=None if way == "native" else described.text_function,
        parse=way == "parse",
        kept_as_text=way == "text",
        extension=described.extension,
    )


def arrow_type_for_oid(oid: int, typmod: int = -1) -> Any:
    """The Arrow type for a scalar PostgreSQL type; string for those that Arrow has no counterpart for.

    `typmod` is the type modifier of the column, -1 for none; it gives numeric its precision and scale.
    """
    return _scalar(oid, typmod, is_enum=False, wishes=Wishes())[1]


def decimal_type(typmod: int) -> Any:
    """The decimal type for a numeric with that type modifier; None where only text is exact.

    numeric(p, s) with s < 0 (whole hundreds, say) or s > p takes as many digits more as its values need, since
    Parquet has decimals with 0 <= s <= p only.  Arrow's widest holds 76 digits.
    """
    if typmod < 4:
        return None
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = ((typmod - 4) & 0x7FF ^ 1024) - 1024  # 11 bits with a sign
    if scale < 0:
        precision, scale = precision - scale, 0
    return decimal_of(max(precision, scale), scale) if max(precision, scale) <= WIDEST_DECIMAL else None


def decimal_of(precision: int, scale: int) -> Any:
    """The narrowest Arrow type with that many digits, and those after the point.

    Raises ExportConfigError if Parquet has no such type.
    """
    if not 1 <= precision <= WIDEST_DECIMAL or not 0 <= scale <= precision:
        raise ExportConfigError(
            f"decimal is ({precision}, {scale}); it must be digits in all, from 1 to {WIDEST_DECIMAL}, "
            "and digits after the point, no more than those"
        )
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def arrow_type(named: Any) -> Any:
    """An Arrow type from its name: ``float64``, ``decimal(20,5)``, ``timestamp[us, tz=UTC]``, ``binary(16)``.

    A `pyarrow.DataType` is given back as it is.  Raises ExportConfigError for a name that is none, and for a time zone
    or a width that there is not.
    """
    arrow = named if isinstance(named, pa.DataType) else _type_of_name(str(named).replace(" ", ""))
    if arrow is None or (pa.types.is_fixed_size_binary(arrow) and arrow.byte_width < 1):
        raise ExportConfigError(
            f"{str(named)!r} is no Arrow type: write it as float64, decimal(20,5), timestamp[us,tz=UTC] or binary(16)"
        )
    if pa.types.is_timestamp(arrow) and arrow.tz is not None and not _is_zone(arrow.tz):
        raise ExportConfigError(
            f"{str(named)!r} has the time zone {arrow.tz!r}, which is none: name it as UTC, Europe/Berlin or +02:00"
        )
    return arrow


def check_type_map(named: Mapping[int | str, Any]) -> None:
    """Raise ExportConfigError for an OID that none can be, and for what is no Arrow type."""
    for key, arrow in named.items():
        if str(key).isdecimal() and not 0 < int(key) <= _LARGEST_OID:
            raise ExportConfigError(f"type_map names the OID {key}: OIDs are from 1 to {_LARGEST_OID}")
        arrow_type(arrow)


def _type_of_name(name: str) -> Any | None:
    text = name.lower()
    kind, _, rest = text.replace("[", "(").partition("(")
    values = rest.rstrip(")]").split(",") if rest else []
    try:
        if kind.startswith("decimal") and len(values) == 2:
            return decimal_of(int(values[0]), int(values[1]))
        if kind == "timestamp" and len(values) == 2:
            zone = name.rstrip(")]").partition("tz=")[2]
            return pa.timestamp(values[0], tz=zone) if zone else None
        if kind in ("binary", "fixed_size_binary") and len(values) == 1:
            width = int(values[0])  # -1 would be any
            return pa.binary(width) if width > 0 else None
        return pa.type_for_alias(text)
    except ExportConfigError:
        raise
    except (ValueError, OverflowError):
        return None


def _is_zone(name: str) -> bool:
    if re.fullmatch(r"[+-](?:[01]\d|2[0-3]):[0-5]\d", name):
        return True
    try:
        return name == "UTC" or ZoneInfo(name) is not None
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return False


def _scalar(oid: int, typmod: int, is_enum: bool, wishes: Wishes) -> tuple[Form, Any, Way]:
    wanted = wishes.types.get(oid) or PGOID_TO_ARROW.get(oid, pa.string())
    if oid == NUMERIC and wanted == pa.string() and oid not in wishes.types:
        wanted = decimal_type(typmod) or (decimal_of(*wishes.decimal) if wishes.decimal else wanted)
    if oid == NUMERIC and pa.types.is_decimal(wanted) and 0 <= wanted.scale <= wanted.precision:
        return "decimal", decimal_of(wanted.precision, wanted.scale), "native"
    if oid == UUID and wanted == pa.binary(16):
        return "uuid", wanted, "native"
    if oid in NATIVE and NATIVE[oid][1] == wanted:
        return *NATIVE[oid], "native"
    if wanted != pa.string():
        return "text", wanted, "parse"
    return "text", wanted, "native" if is_enum else "text"  # the binary form of an enum is its label
