"""Outcomes into the database: what is refused ends its run as a failure, and harms no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

import structlog

from absurd.call import Call
from absurd.errors import AbsurdError
from absurd.outcome import Completed, Failed
from absurd.workers.failures import describe
from absurd.workers.link import Link, is_refused
from absurd.workers.pump.reports import Report, calls_for

Key = tuple[int, UUID]
"""A claim: its lease and its task.  A task alone may have been claimed anew."""

log = structlog.get_logger("absurd.worker")


class Recorder:
    """Records outcomes of every kind, until they are taken, and has files of completed runs published."""

    def __init__(self, link: Link, publish: Callable[[Report], None], *, dead_letters: bool) -> None:
        self._link = link
        self._publish = publish
        self._dead_letters = dead_letters
        self.kept: frozenset[Key] = frozenset()
        """Claims whose outcome is on disk too; the keeper of receipts says so."""
        self.stale: set[Key] = set()
        """Those of them whose outcome came too late."""

    async def record(self, reports: Iterable[Report]) -> None:
        """Record `reports`.  Raises what is not the fault of an outcome."""
        for call, group in calls_for(reports, time.monotonic(), dead_letters=self._dead_letters):
            await self._record(call, group)

    async def record_apart(self, reports: Iterable[Report]) -> None:
        """Record `reports` each in a call of its own: one of them spoils it for the others."""
        for each in reports:
            await self.record([each])

    def tell_stale(self, stale: Sequence[UUID], reports: Iterable[Report]) -> None:
        """Say that the tasks `stale` of `reports` were reported too late."""
        if stale:
            late = {(report.claim.lease, report.claim.task_id) for report in reports}
            self.stale.update(key for key in late & self.kept if key[1] in stale)
        for task_id in stale:
            log.warning("stale_claim", task_id=str(task_id), note="the claim was lost before its outcome arrived")

    async def _record(self, call: Call[list[UUID]], group: list[Report]) -> None:
        try:
            stale = await self._link.run(call)
        except AbsurdError as error:
            if not is_refused(error):
                raise
            if len(group) > 1:
                await self.record_apart(group)
                return
            # The outcome, or what the run has spawned, cannot be stored: that is how this run ends.
            claim = group[0].claim
            log.error("outcome_refused", task_id=str(claim.task_id), code=error.code, error=error.message)
            group = [group[0]._replace(outcome=Failed(describe(error, claim=claim), None))]
            ((call, group),) = calls_for(group, time.monotonic(), dead_letters=self._dead_letters)
            stale = await self._link.run(call)
        self.tell_stale(stale, group)
        for report in group:
            if type(report.outcome) is Completed and report.claim.task_id not in stale:
                self._publish(report)
