"""Catalogues of a real Butler by region: only patches that overlap, rows inside, columns and joins with units."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import QTable, Table
from lsst.daf.butler import Butler, DatasetRef, DatasetType, FileDataset
from scratch_butler import PATCHES, SKYMAP, Settings, centre_of

from absurd.cli import absurd
from absurd.cli.run import call
from absurd.tasks.cutout.catalogs.butler import ButlerCatalog
from absurd.tasks.cutout.catalogs.columns import to_astropy
from absurd.tasks.cutout.catalogs.fetch import Join, fetch_catalog
from absurd.tasks.cutout.catalogs.filters import Where
from absurd.tasks.cutout.catalogs.write import write_catalog
from absurd.tasks.cutout.config import ButlerConfig
from absurd.tasks.cutout.errors import ButlerConnectionError, DataIdValidationError, SourceNotFoundError
from absurd.tasks.cutout.fetcher import LsstDataFetcher
from absurd.tasks.cutout.regions import Circle
from absurd.tasks.cutout.sources.butler import ButlerClient
from absurd.tasks.cutout.sources.formatter import ExposureFormatter


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


class Faltering:
    """`ButlerClient.get_catalog` that does not answer the first time it is asked for each patch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: Counter[tuple[str, int, int | None]] = Counter()
        get_catalog = ButlerClient.get_catalog

        def get(client: ButlerClient, tract: int, patch: int | None, *rest: Any) -> Any:
            key = (client.place, tract, patch)
            self.asked[key] += 1
            if self.asked[key] == 1:
                raise ButlerConnectionError(f"{client.place} does not answer")
            return get_catalog(client, tract, patch, *rest)

        monkeypatch.setattr(ButlerClient, "get_catalog", get)


def test_a_repository_that_is_away_for_a_moment(
    own_repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fetcher and the command ask again for the patch that was not given, as often as is configured."""
    butler = Butler.from_config(own_repository)
    (ra, dec), radius = centre_of(butler, 9615, 14), 0.025
    butler.close()
    config = ButlerConfig(repo_path=own_repository, collections=["chain"], retry_delay=0.0)
    with LsstDataFetcher(config) as fetcher:
        whole = fetcher.fetch_catalog(Circle(ra, dec, radius), ["objectId"])
        faltering = Faltering(monkeypatch)
        assert fetcher.fetch_catalog(Circle(ra, dec, radius), ["objectId"]).equals(whole)
    assert list(faltering.asked.values()) == [2]

    words = ["catalog", own_repository, "--cone", str(ra), str(dec), str(radius), "--collection", "chain", "--json"]
    monkeypatch.setenv("RIPPLE_RETRY_DELAY", "0")
    for attempts in (1, 2):
        faltering.asked.clear()
        monkeypatch.setenv("RIPPLE_RETRY_ATTEMPTS", str(attempts))
        assert (call(absurd, "absurd", words) == 0) is (attempts == 2)
        told = capsys.readouterr()
        if attempts == 1:
            assert "does not answer" in told.err
        else:
            assert json.loads(told.out)["rows"] == whole.num_rows


def test_only_what_was_not_given_is_asked_again() -> None:
    """Of three patches that one which fails at first is asked twice; by the retries that all have without a word.

    Tables are read in the caller's thread, see `ButlerCatalog.stream`.
    """
    asked: list[int | None] = []

    class Client:
        place = "here"

        def dataset_type(self, kind: str) -> str:
            return kind

        def find_patches(self, _: Any) -> list[tuple[int, int]]:
            return [(1, patch) for patch in range(3)]

        def dimensions(self, _: str) -> tuple[str, ...]:
            return ("tract", "patch")

        def locate(self, patches: Any, **_: Any) -> dict[tuple[int, int], list[str]]:
            return {key: ["there"] for key in patches}

        def get_catalog(self, tract: int, patch: int | None, *_: Any) -> Any:
            asked.append(patch)
            assert threading.current_thread() is threading.main_thread()
            if asked == [0, 1]:
                raise ButlerConnectionError("it does not answer")
            return pa.table({"objectId": [patch], "coord_ra": [10.0], "coord_dec": [20.0]})

    client: Any = Client()
    assert fetch_catalog(ButlerCatalog(client), Circle(10, 20, 1), ["objectId"])["objectId"].to_pylist() == [0, 1, 2]
    assert asked == [0, 1, 1, 2]


def test_a_repository_that_stays_away_is_stood_in_for(
    own_repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its attempts the next repository gives the whole catalogue."""
    butler = Butler.from_config(own_repository)
    region = Circle(*centre_of(butler, 9615, 14), 0.025)
    butler.close()
    config = ButlerConfig(repo_path=own_repository, collections=["chain"], retry_delay=0.0, retry_attempts=2)
    with LsstDataFetcher(config) as fetcher:
        expected = fetcher.fetch_catalog(region, ["objectId"])
        away = ButlerClient(Settings(repo_path=str(tmp_path / "away")))
        asked: list[str] = []

        def find_patches(_: Any) -> Any:
            asked.append("find_patches")
            raise ButlerConnectionError("it does not answer")

        monkeypatch.setattr(away, "dataset_type", lambda _: "objectTable")
        monkeypatch.setattr(away, "find_patches", find_patches)
        fetcher._clients = {"away": away} | fetcher._clients
        assert fetcher.fetch_catalog(region, ["objectId"]).equals(expected)
    assert asked == ["find_patches"] * 2


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


@pytest.mark.parametrize("kind", ["SourceCatalog", "AstropyTable", "AstropyQTable"])
def test_tables_that_are_no_parquet(own_repository: str, tmp_path: Path, kind: str) -> None:
    """A FITS file of afw's without afw, and Astropy's: whole or some columns, of all rows or a patch, with units."""
    table = Table({"id": np.array([2**53 + 1, 2, 3]), "flux": [1.5, 2.5, 3.5] * u.nJy, "patch": [14, 14, 15]})
    butler = Butler.from_config(own_repository, writeable=True)
    stored = DatasetType("src", ("skymap", "tract"), kind, universe=butler.dimensions)
    butler.registry.registerDatasetType(stored)
    if kind == "SourceCatalog":
        table.write(tmp_path / "src.fits")
        ref = DatasetRef(stored, butler.registry.expandDataId(skymap=SKYMAP, tract=9615), run="first")
        file = FileDataset(str(tmp_path / "src.fits"), [ref], formatter=ExposureFormatter)  # afw's own is not here
        butler.ingest(file, transfer="direct")
    else:
        butler.put(QTable(table) if "Q" in kind else table, stored, skymap=SKYMAP, tract=9615, run="first")
    butler.close()

    with ButlerClient(Settings(repo_path=own_repository)) as client:
        whole = client.get_catalog(9615, None, "src")
        some = client.get_catalog(9615, 14, "src", ["flux", "id"])
        with pytest.raises(DataIdValidationError, match="the catalogue has no column mag; it has flux, id, patch"):
            client.get_catalog(9615, 14, "src", ["mag"])

    assert whole.column_names == ["id", "flux", "patch"] and whole.num_rows == 3
    assert some.to_pydict() == {"flux": [1.5, 2.5], "id": [2**53 + 1, 2]}
    assert some.schema.field("flux").metadata[b"unit"] == b"nJy"
