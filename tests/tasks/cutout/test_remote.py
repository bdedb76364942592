"""Remote files: the pixels of the local file, by no more bytes than they need; each failure in its row."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from moto.server import ThreadedMotoServer
from pyarrow import fs
from range_server import Served, serve
from skies import make_wcs, no_index, pixels_of

from absurd.tasks.cutout import (
    ButlerConfig,
    ButlerConnectionError,
    CutoutRequest,
    ImageRef,
    ImageUnreadableError,
    LsstDataFetcher,
    SourceNotFoundError,
    extract,
    parsed,
    ranged,
)
from absurd.tasks.cutout.batch import cut_stream
from absurd.tasks.cutout.fetch import fetch_chunk
from absurd.tasks.cutout.ranged import GAP, RemoteFile, Sparse, bytes_read, merged, ranges_of_rows, shown
from absurd.tasks.cutout.retry import READING, RetryPolicy
from absurd.tasks.cutout.sources import remote
from absurd.tasks.cutout.sources.places import fetcher_for
from absurd.tasks.cutout.sources.remote import RemoteSource
from absurd.tasks.cutout.targets import Targets

RA, DEC = 150.0, 2.5
SHAPE = (600, 2000)
CONFIG = ButlerConfig(folder="-", retry_attempts=1, retry_delay=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image plain, in RICE tiles with mask, in GZIP tiles, and packed as a whole."""
    folder = tmp_path_factory.mktemp("served")
    pixels, header = pixels_of(SHAPE), make_wcs(RA, DEC, crpix=(1000.5, 300.5)).to_header()
    header["BAND"] = "r"
    fits.PrimaryHDU(pixels, header).writeto(folder / "plain.fits")
    fits.PrimaryHDU(pixels[:50, :50], header).writeto(folder / "packed.fits.gz")
    for name, kind in (("rice", "RICE_1"), ("gzip", "GZIP_2")):
        mask = np.random.default_rng(1).integers(0, 4, SHAPE, dtype=np.int32)
        hdus = [
            fits.CompImageHDU(
                each, header, name=name_, compression_type=kind, tile_shape=(50, 50), quantize_level=level
            )
            for each, name_, level in ((pixels, "IMAGE", 16.0 if kind == "RICE_1" else 0.0), (mask, "MASK", 0.0))
        ]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / f"{name}.fits")
    return folder


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    with serve(folder) as server:
        yield server


def fetch(address: str, *requests: CutoutRequest) -> list[Any]:
    with LsstDataFetcher(CONFIG, sources={"remote": RemoteSource([address])}) as fetcher:
        return list(fetcher.fetch_batch_cutouts(requests))


@pytest.mark.parametrize(("name", "most"), [("plain", 0.15), ("rice", 0.2), ("gzip", 1.5)])
def test_the_pixels_are_those_of_the_file_by_few_bytes(served: Served, folder: Path, name: str, most: float) -> None:
    """Rows of plain images and tiles of RICE: a fraction of the file crosses the wire, headers included."""
    planes = ("image",) if name == "plain" else ("image", "mask")
    before = bytes_read()
    (row,) = fetch(f"{served.address}/{name}.fits", CutoutRequest(RA, DEC, 30, planes=planes))
    alone = extract(folder / f"{name}.fits", (RA, DEC), 30, unit="pixel", planes=planes)

    size = (folder / f"{name}.fits").stat().st_size
    print(name, served.sent, "of", size)
    assert row.state == "accepted", row.reason
    assert np.array_equal(row.pixels[0], alone.image.pixels)
    assert all(np.array_equal(row.plane(each)[0], alone.planes[each]) for each in planes[1:])
    assert served.sent == bytes_read() - before
    assert served.sent < most * size
    assert row.cutout().header["CRPIX1"] == alone.header["CRPIX1"]


def test_headers_are_read_once(served: Served) -> None:
    """The second cut reads the rows of its box and nothing else; a size alone is asked."""
    address = f"{served.address}/plain.fits"
    with LsstDataFetcher(CONFIG, sources={"remote": RemoteSource([address])}) as fetcher:
        fetcher.fetch_cutout(RA, DEC, 20)
        before = served.sent
        fetcher.fetch_cutout(RA, DEC + 0.01, 20)

    assert served.sent - before == 19 * SHAPE[1] * 4 + 20 * 4


@pytest.mark.parametrize("name", ["plain", "rice", "gzip"])
def test_what_a_server_does_not_give_at_once_is_asked_again(served: Served, name: str) -> None:
    """An answer 503 to headers, and one to pixels, costs another request and no row; with one attempt, the row."""
    for attempts in (2, 1):
        address = f"{served.address}/{name}.fits"
        config = ButlerConfig(folder="-", retry_attempts=attempts, retry_delay=0.0)
        with LsstDataFetcher(config, sources={"remote": RemoteSource([address])}) as fetcher:
            fetcher.fetch_cutout(RA, DEC, 20)
            reasons = []
            for size in (24, 200):
                if size == 24:
                    parsed.forget()
                    ranged._block.cache_clear()
                served.busy = 1
                (row,) = fetcher.fetch_batch_cutouts([CutoutRequest(RA, DEC, size)])
                assert served.busy == 0
                reasons.append(row.reason)
        assert reasons == ["", ""] if attempts == 2 else all("HTTP status 503" in each for each in reasons)


@pytest.mark.parametrize("name", ["plain", "rice", "gzip"])
def test_a_stream_of_cutouts_asks_again(served: Served, folder: Path, name: str) -> None:
    """As the fetcher: an answer 503 to headers and one to pixels cost no row, unless there is to be one attempt."""
    ref = ImageRef(f"{served.address}/{name}.fits", "r", {"image": 0 if name == "plain" else 1})
    targets = Targets.on(np.array([(RA, DEC), (RA, DEC + 0.005)]), [ref])
    expected = extract(folder / f"{name}.fits", (RA, DEC), 24, unit="pixel").image.pixels
    again = RetryPolicy(attempts=2, delay=0.0)
    assert READING.attempts > 1
    for retry in (again, replace(again, attempts=1)):
        for headers in (True, False):
            if headers:
                parsed.forget()
            ranged._block.cache_clear()  # astropy reads pixels in GZIP tiles by these as well
            served.busy = 1
            (batch,) = cut_stream(targets, (24, 24), threads=1, retry=retry)
            assert served.busy == 0
            if retry is again:
                assert not batch.errors
                assert np.array_equal(batch.pixels["image"][batch.rows.tolist().index(0), 0], expected)
            else:
                assert "HTTP status 503" in str(batch.errors[0, 0])


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    """What the server tells of its version decides: pixels are never of two versions."""
    header = make_wcs(RA, DEC, crpix=(20.5, 20.5)).to_header()
    with serve(tmp_path) as served:
        address = f"{served.address}/x.fits"
        with LsstDataFetcher(CONFIG, sources={"remote": RemoteSource([address])}) as fetcher:
            for value in (1.0, 2.0):
                fits.PrimaryHDU(np.full((40, 40), value, np.float32), header).writeto(
                    tmp_path / "x.fits", overwrite=True
                )
                assert (fetcher.fetch_cutout(RA, DEC, 8).pixels == value).all()


def test_what_goes_wrong_is_its_rows_error(served: Served, folder: Path, tmp_path: Path) -> None:
    """No file, an end too early, no ranges, packed as a whole, no server: by class and words; other rows are served."""
    request = CutoutRequest(RA, DEC, 30)

    def reason(address: str) -> tuple[Any, Any]:
        def find(positions: Any, _bands: Any) -> list[list[ImageRef]]:
            good = ImageRef(str(folder / "plain.fits"), "r", {"image": 0})
            return [[ImageRef(address, "r", {"image": 0})], [good]][: len(positions)]

        bad, good = fetch_chunk(find, [request, request])
        assert good.state == "accepted"
        return type(bad.error), bad.reason

    assert reason(f"{served.address}/none.fits")[0] is SourceNotFoundError
    kind, words = reason(f"{served.address}/packed.fits.gz")
    assert kind is ImageUnreadableError and "packed as a whole" in words
    kind, words = reason("http://someone:geheim@127.0.0.1:9/x.fits?signature=geheim")
    assert kind is ButlerConnectionError and "127.0.0.1:9/x.fits cannot be read" in words and "geheim" not in words
    served.ranges = False
    kind, words = reason(f"{served.address}/plain.fits")
    assert kind is ImageUnreadableError and "sends whole files only" in words

    content = (folder / "plain.fits").read_bytes()
    (tmp_path / "torn.fits").write_bytes(content[: len(content) // 3])
    with serve(tmp_path) as torn:
        kind, words = reason(f"{torn.address}/torn.fits")
        assert kind is ImageUnreadableError and "truncated" in words
        torn.said_size = len(content)
        kind, words = reason(f"{torn.address}/torn.fits?again")
        assert kind is ImageUnreadableError and "truncated" in words


def test_a_silent_server_is_left(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the connection and then says nothing is an error of its own after a while."""
    monkeypatch.setattr(ranged, "STALL", 0.2)
    ranged._files_of.cache_clear()
    served.silent = threading.Event()
    try:
        with pytest.raises(ButlerConnectionError, match=r"plain.fits cannot be read: \w*Timeout\w*"):
            RemoteFile.of(f"{served.address}/plain.fits")
    finally:
        served.silent.set()
        ranged._files_of.cache_clear()


def test_a_source_of_which_no_address_answers_is_away(served: Served, folder: Path) -> None:
    """Its rows have failed, as of a repository; one address that answers is enough for the others to be passed over."""
    gone = f"{served.address}/none.fits"
    (row,) = fetch(gone, CutoutRequest(RA, DEC, 30))
    assert isinstance(row.error, ButlerConnectionError) and "none of 1 addresses answers" in row.reason
    source = RemoteSource([gone, f"{served.address}/plain.fits", f"file://{folder}/rice.fits"])
    with LsstDataFetcher(CONFIG, sources={"remote": source}) as fetcher:
        assert fetcher.fetch_cutout(RA, DEC, 8).bands == ("r",)
        assert fetcher.unreadable() == {gone: f"there is no file {gone}"}
    assert list(source.unreachable) == [gone]
    assert [each.test_connection() for each in (source, RemoteSource([gone]), RemoteSource([]))] == [True, False, True]


def test_addresses_are_asked_at_once(tmp_path: Path) -> None:
    """A server that answers only when all are there: sizes, then headers; images stand in the order of the addresses.

    One at a time would be answered by 503.
    """
    names = [f"{band}{number}" for number, band in enumerate("zgrizyug")]
    for name in names:
        header = make_wcs(RA, DEC, crpix=(20.5, 20.5)).to_header()
        header["BAND"] = name
        fits.PrimaryHDU(pixels_of((40, 40)), header).writeto(tmp_path / f"{name}.fits")
    with serve(tmp_path) as served:
        served.meeting = threading.Barrier(len(names), timeout=60)
        source = RemoteSource(f"{served.address}/{name}.fits" for name in names)
        first, again = source.images(), source.images()

    assert [image.told for image in first] == names and again == first
    assert not source.unreachable and source.opened == len(names)
    assert [method for method, _ in served.requests] == ["HEAD"] * 8 + ["GET"] * 8 + ["HEAD"] * 8


def test_no_more_addresses_are_asked_at_once_than_may_be(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """`at_once` of a source; of one that a task names, `max_connections` of the configuration."""
    pools: list[int | None] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
            pools.append(max_workers)
            super().__init__(max_workers, thread_name_prefix)

    monkeypatch.setattr(remote, "ThreadPoolExecutor", Pool)
    monkeypatch.setenv("RIPPLE_MAX_CONNECTIONS", "2")
    addresses = [f"{served.address}/{name}.fits" for name in ("plain", "rice", "gzip")]
    with fetcher_for(addresses, indexed=no_index) as fetcher:
        assert len(fetcher.get_available_data(RA, DEC)) == 3
    assert len(RemoteSource(addresses, at_once=1).images()) == 3
    assert pools == [2, 1]


def test_an_address_whose_headers_do_not_come_is_told(served: Served) -> None:
    """It counts as one that does not answer: the others are served, and it is asked again the next time."""
    addresses = [f"{served.address}/{name}.fits" for name in ("plain", "rice")]
    source = RemoteSource(addresses)
    served.busy = 1
    (image,) = source.images()
    (unreachable,) = source.unreachable
    assert {str(image.path), unreachable} == set(addresses)

    assert [str(each.path) for each in source.images()] == addresses and not source.unreachable


def test_files_of_a_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a server that speaks S3 as from a folder; credentials are those of the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "geheim",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        store = fs.S3FileSystem(endpoint_override=f"http://{host}:{port}", allow_bucket_creation=True)
        store.create_dir("images")
        with store.open_output_stream("images/rice.fits") as stream:
            stream.write((folder / "rice.fits").read_bytes())
        before = bytes_read()
        found, none = fetch("s3://images/rice.fits", CutoutRequest(RA, DEC, 30), CutoutRequest(10.0, 0.0, 30))
    finally:
        server.stop()

    assert np.array_equal(found.pixels[0], extract(folder / "rice.fits", (RA, DEC), 30, unit="pixel").image.pixels)
    assert bytes_read() - before < 0.2 * (folder / "rice.fits").stat().st_size
    assert "on no image" in none.reason


def test_ranges_of_a_file_are_asked_at_once(served: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers only when four ask: rows far apart, and the pieces of one range that is long."""
    monkeypatch.setattr(ranged, "PIECE", 100_000)
    content = (folder / "plain.fits").read_bytes()
    file = RemoteFile.of(f"{served.address}/plain.fits")
    served.requests.clear()
    served.meeting = threading.Barrier(4, timeout=60)
    for ranges in ([(each, 700) for each in range(0, 8 * 3 * GAP, 3 * GAP)], [(3, 350_000)]):
        sparse = Sparse(file)
        sparse.need(ranges)
        assert all(os.pread(sparse.fd, length, start) == content[start:][:length] for start, length in ranges)
        sparse.close()
    assert len(served.requests) == 12


def test_ranges_are_put_together_where_that_is_sooner() -> None:
    """Neighbours are one request; what is far apart is several; secrets of an address are not shown."""
    assert merged([(100, 50), (0, 100), (150 + GAP, 10), (200_000, 5), (7, 0)]) == [(0, 160 + GAP), (200_000, 5)]
    wide = 4 * GAP
    assert list(ranges_of_rows(10, wide, [(slice(2, 4), slice(5, 9))])) == [(15 + 2 * wide, 4), (15 + 3 * wide, 4)]
    assert list(ranges_of_rows(10, 100, [(slice(2, 4), slice(5, 9))])) == [(215, 104)]
    assert shown("https://me:secret@host/x.fits?token=secret") == "https://host/x.fits"
