"""Positions of sources, out of catalogues of any of the usual forms."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DataError

Floats = NDArray[np.float64]
_FORMATS = {
    ".csv": "ascii.csv",
    ".ecsv": "ascii.ecsv",
    ".fits": "fits",
    ".fit": "fits",
    ".vot": "votable",
    ".xml": "votable",
}


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Sources by name."""

    names: tuple[str, ...]
    """Each once."""
    ra_deg: Floats
    """ICRS."""
    dec_deg: Floats
    shapes: tuple[Floats, Floats, Floats] | None = None
    """Long and short width at half maximum and the angle of the long one from north through east, degrees."""

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            seen: set[str] = set()
            twice = next(each for each in self.names if each in seen or seen.add(each))  # type: ignore[func-returns-value]
            raise DataError(f"source {twice!r} is there twice: each needs a name of its own")
        _check_places(self.ra_deg, self.dec_deg, lambda n: f"source {self.names[n]!r}")


def read_positions(
    path: str | os.PathLike[str], *, names: str, ra: str, dec: str, shapes: Sequence[str] | None = None
) -> Positions:
    """Sources of a Parquet, CSV, ECSV, FITS or VOTable file, by the names of its columns.

    Positions are in degrees, ICRS; `shapes` names the columns of both widths in arcseconds and the angle in degrees.
    Without a column `names` sources are named after their positions.

    Raises DataError: no such file or column, no numbers in it, a source twice, no place on the sky.
    """
    table = _read(os.fspath(path))
    ra_deg, dec_deg = _numbers(path, table, ra), _numbers(path, table, dec)
    if names in table:
        told = tuple(_text(each) for each in table[names])
    else:
        told = tuple(position_name(*each) for each in zip(ra_deg, dec_deg, strict=True))
    if not told:
        raise DataError(f"{path} has no rows: there is nothing to measure", path=str(path))
    if shapes is None:
        return Positions(told, ra_deg, dec_deg)
    major, minor, angle = (_numbers(path, table, each) for each in shapes)
    return Positions(told, ra_deg, dec_deg, (major / 3600, minor / 3600, angle))


def read_places(
    path: str | os.PathLike[str], *, ra: str, dec: str, names: str | None = None
) -> tuple[tuple[str | None, ...] | None, Floats, Floats]:
    """Names and places, in degrees, of the rows of a catalogue of the same forms, in its order.

    Names are None without a column of them, and one is None where it is NULL; they may repeat.

    Raises DataError: no such file or column, no numbers in it, no place on the sky.
    """
    table = _read(os.fspath(path))
    ra_deg, dec_deg = _numbers(path, table, ra), _numbers(path, table, dec)
    _check_places(ra_deg, dec_deg, lambda n: f"row {n} of {path}")
    if names is None:
        return None, ra_deg, dec_deg
    told = tuple(None if each is None or each is np.ma.masked else _text(each) for each in _column(path, table, names))
    return told, ra_deg, dec_deg


def read_numbers(path: str | os.PathLike[str], columns: Sequence[str]) -> list[Floats]:
    """Columns of a catalogue of the same forms, as numbers.

    Raises DataError: no such file or column, no numbers in it.
    """
    table = _read(os.fspath(path))
    return [_numbers(path, table, each) for each in columns]


def position_name(ra_deg: float, dec_deg: float) -> str:
    """A name by position, as J123456.78+123456.7: right ascension in hours, minutes, seconds, declination likewise."""
    ra = round(ra_deg % 360 / 15 * 360_000) % (24 * 360_000)  # hundredths of seconds of time
    dec = round(abs(dec_deg) * 36_000)  # tenths of arcseconds
    hours, minutes = divmod(ra // 6000, 60)
    degrees, arcminutes = divmod(dec // 600, 60)
    sign = "-" if dec_deg < 0 else "+"
    return f"J{hours:02d}{minutes:02d}{ra % 6000 / 100:05.2f}{sign}{degrees:02d}{arcminutes:02d}{dec % 600 / 10:04.1f}"


def _read(path: str) -> dict[str, Any]:
    """Columns by name."""
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix in {".parquet", ".pq"}:
            import pyarrow.parquet as pq

            table = pq.read_table(path)
            return {name: table.column(name).to_pylist() for name in table.column_names}
        if suffix not in _FORMATS:
            raise DataError(f"{path} is no catalogue that is known by its name: {', '.join(['.parquet', *_FORMATS])}")
        from astropy.table import Table

        with quiet():
            read = Table.read(path, format=_FORMATS[suffix])
        return {name: list(read[name]) for name in read.colnames}
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path} cannot be read as a catalogue ({error})", path=path) from None


def _check_places(ra_deg: Floats, dec_deg: Floats, called: Callable[[int], str]) -> None:
    off = ~((ra_deg >= 0) & (ra_deg <= 360) & (np.abs(dec_deg) <= 90))
    if off.any():
        n = int(np.argmax(off))
        raise DataError(f"{called(n)} has no place on the sky: {ra_deg[n]}, {dec_deg[n]} degrees")


def _column(path: str | os.PathLike[str], table: dict[str, Any], name: str) -> Any:
    if name not in table:
        raise DataError(f"{path} has no column {name!r}; it has {', '.join(table)}", path=str(path))
    return table[name]


def _numbers(path: str | os.PathLike[str], table: dict[str, Any], name: str) -> Floats:
    try:
        return np.array([float(each) for each in _column(path, table, name)], dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"column {name!r} of {path} does not hold numbers throughout", path=str(path)) from None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value).strip()
