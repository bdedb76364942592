"""Rows of Parquet files and HATS trees by region and column, and how little is read for them."""

from __future__ import annotations

import errno
import json
import operator
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import dataset

from absurd.tasks.cutout.catalogs.fetch import Join, fetch_catalog
from absurd.tasks.cutout.catalogs.filters import Where
from absurd.tasks.cutout.catalogs.healpix import centre_of, radius_of
from absurd.tasks.cutout.catalogs.parquet import ParquetCatalog
from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError, SourceNotFoundError
from absurd.tasks.cutout.regions import RaDecBox
from absurd.tasks.cutout.retry import RetryPolicy
from absurd.tasks.cutout.sources.footprint import unit_vectors


def rows(n: int = 1000, seed: int = 3) -> pa.Table:
    """Positions over the whole sky with a flux that has a unit, NULL and NaN."""
    random = np.random.default_rng(seed)
    flux = pa.array(random.normal(10, 3, n), mask=random.random(n) < 0.1)
    columns = {"id": np.arange(n), "ra": random.uniform(0, 360, n), "flux": flux}
    table = pa.table(columns | {"dec": np.degrees(np.arcsin(random.uniform(-1, 1, n)))})
    place = table.schema.get_field_index("flux")
    return table.cast(table.schema.set(place, table.schema.field("flux").with_metadata({"unit": "nJy"})))


def expected(table: pa.Table, box: RaDecBox) -> list[int]:
    inside = box.contains(table["ra"].to_numpy(), table["dec"].to_numpy())
    return sorted(table["id"].to_numpy()[inside].tolist())


BOXES = [RaDecBox(10, 60, -20, 5), RaDecBox(350, 20, -60, 60), RaDecBox(0, 360, 80, 90), RaDecBox(100, 100.1, 0, 0.1)]


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_row_groups_outside_are_not_read(tmp_path: Path, box: RaDecBox) -> None:
    """Rows are those that a scan of all finds, in their order; row groups that cannot hold any stay unread."""
    table = rows().sort_by("dec")
    pq.write_table(table, tmp_path / "sky.parquet", row_group_size=50)
    catalog = ParquetCatalog(tmp_path / "sky.parquet")
    found = fetch_catalog(catalog, box, ["id", "flux"])
    inside = box.contains(table["ra"].to_numpy(), table["dec"].to_numpy())
    assert found.equals(table.filter(pa.array(inside)).select(["id", "flux"]))
    assert found.schema.field("flux").metadata[b"unit"] == b"nJy"
    groups = [table.slice(start, 50)["dec"].to_numpy() for start in range(0, 1000, 50)]
    possible = sum(bool(each.min() <= box.dec_max and each.max() >= box.dec_min) for each in groups)
    assert catalog.row_groups_read <= possible


@pytest.mark.parametrize("box", BOXES, ids=str)
def test_pixels_of_a_tree_outside_are_not_opened(tmp_path: Path, box: RaDecBox) -> None:
    """A HATS tree of order 2 whose files have no statistics: pixels that cannot overlap are not read."""
    table = rows(2000)
    points = unit_vectors(np.stack([table["ra"].to_numpy(), table["dec"].to_numpy()], axis=1))
    centres = unit_vectors(np.array([centre_of(2, pixel) for pixel in range(192)]))
    apart = points @ centres.T  # the nearest middle stands for the pixel itself
    pixels = apart.argmax(axis=1)
    for pixel in np.unique(pixels):
        path = tmp_path / "dataset" / "Norder=2" / "Dir=0" / f"Npix={pixel}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.array(pixels == pixel)), path, write_statistics=False)
    (tmp_path / "hats.properties").write_text("hats_col_ra = ra\nhats_col_dec = dec\n")
    pq.write_table(table, tmp_path / "data_thumbnail.parquet")
    catalog = ParquetCatalog(tmp_path)
    assert sorted(fetch_catalog(catalog, box, ["id"])["id"].to_pylist()) == expected(table, box)
    assert catalog.row_groups_read < len(np.unique(pixels)) * 0.8


def test_middles_and_radii_of_pixels(shared: Path) -> None:
    """Against a real catalogue's pixels of order 29, and each middle is nearest to itself within the radius."""
    real = pq.read_table(
        shared / "data/catalogs/vsx-x-ztfdr22_lc-m31.parquet", columns=["RAdeg", "DEdeg", "_healpix_29"]
    )
    for row in real.to_pylist():
        assert centre_of(29, row["_healpix_29"]) == pytest.approx((row["RAdeg"], row["DEdeg"]), abs=1e-6)
    assert centre_of(0, 4) == (0.0, 0.0)
    for order in (0, 1, 3):
        middles = np.array([centre_of(order, pixel) for pixel in range(12 << 2 * order)])
        points = unit_vectors(np.random.default_rng(1).uniform((0, -90), (360, 90), (3000, 2)))
        nearest = np.degrees(np.arccos(np.clip(points @ unit_vectors(middles).T, -1, 1))).min(axis=1)
        assert nearest.max() <= radius_of(order)
        assert len(np.unique(np.round(middles, 9), axis=0)) == 12 << 2 * order
    with pytest.raises(ValueError, match="order 1 has 48 pixels"):
        centre_of(1, 48)


@pytest.mark.parametrize(
    ("where", "keep"),
    [
        (Where("flux", ">", 12), lambda flux, _: flux is not None and flux > 12),
        (Where("flux", "is null"), lambda flux, _: flux is None),
        (Where("flux", "is not null"), lambda flux, _: flux is not None),
        (Where("id", "in", [3, 999, 5000]), lambda _, number: number in (3, 999)),
        (Where("id", "!=", 3), lambda _, number: number != 3),
        (Where("id", "<=", 70), lambda _, number: number <= 70),
        (Where("id", "=", 70), lambda _, number: number == 70),
    ],
    ids=lambda each: str(each) if isinstance(each, Where) else "",
)
def test_columns_are_compared(tmp_path: Path, where: Where, keep: Any) -> None:
    """Rows that pass, with columns that were not asked for left out; statistics spare what they can."""
    table = rows()
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    catalog = ParquetCatalog(tmp_path / "t.parquet")
    found = fetch_catalog(catalog, columns=["id"], where=[where])
    pairs = zip(table["flux"].to_pylist(), table["id"].to_pylist(), strict=True)
    assert found["id"].to_pylist() == [number for flux, number in pairs if keep(flux, number)]
    assert catalog.row_groups_read == {"=": 1, "<=": 1, "in": 2}.get(where.comparison, 10)


VALUES = [-1, -0.0, 0, 0.1, 1, 2.5, 126.9, 127, 128, -129, 2**63 + 4, 1e300, float("inf"), float("nan")]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int8(), pa.int64(), pa.uint64()], ids=str)
def test_values_are_of_the_type_of_their_column(tmp_path: Path, kind: Any) -> None:
    """Row groups are spared as rows are compared: in the column's type, where an integer equals no fraction."""
    is_float = pa.types.is_floating(kind)
    numbers = [float(each) for each in VALUES] if is_float else [0, 1, 127]
    ends = {pa.int8(): [-128], pa.uint64(): [2**63 + 4, 2**64 - 1]}.get(kind, [])
    table = pa.table({"x": pa.array([*numbers, *ends, None], kind)})
    held = table["x"].drop_null().to_pylist()
    meet: dict[Any, Any] = {"=": operator.eq, "!=": operator.ne, "in": operator.eq}
    meet |= {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
    asked = [
        (comparison, value, Where("x", comparison, [value] if comparison == "in" else value))
        for comparison, value in product(meet, VALUES)
    ]
    # all in one go: each on its own is a plan of Arrow's, with threads that a busy machine lets wait
    columns = {str(number): where.expression(kind) for number, (*_, where) in enumerate(asked)}
    passed = dataset.dataset(table).to_table(columns=columns, use_threads=False)
    for (comparison, value, where), column in zip(asked, passed.columns, strict=True):
        mine = float(np.float32(value)) if kind == pa.float32() and value != 1e300 else float(value)
        expected = [each for each in held if meet[comparison](each, mine if is_float else value)]
        assert repr(table.filter(column)["x"].to_pylist()) == repr(expected), where
        assert all(where.of(kind).may_hold(each, each) for each in expected), where
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    for comparison in ("=", "in"):
        where = Where("x", comparison, [0.1] if comparison == "in" else 0.1)  # type: ignore[arg-type]
        assert fetch_catalog(ParquetCatalog(tmp_path / "t.parquet"), where=[where]).num_rows == is_float


def test_a_number_beyond_all_floats_is_refused() -> None:
    """An integer may be as long as it likes; a column of floats cannot hold it."""
    with pytest.raises(DataIdValidationError, match="a number of 401 digits"):
        Where("x", "<", 10**400).of(pa.float64())


def test_real_catalogues(shared: Path) -> None:
    """All rows of real files where the region is the whole of them, in the types that they have."""
    told = {
        Path(each["file"]).name: each
        for each in json.loads((shared / "data/catalogs/expected_parquet.json").read_text())
    }
    for name in ("galaxy_9556.parquet", "pointsource_9556.parquet"):
        values = told[name]["numeric_min_max_nulls"]
        (west, east, _), (south, north, _) = values["ra"], values["dec"]
        catalog = ParquetCatalog(shared / "data/catalogs/skycatalogs" / name)
        assert fetch_catalog(catalog, RaDecBox(west, east, south, north)).num_rows == told[name]["rows"]
        assert fetch_catalog(catalog, RaDecBox(west + 180, east + 180, south, north), ["ra"]).num_rows == 0
        assert catalog.row_groups_read == 1
    folder = ParquetCatalog(shared / "data/catalogs/skycatalogs")
    assert fetch_catalog(folder, columns=["ra", "dec"]).num_rows == 998
    m31 = ParquetCatalog(shared / "data/catalogs/vsx-x-ztfdr22_lc-m31.parquet")
    assert fetch_catalog(m31, RaDecBox(10, 11, 41, 42)).num_rows == 1


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_disk_that_is_away_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: int) -> None:
    """Each open and each row group that fails once is tried again, no other is; with one attempt it is the error."""
    pq.write_table(rows(40), tmp_path / "t.parquet", row_group_size=10)
    asked: Counter[str] = Counter()

    def once(what: str) -> None:
        asked[what] += 1
        if asked[what] == 1 and what in ("open", "group 2"):
            raise OSError(errno.ESTALE, "Stale file handle")

    class Away(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, path: Path) -> None:
            once("open")
            super().__init__(path)

        def read_row_group(self, number: int, **options: Any) -> Any:
            once(f"group {number}")
            return super().read_row_group(number, **options)

    monkeypatch.setattr(pq, "ParquetFile", Away)
    catalog = ParquetCatalog(tmp_path / "t.parquet", retry=RetryPolicy(attempts, delay=0.0))
    if attempts == 1:
        with pytest.raises(CutoutExtractionError, match="Stale file handle"):
            fetch_catalog(catalog)
        return
    assert fetch_catalog(catalog).num_rows == 40
    assert {what: asked[what] for what in ("group 0", "group 1", "group 2", "group 3")} == {
        "group 0": 1, "group 1": 1, "group 2": 2, "group 3": 1,
    }  # fmt: skip
    assert asked["open"] == 5  # of schemas and rows, once in vain, and the file anew for the row group
    assert catalog.row_groups_read == 4


def test_what_cannot_be_fetched(tmp_path: Path) -> None:
    """No file, no such column, no position, no Parquet, another comparison: each its own error."""
    with pytest.raises(SourceNotFoundError, match="there is no Parquet file"):
        fetch_catalog(ParquetCatalog(tmp_path))
    pq.write_table(rows(), tmp_path / "t.parquet")
    with pytest.raises(DataIdValidationError, match="has no column mag, colour; it has id, ra"):
        fetch_catalog(ParquetCatalog(tmp_path), columns=["mag"], where=[Where("colour", "=", 1)])
    with pytest.raises(DataIdValidationError, match="comparison of 'id' is '~'"):
        Where("id", "~", 1)  # type: ignore[arg-type]
    with pytest.raises(DataIdValidationError, match=r"^id is of type int64; it cannot be compared with 'x'$"):
        fetch_catalog(ParquetCatalog(tmp_path), where=[Where("ra", ">", 1), Where("id", "=", "x")])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "t.parquet")
    with pytest.raises(DataIdValidationError, match="none of the columns ra/dec"):
        fetch_catalog(ParquetCatalog(tmp_path), BOXES[0])
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(CutoutExtractionError, match=r"t.parquet cannot be read as Parquet"):
        fetch_catalog(ParquetCatalog(tmp_path))


def test_null_is_no_key(tmp_path: Path) -> None:
    """Rows whose key is NULL get nothing of a row whose key is NULL as well, and there may be several of these."""
    pq.write_table(pa.table({"ra": [1.0, 2.0, 3.0], "dec": [0.0] * 3, "key": [1, None, 2]}), tmp_path / "sky.parquet")
    other = pa.table({"key": [None, 1, None], "period": [9.0, 1.0, 8.0]})

    found = fetch_catalog(
        ParquetCatalog(tmp_path / "sky.parquet"), None, ["key"], join=[Join(other, "key", ["period"])]
    )

    assert found["key"].to_pylist() == [1, None, 2]
    assert found["period"].to_pylist() == [1.0, None, None]
