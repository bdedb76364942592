"""A binary table in a FITS file, row after row (FITS standard 4.0, section 7.3).

Its header tells the number of rows, the width of texts and which integers stand for NULL, so that rows wait in an
unnamed file beside it until all are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from absurd.tasks.cutout.catalogs.columns import as_numpy, as_plain
from absurd.tasks.cutout.catalogs.rows import about
from absurd.tasks.cutout.errors import DataIdValidationError

_BLOCK = 2880
_INTEGERS = {"uint8": "u1", "int8": "i2", "int16": "i2", "uint16": "i4", "int32": "i4", "uint32": "i8"}
"""The type that holds all values; where there is NULL too it is the next wider one that does."""
_WIDER = {"u1": "i2", "i2": "i4", "i4": "i8", "i8": "i8"}
_LETTERS = {"u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}


def write_fits_table(tables: Iterator[Any], schema: Any, path: Path) -> None:
    """Write tables of a schema as one: NULL is TNULL, NaN, a logical 0 or an empty text.

    Raises DataIdValidationError for a column that a table of FITS has no place for, OSError.
    """
    plain = as_plain(schema.empty_table(), "FITS").schema
    with TemporaryFile(dir=path.parent) as waiting:
        rows, widths, nulls = _spool((as_plain(table, "FITS") for table in tables), plain, waiting)
        columns = [_Column.of(field, widths[field.name], field.name in nulls) for field in plain]
        kind = np.dtype([(f"f{number}", each.kind, each.shape) for number, each in enumerate(columns)])
        with path.open("wb") as file:
            file.write(_headers(columns, kind.itemsize, rows))
            waiting.seek(0)
            with pa.ipc.open_stream(waiting) as batches:
                for batch in batches:
                    packed = np.zeros(batch.num_rows, kind)
                    for number, each in enumerate(columns):
                        packed[f"f{number}"] = each.packed(batch.column(number))
                    file.write(packed.tobytes())
            file.write(bytes(-rows * kind.itemsize % _BLOCK))


@dataclass(frozen=True, slots=True)
class _Column:
    """A field as FITS has it."""

    field: Any
    kind: str
    form: str
    null: int | None = None
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, field: Any, width: int, has_null: bool) -> _Column:
        if pa.types.is_boolean(field.type):
            return cls(field, "u1", "L")
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            return cls(field, f"S{max(1, width)}", f"{max(1, width)}A")
        shape = (field.type.list_size,) if pa.types.is_fixed_size_list(field.type) else ()
        repeat, one = (str(shape[0]), field.type.value_type) if shape else ("", field.type)
        if pa.types.is_floating(one):
            kind = "f8" if one == pa.float64() else "f4"
            return cls(field, f">{kind}", repeat + _LETTERS[kind], None, shape)
        kind = _INTEGERS.get(str(one), "i8")
        if has_null:
            kind = _WIDER[kind]
        null = int(np.iinfo(kind).min) if has_null else None
        return cls(field, f">{kind}", repeat + _LETTERS[kind], null, shape)

    def packed(self, column: Any) -> NDArray[Any]:
        values, mask = as_numpy(column)
        if self.form == "L":
            values = np.where(values, ord("T"), ord("F")).astype(np.uint8)
        elif self.kind.startswith("S"):
            values = self._ascii(values)
        elif values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
            raise DataIdValidationError(
                f"column {self.field.name!r} has values of more than 63 bits", advice="leave it out, or write Parquet"
            )
        if self.null is not None and (values == self.null).any():
            raise DataIdValidationError(
                f"column {self.field.name!r} has both NULL and {self.null}", advice="leave it out, or write Parquet"
            )
        if mask is None or self.kind.startswith("S"):
            return values
        stands = np.nan if "f" in self.kind else 0 if self.null is None else self.null
        return np.where(mask, stands, values.astype(self.kind))

    def _ascii(self, values: NDArray[Any]) -> NDArray[Any]:
        try:
            return np.char.encode(values, "ascii") if values.size else values.astype("S1")
        except UnicodeEncodeError as error:
            raise DataIdValidationError(
                f"column {self.field.name!r} holds {str(error.object)!r}; FITS has ASCII only",
                advice="leave it out, or write Parquet or ECSV",
            ) from None


def _spool(tables: Iterator[Any], schema: Any, file: IO[bytes]) -> tuple[int, dict[str, int], set[str]]:
    """Put the rows into a file; gives their number, the longest text of each column, and which columns have NULL."""
    rows, widths, nulls = 0, dict.fromkeys(schema.names, 0), set()
    with pa.ipc.new_stream(file, schema) as writer:
        for table in tables:
            rows += table.num_rows
            for field in schema:
                column = table[field.name]
                if column.null_count:
                    nulls.add(field.name)
                if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
                    longest = pc.max(pc.binary_length(column)).as_py() or 0
                    widths[field.name] = max(widths[field.name], longest)
            writer.write_table(table)
    return rows, widths, nulls


def _headers(columns: Sequence[_Column], width: int, rows: int) -> bytes:
    from astropy.io import fits

    header = fits.Header()
    for name, value in (
        ("XTENSION", "BINTABLE"),
        ("BITPIX", 8),
        ("NAXIS", 2),
        ("NAXIS1", width),
        ("NAXIS2", rows),
        ("PCOUNT", 0),
        ("GCOUNT", 1),
        ("TFIELDS", len(columns)),
    ):
        header[name] = value
    for number, each in enumerate(columns, 1):
        told = about(each.field)
        cards = {"TTYPE": each.field.name, "TFORM": each.form, "TUNIT": told.get("unit"), "TNULL": each.null}
        cards["TCOMM"] = " ".join(told.get("description", "").split()) or None
        for name, value in cards.items():
            if value is None:
                continue
            try:
                header[f"{name}{number}"] = value
            except ValueError as error:
                raise DataIdValidationError(
                    f"column {each.field.name!r}: {value!r} cannot stand in a FITS header: {error}",
                    advice="leave it out, or write Parquet or ECSV",
                ) from None
    text: str = fits.PrimaryHDU().header.tostring() + header.tostring()
    return text.encode("ascii")
