"""The client of a real Butler: what is there, boxes of images, catalogues, chains, and what is wrong or away."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import yaml
from lsst.daf.butler import Butler
from scratch_butler import PATCHES, SHAPE, SKYMAP, Settings, Token
from statements import statements

from absurd.tasks.cutout.catalogs.columns import to_astropy
from absurd.tasks.cutout.errors import (
    ButlerConnectionError,
    CollectionError,
    DataIdValidationError,
    ImageUnreadableError,
    PerformanceError,
    PlaneNotFoundError,
    PositionOutsideError,
    SourceNotFoundError,
)
from absurd.tasks.cutout.patches import PixelBox
from absurd.tasks.cutout.sources.butler import ButlerClient
from absurd.tasks.cutout.sources.butler_pool import without_password

G = {"tract": 9615, "patch": 14, "band": "g"}


def client_of(repository: str, *collections: str, **options: Any) -> ButlerClient:
    return ButlerClient(Settings(repo_path=repository, collections=collections or ("chain",), **options))


# What there is -----------------------------------------------------------------------------------


def test_the_connection_is_tested_by_one_query(repository: str) -> None:
    """An open client tells whether its repository answers without listing anything."""
    with client_of(repository) as client:
        assert client.test_connection() is True
        with statements() as sent:
            assert client.test_connection() is True
        assert len(sent) <= 2  # the collections, and those in the chain
        assert client.pool.opened == 1


def test_what_a_patch_has(repository: str) -> None:
    """Datasets by type, told by their data IDs; of the tract's own too; types without any are left out."""
    with client_of(repository) as client:
        found = client.query_available_datasets(9615, 14)
        assert list(found) == ["deepCoadd", "objectTable", "objectTable_tract"]
        assert [each["band"] for each in found["deepCoadd"]] == ["g", "r"]
        assert found["objectTable"] == [{"skymap": SKYMAP, "tract": 9615, "patch": 14}]
        assert list(client.query_available_datasets(9615, 15)) == ["objectTable_tract"]
        assert client.query_available_datasets(9813, 15) == {}
    with client_of(repository, "empty") as client:
        assert client.query_available_datasets(9615, 14) == {}


def test_the_sky_map_is_told_by_the_registry(repository: str) -> None:
    """Name, hash and limits, and the tract and patch of positions by the regions that are there."""
    with client_of(repository) as client:
        sky_map = client.get_skymap()
        assert (sky_map.record.name, sky_map.record.tract_max, sky_map.record.patch_nx_max) == (SKYMAP, 18938, 9)
        tracts, patches = sky_map.owning(np.array([10.0]), np.array([-60.0]))
        assert (tracts.tolist(), patches.tolist()) == ([-1], [-1])


def test_collections_that_are_not_there(repository: str) -> None:
    """The error names those that are missing and those that exist; a pattern is no collection."""
    with client_of(repository, "first", "absent") as client:
        with pytest.raises(CollectionError, match="has no collection absent; there are back, chain, empty, first"):
            client.query_available_datasets(9615, 14)
        with pytest.raises(CollectionError, match="has no collection absent"):
            client.test_connection()
        assert client.list_collections() == ["back", "chain", "empty", "first", "second", "whole"]
    with client_of(repository, "fir*") as client, pytest.raises(CollectionError, match="is a pattern"):
        client.test_connection()


# Images ------------------------------------------------------------------------------------------


def test_a_box_is_the_slice_of_the_whole(repository: str) -> None:
    """All planes, at random boxes of the tract's pixels, with the WCS that puts each pixel where it was."""
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    with client_of(repository) as client:
        whole = client.get_exposure(G)
        assert whole.box == PixelBox(19900, 3900, 19900 + SHAPE[1], 3900 + SHAPE[0])
        deferred = client.get_deferred(G)
        assert (deferred.box, deferred.planes) == (whole.box, ("image", "mask", "variance"))
        for _ in range(5):
            x, y = int(random.integers(0, SHAPE[1])), int(random.integers(0, SHAPE[0]))
            nx, ny = int(random.integers(1, SHAPE[1] - x + 1)), int(random.integers(1, SHAPE[0] - y + 1))
            box = PixelBox(19900 + x, 3900 + y, 19900 + x + nx, 3900 + y + ny)
            for part in (client.get_exposure(G, box), deferred.read(tuple(box)), whole.cut(box)):
                assert part.box == box
                for name in ("image", "mask", "variance"):
                    assert np.array_equal(part.planes[name], whole.planes[name][y : y + ny, x : x + nx])
                    assert part.planes[name].dtype == whole.planes[name].dtype
                assert np.allclose(
                    part.wcs.all_pix2world(0, 0, 0), whole.wcs.all_pix2world(x, y, 0), rtol=0, atol=1e-12
                )
        assert whole.mask_value("SAT", "DETECTED_NEGATIVE") == 0b1000010
        with pytest.raises(PlaneNotFoundError, match="the mask has no plane NONE; it has BAD"):
            whole.mask_value("NONE")


def test_the_butler_itself_reads_a_box(repository: str) -> None:
    """Our formatter gives `Butler.get` boxes, planes and components, also through a deferred handle."""
    with client_of(repository) as client:
        whole = client.get_exposure(G)
    butler = Butler.from_config(repository, collections="chain")
    try:
        box = PixelBox(19910, 3920, 19917, 3925)
        handle = butler.getDeferred("deepCoadd", G, skymap=SKYMAP)
        assert np.array_equal(handle.get(parameters={"bbox": box}).image, whole.image[20:25, 10:17])
        assert list(handle.get(parameters={"bbox": box, "planes": ("mask",)}).planes) == ["mask"]
        assert np.array_equal(butler.get("deepCoadd.variance", G, skymap=SKYMAP), whole.variance)
    finally:
        butler.close()


@pytest.mark.parametrize(
    ("bbox", "error", "message"),
    [
        ((19899, 3900, 19905, 3905), PositionOutsideError, r"bbox \(19899, 3900, .*\) is not wholly on .*fits"),
        ((19900, 3900, 20041, 3905), PositionOutsideError, r"which is \(19900, 3900, 20040, 4020\)"),
        ((19900, 3900, 19900, 3905), DataIdValidationError, "there is no pixel"),
        ((1, 2, 3), DataIdValidationError, "four whole numbers"),
        ((1.5, 2, 3, 4), DataIdValidationError, "four whole numbers"),
    ],
)
def test_boxes_that_cannot_be_read(repository: str, bbox: Any, error: type[Exception], message: str) -> None:
    """A box that is not wholly on the image is refused, not clipped."""
    with client_of(repository) as client, pytest.raises(error, match=message):
        client.get_exposure(G, bbox)


@pytest.mark.parametrize(
    ("collections", "same"),
    [(["chain"], "first"), (["back"], "second"), (["whole"], "first"), (["second", "chain"], "second")],
)
def test_of_two_datasets_the_first_collection_counts(repository: str, collections: list[str], same: str) -> None:
    """In chains, chains of chains, and lists: for single images and for many located at once."""
    with client_of(repository, same) as one, client_of(repository, *collections) as client:
        assert np.array_equal(client.get_exposure(G).image, one.get_exposure(G).image)
        (expected,) = [each for each in one.locate([(9615, 14)])[9615, 14] if each.band == "g"]
        found = client.locate(PATCHES)
        assert [each.band for each in found[9615, 14]].count("g") == 1
        assert expected in found[9615, 14]
        assert sorted(str(each.band) for each in found[9813, 72]) == ["g", "r"]


@pytest.mark.parametrize(
    ("data_id", "options", "error", "message"),
    [
        (G | {"band": "z"}, {}, SourceNotFoundError, "there is no deepCoadd of .*band=z"),
        (G | {"tract": 1}, {}, SourceNotFoundError, "there is no deepCoadd of tract=1"),
        ({"tract": 9615}, {}, DataIdValidationError, "are told by .*; the data ID has tract=9615"),
        (G | {"visit": 5}, {}, DataIdValidationError, "the data ID has .*visit=5"),
        (G, {"dataset_type": "nothing"}, SourceNotFoundError, "nothing"),
    ],
)
def test_data_ids_that_mean_nothing(
    repository: str, data_id: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What is missing and what is wrong are told apart."""
    with client_of(repository) as client, pytest.raises(error, match=message):
        client.get_exposure(data_id, **options)


def test_many_patches_are_one_query(repository: str) -> None:
    """The number of statements does not grow with the number of patches that are asked for."""
    with client_of(repository) as client:
        client.locate([(9615, 14)])
        with statements() as few:
            client.locate([(9615, 14)])
        with statements() as many:
            found = client.locate([(tract, patch) for tract in (9615, 9813) for patch in range(81)])
    assert len(many) <= len(few)
    assert {key for key, each in found.items() if each} == set(PATCHES)
    assert len(found) == 162


def test_what_the_registry_said_is_kept(repository: str) -> None:
    """A cache is asked with one key for each patch, and what it has is not asked for again."""
    kept: dict[Any, Any] = {}

    class Keeping:
        def get_or_load(self, key: Any, load: Any) -> Any:
            if key not in kept:
                kept[key] = load()
            return kept[key]

    config = Settings(repo_path=repository, collections=("chain",))
    with ButlerClient(config, cache=Keeping()) as client:
        first = (client.locate(PATCHES), client.query_available_datasets(9615, 14))
        with statements() as sent:
            assert (client.locate(PATCHES), client.query_available_datasets(9615, 14)) == first
        assert sent == []
    with ButlerClient(config, cache=Keeping()) as client, statements() as sent:
        assert client.locate([(9615, 14)])[9615, 14] == first[0][9615, 14]
        assert client.pool.opened == 0


def test_a_file_that_is_gone_or_torn(own_repository: str) -> None:
    """The registry still has it: the read says that the file is not there, or not whole."""
    with client_of(own_repository) as client:
        path = client.get_deferred(G).path
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ImageUnreadableError):
            client.get_exposure(G)
        path.unlink()
        with pytest.raises(SourceNotFoundError, match="there is no file"):
            client.get_exposure(G)


# Catalogues --------------------------------------------------------------------------------------


def test_a_catalogue_with_units(repository: str) -> None:
    """By kind or by name, all columns or some, to Arrow and to Astropy; of a whole tract the rows of the patch."""
    with client_of(repository) as client:
        table = client.get_catalog(9615, 14, "object")
        assert table.column_names == ["objectId", "flux", "patch", "coord_ra", "coord_dec"]
        assert table["objectId"].to_pylist() == [(9615 << 40) + 14_000 + n for n in range(5)]
        assert str(to_astropy(table)["flux"].unit) == "nJy"
        assert client.get_catalog(9615, 14, "objectTable", ["flux"]).column_names == ["flux"]
        whole = client.get_catalog(9615, None, "objectTable_tract")
        assert whole.num_rows == 10
        assert client.get_catalog(9615, 14, "objectTable_tract").equals(whole.slice(0, 5))
        assert client.get_catalog(9615, 15, "objectTable_tract", ["flux"]).equals(whole.slice(5).select(["flux"]))
        with pytest.raises(
            DataIdValidationError, match="has no column mag; it has coord_dec, coord_ra, flux, objectId, patch"
        ):
            client.get_catalog(9615, 14, "object", ["mag"])
        with pytest.raises(SourceNotFoundError, match="there is no objectTable"):
            client.get_catalog(9615, 15, "object")
        with pytest.raises(DataIdValidationError, match="patch is '1,4'"):
            client.get_catalog(9615, "1,4", "object")  # type: ignore[arg-type]


# What is away ------------------------------------------------------------------------------------


def test_a_repository_that_is_away(own_repository: str, tmp_path: Path) -> None:
    """Never there, or moved while the client is open: an error that says so; the client works again when it is back."""
    with client_of(str(tmp_path / "absent")) as client:
        assert client.test_connection() is False
        with pytest.raises(ButlerConnectionError, match=r"there is no Butler repository .*absent"):
            client.get_skymap()
    with client_of(own_repository) as client:
        client.locate(PATCHES)
        client.cleanup()
        shutil.move(own_repository, tmp_path / "moved")
        assert client.test_connection() is False
        with pytest.raises(ButlerConnectionError, match="there is no Butler repository"):
            client.locate(PATCHES)
        shutil.move(tmp_path / "moved", own_repository)
        assert client.test_connection() is True
        assert len(client.locate(PATCHES)) == 2


def test_a_database_that_is_damaged(own_repository: str) -> None:
    """What the database says is an error of the connection, not one of a library below."""
    with client_of(own_repository) as client:
        Path(own_repository, "gen3.sqlite3").write_bytes(b"no database" * 100)
        assert client.test_connection() is False
        with pytest.raises(ButlerConnectionError, match="does not answer"):
            client.locate(PATCHES)


def test_dataset_types_are_those_of_the_release_that_is_there(repository: str) -> None:
    """A kind is what the collections have of it, or what the configuration says; what is neither is told."""
    with client_of(repository) as client:
        kinds = ("image", "object", "anything")
        assert [client.dataset_type(kind) for kind in kinds] == ["deepCoadd", "objectTable", "anything"]
        with pytest.raises(
            SourceNotFoundError, match=r"none of source \(dp1\), src \(dp02\); they have deepCoadd, obj"
        ):
            client.dataset_type("source")
    with client_of(repository, datasets={"source": "sourceTable"}) as client:
        assert client.dataset_type("source") == "sourceTable"
    missing = pytest.raises(DataIdValidationError, match="has no sky map 'other'; there are hsc_rings_v1")
    with client_of(repository, skymap="other") as client, missing:
        client.get_skymap()


@pytest.mark.parametrize("repository", ["postgresql"], indirect=True)
def test_a_database_that_drops_its_connections(repository: str) -> None:
    """As at its restart: the next call connects anew."""
    settings = yaml.safe_load(Path(repository, "butler.yaml").read_text(encoding="utf-8"))
    url = settings["registry"]["db"].replace("+psycopg", "")
    with client_of(repository) as client:
        expected = client.locate(PATCHES)
        with psycopg.connect(url, autocommit=True) as connection:
            dropped = connection.execute(
                "select count(pg_terminate_backend(pid, 30000)) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            ).fetchone()
        assert dropped is not None
        assert dropped[0] >= 1
        assert client.locate(PATCHES) == expected


def test_a_database_that_is_away(own_repository: str) -> None:
    """Its server does not listen: an error of the connection, without the password that the repository has for it."""
    file = Path(own_repository, "butler.yaml")
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    settings.setdefault("registry", {})["db"] = "postgresql+psycopg://me:pass-2718@127.0.0.1:9/none"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with client_of(own_repository) as client:
        assert client.test_connection() is False
        with pytest.raises(ButlerConnectionError, match="does not answer") as caught:
            client.locate(PATCHES)
    assert "pass-2718" not in "".join(traceback.format_exception(caught.value))


def test_nothing_can_be_written(repository: str) -> None:
    """The Butlers are read-only, and no run was made by opening them."""
    with client_of(repository) as client:
        with client.pool.lease() as butler:
            assert butler.isWriteable() is False
            assert butler.run is None
        assert "empty" in client.list_collections()


# Threads -----------------------------------------------------------------------------------------


def test_threads_share_connections(repository: str) -> None:
    """Eight threads over three connections: the same answers as one alone, and no more Butlers than allowed."""
    with client_of(repository, max_connections=3) as client:
        expected = client.get_exposure(G).image
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: client.get_exposure(G).image, range(12)))
        assert all(np.array_equal(each, expected) for each in found)
        assert 1 <= client.pool.opened <= 3


def test_a_connection_that_never_comes_back(repository: str) -> None:
    """Who waits for one longer than the time-out is told how many there are."""
    with client_of(repository, max_connections=1, timeout=0.05) as client:
        client.test_connection()
        held, told = threading.Event(), threading.Event()

        def hold() -> None:
            with client.pool.lease():
                held.set()
                told.wait(30)

        with ThreadPoolExecutor(1) as threads:
            holding = threads.submit(hold)
            held.wait(30)
            with pytest.raises(PerformanceError, match=r"all 1 connections .* are in use"):
                client.locate(PATCHES)
            told.set()
            holding.result()
        assert len(client.locate(PATCHES)) == 2


# Secrets -----------------------------------------------------------------------------------------


CONFIGURATION = b"""
cls: lsst.daf.butler.remote_butler.RemoteButler
remote_butler: {url: <butlerRoot>, authentication: rubin_science_platform}
"""


@pytest.fixture
def refusing_server() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Address of a Butler server that serves its configuration and refuses all else, and what it was asked with."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200 if self.path.endswith("butler.yaml") else 401, CONFIGURATION)

        def do_HEAD(self) -> None:
            self._answer(200 if self.path.endswith("butler.yaml") else 404, b"")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self._answer(401, b"who are you?")

        def _answer(self, status: int, body: bytes) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/butler/repo/x", asked
        server.shutdown()
        thread.join()


def test_a_token_stays_in_its_client(
    refusing_server: tuple[str, list[tuple[str, str | None]]], caplog: pytest.LogCaptureFixture
) -> None:
    """It reaches the server that it is for, and is not in the environment, in what is shown, raised or logged."""
    address, asked = refusing_server
    before = dict(os.environ)
    caplog.set_level(logging.DEBUG)
    config = Settings(server_url=address, collections=("chain",), token=Token("gt-31415"))
    with ButlerClient(config) as client:
        assert client.test_connection() is False
        with pytest.raises(ButlerConnectionError, match=r"status 401.*access_token") as caught:
            client.get_skymap()
    assert ("Bearer gt-31415") in {token for path, token in asked if "/v1/" in path}
    assert {token for path, token in asked if "/v1/" not in path} == {None}
    assert dict(os.environ) == before
    said = [repr(config), repr(client), repr(client.pool), caplog.text, str(caught.value.details)]
    said += traceback.format_exception(caught.value)
    assert not [each for each in said if "gt-31415" in each]


def test_a_server_without_a_token(refusing_server: tuple[str, list[tuple[str, str | None]]]) -> None:
    """The way out is told: none is taken from the environment behind the caller's back."""
    client = ButlerClient(Settings(server_url=refusing_server[0], collections=("chain",)))
    with client, pytest.raises(ButlerConnectionError, match="give access_token"):
        client.get_skymap()


def test_an_address_is_shown_without_its_secrets(tmp_path: Path) -> None:
    """Neither the password in it nor what follows a question mark."""
    assert without_password("https://me:pass-2718@host:8/api?key=3141") == "https://host:8/api"
    assert without_password(str(tmp_path)) == str(tmp_path)
