"""Receipts as files: whole or not there, one owner at a time."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.model import Claim
from absurd.outcome import Cancelled, Completed, Failed, PendingArtifact, Returned, Suspended
from absurd.workers.pump import receipts
from absurd.workers.pump.delivery import Deliverer
from absurd.workers.pump.receipts import Spool, is_worth_keeping, look_at, read
from absurd.workers.pump.reports import Report

SPAWN = {
    "task": "01a22221-0000-7000-8000-000000000001",
    "checkpoint": "spawn demo.add",
    "id": "01a22221-0000-7000-8000-000000000002",
    "queue": "default",
    "name": "demo.add",
    "params": '{"a": "\\u00e9"}',
    "options": '{"priority": 3}',
}
"""What a run has spawned, as its report writes it."""


def report(outcome: Any, *, seconds: float | None = 5.0, worker: int = 3) -> Report:
    claim = Claim((worker << 32) + 1, uuid4(), 2, "demo.add", "default", {"secret": "params stay out"})
    return Report(claim, None if seconds is None else time.monotonic() - seconds, outcome)


@pytest.mark.parametrize(
    "outcome",
    [
        Completed(),
        Completed('{"a": "\\u00e9\\n"}', (PendingArtifact("/a/.x", "/a/x", "text", "0" * 64, 3),)),
        Failed({"code": "boom", "type": "Boom", "message": "broke\nhere"}, 2.5),
        Failed({"code": "boom"}, None),
        Suspended("sleep", 3.0),
        Suspended("event", None, "night-closed"),
        Completed("1", spawns=(SPAWN,)),
        Suspended("tasks", 3.0, awaits=(SPAWN["id"],), spawns=(SPAWN, SPAWN | {"options": None})),
        Cancelled("not needed"),
    ],
    ids=repr,
)
def test_an_outcome_is_read_as_it_was_written(tmp_path: Path, outcome: Any) -> None:
    """With its lease and task, and how long ago it began; its params are not on the disk."""
    written = report(outcome)
    file = Spool(tmp_path, "here").write(3, [written])

    [found], damaged = read(file)

    assert damaged == 0
    assert (found.claim.lease, found.claim.task_id, found.claim.attempt) == (
        written.claim.lease,
        written.claim.task_id,
        2,
    )
    assert found.outcome == outcome
    assert found.started is not None and abs(found.started - (written.started or 0)) < 5
    assert b"stay out" not in file.read_bytes()


def test_a_run_that_is_handed_back_needs_no_receipt() -> None:
    """Everything else does."""
    assert not is_worth_keeping(report(Returned()))
    assert is_worth_keeping(report(Failed({}, None)))


def test_the_age_of_a_run_always_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock of the machine did in between."""
    file = Spool(tmp_path, "here").write(3, [report(Completed())])
    now = time.time()
    for moved in (-1e6, 1e12):
        monkeypatch.setattr(time, "time", lambda moved=moved: now + moved)
        [found], _ = read(file)
        age = time.monotonic() - (found.started or 0)
        assert -1 < age * 1000 < 2**31 - 1


def test_receipts_have_one_owner_at_a_time(tmp_path: Path) -> None:
    """A living process' are nobody else's; those that one is delivering are not another's as well."""
    owner, second, third = (Spool(tmp_path, "here") for _ in range(3))
    file = owner.write(3, [report(Completed())])
    assert list(second.inherit()) == []

    owner.close()
    [folder] = second.inherit()
    assert folder.files() == [file]
    assert list(third.inherit()) == []
    assert third.undelivered() == {3}

    folder.drop(file, None)
    folder.release()
    assert not file.parent.exists()
    assert list(third.inherit()) == [] and third.undelivered() == set()


def test_receipts_of_another_queue_are_out_of_sight(tmp_path: Path) -> None:
    """Another cluster, database or schema has a folder of its own."""
    owner = Spool(tmp_path, "1/absurd/absurd")
    owner.write(3, [report(Completed())])
    owner.close()

    assert list(Spool(tmp_path, "1/absurd/other").inherit()) == []
    assert len(list(Spool(tmp_path, "1/absurd/absurd").inherit())) == 1


def test_a_file_that_was_not_finished_is_none(tmp_path: Path) -> None:
    """What a crash left under its first name is neither read nor kept."""
    owner = Spool(tmp_path, "here")
    file = owner.write(3, [report(Completed())])
    unfinished = file.with_name("3-000002.new")
    unfinished.write_bytes(b'{"version"')
    owner.close()

    [folder] = Spool(tmp_path, "here").inherit()
    assert folder.files() == [file]
    folder.drop(file, "stale")
    folder.release()

    assert not unfinished.exists()
    assert [each.parent.name for each in tmp_path.rglob("*.jsonl")] == ["stale"]


def test_a_bounded_number_is_kept_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest."""
    monkeypatch.setattr(receipts, "KEPT_ASIDE", 2)
    owner = Spool(tmp_path, "here")
    for n in range(4):
        file = owner.write(3, [report(Completed())])
        os.utime(file, (n, n))
        owner.drop(file, "stale")

    assert sorted(each.stat().st_mtime for each in tmp_path.glob("receipts/*/stale/*")) == [2, 3]


def test_a_disk_that_fails_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is told, and the next try is a new one."""
    owner = Spool(tmp_path, "here")
    owner.write(3, [report(Completed())])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            owner.write(3, [report(Completed())])
    assert len(list(tmp_path.rglob("*.jsonl"))) == 1 and not list(tmp_path.rglob("*.new"))

    owner.write(3, [report(Completed())])
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2


def test_receipts_of_another_user_are_looked_for_in_vain(tmp_path: Path) -> None:
    """Whoever asks for the status with a home that is not his own is told what he may see, which is nothing."""
    with closing(Spool(tmp_path, "here")) as spool:
        spool.write(3, [report(Completed())])
        assert look_at(tmp_path, "here").outcomes == 1

        (tmp_path / "receipts").chmod(0)
        own = os.geteuid()
        if own == 0:  # whom no mode keeps out
            os.seteuid(65534)
        try:
            left = look_at(tmp_path, "here")
        finally:
            os.seteuid(own)
            (tmp_path / "receipts").chmod(0o700)

    assert (left.outcomes, left.oldest, left.aside) == (0, 0.0, {})


async def test_one_folder_that_cannot_be_read_holds_up_no_other(tmp_path: Path, settings: Settings) -> None:
    """Receipts of the other dead workers are delivered all the same."""
    dead = [Spool(tmp_path, "here") for _ in range(4)]
    files = [spool.write(3, [report(Completed())]) for spool in dead]
    for spool in dead:
        spool.close()
    first = min(files)  # the first to be looked at
    first.unlink()
    first.mkdir()
    async with AsyncDatabase(settings.database_url or "") as database:
        await Deliverer(Spool(tmp_path, "here"), database, lambda _: None, dead_letters=True).deliver()

    assert not [each for each in files if each != first and each.exists()]
    assert len(list((first.parent.parent / "stale").iterdir())) == 3
