"""Catalogues of a real Butler by region: only patches that overlap, rows inside, columns and joins with units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from lsst.daf.butler import Butler
from scratch_butler import PATCHES, Settings, centre_of

from absurd.cli import absurd
from absurd.cli.run import call
from absurd.tasks.cutout.catalogs.butler import ButlerCatalog
from absurd.tasks.cutout.catalogs.columns import to_astropy
from absurd.tasks.cutout.catalogs.fetch import Join, fetch_catalog
from absurd.tasks.cutout.catalogs.filters import Where
from absurd.tasks.cutout.catalogs.write import write_catalog
from absurd.tasks.cutout.errors import DataIdValidationError, SourceNotFoundError
from absurd.tasks.cutout.regions import Circle
from absurd.tasks.cutout.sources.butler import ButlerClient


@pytest.fixture
def centres(repository: str) -> dict[tuple[int, int], tuple[float, float]]:
    """The middle of each patch."""
    butler = Butler.from_config(repository)
    found = {patch: centre_of(butler, *patch) for patch in PATCHES}
    butler.close()
    return found


def numbers_of(table: Any) -> list[int]:
    """Which of the first patch's objects a table has."""
    return [number - (9615 << 40) - 14_000 for number in table["objectId"].to_pylist()]


def test_rows_in_a_circle(repository: str, centres: dict[tuple[int, int], tuple[float, float]], tmp_path: Path) -> None:
    """Of a patch's five objects in a row those that are near enough; to Arrow, Astropy and Parquet with units."""
    ra, dec = centres[9615, 14]
    with ButlerClient(Settings(repo_path=repository)) as client:
        catalog = ButlerCatalog(client)
        region = Circle(ra, dec, 0.025)
        assert client.find_patches(region.to_sphgeom()) == [(9615, 14)]
        table = fetch_catalog(catalog, region, ["objectId", "flux"])
        assert numbers_of(table) == [0, 1, 2]
        bright = fetch_catalog(catalog, region, ["objectId"], [Where("flux", ">", 1.2)])
        assert numbers_of(bright) == [1, 2]
        everything = fetch_catalog(catalog, region)
        assert everything.column_names == ["objectId", "flux", "patch", "coord_ra", "coord_dec"]
        with pytest.raises(SourceNotFoundError, match="no patch in the region has a objectTable"):
            fetch_catalog(catalog, Circle(50.0, 10.0, 0.1))
        with pytest.raises(DataIdValidationError, match="has no column mag"):
            fetch_catalog(catalog, region, ["mag"])
    assert str(to_astropy(table)["flux"].unit) == "nJy"
    write_catalog(table, tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").equals(table)
    assert pq.read_schema(tmp_path / "t.parquet").field("flux").metadata[b"unit"] == b"nJy"


def test_the_command_asks_a_repository(
    own_repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``absurd catalog`` with a collection: rows with their units, to a file; what is missing is told."""
    butler = Butler.from_config(own_repository)
    ra, dec = centre_of(butler, 9615, 14)
    butler.close()
    words = ["catalog", own_repository, "--cone", str(ra), str(dec), "0.025"]
    options = ["--collection", "chain", "--columns", "objectId,flux", "--out", str(tmp_path / "t.ecsv")]
    assert call(absurd, "absurd", [*words, *options]) == 0
    assert "t.ecsv: 3 rows, " in capsys.readouterr().out
    found = Table.read(tmp_path / "t.ecsv")
    assert (len(found), str(found["flux"].unit)) == (3, "nJy")
    for wrong, code, message in (
        ([], 2, "is a Butler repository: name its collections with --collection"),
        (["--collection", "nowhere"], 3, "nowhere"),
        (["--collection", "chain", "--type", "source"], 3, "none of source"),
    ):
        assert call(absurd, "absurd", [*words, *wrong]) == code
        assert message in capsys.readouterr().err
    assert call(absurd, "absurd", ["catalog", own_repository, "--collection", "chain"]) == 2
    assert "is asked by region" in capsys.readouterr().err
    monkeypatch.setenv("RIPPLE_COLLECTIONS", "chain")
    monkeypatch.setenv("RIPPLE_DATASETS", "object=nothing")
    assert call(absurd, "absurd", words) == 3
    assert "nothing" in capsys.readouterr().err
    monkeypatch.delenv("RIPPLE_DATASETS")
    assert call(absurd, "absurd", [*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3


def test_joined_columns_keep_their_units(repository: str, centres: dict[tuple[int, int], tuple[float, float]]) -> None:
    """In the catalogue's order, NULL where the other table has no row; what cannot be joined is told."""
    ids = [(9615 << 40) + 14_000 + number for number in (2, 0)]
    other = pa.table(
        {"objectId": ids, "period": [3.5, 1.5], "class": ["RR", "Cep"]},
        schema=pa.schema(
            [("objectId", pa.int64()), pa.field("period", pa.float64(), metadata={"unit": "d"}), ("class", pa.string())]
        ),
    )
    with ButlerClient(Settings(repo_path=repository)) as client:
        catalog, region = ButlerCatalog(client), Circle(*centres[9615, 14], 0.025)
        table = fetch_catalog(catalog, region, ["objectId"], join=[Join(other, "objectId", ["period", "class"])])
        assert table["period"].to_pylist() == [1.5, None, 3.5]
        period = to_astropy(table)["period"]
        assert (str(period.unit), period.mask.tolist()) == ("d", [False, True, False])
        for wrong, message in (
            (Join(other, "objectId", ["mag"]), "the table to join has no column mag"),
            (Join(other, "flux", ["period"]), "the catalogue has no column flux"),
            (Join(pa.concat_tables([other, other]), "objectId", ["period"]), "more than once"),
        ):
            with pytest.raises(DataIdValidationError, match=message):
                fetch_catalog(catalog, region, ["objectId"], join=[wrong])
