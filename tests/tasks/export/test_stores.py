"""Exports to addresses: a real S3 server, a file system of fsspec, and files by their address."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from absurd.tasks.export import (
    ExportConfigError,
    ExportFailedError,
    ManifestError,
    batch,
    export_query,
    open_dataset,
    read_manifest,
    store,
    verify_manifest,
)
from absurd.tasks.export.destination import beside, filesystem_of, name_of, place_of, place_to_write

Until = Callable[[Callable[[], object]], None]
QUERY = "select n, n % 3 as k, repeat('x', 50) || n as t from generate_series(1, 30000) n"
FAILING = "select n, 1 / (20000 - n) as a from generate_series(1, 30000) n"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """A server that speaks S3."""
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket; credentials are in the environment, as they are for users."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "geheim",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{uuid4().hex[:12]}"
    fs.S3FileSystem(endpoint_override=s3_server, allow_bucket_creation=True).create_dir(bucket)
    return f"s3://{bucket}"


@pytest.fixture(params=["s3", "memory"])
def root(request: pytest.FixtureRequest) -> str:
    """The address of an empty place: by pyarrow's own file system, and by one of fsspec."""
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    return f"memory://{uuid4().hex[:12]}"


def keys(address: str) -> list[str]:
    """All there is below an address."""
    files, path = filesystem_of(address)
    found = files.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return sorted(each.path.split(name_of(address) + "/", 1)[1] for each in found if each.is_file)


def test_a_file_in_a_store(database_url: str, root: str) -> None:
    """It is the file that a path would have had, beside its manifest, and nothing else; a second one replaces it."""
    result = export_query(database_url, QUERY, f"{root}/night/x.parquet")

    assert keys(root) == ["night/x.parquet", "night/x.parquet.manifest.json"]
    assert result.manifest == f"{root}/night/x.parquet.manifest.json"
    assert verify_manifest(f"{root}/night/x.parquet").files == verify_manifest(result.manifest).files == result.files
    files, path = filesystem_of(f"{root}/night/x.parquet")
    assert pq.read_table(path, filesystem=files)["n"].to_pylist() == list(range(1, 30_001))
    assert export_query(database_url, "select 1 as a", f"{root}/night/x.parquet").rows == 1
    assert verify_manifest(f"{root}/night/x.parquet").query == "select 1 as a"
    assert keys(root) == ["night/x.parquet", "night/x.parquet.manifest.json"]


def test_a_file_that_fails(database_url: str, root: str) -> None:
    """Nothing of it is seen, and what was there before stays; with `unfinished` it is kept under that name."""
    place = f"{root}/x.parquet"
    with pytest.raises(ExportFailedError):
        export_query(database_url, FAILING, place, row_group_size=1000)
    assert keys(root) == []
    export_query(database_url, "select 1 as a", place)
    with pytest.raises(ExportFailedError):
        export_query(database_url, FAILING, place, row_group_size=1000, unfinished=beside(place, ".part"))
    assert keys(root) == ["x.parquet", "x.parquet.manifest.json", "x.parquet.part"]
    assert verify_manifest(place).rows == 1
    files, path = filesystem_of(f"{root}/x.parquet.part")
    assert pq.read_metadata(path, filesystem=files).num_rows % 1000 == 0


def test_a_dataset_in_a_store(database_url: str, root: str) -> None:
    """Files in folders and a manifest, replaced as a whole by another one; readers find them."""
    place = f"{root}/night"
    result = export_query(database_url, QUERY, place, partition_by=["k"], max_rows_per_file=4000)
    assert [each.path for each in result.files] == [
        f"k={key}/part-0000{number}.parquet" for key in range(3) for number in range(3)
    ]
    assert verify_manifest(place).rows == 30_000
    files, path = filesystem_of(place)
    plain = ds.dataset(path, filesystem=files, partitioning="hive").to_table().sort_by("n")
    exact = open_dataset(place).to_table().sort_by("n")
    assert plain["n"].to_pylist() == exact["n"].to_pylist() == list(range(1, 30_001))
    assert plain["k"].to_pylist() == exact["k"].to_pylist() == [n % 3 for n in range(1, 30_001)]

    with pytest.raises(ExportFailedError):
        export_query(database_url, FAILING, place, max_rows_per_file=1000)
    assert verify_manifest(place).rows == 30_000
    export_query(database_url, "select 1 as a", place, max_rows_per_file=10)
    assert keys(root) == ["night/_manifest.json", "night/part-00000.parquet"]


def test_a_folder_of_others(database_url: str, root: str) -> None:
    """What no export has written is not removed."""
    files, path = filesystem_of(f"{root}/night")
    store._write(files, f"{path}/notes.txt", b"mine")
    with pytest.raises(ExportConfigError, match=r"holds notes\.txt"):
        export_query(database_url, QUERY, f"{root}/night", max_rows_per_file=10)
    assert keys(root) == ["night/notes.txt"]


def test_a_replacement_that_was_interrupted(database_url: str, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two datasets there is no manifest, so none takes the half for a whole; the next export repairs it."""
    place = f"{root}/night"
    export_query(database_url, QUERY, place, partition_by=["k"])
    moved: list[str] = []

    def stop(files: Any, path: str, to: str) -> None:
        if moved:
            raise InterruptedError
        moved.append(to)
        files.move(path, to)

    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(store, "_move", stop)
        export_query(database_url, QUERY, place, max_rows_per_file=10_000)
    assert keys(root) == ["night/_replacing.json", "night/part-00000.parquet"]
    with pytest.raises(ManifestError, match="has no manifest"):
        verify_manifest(place)

    export_query(database_url, QUERY, place, partition_by=["k"])
    assert keys(root) == ["night/_manifest.json", *(f"night/k={key}/part-00000.parquet" for key in range(3))]


def test_killed_while_it_writes(database_url: str, bucket: str, until: Until) -> None:
    """An object of a killed process is never seen, under no name; what was moved aside goes with the next export."""
    stuck = "case when n = 90000 then pg_sleep(60)::text end"
    query = f"select n, {stuck} as s, md5(n::text) as t from generate_series(1, 99999) n"
    code = "import sys; from absurd.tasks.export import export_query as e; e(*sys.argv[1:4], max_rows_per_file=20000)"
    process = subprocess.Popen([sys.executable, "-c", code, database_url, query, f"{bucket}/night"])
    until(lambda: len(keys(bucket)) >= 3)
    process.kill()
    process.wait()
    assert not [key for key in keys(bucket) if key.startswith("night")]
    assert all(key.startswith(".night.") for key in keys(bucket))

    export_query(database_url, "select 1 as a", f"{bucket}/night", max_rows_per_file=10)

    assert keys(bucket) == ["night/_manifest.json", "night/part-00000.parquet"]


def test_large_objects(database_url: str, bucket: str) -> None:
    """Objects of several parts are whole."""
    query = "select n, md5(n::text) || md5((-n)::text) as t from generate_series(1, 400000) n"
    result = export_query(database_url, query, f"{bucket}/x.parquet")

    assert result.bytes > 12 << 20
    assert verify_manifest(f"{bucket}/x.parquet").rows == 400_000


def test_an_address_of_a_file_is_a_path(database_url: str, tmp_path: Path) -> None:
    """``file://`` is what the path is: the same file, put there in one step, with the same manifest."""
    place = tmp_path / "a b" / "x.parquet"
    result = export_query(database_url, QUERY, place.as_uri())

    assert sorted(path.name for path in place.parent.iterdir()) == ["x.parquet", "x.parquet.manifest.json"]
    assert result.manifest == f"{place}.manifest.json"
    assert verify_manifest(place.as_uri()) == read_manifest(place)
    assert place_of(f"file://localhost{place}") == str(place)


def test_a_store_that_says_no(database_url: str, bucket: str) -> None:
    """A bucket that is not there is an OSError, before any row is read; no secret is in it."""
    with pytest.raises(OSError, match=r"NO_SUCH_BUCKET|does not exist|404|NOT_FOUND") as caught:
        export_query(database_url, "select pg_sleep(60)", "s3://nowhere-at-all/x.parquet")
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing://a/b", "names the file system 'nothing', which neither pyarrow nor fsspec knows"),
        ("github://a:b@c/d", "holds a user or a password"),
        ("s3://b/x?session_token=geheim", "has the parameter 'session_token', which may be a secret"),
        ("abfs://c:geheim@a.dfs.core.windows.net/x", "holds a user or a password"),
        ("s3://key@b/x", "holds a user or a password"),
        ("memory://", "names no file"),
        ("1://b/x", "neither a path nor an address"),
        ("s3://[b/x", "cannot be read"),
        ("hdfs://h/x", "cannot be used: Unable to load"),
    ],
)
def test_addresses_that_are_none(database_url: str, address: str, message: str) -> None:
    """Each is refused with the way out, and without the secret that is in it."""
    with pytest.raises(ExportConfigError, match=message) as caught:
        export_query(database_url, "select pg_sleep(60)", address)
    assert "geheim" not in str(caught.value) and "geheim" not in str(caught.value.details)


def test_a_package_that_is_missing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with the way out."""
    fsspec.register_implementation("needy", "absent_package.Files", clobber=True, errtxt="install absent_package")
    with pytest.raises(ExportConfigError, match="absent_package"):
        export_query(database_url, "select pg_sleep(60)", "needy://a/b")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ExportConfigError, match="needs the package fsspec, which is not installed"):
        export_query(database_url, "select pg_sleep(60)", "memory://a/b")


def test_places() -> None:
    """Addresses that hold no secret are taken as they are."""
    for address in (
        "s3://b/a/x.parquet?region=eu-west-1&endpoint_override=localhost:9000&scheme=http",
        "abfs://container@account.dfs.core.windows.net/x",
        "gs://anonymous@b/x",
        "sftp://me@host/x",
    ):
        assert place_of(address) == address
    assert beside("s3://b/a/x?region=eu-west-1", ".part") == "s3://b/a/x.part?region=eu-west-1"
    assert (name_of("s3://b/a/x?region=r"), name_of("memory://x"), name_of("/a/x/")) == ("x", "x", "x")


@pytest.mark.parametrize("address", ["s3://b", "gs://b/", "abfs://container@account"])
def test_a_bucket_is_no_file(address: str) -> None:
    """It is refused before anything is asked for, with what to write."""
    with pytest.raises(ExportConfigError, match="names a bucket and nothing in it"):
        place_to_write(address)


def test_a_store_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as an export that failed, before anything is read."""

    def refuse(_: str) -> None:
        raise OSError("When resolving region for bucket 'b': could not resolve host")

    monkeypatch.setattr(batch, "filesystem_of", refuse)
    with pytest.raises(ExportFailedError, match="s3://b/x cannot be reached: When resolving"):
        batch.export_batch("", [{"sql": "select 1 as a", "out": "s3://b/x"}])
