"""Retirement: what is old goes, with its record; what is held, damaged or other than the database knows stays."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from session_files import session_files

from absurd import SyncAbsurdClient
from absurd.config import Settings
from absurd.tasks.session import SessionManager, SessionNotFoundError, SessionValueError, catalog, holds, retirement
from absurd.tasks.session.entries import Entry
from absurd.testing import drain_sync

LATER = datetime.now(UTC) + timedelta(days=40)
KEEP = {"idle": 30.0, "experiment": 30.0, "observation": 365.0}


class Telescope:
    """A data folder with sessions that the database knows, and a client."""

    def __init__(self, data: Path, client: SyncAbsurdClient) -> None:
        self.data, self.client = data, client
        with SessionManager(data) as sessions:
            for kind in ("experiment", "experiment", "experiment", "experiment", "observation", "alignment"):
                sessions.start_session(kind)
                sessions.add_frame("main", np.zeros((4, 4), np.uint16))
                sessions.end_session()

    def experiments(self) -> list[Path]:
        return [each for each in session_files(self.data) if each.name.startswith("experiment")]

    def run(self, name: str, **params: Any) -> dict[str, Any]:
        task = self.client.spawn(name, {"data_dir": str(self.data), **params})
        drain_sync(source=self.client, check=True)
        result: dict[str, Any] = self.client.get_task(task).result
        return result

    def retire(self, **params: Any) -> dict[str, Any]:
        return self.run("session.retire", keep_days=KEEP, at=LATER.isoformat(), **params)

    def states(self) -> dict[str, str]:
        return {each["path"]: each["state"] for each in self.client.list_session_files(str(self.data))}


@pytest.fixture
def telescope(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    with SyncAbsurdClient(settings=Settings(database_url=database_url)) as client:
        yield Telescope(tmp_path / "telescope", client)


def listing(data: Path) -> dict[str, tuple[int, int]]:
    """All files there are, with size and time of the last change."""
    found = (Path(folder) / name for folder, _, names in os.walk(data) for name in names)
    return {str(each): (each.stat().st_size, each.stat().st_mtime_ns) for each in found}


def test_what_stays_and_what_goes(telescope: Telescope) -> None:
    """Files go by type and age, frames with them, and only those that the database knows as they are: without row,
    without checksum, with another checksum, damaged or held they stay, each with its reason.  A simulation tells the
    same and touches nothing.
    """
    held, changed, torn, plain = telescope.experiments()
    assert {each["kept"][:27] for each in telescope.retire(simulate=True)["kept"]} == {
        "the database has no row of i"[:27]
    }
    telescope.run("session.catalog")
    assert all("no checksum" in each["kept"] for each in telescope.retire()["kept"])
    assert telescope.run("session.catalog", checksums=True)["told"] == 6
    assert telescope.run("session.catalog", checksums=True)["told"] == 0
    holds.hold(held, "Case 17")
    stat = changed.stat()
    changed.write_bytes(changed.read_bytes().replace(b"recovered", b"Recovered"))
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    next(torn.with_name(f"{torn.stem}_frames").iterdir()).unlink()
    before = listing(telescope.data)

    told = telescope.retire(simulate=True)

    assert listing(telescope.data) == before
    assert [each["session_id"] for each in told["gone"]] == [plain.stem]
    reasons = {each["session_id"]: each["kept"] for each in told["kept"]}
    assert "Case 17" in reasons[held.stem]
    assert "not that of its row" in reasons[changed.stem]
    assert "not whole" in reasons[torn.stem]
    assert len(reasons) == 3  # the observation is young, and alignments have no rule

    done = telescope.retire()

    assert (done["files"], done["gone"]) == (1, told["gone"])
    assert telescope.experiments() == [held, changed, torn]
    assert not plain.with_name(f"{plain.stem}_frames").exists()
    assert telescope.states()[str(plain.relative_to(telescope.data))] == "retired"
    rows = pq.read_table(telescope.data / catalog.PARQUET).to_pylist()
    assert plain.stem not in {each["session_id"] for each in rows}
    [record] = retirement.retired(telescope.data)
    assert (record["session_id"], len(record["sha256"])) == (plain.stem, 64)
    holds.release(held)
    assert [each["session_id"] for each in telescope.retire()["gone"]] == [held.stem]


def test_a_clock_that_was_set_back_makes_nothing_old(tmp_path: Path) -> None:
    """A session that ended, by the clock, before it began is as old as its beginning."""
    columns = {"session_id": "x", "session_type": "idle", "start_time": LATER, "end_time": LATER - timedelta(days=9999)}
    entry = Entry("x.asdf", 1, 1, "sealed", None, columns)

    assert list(retirement.find_due(tmp_path, [entry], {"idle": 1.0}, [], LATER + timedelta(hours=1))) == []
    [due] = retirement.find_due(tmp_path, [entry], {"idle": 1.0}, [], LATER + timedelta(days=2))
    assert due.age_days == 2.0


def test_an_attempt_that_was_broken_off(telescope: Telescope, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run was killed between two steps, the next one clears away what is left and tells the database of all."""
    telescope.run("session.catalog", checksums=True)
    due, after, *_ = retirement.find_due(
        telescope.data,
        catalog.scan(telescope.data).sessions,
        KEEP,
        telescope.client.list_session_files(str(telescope.data)),
        LATER,
    )
    first = telescope.data / due.path
    with monkeypatch.context() as patch:  # the record is there, and the file; then the file goes, and its frames do not
        patch.setattr(Path, "unlink", _killed)
        with pytest.raises(KeyboardInterrupt):
            retirement.retire(telescope.data, due, LATER.isoformat())
    assert first.exists()
    assert retirement.retired(telescope.data) == []
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", _killed)
        with pytest.raises(KeyboardInterrupt):
            retirement.retire(telescope.data, due, LATER.isoformat())
    assert not first.exists()
    assert first.with_name(f"{first.stem}_frames").exists()
    with (telescope.data / retirement.RECORD).open("a") as file:
        file.write('{"path": "torn')

    assert telescope.retire(limit=1)["gone"][0]["path"] == after.path

    assert not first.with_name(f"{first.stem}_frames").exists()
    assert [state for state in telescope.states().values() if state == "retired"] == ["retired"] * 2
    assert telescope.retire(limit=9)["files"] == 2


def _killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_holds(telescope: Telescope) -> None:
    """A hold needs a reason and a file, tells since when and by whom, and what cannot be read holds too."""
    path = telescope.experiments()[0]
    assert holds.hold_of(path) is None
    with pytest.raises(SessionValueError):
        holds.hold(path, " ")
    with pytest.raises(SessionNotFoundError):
        holds.hold(path.with_name("none.asdf"), "x")
    assert {*holds.hold(path, "Case 17")} == {"reason", "since", "by"}
    path.with_name(path.name + ".hold").write_bytes(b"{")
    assert "cannot be read" in (holds.hold_of(path) or {})["reason"]
    assert (holds.release(path), holds.release(path)) == (True, False)
