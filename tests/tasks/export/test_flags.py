"""Each option of ``fast-export``, with what it means; and the samples of the documentation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import psycopg
import pyarrow.parquet as pq
import pytest
from exporting import TOTAL, Mover, exports, fill, total
from house import ROOT
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from absurd.cli.export import fast_export
from absurd.cli.run import call
from absurd.tasks.export import load_config, open_dataset, verify_manifest
from absurd.tasks.export.params import ExportParams

SAMPLES = ROOT / "docs" / "executors" / "export"

Export = Callable[..., "Ended"]
FLAGS = {
    "--sql", "--out", "--config", "--row-group-size", "--block-size", "--keep-temp", "--service", "--dsn", "--host",
    "--port", "--dbname", "--user", "--password",
}  # fmt: skip
"""Those that its users know."""


class Ended:
    """What a run of ``fast-export`` left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


@pytest.fixture
def place(database_url: str) -> dict[str, str]:
    """Host, port, dbname and user of the database to export from."""
    parts = conninfo_to_dict(database_url)
    with psycopg.connect(database_url) as connection:
        parts["user"] = connection.info.user
        parts["port"] = str(connection.info.port)
    return {name: str(parts[name]) for name in ("host", "port", "dbname", "user")}


@pytest.fixture
def export(
    place: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Export:
    """``export("--sql", ...)`` runs ``fast-export``; the environment names no database, a service file does."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    service = "".join(f"{name}={value}\n" for name, value in place.items())
    (tmp_path / "services.conf").write_text(f"[archive]\n{service}")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))

    def run(*words: str) -> Ended:
        capsys.readouterr()
        code = call(fast_export, "fast-export", words)
        return Ended(code, *capsys.readouterr())

    return run


def read(name: str) -> list[dict[str, Any]]:
    """The rows of a file in the working folder."""
    rows: list[dict[str, Any]] = pq.read_table(name).to_pylist()
    return rows


# The table ---------------------------------------------------------------------------------------


def test_no_flag_is_missing() -> None:
    """Every option that users of fast-export know is there, and says what it does."""
    options = {
        name: option.help for option in fast_export.params if isinstance(option, click.Option) for name in option.opts
    }

    assert FLAGS - options.keys() == set()
    assert [name for name in FLAGS if not options[name]] == []


def test_sql_and_out(export: Export) -> None:
    """--sql is exported to --out; a semicolon at its end does no harm, nor does an empty result."""
    assert export("--service", "archive", "--sql", "select 1 as a;", "--out", "a.parquet").code == 0
    assert export("--service", "archive", "--sql", "select 1 as a where false", "--out", "b.parquet").code == 0

    assert (read("a.parquet"), read("b.parquet")) == ([{"a": 1}], [])


def test_row_group_size(export: Export) -> None:
    """--row-group-size is the rows of each row group: full ones, and the rest."""
    query = "select n from generate_series(1, 25) n"
    export("--service", "archive", "--sql", query, "--out", "a.parquet", "--row-group-size", "10")

    metadata = pq.read_metadata("a.parquet")
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [10, 10, 5]


def test_block_size(export: Export) -> None:
    """--block-size bounds buffers, not rows: one that is longer is no problem."""
    query = "select repeat('x', 3000000) as t from generate_series(1, 3)"

    ended = export("--service", "archive", "--sql", query, "--out", "a.parquet", "--block-size", "65536")

    assert ended.code == 0
    assert [len(row["t"]) for row in read("a.parquet")] == [3_000_000] * 3


def test_partition_by_and_max_rows_per_file(export: Export) -> None:
    """--partition-by makes a folder for each value, --max-rows-per-file several files, in each if both are given."""
    query = "select n, n % 2 as half, (n % 3)::text as third from generate_series(1, 60) n"
    words = ("--service", "archive", "--sql", query, "--out", "a", "--max-rows-per-file", "4", "--json")

    files = export(*words, "--partition-by", "half", "--partition-by", "third").document["exports"][0]["files"]

    assert len(files) == 2 * 3 * 3
    assert {each["rows"] for each in files} == {4, 2}
    assert files[0]["path"] == "half=0/third=0/part-00000.parquet"
    assert export(*words).document["exports"][0]["files"][0]["path"] == "part-00000.parquet"
    assert sorted(open_dataset("a").to_table()["n"].to_pylist()) == list(range(1, 61))
    assert "60 rows" in export(*words[:-1]).out and "in 15 files" in export(*words[:-1]).out
    assert "partition_by names 'hlaf'" in export(*words, "--partition-by", "hlaf").err


def test_datasets_in_a_list(export: Export) -> None:
    """An export of a list may be a dataset, and an address; --resume leaves both alone when they are whole."""
    listed: list[dict[str, Any]] = [
        {"sql": "select n, n % 2 as half from generate_series(1, 6) n", "out": "a", "partition_by": ["half"]},
        {"sql": "select 1 as n", "out": "memory://lists/b.parquet"},
        {"sql": "select 2 as n", "out": Path("c.parquet").absolute().as_uri()},
    ]
    Path("x.json").write_text(json.dumps(listed))
    words = ("--service", "archive", "--config", "x.json", "--resume", "--json")

    assert [each["state"] for each in export(*words).document["exports"]] == ["exported"] * 3
    assert [each["state"] for each in export(*words).document["exports"]] == ["kept"] * 3
    next(Path("a").glob("half=1/*")).unlink()
    listed[1]["sql"] = "select 3 as n"
    Path("x.json").write_text(json.dumps(listed))
    assert [each["state"] for each in export(*words).document["exports"]] == ["exported", "exported", "kept"]
    assert verify_manifest("a").rows == 6
    assert open_dataset("memory://lists/b.parquet").to_table().to_pylist() == [{"n": 3}]
    assert read("c.parquet") == [{"n": 2}]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("s4://bucket/a.parquet", "neither pyarrow nor fsspec knows"),
        ("s3://key:geheim@bucket/a.parquet", "holds a user or a password"),
        ("s3://bucket/a.parquet?secret_key=geheim", "has the parameter 'secret_key'"),
        ("file://elsewhere/a.parquet", "a file of another machine"),
        ("s3://", "names no file"),
    ],
)
def test_addresses_that_are_refused(export: Export, tmp_path: Path, out: str, message: str) -> None:
    """No local folder is made of what names another file system; a secret is neither taken nor told."""
    (tmp_path / "list.json").write_text(json.dumps([{"sql": "select 1 as a", "out": out}]))

    for words in (("--sql", "select 1 as a", "--out", out), ("--config", "list.json")):
        ended = export("--service", "archive", *words)
        assert (ended.code, message in ended.err) == (2, True), ended.err
        assert "geheim" not in ended.err
    if "s4" not in out:  # which file systems there are only the worker knows
        with pytest.raises(ValueError, match="1 validation error") as caught:
            ExportParams(sql="select 1 as a", out=out)
        assert message in str(caught.value) and "geheim" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.json", "services.conf"]


def test_keep_temp(export: Export, tmp_path: Path) -> None:
    """--keep-temp keeps what there is of a file whose export failed, readable, under another name; else it goes."""
    query = "select n, 1 / (150000 - n) as a from generate_series(1, 200000) n"
    words = ("--service", "archive", "--sql", query, "--out", "a.parquet", "--row-group-size", "50000")

    assert export(*words).code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["services.conf"]
    assert export(*words, "--keep-temp").code == 1

    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet.part", "services.conf"]
    assert pq.read_metadata("a.parquet.part").num_rows == 100_000


def test_compression(export: Export) -> None:
    """Pages are zstd, or what --compression says."""
    export("--service", "archive", "--sql", "select 1 as a", "--out", "a.parquet")
    export("--service", "archive", "--sql", "select 1 as a", "--out", "b.parquet", "--compression", "snappy")

    codecs = [pq.read_metadata(name).row_group(0).column(0).compression for name in ("a.parquet", "b.parquet")]
    assert codecs == ["ZSTD", "SNAPPY"]


def test_how_types_are_kept(export: Export) -> None:
    """--decimal, --type-map and --on-unfit say what becomes of types and values that have no exact counterpart."""
    query = "select 1.25::numeric as a, '10.0.0.0/8'::inet as b, 'infinity'::date as c"
    words = ("--service", "archive", "--sql", query, "--out", "a.parquet")

    assert "column 'c' holds infinity" in export(*words).err
    assert export(*words, "--on-unfit", "null", "--decimal", "20,5", "--connections", "1").code == 0
    assert read("a.parquet") == [{"a": Decimal("1.25000"), "b": "10.0.0.0/8", "c": None}]
    assert export(*words, "--on-unfit", "text", "--type-map", "numeric=float64", "--keep-temp").code == 0
    assert read("a.parquet") == [{"a": 1.25, "b": "10.0.0.0/8", "c": "infinity"}]
    assert not Path("a.parquet.part").exists()
    assert "is not TYPE=ARROW" in export(*words, "--type-map", "numeric").err
    twice = export(*words, "--type-map", "numeric=float64", "--type-map", "numeric=string")
    assert (twice.code, "--type-map names numeric twice, as float64 and string" in twice.err) == (2, True)
    assert "is not two numbers" in export(*words, "--decimal", "20").err
    assert "'nothing' is no Arrow type" in export(*words, "--type-map", "numeric=nothing").err


@pytest.mark.parametrize("way", ["service", "PGSERVICE", "dsn-url", "dsn-words", "parts", "variables", "both"])
def test_where_the_database_is(
    export: Export, place: dict[str, str], database_url: str, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Each way to name it leads there: a service, a DSN in either form, its parts, or the environment."""
    words: list[str] = []
    if way == "service":
        words = ["--service", "archive"]
    elif way == "PGSERVICE":
        monkeypatch.setenv("PGSERVICE", "archive")
    elif way == "dsn-url":
        words = ["--dsn", database_url]
    elif way == "dsn-words":
        words = ["--dsn", make_conninfo(**place, options="-c application_name=own")]
    elif way == "parts":
        words = [word for name, value in place.items() for word in (f"--{name}", value)]
    else:
        names = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER"}
        for name, value in place.items():
            monkeypatch.setenv(names[name], value)
        if way == "both":
            monkeypatch.setenv("PGDATABASE", "nowhere")
            words = ["--dbname", place["dbname"]]

    ended = export(*words, "--sql", "select current_database() as name", "--out", "a.parquet")

    assert ended.code == 0, ended.err
    assert read("a.parquet") == [{"name": place["dbname"]}]


def test_a_service_of_the_home_folder(export: Export, place: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PGSERVICEFILE, --service is looked up in ~/.pg_service.conf."""
    home = Path("home").absolute()
    home.mkdir()
    Path("services.conf").rename(home / ".pg_service.conf")
    monkeypatch.delenv("PGSERVICEFILE")
    query = ("--sql", "select current_database() as name", "--out", "a.parquet")

    monkeypatch.setenv("HOME", str(home.parent))
    assert export("--service", "archive", *query).code == 4
    monkeypatch.setenv("HOME", str(home))
    ended = export("--service", "archive", *query)

    assert ended.code == 0, ended.err
    assert read("a.parquet") == [{"name": place["dbname"]}]


def test_floats_are_exact(export: Export, connection: psycopg.Connection[Any]) -> None:
    """Floats in text have all their digits, whatever the role or a DSN's own options say."""
    query = "select point(0.1::float8 + 0.2::float8, 1) as p"
    export("--service", "archive", "--sql", query, "--out", "a.parquet")

    assert read("a.parquet") == [{"p": "(0.30000000000000004,1)"}]


# Lists -------------------------------------------------------------------------------------------


def test_config_is_one_snapshot(export: Export, database_url: str, tmp_path: Path) -> None:
    """All exports of --config see one moment: the sum over three tables is right while others write."""
    fill(database_url)
    Path("x.json").write_text(json.dumps(exports(tmp_path)))
    with Mover(database_url) as mover:
        ended = export("--service", "archive", "--config", "x.json", "--json").document

    assert mover.moved > 0
    assert total(tmp_path) == TOTAL
    assert [each["state"] for each in ended["exports"]] == ["exported"] * 3
    snapshots = {pq.read_metadata(each["out"]).metadata[b"absurd.snapshot"].decode() for each in ended["exports"]}
    assert snapshots == set(ended["snapshots"]) and len(snapshots) == 1


@pytest.mark.parametrize(("words", "default"), [((), 1_000_000), (("--row-group-size", "600000"), 600_000)])
def test_row_groups_in_a_list(export: Export, words: tuple[str, ...], default: int) -> None:
    """Each export of --config has row groups of its own row_group_size, the others of --row-group-size or 1,000,000."""
    query = "select n from generate_series(1, 1000005) n"
    listed = [{"sql": query, "out": "a.parquet", "row_group_size": 400_000}, {"sql": query, "out": "b.parquet"}]
    Path("x.json").write_text(json.dumps(listed))

    ended = export("--service", "archive", "--config", "x.json", *words)

    assert ended.code == 0, ended.err
    rows = []
    for name in ("a.parquet", "b.parquet"):
        metadata = pq.read_metadata(name)
        rows.append([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)])
    assert rows == [[400_000, 400_000, 200_005], [default, 1_000_005 - default]]


def test_a_failure_in_a_list(export: Export, tmp_path: Path) -> None:
    """One failure is told and loses no other export, unless asked; the exit code is 1."""
    listed = [
        {"sql": query, "out": f"{n}.parquet"} for n, query in enumerate(("select 1 as a", "select x", "values (2)"))
    ]
    Path("x.json").write_text(json.dumps(listed))

    ended = export("--service", "archive", "--config", "x.json")
    assert ended.code == 1
    assert [line.partition(",")[0] for line in ended.out.splitlines()] == ["0.parquet: 1 row", "2.parquet: 1 row"]
    assert "1.parquet: PostgreSQL refuses the query" in ended.err
    assert {path.name for path in tmp_path.glob("*.parquet")} == {"0.parquet", "2.parquet"}

    Path("2.parquet").unlink()
    stopped = export("--service", "archive", "--config", "x.json", "--stop-on-failure", "--json").document
    assert [each["state"] for each in stopped["exports"]] == ["exported", "failed", "skipped"]
    assert not Path("2.parquet").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"compression": "snappy"}, {"row_group_size": 5}, {"on_unfit": "null"}, {"decimal": [20, 5]},
        {"type_map": {"int4": "float64"}}, {"max_rows_per_file": 5},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_resume_with_other_options(export: Export, tmp_path: Path, changed: dict[str, Any]) -> None:
    """--resume keeps no file that other options would not give; speed and place are none of them."""
    entry = {"sql": "select 1 as a", "out": "a"}
    words = ("--service", "archive", "--config", "x.json", "--resume", "--json")
    made: tuple[dict[str, Any], ...] = (
        {},
        {"connections": 4, "block_size": 999, "limit_mib_per_second": 100},
        changed,
        changed,
    )
    states = []
    for options in made:
        (tmp_path / "x.json").write_text(json.dumps([entry | options]))
        if "max_rows_per_file" in options and Path("a").is_file():
            Path("a").unlink()
            Path("a.manifest.json").rename("a.manifest")
        states += [each["state"] for each in export(*words).document["exports"]]
    assert states == ["exported", "kept", "exported", "kept"]


def test_resume_of_another_database(export: Export, tmp_path: Path, database_url: str) -> None:
    """--resume keeps no file of another database, of another server, or of a version that recorded neither."""
    (tmp_path / "x.json").write_text('[{"sql": "select 1 as a", "out": "a.parquet"}]')
    words = ("--config", "x.json", "--resume", "--json")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("create database other_of_exports")
        try:
            other = make_conninfo(database_url, dbname="other_of_exports")
            states = [
                export(*place, *words).document["exports"][0]["state"]
                for place in (("--service", "archive"), ("--dsn", other), ("--dsn", other), ("--service", "archive"))
            ]
        finally:
            connection.execute("drop database other_of_exports with (force)")
    assert states == ["exported", "exported", "kept", "exported"]

    manifest = tmp_path / "a.parquet.manifest.json"
    told = json.loads(manifest.read_text())
    elsewhere = told | {"database": told["database"] | {"system_identifier": "1"}}
    older = {name: told[name] for name in told if name not in ("database", "options")}
    for held, state in ((told, "kept"), (elsewhere, "exported"), (older, "exported")):
        manifest.write_text(json.dumps(held))
        assert export("--service", "archive", *words).document["exports"][0]["state"] == state


def test_a_list_is_gone_on_with(export: Export, connection: psycopg.Connection[Any]) -> None:
    """With --resume what is there stays, if it is the same query's; the document tells of both snapshots."""
    connection.execute("create table t as select 1 as n")
    listed = [{"sql": "select n from t", "out": "a.parquet"}, {"sql": "select 2 as n", "out": "b.parquet"}]
    Path("x.json").write_text(json.dumps(listed))
    Path("b.parquet").write_bytes(b"torn")
    export("--service", "archive", "--sql", listed[0]["sql"], "--out", "a.parquet")
    connection.execute("insert into t values (2)")

    resumed = export("--service", "archive", "--config", "x.json", "--resume", "--json").document
    assert [each["state"] for each in resumed["exports"]] == ["kept", "exported"]
    assert len(resumed["snapshots"]) == 2
    assert (len(read("a.parquet")), len(read("b.parquet"))) == (1, 1)

    anew = export("--service", "archive", "--config", "x.json", "--json").document
    assert [each["state"] for each in anew["exports"]] == ["exported"] * 2
    assert len(read("a.parquet")) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Give --sql and --out, or --config"),
        (("--sql", "select 1"), "Give --sql and --out, or --config"),
        (("--config", "x.json", "--sql", "select 1"), "Give either --config, or --sql and --out"),
        (("--config", "absent.yaml"), "does not exist"),
        (("--config", "x.json", "--service", "archive"), "has unknown keys: rowgroup"),
        (("--sql", "select 1", "--out", "a", "--resume"), "--resume is for the exports of --config"),
        (("--sql", "select 1", "--out", "a", "--stop-on-failure"), "--stop-on-failure is for the exports of --config"),
        (("--sql", "select 1", "--out", "a", "--row-group-size", "0"), "row-group-size"),
        (("--sql", "select 1", "--out", "a"), "host and dbname and user missing"),
        (("--sql", "select 1", "--out", "a", "--password-file", "absent"), "cannot be read from absent"),
        (("--sql", "select 1", "--out", "a", "--password-file", "x.json", "--ask-password"), "Give only one of"),
    ],
)
def test_what_cannot_be_meant(export: Export, words: tuple[str, ...], message: str) -> None:
    """Called wrongly: exit code 2, one sentence, and nothing is written."""
    Path("x.json").write_text('[{"sql": "select 1", "out": "a", "rowgroup": 1}]')

    ended = export(*words)

    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert not list(Path().glob("*.parquet"))


def test_a_service_that_is_not_there(export: Export) -> None:
    """No database is exit code 4, and said in a sentence."""
    ended = export("--service", "elsewhere", "--sql", "select 1", "--out", "a.parquet")

    assert ended.code == 4
    assert "definition of service" in ended.err


# Samples -----------------------------------------------------------------------------------------


def test_the_samples_work(
    export: Export, server_url: str, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three lists say the same, and export with the sample of a service file, whose host is another one here."""
    lists = [load_config(SAMPLES / f"exports.{kind}") for kind in ("yaml", "json", "toml")]
    assert lists[0] == lists[1] == lists[2]
    monkeypatch.setenv("PGSERVICEFILE", str(SAMPLES / "pg_service.conf"))
    tables = [each["out"].removesuffix(".parquet") for each in lists[0]]
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("create database mpc_sbn")
        try:
            with psycopg.connect(make_conninfo(server_url, dbname="mpc_sbn"), autocommit=True) as made:
                for table in tables:
                    made.execute(f"create table {table} as select generate_series(1, 3) as id")
            here = " ".join(f"{name}={place[name]}" for name in ("host", "port", "user"))
            for kind in ("yaml", "json", "toml"):
                ended = export("--dsn", f"service=mpc_sbn {here}", "--config", str(SAMPLES / f"exports.{kind}"))
                assert ended.code == 0, ended.err
                assert [len(read(f"{table}.parquet")) for table in tables] == [3] * 4
        finally:
            admin.execute("drop database mpc_sbn with (force)")
