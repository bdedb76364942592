"""Tables of positions: each kind gives the same rows, and a bad cell is a problem of its row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import Table

from absurd.tasks.cutout import DataIdValidationError, RippleError, SourceNotFoundError
from absurd.tasks.cutout.positions import listed, read_positions

NAMES = ["M 31", "b,c", "ü"]
RA, DEC, SIZE = [10.25, 400.0, 359.5], [-5.5, 2.0, 90.0], [3.0, 0.0, 12.5]


def write(kind: str, path: Path) -> Path:
    """The same three rows as a table of a kind."""
    if kind == "csv":
        cells = "\n".join(
            f'{ra},"{name}",{dec},{size}' for ra, name, dec, size in zip(RA, NAMES, DEC, SIZE, strict=True)
        )
        path.write_text(f"\ufeffRA,id,Dec,size\r\n{cells}\n", encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.table({"dec": DEC, "flux": [1, 2, 3], "ra": RA, "id": NAMES, "size": SIZE}), path)
    else:
        names = ["M 31", "b,c", "u"] if kind == "fits" else NAMES
        table = Table({"id": names, "ra": RA * units.deg, "dec": DEC * units.deg, "size": SIZE})
        table.write(path, format="ascii.ecsv" if kind == "ecsv" else None)
    return path


@pytest.mark.parametrize("kind", ["csv", "ecsv", "parquet", "fits"])
def test_each_kind_of_table_gives_its_rows(tmp_path: Path, kind: str) -> None:
    """Whatever the order of columns, their capitals and what else there is."""
    found = list(read_positions(write(kind, tmp_path / f"t.{kind}")))

    assert [each.row for each in found] == [0, 1, 2]
    assert [(each.ra, each.dec, each.size) for each in found] == list(zip(RA, DEC, SIZE, strict=True))
    assert [each.id for each in found][:2] == NAMES[:2]
    assert all(each.problem is None for each in found)


def test_numbers_may_name_rows(tmp_path: Path) -> None:
    """Ids that are numbers become text, and null is no id."""
    pq.write_table(
        pa.table({"ra": [1.0, None], "dec": np.array([2, 3], np.float32), "id": [7, None]}), tmp_path / "t.parquet"
    )

    first, second = read_positions(tmp_path / "t.parquet")

    assert (first.id, second.id, second.problem) == ("7", None, "ra is empty")
    assert math.isnan(second.ra)


def test_a_bad_cell_is_a_problem_of_its_row(tmp_path: Path) -> None:
    """Text for a number, an empty cell, a line that is too short: the row is there and tells; others are as ever."""
    (tmp_path / "t.csv").write_text("id,ra,dec\na,north,1\nb,,1\nc,1\n\nd,nan,1\ne,2,3\n")

    found = list(read_positions(tmp_path / "t.csv"))

    assert [each.row for each in found] == [0, 1, 2, 3, 4]
    assert [each.problem for each in found] == [
        "ra is 'north', which is no number", "ra is empty", "line 4 has 2 cells, the header 3", None, None,
    ]  # fmt: skip
    assert math.isnan(found[3].ra)
    assert (found[4].id, found[4].ra, found[4].dec) == ("e", 2.0, 3.0)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("t.csv", "id,dec\n", DataIdValidationError, "no column 'ra'; it has id, dec"),
        ("t.csv", "", DataIdValidationError, "no column 'ra'; it has none"),
        ("t.csv", "ra,RA,dec\n", DataIdValidationError, "2 columns 'ra'"),
        ("t.txt", "ra,dec\n", DataIdValidationError, "must end in .csv, .ecsv, .parquet, .fits"),
        ("t.parquet", "ra", DataIdValidationError, "cannot be read as Parquet"),
        ("t.fits", "ra", DataIdValidationError, "cannot be read as FITS"),
        ("absent/t.csv", None, SourceNotFoundError, "there is no file"),
    ],
)
def test_what_is_no_table_is_told(
    tmp_path: Path, name: str, content: str | None, error: type[RippleError], message: str
) -> None:
    """One error for all of it, with the way out."""
    if content is not None:
        (tmp_path / name).write_text(content)

    with pytest.raises(error, match=message):
        list(read_positions(tmp_path / name))


@pytest.mark.parametrize("kind", ["ecsv", "fits"])
def test_units_other_than_degrees_are_refused(tmp_path: Path, kind: str) -> None:
    """Radians would be other positions."""
    Table({"ra": [1.0] * units.rad, "dec": [2.0] * units.deg}).write(
        tmp_path / f"t.{kind}", format="ascii.ecsv" if kind == "ecsv" else None
    )

    with pytest.raises(DataIdValidationError, match=r"ra in t\..* is in .*; it must be in degrees"):
        list(read_positions(tmp_path / f"t.{kind}"))


@pytest.mark.parametrize("given", [[(1.0, 2.0)], [{"ra": 1.0, "dec": 2.0, "id": "a"}]])
def test_a_list_of_positions(given: Any) -> None:
    """Pairs, or mappings with a name."""
    (found,) = listed(given)

    assert (found.row, found.ra, found.dec, found.problem) == (0, 1.0, 2.0, None)
