"""Positions to cut at: read from a table some rows at a time, or given as a list."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from absurd.tasks.config_file import load_yaml, yaml_loader
from absurd.tasks.cutout.errors import DataIdValidationError, SourceNotFoundError

ROWS = 65_536
"""Rows that are read from a table at once."""

NAMES = ("ra", "dec", "id", "size")
"""Columns that count; capitals make no difference, and others are passed over."""

_DEGREES = ("", "deg", "degree", "degrees")


@dataclass(frozen=True, slots=True)
class Position:
    """One row, as it stands there; whether it can be cut is told later, as a row of its own."""

    row: int
    """Its number, from 0."""
    ra: float
    dec: float
    id: str | None = None
    size: float | None = None
    problem: str | None = None
    """Why it is no position, where it was not even a number."""
    images: tuple[str, ...] = ()
    """What a source had of it when the batch was divided: paths or addresses."""


def listed(positions: Iterable[Sequence[float] | Mapping[str, Any]]) -> Iterator[Position]:
    """Positions of a program: each (ra, dec), or a mapping with these and perhaps `id` and `size`."""
    for row, each in enumerate(positions):
        given = each if isinstance(each, Mapping) else dict(zip(NAMES[:2], each, strict=True))
        yield _position(row, *(given.get(name) for name in NAMES))


def read_positions(path: str | Path) -> Iterator[Position]:
    """The rows of a table, in their order: CSV (``.csv``), ECSV (``.ecsv``), Parquet (``.parquet``) or FITS.

    It has columns `ra` and `dec`, in degrees, ICRS, and perhaps `id` and `size`.  A cell that is no number is a problem
    of its row.  Memory: `ROWS` rows, of Parquet one row group's pages.

    Raises SourceNotFoundError, DataIdValidationError: there is no such table, or it lacks a column.
    """
    file = Path(path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise DataIdValidationError(
            f"{file.name} is a table of no known kind", advice=f"its name must end in {', '.join(_READERS)}"
        )
    if not file.is_file():
        raise SourceNotFoundError(f"there is no file {file}", source=str(file))
    for row, cells in enumerate(reader(file)):
        yield cells if isinstance(cells, Position) else _position(row, *cells)


Cells = tuple[Any, Any, Any, Any]
"""Of `NAMES`; None for a column that is not there, or a cell without value."""


def _position(row: int, ra: Any, dec: Any, name: Any, size: Any) -> Position:
    problem = None
    numbers: list[float | None] = []
    for column, value in (("ra", ra), ("dec", dec), ("size", size)):
        try:
            numbers.append(None if value is None or value == "" else float(value))
        except (TypeError, ValueError):
            numbers.append(math.nan)
            problem = problem or f"{column} is {str(value)[:40]!r}, which is no number"
        else:
            if numbers[-1] is None and column != "size":
                problem = problem or f"{column} is empty"
    nan = math.nan
    return Position(
        row,
        nan if numbers[0] is None else numbers[0],
        nan if numbers[1] is None else numbers[1],
        None if name is None or name == "" else str(name),
        numbers[2],
        problem,
    )


def _places(file: Path, columns: Sequence[str]) -> list[int | None]:
    """Where the columns that count are.  Raises DataIdValidationError."""
    lower = [each.strip().lower() for each in columns]
    for name in NAMES:
        if lower.count(name) > 1:
            raise DataIdValidationError(f"{file.name} has {lower.count(name)} columns {name!r}; one is needed")
        if name in ("ra", "dec") and name not in lower:
            there = ", ".join(columns[:20]) or "none"
            raise DataIdValidationError(
                f"{file.name} has no column {name!r}; it has {there}", advice="name the columns ra and dec, in degrees"
            )
    return [lower.index(name) if name in lower else None for name in NAMES]


def _check_unit(file: Path, column: str, unit: object) -> None:
    if column.lower() in ("ra", "dec") and str(unit or "").strip().lower() not in _DEGREES:
        raise DataIdValidationError(f"{column} in {file.name} is in {unit}; it must be in degrees")


# Kinds of tables ---------------------------------------------------------------------------------


def _csv(file: Path) -> Iterator[Cells | Position]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from _separated(file, csv.reader(lines))


def _ecsv(file: Path) -> Iterator[Cells | Position]:
    """Of astropy's format what positions need: the delimiter and units in its header, and "" for no value."""
    with file.open(encoding="utf-8", newline="") as lines:
        header: list[str] = []
        first = ""
        for line in lines:
            if not line.startswith("#"):
                first = line
                break
            header.append(line[1:].removeprefix(" ").rstrip("\r\n"))
        delimiter = " "
        for told in _described(file, header):
            if "delimiter" in told:
                delimiter = str(told["delimiter"])
            if "unit" in told:
                _check_unit(file, str(told.get("name")), told["unit"])
        yield from _separated(file, csv.reader(chain([first], lines), delimiter=delimiter))


def _described(file: Path, header: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    loader = yaml_loader()
    loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)  # tags of astropy's own, for its columns
    try:
        described = load_yaml("\n".join("" if each.startswith("%") else each for each in header), loader)
    except ValueError as error:
        raise DataIdValidationError(f"the header of {file.name} is no YAML: {error}") from None
    for each in described if isinstance(described, list) else [described]:
        if isinstance(each, Mapping):
            yield each
            yield from (column for column in each.get("datatype") or () if isinstance(column, Mapping))


def _separated(file: Path, rows: Any) -> Iterator[Cells | Position]:
    try:
        columns: list[str] = next(rows, [])
        places = _places(file, columns)
        number = 0
        for cells in rows:
            if not cells:  # an empty line
                continue
            if len(cells) != len(columns):
                told = f"line {rows.line_num} has {len(cells)} cells, the header {len(columns)}"
                yield Position(number, math.nan, math.nan, problem=told)
            else:
                yield _cells(cells, places)
            number += 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataIdValidationError(f"{file.name} cannot be read as a table: {error}") from None


def _cells(cells: Sequence[Any], places: Sequence[int | None]) -> Cells:
    ra, dec, name, size = (None if place is None else cells[place] for place in places)
    return ra, dec, name, size


def _parquet(file: Path) -> Iterator[Cells]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            places = _places(file, schema.names)
            wanted = [schema.names[place] for place in places if place is not None]
            for each in wanted:
                _check_unit(file, each, ((schema.field(each).metadata or {}).get(b"unit") or b"").decode())
            for batch in table.iter_batches(ROWS, columns=wanted):
                yield from _rows([None if p is None else batch[schema.names[p]].to_pylist() for p in places])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataIdValidationError(f"{file.name} cannot be read as Parquet: {error}") from None


def _fits(file: Path) -> Iterator[Cells]:
    from astropy.io import fits

    try:
        with fits.open(file, memmap=True) as hdus:
            table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)), None)
            if table is None or isinstance(table, fits.CompImageHDU):
                raise DataIdValidationError(f"{file.name} has no table; it must have a binary table HDU")
            names = table.columns.names
            places = _places(file, names)
            for place in places:
                if place is not None:
                    _check_unit(file, names[place], table.columns[place].unit)
            for first in range(0, len(table.data), ROWS):
                some = table.data[first : first + ROWS]
                yield from _rows([None if p is None else some[names[p]].tolist() for p in places])
    except OSError as error:
        raise DataIdValidationError(f"{file.name} cannot be read as FITS: {error}") from None


def _rows(columns: Sequence[Sequence[Any] | None]) -> Iterator[Cells]:
    """Columns as rows; one that is not there is None in each."""
    length = next(len(each) for each in columns if each is not None)
    yield from zip(*([None] * length if each is None else each for each in columns), strict=True)


_READERS: dict[str, Callable[[Path], Iterator[Cells | Position]]] = {
    ".csv": _csv,
    ".ecsv": _ecsv,
    ".parquet": _parquet,
    ".fits": _fits,
    ".fit": _fits,
}
