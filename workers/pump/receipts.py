"""Receipts: outcomes that could not be recorded, kept on disk until the database is there again.

Below ``ABSURD_HOME/receipts``, readable by their owner alone:

- ``<queue>/``                     one folder for each queue's database and schema, named by a hash of its identity
- ``<queue>/<process>/lock``       locked for as long as the process lives
- ``<queue>/<process>/<n>.jsonl``  receipts, one a line; ``n`` begins with the number of the worker
- ``<queue>/stale/``               receipts that came too late
- ``<queue>/damaged/``             receipts that cannot be read or that the database refuses

A file is written aside, synced and renamed, so it is whole or not there.  The folder of a process
whose lock is free belongs to whoever takes that lock.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from absurd.disk import persist_names, try_lock
from absurd.model import Claim
from absurd.outcome import Returned
from absurd.workers.pump.reports import LONGEST_AGE, Report
from absurd.workers.runs.wire import dump_outcome, load_outcome

ASIDE = ("stale", "damaged")
KEPT_ASIDE = 200
"""How many files are kept among the stale, and among the damaged; older ones are removed."""

_VERSION = 1


def is_worth_keeping(report: Report) -> bool:
    """Whether something would be lost with the report: not with a run that is handed back."""
    return type(report.outcome) is not Returned


@dataclass(frozen=True, slots=True)
class Left:
    """What lies in the receipts of a queue on this machine."""

    path: Path
    outcomes: int
    """Outcomes that wait for the database."""
    oldest: float
    """Age in seconds of the oldest file of them."""
    aside: dict[str, int]
    """Files that were put aside: ``stale``, ``damaged``."""


def look_at(home: Path, identity: str) -> Left:
    """What receipts there are, whoever holds them; those of other users cannot be seen."""
    path = _queue_folder(home, identity)
    outcomes, since, aside = 0, math.inf, {}
    with suppress(PermissionError):
        for file in path.glob("*/[0-9]*-*.jsonl"):
            if file.parent.name not in ASIDE:
                with suppress(OSError):  # delivered meanwhile
                    outcomes += len(file.read_bytes().splitlines())
                    since = min(since, file.stat().st_mtime)
        aside = {where: sum(1 for _ in (path / where).glob("*")) for where in ASIDE if (path / where).is_dir()}
    return Left(path, outcomes, max(0.0, time.time() - since) if outcomes else 0.0, aside)


def _queue_folder(home: Path, identity: str) -> Path:
    return home / "receipts" / hashlib.sha256(identity.encode()).hexdigest()[:16]


class Folder:
    """Receipts of one process, whose lock this process holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def files(self) -> list[Path]:
        """Files of receipts, the oldest first."""
        return sorted(self.path.glob("*.jsonl"))

    def drop(self, file: Path, where: str | None) -> None:
        """Remove a file that was dealt with, or move it to the ``stale`` or ``damaged`` ones."""
        if where is None:
            file.unlink(missing_ok=True)
            return
        aside = self.path.parent / where
        aside.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            file.rename(aside / f"{self.path.name}-{file.name}")
        for old in sorted(aside.iterdir(), key=lambda each: each.stat().st_mtime)[:-KEPT_ASIDE]:
            old.unlink(missing_ok=True)

    def release(self) -> None:
        """Give the lock up, and remove the folder if it holds no receipt."""
        try:
            if not self.files():
                for left in (*self.path.glob("*.new"), self.path / "lock"):
                    left.unlink(missing_ok=True)
                self.path.rmdir()
        finally:
            os.close(self._descriptor)


class Spool:
    """The receipts of a queue on this machine.  All methods block on the disk and raise OSError."""

    def __init__(self, home: Path, identity: str) -> None:
        self.path = _queue_folder(home, identity)
        self._own: Folder | None = None
        self._number = 0

    def make_home(self) -> Path:
        """``ABSURD_HOME``, made if it can be: it tells workers apart that do not see each other's receipts."""
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.path.parent.parent

    def write(self, worker: int, reports: Sequence[Report]) -> Path:
        """Keep `reports` of this process' worker of that number; returns the file."""
        if self._own is None or not self._own.path.is_dir():
            self._own = self._make_folder()
        self._number += 1
        file = self._own.path / f"{worker}-{self._number:06}.jsonl"
        aside = file.with_suffix(".new")
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened:
                opened.writelines(_dump(report) + "\n" for report in reports)
                opened.flush()
                os.fsync(opened.fileno())
            aside.rename(file)
            persist_names(file.parent)
        except OSError:
            for each in (aside, file):
                with suppress(OSError):  # the disk is full or gone: what matters is the first error
                    each.unlink(missing_ok=True)
            raise
        return file

    def close(self) -> None:
        """The process is done: others may deliver what it leaves."""
        own, self._own = self._own, None
        if own is not None:
            with suppress(OSError):  # an empty folder stays
                own.release()

    def drop(self, file: Path, where: str | None) -> None:
        """Remove a file of this process, or put it aside."""
        if self._own is not None:
            self._own.drop(file, where)

    def inherit(self) -> Iterator[Folder]:
        """The folders of processes that have ended, each locked until it is released."""
        for path in self._folders():
            if self._own is not None and path == self._own.path:
                continue
            # Another worker has delivered it meanwhile; or it is another user's, who has to deliver it himself.
            with suppress(FileNotFoundError, PermissionError):
                descriptor = os.open(path / "lock", os.O_RDWR)
                if try_lock(descriptor) and (path / "lock").exists():
                    yield Folder(path, descriptor)
                else:
                    os.close(descriptor)

    def undelivered(self) -> set[int]:
        """Numbers of the workers that have receipts here, whoever holds them."""
        return {int(file.name.partition("-")[0]) for path in self._folders() for file in path.glob("[0-9]*-*.jsonl")}

    def _folders(self) -> list[Path]:
        if not self.path.is_dir():
            return []
        return sorted(each for each in self.path.iterdir() if (each / "lock").exists() and each.name[0] != ".")

    def _make_folder(self) -> Folder:
        """Make this process' folder; it is locked before it has its name, so that nobody takes it for a dead one's."""
        for each in (self.path.parent, self.path):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        hidden = self.path / f".{name}"
        hidden.mkdir(mode=0o700)
        descriptor = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try_lock(descriptor)
        hidden.rename(self.path / name)
        persist_names(self.path)
        return Folder(self.path / name, descriptor)


def read(file: Path) -> tuple[list[Report], int]:
    """The reports in a file of receipts, and how many of its lines cannot be read."""
    reports, damaged = [], 0
    for line in file.read_bytes().splitlines():
        try:
            reports.append(_load(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError):
            damaged += 1
    return reports, damaged


def _dump(report: Report) -> str:
    claim = report.claim
    # The time of day, not the monotonic one: another process reads it, perhaps after the machine has booted.
    began = None if report.started is None else time.time() - (time.monotonic() - report.started)
    return json.dumps({
        "version": _VERSION,
        "lease": claim.lease,
        "task": str(claim.task_id),
        "attempt": claim.attempt,
        "executor": claim.name,
        "queue": claim.queue,
        "began": began,
        "outcome": dump_outcome(report.outcome),
    })  # fmt: skip


def _load(fields: dict[str, Any]) -> Report:
    if fields["version"] != _VERSION:
        raise ValueError(f"version {fields['version']}")
    names = fields["executor"], fields["queue"]
    claim = Claim(int(fields["lease"]), UUID(fields["task"]), int(fields["attempt"]), *names, params=None)
    outcome = load_outcome(fields["outcome"])
    if outcome is None:
        raise ValueError("no outcome")
    began = fields["began"]
    age = 0.0 if began is None else min(max(0.0, time.time() - began), LONGEST_AGE)
    return Report(claim, time.monotonic() - age, outcome)
