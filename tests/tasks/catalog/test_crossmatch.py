"""catalog.crossmatch: which sources of two catalogues are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from single_run import fail, run, run_with_products

from absurd.tasks.catalog.cross_match import cross_match

SEED = 47


def test_pairs_are_each_others_nearest() -> None:
    """Pairs are mutual, within the radius, right at the pole and across right ascension 0; crowding is told."""
    ra1, dec1 = np.array([0.0001, 120.0, 50.0, 80.0]), np.array([10.0, 89.9999, 0.0, 5.0])
    ra2, dec2 = np.array([359.9999, 300.0, 50.001, 50.0005, 200.0]), np.array([10.0, 89.9999, 0.0, 0.0, 0.0])

    found = cross_match(ra1, dec1, ra2, dec2, 10.0)

    assert found.first.tolist() == [0, 1, 2]
    assert found.second.tolist() == [0, 1, 3]
    assert found.separation_arcsec == pytest.approx([0.72 * np.cos(np.radians(10)), 0.72, 1.8], rel=1e-3)
    assert found.crowded.tolist() == [False, False, True]
    assert len(cross_match(ra1, dec1, np.empty(0), np.empty(0)).first) == 0


@pytest.fixture
def catalogues(tmp_path: Path) -> tuple[str, str]:
    """One in FITS with names, and one in Parquet: half of its sources again, 0.4" east and 0.2" south, and one more."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    ra, dec = rng.uniform(0, 360, 60), np.degrees(np.arcsin(rng.uniform(-0.9, 0.9, 60)))
    Table({"Name": [f"S{n}" for n in range(60)], "RAJ2000": ra, "DEJ2000": dec}).write(tmp_path / "one.fits")
    east = np.append(ra[:30] + 0.4 / 3600 / np.cos(np.radians(dec[:30])), 12.0) % 360
    pq.write_table(pa.table({"ra": east, "dec": np.append(dec[:30] - 0.2 / 3600, 89.9)}), tmp_path / "other.parquet")
    return str(tmp_path / "one.fits"), str(tmp_path / "other.parquet")


def test_two_catalogues_as_a_task(catalogues: tuple[str, str], tmp_path: Path) -> None:
    """Each source that is in both is a pair with its distance; the rest is counted, and has rows if asked."""
    first = {"path": catalogues[0], "ra_column": "RAJ2000", "dec_column": "DEJ2000", "id_column": "Name"}
    params = {"first": first, "second": catalogues[1], "radius_arcsec": 1.0, "out": str(tmp_path / "pairs.parquet")}

    told, products = run_with_products("catalog.crossmatch", params)

    rows = pq.read_table(params["out"]).to_pylist()
    assert (told["pairs"], told["first_alone"], told["second_alone"], told["crowded"]) == (30, 30, 1, 0)
    assert [(row["first_id"], row["first_row"], row["second_row"]) for row in rows] == [
        (f"S{n}", n, n) for n in range(30)
    ]
    for row in [*rows, {name: told[f"median_{name}"] for name in ("separation_arcsec", "east_arcsec", "north_arcsec")}]:
        assert row["separation_arcsec"] == pytest.approx(np.hypot(0.4, 0.2), abs=1e-4)
        assert (row["east_arcsec"], row["north_arcsec"]) == pytest.approx((0.4, -0.2), abs=1e-4)
    [product] = products
    assert (product["kind"], product["row"]["facts"]) == ("table", {"of": "pairs", "pairs": 30})
    assert [each["path"] for each in product["row"]["inputs"]] == list(catalogues)

    _, kinds = run("catalog.crossmatch", params | {"unmatched": True})
    whole = pq.read_table(params["out"])
    assert kinds == ["pairs"]
    assert whole.column("first_row").to_pylist() == [*range(60), None]
    assert whole.column("second_row").to_pylist() == [*range(30), *[None] * 30, 30]
    assert whole.column("separation_arcsec").null_count == 31


def test_an_empty_catalogue_has_no_pairs(catalogues: tuple[str, str], tmp_path: Path) -> None:
    """A field without sources is no error; all of the other are alone."""
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"ra": pa.array([], pa.float64()), "dec": pa.array([], pa.float64())}), empty)

    told, _ = run("catalog.crossmatch", {"first": str(empty), "second": catalogues[1], "out": str(tmp_path / "p")})

    assert (told["pairs"], told["second_alone"], told["median_east_arcsec"]) == (0, 31, None)


def test_what_cannot_be_matched_is_told(catalogues: tuple[str, str], tmp_path: Path) -> None:
    """A column that is not there, and a place that is none, are named with their file."""
    off = tmp_path / "off.csv"
    off.write_text("ra,dec\n10,20\n10,nan\n")

    for first, said in ((catalogues[0], "no column 'ra'; it has Name, RAJ2000"), (str(off), f"row 1 of {off} has no")):
        error = fail("catalog.crossmatch", {"first": first, "second": catalogues[1], "out": str(tmp_path / "p")})
        assert (error["code"], said in error["message"]) == ("visibility_data", True), error["message"]
