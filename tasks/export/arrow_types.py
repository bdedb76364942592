"""Which Arrow type keeps each PostgreSQL type exactly, and how its values come over the wire.

A type is read in the binary form of its own where `NATIVE` knows that form.  Any other comes as the server's
text: the text is kept (and the field's metadata say so), or turned into the Arrow type that `PGOID_TO_ARROW`
names for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

Form = Literal[
    "bool", "int16", "int32", "int64", "uint32", "float32", "float64", "date", "time", "timestamp", "text", "jsonb",
    "bytes", "uuid",
]  # fmt: skip
"""How one value is laid out in COPY BINARY: see `absurd.tasks.export.wire`."""

Way = Literal["native", "parse", "text"]
"""Read in its own binary form; read as text and cast by Arrow; read as text and kept so."""

NUMERIC = 1700

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
    2950: ("uuid", pa.string()),  # 32 hexadecimal digits in five groups, lower case
    3802: ("jsonb", pa.string()),
}
"""OID of a scalar type: the form of its values, and the Arrow type that keeps them."""

PGOID_TO_ARROW: dict[int, Any] = {
    **{oid: arrow for oid, (_, arrow) in NATIVE.items()},
    NUMERIC: pa.string(),  # decimal128 or decimal256 where the column has a precision
    1186: pa.string(),  # interval: Arrow's durations know no months
}
"""OID of a scalar type to its Arrow type.  Add to it, or change it, for types of one's own: the values are
then the server's text, cast to that type by Arrow, and a text that does not fit is an error."""


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
    cast: str | None = None
    """SQL type to cast the column to before it is sent; None: none."""
    parse: bool = False
    """Whether the text that arrives is to be turned into `arrow`."""
    kept_as_text: bool = False
    """Whether the file holds the server's text of a type that Arrow has no exact counterpart for."""

    @property
    def field(self) -> Any:
        """The Arrow field, with the PostgreSQL type in its metadata."""
        metadata = {"postgres.type": self.postgres_type}
        if self.kept_as_text:
            metadata["absurd.kept_as"] = "text"
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
    """OID of the elements of an array type; 0: it is no array."""
    element_is_enum: bool = False


def column_for(described: Described) -> Column:
    """How to read and keep a column."""
    is_list = described.element_oid != 0
    if is_list:
        form, arrow, way = _scalar(described.element_oid, described.typmod, is_enum=described.element_is_enum)
    else:
        form, arrow, way = _scalar(described.oid, described.typmod, is_enum=described.is_enum)
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
        cast=None if way == "native" else "text[]" if is_list else "text",
        parse=way == "parse",
        kept_as_text=way == "text",
    )


def arrow_type_for_oid(oid: int, typmod: int = -1) -> Any:
    """The Arrow type for a scalar PostgreSQL type; string for those that Arrow has no counterpart for.

    `typmod` is the type modifier of the column, -1 for none; it gives numeric its precision and scale.
    """
    return _scalar(oid, typmod, is_enum=False)[1]


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
    precision = max(precision, scale)
    if precision <= 38:
        return pa.decimal128(precision, scale)
    return pa.decimal256(precision, scale) if precision <= 76 else None


def _scalar(oid: int, typmod: int, *, is_enum: bool) -> tuple[Form, Any, Way]:
    wanted = PGOID_TO_ARROW.get(oid, pa.string())
    if oid == NUMERIC and wanted == pa.string():
        wanted = decimal_type(typmod) or wanted
    if oid in NATIVE and NATIVE[oid][1] == wanted:
        return *NATIVE[oid], "native"
    if wanted != pa.string():
        return "text", wanted, "parse"
    return "text", wanted, "native" if is_enum else "text"  # the binary form of an enum is its label
