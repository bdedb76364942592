"""The functions that users of fast-export know."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from psycopg.conninfo import conninfo_to_dict

from absurd.errors import AbsurdError
from absurd.tasks.export import DEFAULT_ROW_GROUP_SIZE, ExportConfigError, build_dsn, load_config
from absurd.tasks.export.config import check_exports

EXACT = "-c extra_float_digits=3"
VARIABLES = ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSERVICE")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own PG* variables do not reach the tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_parts_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags go before variables; any value may hold blanks and quotes."""
    monkeypatch.setenv("PGHOST", "other")
    monkeypatch.setenv("PGUSER", "me")
    monkeypatch.setenv("PGPASSWORD", "it's a \\ secret")

    given = conninfo_to_dict(build_dsn(SimpleNamespace(host="here", dbname="my db", dsn=None)))

    assert given == {
        "host": "here",
        "port": "5432",
        "dbname": "my db",
        "user": "me",
        "password": "it's a \\ secret",
        "options": EXACT,
    }


@pytest.mark.parametrize(
    ("dsn", "options"),
    [
        ("postgresql://u:p@h/d", EXACT),
        ("host=h dbname=d", EXACT),
        ("host=h options='-c geqo=off'", f"-c geqo=off {EXACT}"),
        ("postgresql://h/d?options=-c%20extra_float_digits%3D1", "-c extra_float_digits=1"),
    ],
)
def test_a_dsn_keeps_its_options(dsn: str, options: str) -> None:
    """A URL or keywords, with options of their own or none."""
    assert conninfo_to_dict(build_dsn(SimpleNamespace(dsn=dsn)))["options"] == options


def test_a_service_by_flag_and_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag goes before parts, parts before PGSERVICE."""
    assert conninfo_to_dict(build_dsn(SimpleNamespace(service="a", host="h")))["service"] == "a"
    monkeypatch.setenv("PGSERVICE", "b")
    assert conninfo_to_dict(build_dsn(SimpleNamespace()))["service"] == "b"
    assert "service" not in conninfo_to_dict(build_dsn(SimpleNamespace(host="h", dbname="d", user="u")))


def test_what_is_missing_is_named() -> None:
    """Nothing to connect to, or a DSN that is none: an error of ours that is also a ValueError; no password in it."""
    with pytest.raises(ExportConfigError, match="host and user missing") as caught:
        build_dsn(SimpleNamespace(dbname="d"))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, AbsurdError)
    with pytest.raises(ExportConfigError) as caught:
        build_dsn(SimpleNamespace(dsn="password=geheim hostt=h"))
    assert "geheim" not in str(caught.value)


def test_lists_of_exports(tmp_path: Path) -> None:
    """JSON, YAML and TOML say the same."""
    entries = [{"sql": "select 1", "out": "a.parquet"}, {"sql": "select 2", "out": "b.parquet", "row_group_size": 5}]
    (tmp_path / "x.json").write_text(json.dumps(entries))
    (tmp_path / "x.yaml").write_text(
        "- sql: select 1\n  out: a.parquet\n- {sql: select 2, out: b.parquet, row_group_size: 5}\n"
    )
    (tmp_path / "x.toml").write_text(
        '[[export]]\nsql = "select 1"\nout = "a.parquet"\n\n'
        '[[export]]\nsql = "select 2"\nout = "b.parquet"\nrow_group_size = 5\n'
    )

    for suffix in ("json", "yaml", "toml"):
        assert load_config(str(tmp_path / f"x.{suffix}")) == entries
    assert DEFAULT_ROW_GROUP_SIZE == 1_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sql": "x"}, "must hold a list of exports, it holds a dict"),
        (["select 1"], "export 1 of x.json must be a table of keys and values"),
        ([{"sql": "select 1"}], "export 1 of x.json must have 'out'"),
        ([{"sql": " ", "out": "a"}], "must have 'sql'"),
        ([{"sql": "s", "out": "a", "rowgroup": 1}], "has unknown keys: rowgroup"),
        ([{"sql": "s", "out": "a", "row_group_size": "5"}], "row_group_size of export 1 of x.json is '5'"),
        ([{"sql": "s", "out": "a"}, {"sql": "t", "out": "a"}], "exports 1 and 2 of x.json both write a"),
        (
            [{"sql": "s", "out": "a.manifest.json"}, {"sql": "t", "out": "a"}],
            r"export 1 of x.json writes a\.manifest\.json, which is the manifest of export 2",
        ),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, content: object, message: str) -> None:
    """The entry at fault is named."""
    (tmp_path / "x.json").write_text(json.dumps(content))

    with pytest.raises(ExportConfigError, match=message):
        load_config(tmp_path / "x.json")


def test_the_unfinished_file_of_another_export() -> None:
    """It may be no file of the list when it is kept."""
    listed = [{"sql": "s", "out": "a"}, {"sql": "t", "out": "a.part"}]
    check_exports(listed, "x")
    with pytest.raises(ExportConfigError, match=r"export 2 of x writes a\.part, which is the unfinished file of"):
        check_exports(listed, "x", keep_temp=True)


def test_one_file_by_two_names(tmp_path: Path) -> None:
    """Two paths of one file are one file."""
    (tmp_path / "link").symlink_to(tmp_path)
    listed = [{"sql": "s", "out": f"{tmp_path}/a"}, {"sql": "t", "out": f"{tmp_path}/link/a"}]
    with pytest.raises(ExportConfigError, match="exports 1 and 2 of x both write"):
        check_exports(listed, "x")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.yaml", "- sql: select 1\n  sql: select 2\n  out: a\n"),
        ("x.json", '[{"sql": "select 1", "sql": "select 2", "out": "a"}]'),
        ("x.toml", '[[export]]\nsql = "select 1"\nsql = "select 2"\nout = "a"\n'),
    ],
)
def test_a_key_that_stands_twice(tmp_path: Path, name: str, content: str) -> None:
    """Nobody can tell which was meant: the key is named."""
    (tmp_path / name).write_text(content)
    with pytest.raises(ExportConfigError, match=rf"{name} cannot be read: .*(sql|overwrite a value.*line 3)"):
        load_config(tmp_path / name)


def test_yaml_that_is_merged(tmp_path: Path) -> None:
    """What a table takes over from another one it may say anew."""
    text = "- &first {sql: select 1, out: a}\n- &next {<<: *first, out: b}\n- {<<: *next, out: c}\n"
    (tmp_path / "x.yaml").write_text(text)
    assert [each["out"] for each in load_config(tmp_path / "x.yaml")] == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["x.json", "x.yaml", "x.toml"])
def test_how_text_is_encoded(tmp_path: Path, name: str) -> None:
    """UTF-8, with a byte order mark or without; anything else is refused by name."""
    entry = {
        "x.json": '[{"sql": "s", "out": "ä"}]', "x.yaml": "- {sql: s, out: ä}", "x.toml": '[[export]]\nsql="s"\nout="ä"'
    }[name]  # fmt: skip
    (tmp_path / name).write_bytes(entry.encode("utf-8-sig"))
    assert load_config(tmp_path / name) == [{"sql": "s", "out": "ä"}]
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / name).write_bytes(entry.encode(encoding))
        with pytest.raises(ExportConfigError, match=f"{name} cannot be read: it is not UTF-8"):
            load_config(tmp_path / name)


@pytest.mark.parametrize("name", ["x.json", "x.yaml", "x.toml"])
def test_a_file_that_cannot_be_parsed(tmp_path: Path, name: str) -> None:
    """The file is named, and where the parser stopped."""
    (tmp_path / name).write_text("[{")

    with pytest.raises(ExportConfigError, match=rf"{name} cannot be read"):
        load_config(tmp_path / name)
