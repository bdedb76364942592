"""``absurd catalog``: rows by position and column, printed or written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

if TYPE_CHECKING:
    from cli.conftest import Run


@pytest.fixture
def objects(tmp_path: Path) -> str:
    """A file of 100 objects along the equator, ten in a row group."""
    numbers = np.arange(100)
    fields = [("id", pa.int64()), ("ra", pa.float64()), ("dec", pa.float64()), ("band", pa.string())]
    schema = pa.schema([*fields, pa.field("flux", pa.float64(), metadata={"unit": "nJy"})])
    flux = pa.array(np.where(numbers, numbers, np.nan), from_pandas=False)
    columns = [numbers, numbers * 3.0, np.zeros(100), np.where(numbers % 2, "g", "r"), flux]
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "objects.parquet", row_group_size=10)
    return "objects.parquet"


@pytest.mark.parametrize(
    ("words", "ids", "groups"),
    [
        (("--cone", "150", "-0.5", "30arcmin"), [50], 1),
        (("--cone", "150", "0", "3.5"), [49, 50, 51], 2),
        (("--box", "297", "3", "-1", "1"), [0, 1, 99], 2),
        (("--polygon", "29,-1 34,-1 31,2"), [10, 11], 1),
        (("--where", "id < 3", "--where", "band = g"), [1], 1),
        (("--cone", "150", "0", "3.5", "--where", "band in r,i"), [50], 2),
    ],
)
def test_rows_are_picked(run: Run, objects: str, words: tuple[str, ...], ids: list[int], groups: int) -> None:
    """Those in the region that pass all comparisons, of the row groups alone that can have them."""
    ended = run("catalog", objects, *words, "--columns", "id,flux", "--json")

    assert ended.code == 0
    document = ended.document
    assert [each["id"] for each in document["first"]] == ids
    assert (document["rows"], document["row_groups_read"]) == (len(ids), groups)
    assert document["columns"][1] == {"name": "flux", "type": "double", "unit": "nJy"}
    assert document["first"][0]["flux"] == (ids[0] or None)  # JSON has no NaN


def test_a_short_table(run: Run, objects: str) -> None:
    """Some rows under their names and units; beside it how many there are."""
    ended = run("catalog", objects, "--rows", "2", "--columns", "id,flux")

    lines = [line.split() for line in ended.out.splitlines()]
    assert lines == [["id", "flux", "[nJy]"], ["0", "nan"], ["1", "1"]]
    assert ended.err.strip() == "2 of 100 rows, of 10 row groups read"


def test_a_file(run: Run, objects: str) -> None:
    """A table of FITS with its unit; the same words again replace it."""
    words = ("catalog", objects, "--cone", "150", "0", "3.5", "--out", "near.fits")
    for _ in range(2):
        ended = run(*words)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("near.fits: 3 rows, of 2 row groups read, ")
    table = Table.read("near.fits")
    assert (table["id"].tolist(), str(table["flux"].unit)) == ([49, 50, 51], "nJy")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("none.parquet",), 3, "there is no Parquet file at none.parquet"),
        (("--cone", "400", "0", "1"), 2, "ra is 400"),
        (("--cone", "10", "0", "1lightyear"), 2, "is no angle"),
        (("--box", "1", "2", "3", "nan"), 2, "dec is nan"),
        (("--polygon", "1,2 3"), 2, "is no list of corners"),
        (("--polygon", "1,2 3,4"), 2, "three are needed"),
        (("--cone", "1", "2", "3", "--box", "1", "2", "3", "4"), 2, "Give one of --cone, --box and --polygon"),
        (("--where", "mag ~ 3"), 2, "is no comparison"),
        (("--where", "mag < 3"), 2, "has no column mag; it has id, ra, dec, band, flux"),
        (("--where", "band < 3"), 2, "cannot be compared"),
        (("--columns", "id,,ra"), 2, "must be names of columns"),
        (("--position", "ra"), 2, "must be two names"),
        (("--type", "object"), 2, "name its collections with --collection"),
        (("--out", "near.txt"), 2, "tells no form"),
        (("--out", "objects.parquet/near.csv"), 1, "Could not open file"),
    ],
)
def test_what_is_wrong(run: Run, objects: str, words: tuple[str, ...], code: int, message: str) -> None:
    """One line that says it, an exit code for its kind, and no file."""
    before = sorted(Path().iterdir())
    ended = run("catalog", *([] if words[0] == "none.parquet" else [objects]), *words)

    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert sorted(Path().iterdir()) == before
