"""Rows of catalogues as files: values, NULL and units in every form, whole or not at all, in bounded memory."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import QTable, Table, meta
from astropy.utils.exceptions import AstropyUserWarning

from absurd.tasks.cutout.catalogs import write
from absurd.tasks.cutout.catalogs.columns import to_astropy
from absurd.tasks.cutout.catalogs.fetch import fetch_catalog
from absurd.tasks.cutout.catalogs.filters import Where
from absurd.tasks.cutout.catalogs.parquet import ParquetCatalog
from absurd.tasks.cutout.catalogs.rows import Rows, rows_of
from absurd.tasks.cutout.catalogs.write import write_catalog
from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError
from absurd.tasks.cutout.regions import Circle

START = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
FORMS = ("parquet", "arrow", "fits", "ecsv", "csv")


def catalogue(n: int = 7) -> Any:
    """A column of each kind, with NULL in each and NaN in one; units and a description."""
    some = np.arange(n) % 3 == 1
    columns = {
        "id": pa.array(np.arange(n) + 2**60),
        "flux": pa.array(np.where(np.arange(n) == 2, np.nan, np.arange(n) / 7), mask=some),
        "count": pa.array(np.arange(n, dtype=np.uint16) * 9000, mask=some),
        "error": pa.array(np.arange(n, dtype=np.float32) / 3),
        "name": pa.array([None if each else f"M{number}" for number, each in enumerate(some)]),
        "is_star": pa.array([None if each else number % 2 == 0 for number, each in enumerate(some)]),
        "shape": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2 * n, dtype=np.float64)), 2),
        "seen": pa.array([START + dt.timedelta(minutes=number) for number in range(n)], pa.timestamp("ms", "UTC")),
    }
    told = {"flux": {"unit": "nJy", "description": "of the PSF"}, "error": {"unit": "deg / pix"}}
    fields = [pa.field(name, each.type, metadata=told.get(name)) for name, each in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def told_by_astropy(schema: Any) -> dict[str, str]:
    """Units as astropy's reader of Parquet finds them."""
    header = meta.get_header_from_yaml(schema.metadata[b"table_meta_yaml"].decode().split("\n"))
    return {each["name"]: each["unit"] for each in header["datatype"] if "unit" in each}


@pytest.mark.parametrize("form", FORMS)
def test_values_and_units_survive(tmp_path: Path, form: str) -> None:
    """What is read back is what was written, NULL and units included; of CSV all but the units."""
    table = catalogue()
    if form == "csv":
        table = table.drop_columns(["shape"])
    path = tmp_path / f"t.{form}"
    assert write_catalog(table, path) == 7
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    if form in ("parquet", "arrow"):
        found = pq.read_table(path) if form == "parquet" else pa.ipc.open_file(path).read_all()
        assert str(found.to_pylist()) == str(table.to_pylist())  # where NaN is NaN
        assert found.schema.field("flux").metadata[b"unit"] == b"nJy"
        assert found.schema.field("flux").metadata[b"description"] == b"of the PSF"
        assert told_by_astropy(found.schema) == {"flux": "nJy", "error": "deg / pix"}
        return
    if form == "csv":
        found = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(null_values=[""]))
        assert found.column_names == table.column_names
        some = ["id", "flux", "count", "is_star"]
        assert str(found.select(some).to_pylist()) == str(table.select(some).to_pylist())
        return
    if form == "fits":
        with pytest.warns(AstropyUserWarning, match="'is_star' contains NULL"):
            found = Table.read(path, character_as_bytes=False)
    else:
        found = Table.read(path)
    wanted = to_astropy(table)
    assert found.colnames == wanted.colnames
    for name in ("id", "flux", "count", "error", "name", "is_star", "shape"):
        mask, values = (np.ma.getmaskarray(np.ma.asarray(each[name])) for each in (wanted, found))
        # a text or logical without a value is empty or false in FITS, and NaN may stand for NULL
        if form == "ecsv" or name in ("id", "count", "shape"):
            np.testing.assert_array_equal(mask, values, err_msg=name)
        np.testing.assert_array_equal(np.asarray(found[name])[~mask], np.asarray(wanted[name])[~mask], err_msg=name)
    assert [str(found[name].unit) for name in ("flux", "error")] == ["nJy", "deg / pix"]
    assert found["seen"][3] == "2026-01-01T12:03:00.000"
    if form == "ecsv":
        assert found["flux"].description == "of the PSF"
    else:
        assert fits.getheader(path, 1)["TCOMM2"] == "of the PSF"
        assert np.isnan(np.ma.filled(found["flux"], np.nan)[[1, 2, 4]]).all()


def test_units_of_astropys_parquet_are_read(tmp_path: Path) -> None:
    """Astropy keeps units beside the columns: they are found there, and are in what is written of some columns."""
    source = Table({"ra": [10.0, 20.0], "dec": [0.0, 0.0], "mag": [19.0, 20.0], "z": [1, 2]})
    source["mag"].unit, source["mag"].description = "mag", "AB"
    table = pa.table({name: np.asarray(source[name]) for name in source.colnames})
    header = "\n".join(meta.get_yaml_from_table(source))
    pq.write_table(table.replace_schema_metadata({"table_meta_yaml": header}), tmp_path / "a.parquet")
    found = fetch_catalog(ParquetCatalog(tmp_path / "a.parquet"), Circle(10, 0, 1), ["mag"])
    assert found.schema.field("mag").metadata == {b"unit": b"mag", b"description": b"AB"}
    write_catalog(found, tmp_path / "b.fits")
    assert str(QTable.read(tmp_path / "b.fits")["mag"].unit) == "mag"
    pq.write_table(table.replace_schema_metadata({"table_meta_yaml": "{"}), tmp_path / "a.parquet")
    with pytest.raises(CutoutExtractionError, match="the header that astropy has left"):
        fetch_catalog(ParquetCatalog(tmp_path / "a.parquet"))


def test_positions_in_radians(tmp_path: Path) -> None:
    """A column in radians, as of a table of afw, is compared with degrees; hours and texts are refused."""

    def positions(unit: str) -> Any:
        fields = [pa.field(name, pa.float64(), metadata={"unit": unit}) for name in ("coord_ra", "coord_dec")]
        degrees = np.arange(0.0, 80.0)
        return pa.table([np.radians(degrees * 4), np.radians(degrees)], schema=pa.schema(fields))

    pq.write_table(positions("rad"), tmp_path / "t.parquet", row_group_size=8)
    catalog = ParquetCatalog(tmp_path / "t.parquet")
    found = fetch_catalog(catalog, Circle(160, 40, 1))
    assert np.degrees(found["coord_ra"].to_numpy()) == pytest.approx([160])
    assert catalog.row_groups_read == 1
    pq.write_table(positions("hourangle"), tmp_path / "t.parquet")
    with pytest.raises(DataIdValidationError, match="'coord_ra' are in 'hourangle'"):
        fetch_catalog(catalog, Circle(160, 40, 1))
    pq.write_table(pa.table({"coord_ra": ["10:40"], "coord_dec": ["40"]}), tmp_path / "t.parquet")
    with pytest.raises(DataIdValidationError, match="'coord_ra' are of the type string; they must be numbers"):
        fetch_catalog(catalog, Circle(160, 40, 1))


def test_files_that_differ(tmp_path: Path) -> None:
    """Of a whole number and a fraction the wider type; a missing column and another unit are errors with the file."""

    def put(name: str, column: Any, unit: str = "", title: str = "x") -> None:
        schema = pa.schema([pa.field(title, column.type, metadata={"unit": unit} if unit else None)])
        pq.write_table(pa.table([column], schema=schema), tmp_path / name)

    put("a.parquet", pa.array([1, 2]), "ct")
    put("b.parquet", pa.array([0.5, None]))
    assert write_catalog(ParquetCatalog(tmp_path).stream(), tmp_path / "out.arrow") == 4
    found = pa.ipc.open_file(tmp_path / "out.arrow").read_all()
    assert found["x"].to_pylist() == [1.0, 2.0, 0.5, None]
    assert found.schema.field("x").metadata == {b"unit": b"ct"}
    put("b.parquet", pa.array([0.5]), "mJy")
    with pytest.raises(CutoutExtractionError, match=r"x is in mJy in b\.parquet, in ct in the first file"):
        fetch_catalog(ParquetCatalog(tmp_path))
    put("b.parquet", pa.array([0.5]), title="y")
    with pytest.raises(CutoutExtractionError, match=r"b\.parquet has no column x"):
        fetch_catalog(ParquetCatalog(tmp_path))


@pytest.mark.parametrize("form", FORMS)
def test_few_rows_are_in_memory(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small parts become few large pieces, and no more of them wait than one piece holds."""
    monkeypatch.setattr(write, "ROWS_AT_ONCE", 1000)
    part = rows_of(pa.table({"n": pa.array(range(100)), "name": ["a name"] * 100}))
    size = part.table().nbytes
    most = 0

    def parts() -> Iterator[Any]:
        nonlocal most
        for number in range(200):
            most = max(most, pa.total_allocated_bytes() - before)
            yield pa.table({"n": pa.array(range(100 * number, 100 * number + 100)), "name": ["a name"] * 100})

    path = tmp_path / f"t.{form}"
    before = pa.total_allocated_bytes()
    assert write_catalog(Rows(part.schema, parts()), path) == 20_000
    assert most < 60 * size
    if form == "parquet":
        assert pq.ParquetFile(path).metadata.num_row_groups == 20


@pytest.mark.parametrize("form", FORMS)
def test_nothing_of_what_fails(tmp_path: Path, form: str) -> None:
    """An error on the way leaves the file that was there as it was, and nothing beside it."""
    path = tmp_path / f"t.{form}"
    path.write_text("before")

    def parts() -> Iterator[Any]:
        yield pa.table({"n": [1]})
        raise CutoutExtractionError("the file is gone")

    with pytest.raises(CutoutExtractionError, match="is gone"):
        write_catalog(Rows(pa.schema([("n", pa.int64())]), parts()), path)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "before"


def test_parts_with_other_columns(tmp_path: Path) -> None:
    """A later patch with a column more, or of another type, is an error and not less in the file."""
    first = pa.table({"n": [1]})
    for other in (pa.table({"n": [2], "mag": [3]}), pa.table({"n": ["x"]})):
        with pytest.raises(CutoutExtractionError, match="differ in their columns"):
            write_catalog(Rows(first.schema, [first, other]), tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


def test_no_rows(tmp_path: Path) -> None:
    """A table without rows is a file with its columns."""
    empty = catalogue().slice(0, 0)
    for form in ("parquet", "fits"):
        assert write_catalog(empty, tmp_path / f"t.{form}") == 0
    assert pq.read_table(tmp_path / "t.parquet").equals(empty)
    write_catalog(empty.drop_columns(["shape"]), tmp_path / "t.ecsv")  # astropy reads no list where there is no row
    for form, columns in (("fits", empty.column_names), ("ecsv", empty.drop_columns(["shape"]).column_names)):
        found = Table.read(tmp_path / f"t.{form}")
        assert (found.colnames, len(found), str(found["flux"].unit)) == (columns, 0, "nJy")


@pytest.mark.parametrize(
    ("form", "column", "message"),
    [
        ("txt", [1], "tells no form; it must end in .parquet"),
        ("fits", ["é"], "holds 'é'; FITS has ASCII only"),
        ("fits", [[1], [1, 2]], r"of the type list<.*>, which is not written as FITS"),
        ("csv", pa.array([[1, 2]], pa.list_(pa.int8(), 2)), "which is not written as CSV"),
        ("fits", pa.array([2**64 - 1], pa.uint64()), "values of more than 63 bits"),
        ("fits", pa.array([-(2**63), None]), "has both NULL and -9223372036854775808"),
    ],
)
def test_what_a_form_has_no_place_for(tmp_path: Path, form: str, column: Any, message: str) -> None:
    """It is named with the column, and nothing is written."""
    with pytest.raises(DataIdValidationError, match=message):
        write_catalog(pa.table({"x": column}), tmp_path / f"t.{form}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("mag<20", Where("mag", "<", 20)),
        (" mag >= 2e1 ", Where("mag", ">=", 20.0)),
        ("a.b!=-1.5", Where("a.b", "!=", -1.5)),
        ("id == 7", Where("id", "=", 7)),
        ('name="7"', Where("name", "=", "7")),
        ("name = RR Lyr", Where("name", "=", "RR Lyr")),
        ("is_star=true", Where("is_star", "=", value=True)),
        ("band IN g, r", Where("band", "in", ["g", "r"])),
        ("id in 1,2", Where("id", "in", [1, 2])),
        ("flux is  NOT null", Where("flux", "is not null")),
        ("flux is null", Where("flux", "is null")),
        ("instrument<>HSC", Where("instrument", "!=", "HSC")),
    ],
)
def test_comparisons_are_read(text: str, where: Where) -> None:
    """As people write them; numbers and what is in quotes are JSON."""
    assert Where.read(text) == where
    assert json.dumps(Where.read(text).value) == json.dumps(where.value)


@pytest.mark.parametrize(
    "text", ["", "mag", "mag ~ 3", "< 3", "mag <", "flux is null 3", "band inside g", "band in", "mag >> 3"]
)
def test_no_comparison(text: str) -> None:
    """Each says that it is none."""
    with pytest.raises(DataIdValidationError, match=r"no comparison|with nothing"):
        Where.read(text)
