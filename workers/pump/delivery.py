"""Receipts are written while the database is away, and delivered when it is there: by this worker or its successor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from absurd.claims import give_up_worker
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.outcome import Completed
from absurd.workers.host.machine import is_gone
from absurd.workers.link import Link, is_refused
from absurd.workers.pump.calls import get_neighbours
from absurd.workers.pump.pump import Pump
from absurd.workers.pump.receipts import Folder, Spool, is_worth_keeping, read
from absurd.workers.pump.reports import Report, calls_for

AWAY_SECONDS = 1.0
"""After how long without an answer the database counts as away, though no connection broke."""

WATCH_SECONDS = 0.5
"""How often a worker looks whether it still gets answers."""

ANSWER_SECONDS = 30.0
"""How long a delivery may take before the database counts as away; a worker that stops waits for it."""

KEEP_SECONDS = 0.1
"""How often new outcomes are written to disk while the database is away."""

log = structlog.get_logger("absurd.worker")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file of receipts, and the claims in it."""

    file: Path
    claims: frozenset[tuple[int, UUID]]


class Keeper:
    """Writes the outcomes of a pump that cannot be recorded to disk, and removes them once they are."""

    def __init__(self, spool: Spool, pump: Pump, link: Link, *, worker_id: int, lease: float) -> None:
        self._spool = spool
        self._pump = pump
        self._link = link
        self._worker_id = worker_id
        self._lease = lease
        self._kept: list[_Kept] = []
        self._failing = False

    async def look(self) -> float:
        """Keep what has to be kept; returns in how many seconds to look again."""
        silent = self._link.silent_seconds()
        if silent > self._lease:
            # Half-open: the server failed over, and nothing says so.  All calls may be made again.
            log.warning("database_away", error=f"no answer for {silent:.0f} s; the connection is made anew")
            await self._link.close()
        away = self._link.away or silent > AWAY_SECONDS
        if away or self._kept:
            reports = self._pump.unrecorded()
            await asyncio.to_thread(self._keep, reports if away else [], _claims(reports))
            recorder = self._pump.recorder
            recorder.kept = frozenset[tuple[int, UUID]]().union(*(each.claims for each in self._kept))
            recorder.stale &= recorder.kept
        return KEEP_SECONDS if away else WATCH_SECONDS

    def close(self) -> None:
        """The pump has ended: what it could not report is left on disk, the rest goes."""
        reports = self._pump.unrecorded()
        self._keep(reports, _claims(reports))

    def _keep(self, reports: Sequence[Report], unrecorded: frozenset[tuple[int, UUID]]) -> None:
        try:
            for kept in [each for each in self._kept if not each.claims & unrecorded]:
                stale = bool(kept.claims & self._pump.recorder.stale)
                self._spool.drop(kept.file, "stale" if stale else None)
                self._kept.remove(kept)
            known: frozenset[tuple[int, UUID]] = frozenset().union(*(each.claims for each in self._kept))
            new = [report for report in reports if is_worth_keeping(report) and _claim(report) not in known]
            if new:
                self._kept.append(_Kept(self._spool.write(self._worker_id, new), _claims(new)))
                log.warning("receipts_written", reports=len(new), file=str(self._kept[-1].file))
            self._failing = False
        except OSError as error:  # the worker goes on trying to reach the database
            if not self._failing:
                log.error("receipts_failed", error=str(error), note="finished runs are kept in memory only")
            self._failing = True


class Deliverer:
    """Delivers what dead workers of this machine left, and then has them given up without waiting for their leases."""

    def __init__(
        self, spool: Spool, database: AsyncDatabase, publish: Callable[[Report], None], *, dead_letters: bool
    ) -> None:
        self._spool = spool
        self._database = database
        self._publish = publish
        self._dead_letters = dead_letters

    async def deliver(self) -> None:
        """Deliver all receipts of processes that have ended.  Raises DatabaseUnavailableError."""
        try:
            folders = self._spool.inherit()
            while (folder := await asyncio.to_thread(next, folders, None)) is not None:
                try:
                    for file in folder.files():
                        await self._deliver(folder, file)
                except OSError as error:  # of this folder; there are others
                    _cannot_deliver(error)
                finally:
                    folder.release()
        except OSError as error:
            _cannot_deliver(error)

    async def give_up_dead(self, worker_id: int) -> bool:
        """Have dead workers of this machine given up; false if one has to wait for the delivery of its receipts.

        Raises DatabaseUnavailableError.
        """
        neighbours = await self._database.run(get_neighbours(worker_id))
        dead = [each for each in neighbours if is_gone(each.pid, each.machine)]
        # Looked up only now: a process that is gone writes nothing more.
        waiting = self._spool.undelivered() if dead else set()
        for each in dead:
            if each.id not in waiting:
                recovered = await self._database.run(give_up_worker(each.id))
                log.info("worker_succeeded", dead=each.id, pid=each.pid, recovered=recovered)
        return not any(each.id in waiting for each in dead)

    async def _deliver(self, folder: Folder, file: Path) -> None:
        reports, damaged = await asyncio.to_thread(read, file)
        stale, refused = await self._record(reports)
        if damaged:
            log.error("receipt_damaged", file=str(file), lines=damaged)
        if reports:
            log.info("receipts_delivered", file=str(file), reports=len(reports), stale=len(stale), refused=len(refused))
        where = "damaged" if damaged or refused else "stale" if stale else None
        await asyncio.to_thread(folder.drop, file, where)

    async def _record(self, reports: Sequence[Report]) -> tuple[list[UUID], list[UUID]]:
        """Report; gives the tasks whose claim was lost and those whose outcome the database refuses."""
        stale: list[UUID] = []
        refused: list[UUID] = []
        for call, group in calls_for(reports, time.monotonic(), dead_letters=self._dead_letters):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    late = await self._database.run(call)
            except TimeoutError:
                raise DatabaseUnavailableError(f"no answer to receipts for {ANSWER_SECONDS:.0f} s") from None
            except AbsurdError as error:
                if not is_refused(error):
                    raise
                if len(group) > 1:  # one of them spoils it for the others
                    for each in group:
                        more = await self._record([each])
                        stale += more[0]
                        refused += more[1]
                else:
                    task_id = group[0].claim.task_id
                    log.error("receipt_refused", task_id=str(task_id), code=error.code, error=error.message)
                    refused.append(task_id)
                continue
            stale += late
            for task_id in late:
                log.warning("stale_claim", task_id=str(task_id), note="its receipt came after the claim was lost")
            for report in group:
                if type(report.outcome) is Completed and report.claim.task_id not in late:
                    self._publish(report)
        return stale, refused


def _cannot_deliver(error: OSError) -> None:
    log.error("receipts_failed", error=str(error), note="receipts of an earlier worker cannot be delivered")


def _claim(report: Report) -> tuple[int, UUID]:
    return report.claim.lease, report.claim.task_id


def _claims(reports: Sequence[Report]) -> frozenset[tuple[int, UUID]]:
    return frozenset(map(_claim, reports))
