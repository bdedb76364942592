"""Catalogues of a Butler: a scratch repository with chained collections, ids that floats would blur, and kill -9."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dying import POINT
from house import ROOT
from interrupting import Workers, described
from proof import amount, seed_of
from single_run import fail, run

pytest.importorskip("lsst.daf.butler", reason="the extra [butler] is not installed")

from lsst.daf.butler import Butler, CollectionType, DatasetType

from absurd import RetryPolicy, SyncAbsurdClient
from absurd.cli.extract_catalog import extract_catalog_program
from absurd.cli.run import call
from absurd.errors import ConflictError
from absurd.tasks.export import verify_manifest
from absurd.tasks.export.butler import (
    ButlerRepositoryError,
    CatalogReadError,
    CatalogSchemaError,
    FilterIdsError,
    extract_catalog,
    read_filter_ids,
)
from absurd.tasks.export.butler.parts import kept_parts

BIG = 2**53 + 1
"""No float64 holds it: a detour through floats makes it 2^53."""

Until = Callable[[Callable[[], object]], None]


def table(visit: int, **columns: Any) -> pa.Table:
    """Three sources of a visit, with a unit."""
    ids = pa.array([visit * 10 + n for n in range(3)], pa.int64())
    flux = pa.array([visit + 0.25, None, float("nan")])
    given = {"diaSourceId": ids, "flux": flux, "band": pa.array(["g", "r", ""])} | columns
    made = pa.table(given)
    units = [
        made.schema.field(name).with_metadata({"unit": "nJy"}) if name == "flux" else made.schema.field(name)
        for name in made.schema.names
    ]
    return made.cast(pa.schema(units))


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository: `first` and `second` both have visit 2, `chain` and `back` chain them in either order."""
    place = str(tmp_path_factory.mktemp("butler") / "repo")
    Butler.makeRepo(place)
    with_visits(place)
    return place


def with_visits(place: str) -> None:
    """Fill the repository."""
    butler = Butler.from_config(place, writeable=True)
    registry = butler.registry
    registry.insertDimensionData(
        "instrument",
        {"name": "Cam", "visit_max": 99, "exposure_max": 99, "detector_max": 9, "class_name": "", "visit_system": 1},
    )
    registry.insertDimensionData("physical_filter", {"instrument": "Cam", "name": "g1", "band": "g"})
    registry.insertDimensionData("day_obs", {"instrument": "Cam", "id": 20270101})
    for visit in range(1, 13):
        row = {"instrument": "Cam", "id": visit, "name": str(visit), "physical_filter": "g1", "day_obs": 20270101}
        registry.insertDimensionData("visit", row)
    for name in ("dia_source_visit", "other"):
        kind = DatasetType(
            name, dimensions=("instrument", "visit"), storageClass="ArrowTable", universe=butler.dimensions
        )
        registry.registerDatasetType(kind)
    plain = pa.schema([("diaSourceId", pa.int64()), ("flux", pa.float64()), ("band", pa.string())])
    short, long = pa.array([1, 2, 3], pa.int16()), pa.array([1, 2, 3])
    filled: dict[str, dict[int, pa.Table]] = {
        "first": {2: table(2), 10: table(10), 1: table(1)},
        "second": {2: table(2, flux=pa.array([1.5, 2.5, 3.5])), 3: table(3, diaSourceId=pa.array([30, BIG, BIG - 1]))},
        "empty": {4: table(4).slice(0, 0), 5: table(5)},
        "widened": {1: table(1), 6: table(6, extra=short), 7: table(7, extra=long)},
        "text": {1: table(1), 8: table(8, diaSourceId=pa.array(["a", "b", "c"]))},
        "unit": {1: table(1), 9: table(9).cast(plain)},
        "large": {11: pa.table({"diaSourceId": pa.array(range(1_100_000), pa.int64())})},
        "objects": {
            1: table(1, diaObjectId=pa.array([7, 20, None])),
            2: table(2, diaObjectId=pa.array([8, BIG - 1, BIG])),
        },
        "many": {visit: table(visit) for visit in range(1, 13)},
    }
    for run_name, tables in filled.items():
        butler.collections.register(run_name)
        for visit, each in tables.items():
            butler.put(each, "dia_source_visit", instrument="Cam", visit=visit, run=run_name)
    chains = {"chain": ["first", "second"], "back": ["second", "first"], "grown": ["widened", "second", "many"]}
    for name, parts in chains.items():
        butler.collections.register(name, CollectionType.CHAINED)
        butler.collections.redefine_chain(name, parts)


def ids_of(path: Path) -> list[int | None]:
    """The ids in a catalogue, in its order."""
    found: list[int | None] = pq.read_table(path)["diaSourceId"].to_pylist()
    return found


def filter_file(folder: Path, *columns: tuple[str, Any]) -> Path:
    """A Parquet file to filter by."""
    path = folder / "filter.parquet"
    pq.write_table(pa.table(dict(columns)), path)
    return path


# Datasets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("collections", "flux"), [("chain", 2.25), ("back", 1.5), (["first", "second"], 2.25), (["second", "chain"], 1.5)]
)
def test_one_row_group_for_each_data_id(repo: str, tmp_path: Path, collections: Any, flux: float) -> None:
    """In the order of visits, each once: of two datasets with one data ID that of the first collection counts."""
    result = extract_catalog(tmp_path / "c.parquet", repo, collections)

    file = pq.ParquetFile(tmp_path / "c.parquet")
    groups = [file.read_row_group(number)["diaSourceId"].to_pylist() for number in range(file.num_row_groups)]
    assert groups == [[10, 11, 12], [20, 21, 22], [30, BIG, BIG - 1], [100, 101, 102]]
    assert file.read_row_group(1)["flux"].to_pylist()[0] == flux
    assert (result.rows, result.row_groups, result.datasets, result.taken_over) == (12, 4, 4, 0)
    assert result.bytes == (tmp_path / "c.parquet").stat().st_size
    told = json.loads(file.metadata.metadata[b"absurd.butler"])
    assert [each["data_id"]["visit"] for each in told["datasets"]] == [1, 2, 3, 10]
    assert file.schema_arrow.field("flux").metadata[b"unit"] == b"nJy"
    assert sorted(os.listdir(tmp_path)) == described("c.parquet")
    manifest = verify_manifest(tmp_path / "c.parquet")
    assert (manifest.rows, manifest.files[0].row_groups) == (12, 4)
    assert (manifest.files[0].sha256, manifest.path) == (result.sha256, result.manifest)


def test_values_stay_what_they_are(repo: str, tmp_path: Path) -> None:
    """NULL beside NaN, the empty text, and every digit."""
    extract_catalog(tmp_path / "c.parquet", repo, "first")

    rows = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert [row["flux"] for row in rows[:2]] == [1.25, None]
    assert rows[2]["flux"] != rows[2]["flux"]
    assert [row["band"] for row in rows[:3]] == ["g", "r", ""]


def test_a_large_dataset_is_one_row_group(repo: str, tmp_path: Path) -> None:
    """However many rows it has."""
    result = extract_catalog(tmp_path / "c.parquet", repo, "large")

    assert (result.row_groups, pq.read_metadata(tmp_path / "c.parquet").row_group(0).num_rows) == (1, 1_100_000)


def test_no_rows_are_a_file_with_columns(repo: str, tmp_path: Path) -> None:
    """Datasets without rows leave no row group; a catalogue without any is a file all the same."""
    result = extract_catalog(tmp_path / "c.parquet", repo, "empty")
    assert (result.row_groups, result.datasets, result.rows) == (1, 2, 3)

    nothing = filter_file(tmp_path, ("id", pa.array([], pa.int64())))
    result = extract_catalog(tmp_path / "c.parquet", repo, "empty", filter_ids=nothing)
    assert (result.row_groups, result.rows, ids_of(tmp_path / "c.parquet")) == (0, 0, [])
    assert pq.read_schema(tmp_path / "c.parquet").names == ["diaSourceId", "flux", "band"]


# Columns that differ -----------------------------------------------------------------------------


def test_columns_are_put_under_one_schema(repo: str, tmp_path: Path) -> None:
    """What only some datasets have is NULL in the others, integers widen, and the result tells of each."""
    result = extract_catalog(tmp_path / "c.parquet", repo, "widened")

    assert pq.read_schema(tmp_path / "c.parquet").field("extra").type == pa.int64()
    assert pq.read_table(tmp_path / "c.parquet")["extra"].to_pylist() == [None, None, None, 1, 2, 3, 1, 2, 3]
    assert result.unified == (
        "dataset instrument=Cam, visit=1 has no column 'extra': NULL there",
        "dataset instrument=Cam, visit=6 has 'extra' as int16: now int64",
    )


@pytest.mark.parametrize(
    ("collection", "message"),
    [
        (
            "text",
            "column 'diaSourceId' of dataset instrument=Cam, visit=8 is string, in dataset .* it is int64",
        ),
        ("unit", r"column 'flux' of dataset instrument=Cam, visit=9 has no unit, in dataset .*visit=1 'nJy'"),
    ],
)
def test_columns_that_do_not_go_together(repo: str, tmp_path: Path, collection: str, message: str) -> None:
    """Another type or unit is refused with dataset and column, before anything is written."""
    with pytest.raises(CatalogSchemaError, match=message):
        extract_catalog(tmp_path / "c.parquet", repo, collection)

    assert os.listdir(tmp_path) == []


# Ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([BIG, 30, 30, -1]), [30, BIG]),
        (pa.array([BIG - 1]), [BIG - 1]),
        (pa.array([30.0, 10.0]), [10, 30]),
        (pa.array([str(BIG), "10"]), [10, BIG]),
        (pa.array([Decimal(BIG), Decimal(10)], pa.decimal128(20, 2)), [10, BIG]),
        (
            pa.array([30, 2**63 + 1], pa.uint64()),
            "row 2 of column 'id' of filter.parquet: 92.*09 does not fit",
        ),
        (pa.array([30, None, 10]), "row 2 of column 'id' of filter.parquet: is NULL, which is no id"),
        (pa.array([1.0, 1.7]), "row 2 of column 'id' of filter.parquet: 1.7 is no whole number"),
        (pa.array([1.0, float(BIG)]), "row 2 .*: 9007199254740992.0 is a double, which stands for several integers"),
        (pa.array([float("nan")]), "row 1 .*: nan is no whole number"),
        (pa.array([2.0**25], pa.float32()), "row 1 .* stands for several integers"),
        (pa.array(["10", "0x1F"]), "row 2 .*: '0x1F' is no whole number"),
        (pa.array([str(2**63)]), "row 1 .* does not fit 64 bits"),
        (pa.array([Decimal("1.5")]), r"row 1 .*: Decimal\('1.5'\) is no whole number"),
        (pa.array([True]), "is of type bool; ids are int64"),
    ],
    ids=str,
)
def test_ids_are_strictly_int64(repo: str, tmp_path: Path, values: Any, expected: Any) -> None:
    """Each id finds its own row and no other; what is none is refused with its row, and no file appears."""
    ids = filter_file(tmp_path, ("id", values))
    out = tmp_path / "c.parquet"
    if isinstance(expected, str):
        with pytest.raises(FilterIdsError, match=expected):
            extract_catalog(out, repo, "chain", filter_ids=ids)
        assert not out.exists()
    else:
        extract_catalog(out, repo, "chain", filter_ids=ids)
        assert ids_of(out) == expected


def test_columns_of_the_filter_and_the_target(repo: str, tmp_path: Path) -> None:
    """--filter-column names the column with the ids, --target-column the one they are looked for in."""
    ids = filter_file(tmp_path, ("x", pa.array(["no"])), ("extra", pa.array([2])))
    out = tmp_path / "c.parquet"

    with pytest.raises(FilterIdsError, match="'no' is no whole number"):
        read_filter_ids(ids)
    with pytest.raises(FilterIdsError, match="has no column 'y'; it has x, extra"):
        read_filter_ids(ids, "y")
    with pytest.raises(CatalogSchemaError, match="visit=1 has no column 'extra' to pick rows by"):
        extract_catalog(out, repo, "widened", filter_ids=ids, filter_column="extra", target_column="extra")
    with pytest.raises(CatalogSchemaError, match="type double; rows can be picked by a column of integers only"):
        extract_catalog(out, repo, "first", filter_ids=ids, filter_column="extra", target_column="flux")


def test_another_column_to_pick_rows_by(repo: str, tmp_path: Path, extract: Any) -> None:
    """--target-column looks for the ids in that column, not in `diaSourceId`, whose values they are as well."""
    ids = filter_file(tmp_path, ("id", pa.array([BIG, 20])))

    ended = extract("c.parquet", repo, "objects", "--filter-ids", str(ids), "--target-column", "diaObjectId")

    assert ended[0] == 0, ended
    rows = pq.read_table(tmp_path / "c.parquet").select(["diaSourceId", "diaObjectId"]).to_pylist()
    assert rows == [{"diaSourceId": 11, "diaObjectId": 20}, {"diaSourceId": 22, "diaObjectId": BIG}]
    assert extract("c.parquet", repo, "objects", "--filter-ids", str(ids))[0] == 0
    assert ids_of(tmp_path / "c.parquet") == [20]


# What is not there -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "options", "message"),
    [
        (("nowhere", "chain"), {}, "there is no Butler repository 'nowhere'"),
        ((None, "nowhere"), {}, "no datasets of type 'dia_source_visit' are found in nowhere: No collection"),
        ((None, "chain"), {"dataset_type": "nothing"}, "no datasets of type 'nothing'"),
        ((None, "chain"), {"dataset_type": "other"}, "there are no datasets of type 'other' in chain"),
    ],
)
def test_what_is_not_there_is_named(
    repo: str, tmp_path: Path, where: tuple[str | None, str], options: dict[str, str], message: str
) -> None:
    """Nothing to extract is an error, not a success without a file."""
    with pytest.raises(ButlerRepositoryError, match=message):
        extract_catalog(tmp_path / "c.parquet", where[0] or repo, where[1], **options)  # type: ignore[arg-type]

    assert os.listdir(tmp_path) == []


def test_a_dataset_that_is_lost(tmp_path: Path) -> None:
    """A file that is gone from the repository is an error that names the dataset."""
    place = str(tmp_path / "repo")
    Butler.makeRepo(place)
    with_visits(place)
    next(Path(place, "second").rglob("*_3_*.parq")).unlink()

    with pytest.raises(CatalogReadError, match="dataset instrument=Cam, visit=3 of run second cannot be read"):
        extract_catalog(tmp_path / "c.parquet", place, "chain")


# Kill -9 -----------------------------------------------------------------------------------------

VISITS = 12
"""Datasets of the collections `many` and `grown`."""
REFUSED = (pa.array([BIG, None]), pa.array([1.7]), pa.array([float(BIG)]))
"""Ids that are none; the last would be 2^53."""


def kill(kind: str, at: int, out: Path, repo: str, collection: str, ids: Path) -> None:
    """Extract until the process kills itself, at a point that `dying` tells of."""
    words = [sys.executable, "-m", "dying", kind, str(at), str(out), repo, collection, str(ids)]
    assert subprocess.run(words, env=os.environ | with_helpers(), check=False).returncode == -signal.SIGKILL


def with_helpers() -> dict[str, str]:
    """What lets other processes import the helpers of these tests."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))}


def many_ids(folder: Path) -> Path:
    """A filter file with an id of most visits, and one that no float holds."""
    return filter_file(folder, ("id", pa.array([BIG, *(visit * 10 + visit % 3 for visit in range(1, VISITS))])))


def test_a_killed_extraction_is_gone_on_with(repo: str, tmp_path: Path) -> None:
    """Killed twice, over collections that are chained and differ in their columns: the bytes of a straight run.

    Nothing has its final name before, what was done is not done again, and filters that are refused meanwhile take
    nothing of it away.
    """
    chance = random.Random(seed_of("extract-catalog"))
    ids, out, kept = many_ids(tmp_path), tmp_path / "c.parquet", tmp_path / ".c.parquet.parts"
    straight = extract_catalog(tmp_path / "straight.parquet", repo, "grown", filter_ids=ids)
    assert (straight.datasets, len(straight.unified), straight.rows) == (VISITS, 11, VISITS)
    for _ in range(amount(1, 20)):
        done = 0
        for _ in range(2):
            kinds = ["bytes", "before", "after"] if done < VISITS else ["bytes"]
            kind = chance.choice(kinds)
            at = chance.randrange(1, straight.bytes if kind == "bytes" else VISITS - done + 1)
            kill(kind, at, out, repo, "grown", ids)
            done, before = len(list(kept.glob("*.arrow"))), done
            assert not out.exists() and done >= before, (kind, at)
            for values in REFUSED:
                pq.write_table(pa.table({"id": values}), tmp_path / "refused.parquet")
                with pytest.raises(FilterIdsError):
                    extract_catalog(out, repo, "grown", filter_ids=tmp_path / "refused.parquet")

        result = extract_catalog(out, repo, "grown", filter_ids=ids)

        assert result.taken_over == done, (kind, at)
        assert out.read_bytes() == (tmp_path / "straight.parquet").read_bytes()
        others = ("filter.parquet", "refused.parquet")
        assert sorted(os.listdir(tmp_path)) == sorted([*described("c.parquet", "straight.parquet"), *others])
        out.unlink()


def test_a_killed_task_is_gone_on_with(
    repo: str, module_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its next attempt, in another process of the worker, to the bytes of a straight run."""
    at = random.Random(seed_of("export.butler_catalog")).randrange(1, VISITS + 1)
    ids, out = many_ids(tmp_path), tmp_path / "c.parquet"
    extract_catalog(tmp_path / "straight.parquet", repo, "grown", filter_ids=ids)
    given = {"ABSURD_CALL_MIDDLEWARE": "dying:once", POINT: f"after {at}"}
    for name, value in (given | with_helpers()).items():
        monkeypatch.setenv(name, value)
    params = {"out": str(out), "repo": repo, "collection": "grown", "filter_ids": str(ids)}
    with SyncAbsurdClient(module_database_url) as client, Workers(module_database_url, lease=30) as workers:
        task = client.spawn("export.butler_catalog", params, retry=RetryPolicy(max_attempts=3, base=0.05, factor=1))
        workers.start("1")
        done = client.wait(task, timeout=120)

    assert [run.state for run in done.runs] == ["failed", "completed"]
    assert "SIGKILL" in str(done.runs[0].error)
    assert done.result["taken_over"] >= at
    assert out.read_bytes() == (tmp_path / "straight.parquet").read_bytes()
    assert verify_manifest(out).rows == VISITS


def test_what_another_extraction_left_is_not_used(repo: str, tmp_path: Path) -> None:
    """Parts are those of one plan: with another filter, everything is done anew."""
    out = tmp_path / "c.parquet"
    kill("after", 5, out, repo, "many", filter_file(tmp_path, ("id", pa.array([10, 20, 30]))))

    ids = filter_file(tmp_path, ("id", pa.array([11])))
    result = extract_catalog(out, repo, "many", filter_ids=ids)

    assert (result.taken_over, ids_of(out)) == (0, [11])


def test_two_at_once_are_refused(repo: str, tmp_path: Path) -> None:
    """While one process extracts a file no other begins it."""
    with (
        kept_parts(tmp_path / ".c.parquet.parts", "plan"),
        pytest.raises(ConflictError, match="another process extracts the same file"),
    ):
        extract_catalog(tmp_path / "c.parquet", repo, "chain")


# By task and by command --------------------------------------------------------------------------


def test_as_a_task(repo: str, tmp_path: Path) -> None:
    """The file is published with the completion; the result tells what is in it."""
    params = {"out": str(tmp_path / "new" / "c.parquet"), "repo": repo, "collection": "widened"}

    result, kinds = run("export.butler_catalog", params)

    assert (result["rows"], result["datasets"], len(result["unified"]), kinds) == (9, 3, 2, ["parquet", "manifest"])
    assert sorted(os.listdir(tmp_path / "new")) == described("c.parquet")
    assert verify_manifest(tmp_path / "new" / "c.parquet").files[0].sha256 == result["sha256"]
    error = fail("export.butler_catalog", params | {"collection": "text"})
    assert error["code"] == "butler_schema_unfit"


def test_files_of_a_task_keep_their_place(repo: str, tmp_path: Path) -> None:
    """What a link points to is written, with the mode that it has; a ``file://`` address is a path."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)

    result, _ = run("export.butler_catalog", {"out": f"file://{link}", "repo": repo, "collection": "chain"})

    assert link.is_symlink() and result["path"] == str(real)
    assert verify_manifest(link).rows == 12
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"out": "s3://bucket/c.parquet"}, "can only be a local file"),
        ({"filter_ids": "s3://bucket/ids.parquet"}, "can only be a local file"),
        ({"repo": "https://user:secret@butler/repo"}, "holds a user or a password"),
        ({"repo": "/nowhere/user@host/repo"}, "there is no Butler repository"),
        ({"out": os.devnull}, "a device or a pipe"),
    ],
)
def test_params_that_cannot_be_meant(repo: str, tmp_path: Path, given: dict[str, str], message: str) -> None:
    """Addresses where only files can be, credentials, devices: refused with the reason, and no secret in it."""
    params = {"out": str(tmp_path / "c.parquet"), "repo": repo, "collection": "chain"}
    error = fail("export.butler_catalog", params | given)
    assert message in error["message"]
    assert "secret" not in json.dumps(error)


@pytest.fixture
def extract(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs ``extract-catalog``."""
    monkeypatch.chdir(tmp_path)

    def extract(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = call(extract_catalog_program, "extract-catalog", words)
        return code, *capfd.readouterr()

    return extract


def test_each_flag_of_the_command(repo: str, tmp_path: Path, extract: Any) -> None:
    """Arguments and options as its users know them; --silent prints nothing."""
    ids = filter_file(tmp_path, ("x", pa.array(["no", "yes"])), ("id", pa.array([BIG, 102])))
    options = ("--dataset-type", "dia_source_visit", "--filter-ids", str(ids), "--filter-column", "id")

    code, out, err = extract("c.parquet", repo, "first,second", *options, "--target-column", "diaSourceId")
    assert (code, out.partition(",")[0], err) == (0, "c.parquet: 2 rows of 4 datasets", "")
    assert ids_of(tmp_path / "c.parquet") == [BIG, 102]
    assert pq.read_metadata(tmp_path / "c.parquet").row_group(0).column(0).compression == "ZSTD"

    assert extract("d.parquet", repo, "widened", "--compression", "snappy", "--silent") == (0, "", "")
    assert pq.read_metadata(tmp_path / "d.parquet").row_group(0).column(0).compression == "SNAPPY"

    code, out, err = extract("e.parquet", repo, "chain", "--filter-ids", str(ids))
    assert (code, out) == (2, "")
    assert "row 1 of column 'x' of filter.parquet: 'no' is no whole number" in err

    assert extract(f"file://{tmp_path}/f.parquet", repo, "chain")[0] == 0
    assert ids_of(tmp_path / "f.parquet")[0] == 10


@pytest.mark.parametrize(
    ("out", "options", "code", "message"),
    [
        ("s3://bucket/c.parquet", (), 2, "'s3://bucket/c.parquet' is an address, and a catalogue can only be"),
        ("c.parquet", ("--filter-ids", "gs://b/ids.parquet"), 2, "is an address, and a file of ids can only be"),
        ("c.parquet", ("--filter-ids", "nowhere.parquet"), 2, "nowhere.parquet cannot be read: No such file"),
        ("/dev/null", (), 2, "/dev/null is a device or a pipe"),
        ("/proc/nowhere/c.parquet", (), 1, "the catalogue /proc/nowhere/c.parquet cannot be made"),
    ],
)
def test_what_the_command_refuses(
    repo: str, tmp_path: Path, extract: Any, out: str, options: tuple[str, ...], code: int, message: str
) -> None:
    """In a sentence, and nothing is written."""
    ended = extract(out, repo, "chain", *options)
    assert ended[:2] == (code, "")
    assert message in ended[2]
    assert "unexpected" not in ended[2]
    assert os.listdir(tmp_path) == []
