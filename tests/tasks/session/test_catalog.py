"""The catalogue: made from the files alone, hidden by no bad one, and alike wherever it is asked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asdf
import numpy as np
import pyarrow.parquet as pq
import pytest
from live import working
from session_files import session_files

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.config import Settings
from absurd.errors import TaskFailed
from absurd.tasks.session import (
    SessionManager,
    SessionNotFoundError,
    SessionQueryError,
    build_catalog,
    build_index,
    catalog,
    reading,
)
from absurd.tasks.session.entries import Entry, changes
from absurd.tasks.session.query import query

QUERIES = {
    "failed alignments": "session_type = 'alignment' AND error_count > 0 ORDER BY start_time",
    "targets like M": "target LIKE 'M%' ORDER BY start_time DESC",
    "newest ten": "ORDER BY start_time DESC LIMIT 10",
}
"""The three queries of the first specification."""


@pytest.fixture
def night(tmp_path: Path) -> Path:
    """A folder with sessions of several types, targets and outcomes."""
    data = tmp_path / "telescope"
    with SessionManager(data, location={"lat": 45.5}) as sessions:
        for number in range(12):
            kind = "alignment" if number % 3 == 0 else "observation"
            sessions.start_session(kind, target=f"{'M' if number % 2 else 'm'}{number}", seeing=1.5, odd=float("nan"))
            sessions.log("ERROR" if number % 6 == 3 else "INFO", "x")
            sessions.end_session()
    return data


def ids(found: Any) -> list[str]:
    return [str(row[found.columns.index("session_id")]) for row in found.rows]


def test_what_is_bad_hides_nothing(night: Path) -> None:
    """Files that are empty, cut off anywhere, no ASDF, no session's, or a second one of a session are told of as
    such, with a reason; a folder of frames is not looked into; a file cut at any byte is never taken for whole.
    """
    with SessionManager(night, frames="embedded") as sessions:
        sessions.start_session("experiment")
        sessions.add_frame("main", np.zeros((4, 4), np.uint16))
        embedded = sessions.end_session()
    with SessionManager(night) as sessions:
        sessions.start_session("experiment")
        sessions.add_frame("main", np.zeros((4, 4), np.uint16))
        external = sessions.end_session()
    whole = embedded.read_bytes()
    bad = night / "bad"
    bad.mkdir()
    for at in range(0, len(whole), 7):
        (bad / f"cut{at:05}.asdf").write_bytes(whole[:at])
    (bad / "cut_tree.asdf").write_bytes(whole[: whole.index(b"\n...\n") + 5])
    (bad / "words.asdf").write_text("something else")
    asdf.AsdfFile({"pixels": np.arange(9)}).write_to(bad / "foreign.asdf")
    asdf.AsdfFile({}).write_to(bad / "nothing.asdf")
    odd = {"meta": {"session_id": "x", "start_time": "yesterday"}, "observability": {"metrics": {"errors": 0}}}
    asdf.AsdfFile(odd).write_to(bad / "odd.asdf")
    shutil.copy(external, bad / "copy.asdf")
    (bad / "gone.asdf").symlink_to("nowhere")

    made = catalog.rebuild(night)

    states = {Path(each.path).name: each.state for each in made.problems}
    cut = {name for name, state in states.items() if name.startswith("cut")}
    assert {states[name] for name in cut} == {"damaged"}
    assert len(cut) == len(range(0, len(whole), 7)) + 1
    assert {name: state for name, state in states.items() if name not in cut} == {
        "copy.asdf": "duplicate",
        "foreign.asdf": "foreign",
        "gone.asdf": "damaged",
        "nothing.asdf": "foreign",
        "odd.asdf": "damaged",
        "words.asdf": "damaged",
    }
    assert all(each.reason for each in made.problems)
    assert {each.path for each in made.sessions} == {str(each.relative_to(night)) for each in session_files(night)}
    assert pq.read_table(night / catalog.PARQUET).num_rows == 14
    assert "damaged" in (night / catalog.PROBLEMS).read_text()


def test_files_of_others_are_reported(night: Path, shared: Path) -> None:
    """The ASDF files that others have published are listed as foreign; none is in the index."""
    shutil.copytree(shared / "data" / "asdf", night / "others")

    made = catalog.scan(night)

    others = [each for each in made.problems if each.path.startswith("others/")]
    assert len(others) == len(list((night / "others").rglob("*.asdf")))
    assert {each.state for each in others} == {"foreign"}, [each for each in others if each.state != "foreign"]
    assert len(made.sessions) == 12


def test_incremental_equals_full(night: Path) -> None:
    """Files that are as they were are not opened again; what comes of it is what a full rebuild gives, also when files
    came, went, changed or broke, and when the catalogue itself is torn.
    """
    first = catalog.rebuild(night)
    assert (first.read, catalog.rebuild(night).read) == (12, 0)
    one, two, three = session_files(night)[:3]
    one.unlink()
    two.write_bytes(two.read_bytes()[:-9])
    shutil.copy(three, three.with_name("copy.asdf"))
    with SessionManager(night) as sessions:
        sessions.start_session("experiment")
        sessions.end_session()

    made = catalog.rebuild(night)

    assert made.read == 3
    full = catalog.scan(night)
    assert made.table().equals(full.table())
    assert made.problems == full.problems
    assert pq.read_table(night / catalog.PARQUET).equals(full.table())
    assert catalog.rebuild(night).read == 0
    (night / catalog.PARQUET).write_bytes(b"torn")
    assert catalog.rebuild(night).read == 13
    moved = night.rename(night.with_name("moved"))
    assert catalog.rebuild(moved).read == 0
    row = pq.read_table(moved / catalog.PARQUET).to_pylist()[0]
    with asdf.open(row["asdf_path"]) as file:
        assert file["meta"]["session_id"] == row["session_id"]


def test_only_heads_are_read(night: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file with many entries as little is read as of one with few."""
    with SessionManager(night, sync="second") as sessions:
        sessions.start_session("experiment", purpose="long")
        for number in range(20_000):
            sessions.log("INFO", f"entry {number}")
        path = sessions.end_session()
    read = 0
    head_read = reading.Head.read

    def counted(self: reading.Head, size: int = -1) -> bytes:
        nonlocal read
        given = head_read(self, size)
        read += len(given)
        return given

    monkeypatch.setattr(reading.Head, "read", counted)

    [entry] = [each for each in catalog.scan(night).sessions if each.columns["purpose"] == "long"]

    assert entry.columns["log_entries"] == 20_000
    assert read <= 13 * 2 * 8192 < path.stat().st_size


def test_queries(night: Path) -> None:
    """The queries of the specification give on SQLite what they give on Parquet; a row opens its file; whoever asks can
    change nothing and read nothing else, and is told what is wrong with a query.
    """
    with pytest.raises(SessionNotFoundError, match="rebuild-catalog"):
        query(night, "")
    made = catalog.rebuild(night)
    assert build_index(night, night / catalog.SQLITE) == 12
    for name, sql in QUERIES.items():
        answer = query(night, sql)
        assert ids(answer) == ids(query(night, sql, sqlite=True)), name
        assert len(answer.rows) == {"failed alignments": 2, "targets like M": 6, "newest ten": 10}[name]
    path = query(night, "SELECT asdf_path FROM sessions ORDER BY start_time LIMIT 1").rows[0][0]
    with asdf.open(path) as file:
        assert file["meta"]["seeing"] == 1.5
    assert query(night, "SELECT count(*) AS n FROM sessions WHERE start_time > '2000-01-01'").rows == [(12,)]
    assert build_catalog(night).equals(made.table())
    other = night / "secret.csv"
    other.write_text("a\n1\n")
    for wrong in ("nonsense = 1", f"SELECT * FROM '{other}'", "SET enable_external_access = true", "target LIKE"):
        with pytest.raises(SessionQueryError):
            query(night, wrong)
    with pytest.raises(SessionQueryError):
        query(night, "WITH a AS (SELECT 1) DELETE FROM sessions", sqlite=True)
    (night / catalog.PARQUET).write_bytes(b"torn")
    with pytest.raises(SessionQueryError, match="rebuild-catalog"):
        query(night, "")


@pytest.fixture
def settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The test's database, for clients, workers and their processes."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    return Settings(database_url=database_url)


async def test_the_database_is_told(settings: Settings, night: Path) -> None:
    """`session.catalog` and `session.seal` tell the database with their completions: it answers the three queries as
    Parquet does, forgets files that are gone, and keeps the checksum of one that was read through.
    """
    async with AbsurdClient(settings=settings) as client, working(settings):
        first = await client.wait(await client.spawn("session.catalog", {"data_dir": str(night)}))
        again = await client.wait(await client.spawn("session.catalog", {"data_dir": str(night), "full": True}))
        assert (first.result["told"], first.result["sealed"], first.result["read"]) == (12, 12, 12)
        assert (again.result["told"], again.result["read"]) == (0, 12)
        failed = await client.list_sessions(str(night), session_type="alignment", failed=True)
        like = await client.list_sessions(target="M%")
        newest = await client.list_sessions(limit=10)
        for rows, name in ((failed[::-1], "failed alignments"), (like, "targets like M"), (newest, "newest ten")):
            assert [each["session_id"] for each in rows] == ids(query(night, QUERIES[name])), name
        assert newest[0]["meta"]["odd"] is None
        assert newest[0]["sha256"] is None
        gone = session_files(night)[0]
        gone.unlink()
        (night / "broken.asdf").write_bytes(b"#ASDF")
        await client.spawn("session.catalog", {"data_dir": str(night)})
        await _seal_one(settings, night)
        await client.wait(await client.spawn("session.catalog", {"data_dir": str(night), "full": True}))
        with SyncAbsurdClient(settings=settings) as other:
            stored = other.list_session_files(str(night))
            assert stored == await client.list_session_files(str(night))
            began = datetime(2026, 1, 1, tzinfo=UTC)
            assert len(other.list_sessions(str(night), since=began)) == 12
            assert other.list_sessions("/elsewhere") == []

    assert len(stored) == 13
    assert str(gone.relative_to(night)) not in {each["path"] for each in stored}
    assert {each["path"] for each in stored if each["state"] == "damaged"} == {"broken.asdf"}
    [read] = [each for each in stored if each["sha256"]]
    assert read["session_id"].startswith("experiment_")


async def test_a_disk_that_is_away(settings: Settings, night: Path) -> None:
    """What the database knows is not forgotten where the folder is not there, or is empty as a mount point without its
    disk; files in a folder that cannot be listed are not gone.
    """
    away = night.with_name("away")
    async with AbsurdClient(settings=settings) as client, working(settings):
        await client.wait(await client.spawn("session.catalog", {"data_dir": str(night)}))
        before = await client.list_session_files(str(night))
        night.rename(away)
        for _ in range(2):
            spawned = await client.spawn("session.catalog", {"data_dir": str(night)}, max_attempts=1)
            with pytest.raises(TaskFailed, match=r"there is no folder|is its disk mounted"):
                await client.wait(spawned)
            assert not any(night.rglob("*.parquet"))
            night.mkdir(exist_ok=True)
        assert await client.list_session_files(str(night)) == before

    year = session_files(away)[0].relative_to(away).parts[0]
    unread = Entry(year, 0, 0, "damaged", "it cannot be read: no right")
    assert [each["state"] for each in changes(away, [unread], before)] == ["damaged"]
    assert len(changes(away, [replace(unread, path="elsewhere")], before)) == 13
    with pytest.raises(SessionNotFoundError, match="no folder"):
        catalog.rebuild(night / "misspelt")


async def _seal_one(settings: Settings, data: Path) -> None:
    """A session that a worker seals, and a catalogue that one makes."""
    from absurd.tasks.session import AsyncSessionManager

    async with AbsurdClient(settings=settings) as client, AsyncSessionManager(data, client) as sessions:
        await sessions.start_session("experiment", target="M\0 31")
        await sessions.end_session()
        assert (await sessions.rebuild_catalog()) == data / catalog.PARQUET
