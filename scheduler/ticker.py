"""Due schedules to tasks: looks, reckons, fires, and says when to look again."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import structlog

from absurd import schedules
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.metrics import Histogram
from absurd.notify import Listener
from absurd.scheduler.misfire import Policy, Settlement, settle
from absurd.scheduler.trigger import Trigger, read_trigger
from absurd.telemetry import Event

LONGEST_LOOK = 10.0
"""Seconds between two looks: what no notification told, and a clock that was set, are seen after so long."""
LEASE = 30.0
"""Seconds of a lead that is not renewed."""
STANDBY = 1.0
"""Seconds that a scheduler without the lead leaves to the one that has it, before it fires what is due itself."""
PRUNE_SECONDS = 600.0
_AT_ONCE = 8
"""Schedules that are fired at the same time, each on a connection of its own."""

log = structlog.get_logger("absurd.scheduler")


class _Known(NamedTuple):
    version: int
    trigger: Trigger


class Ticker:
    """Fires schedules.  Any number of them may run: each time due is fired once, whoever comes first."""

    def __init__(self, database: AsyncDatabase, holder: str, listener: Listener | None = None) -> None:
        self._database = database
        self._listener = listener  # each look probes it
        self._holder = holder
        self._known: dict[int, _Known] = {}
        self._failed: set[tuple[int, int]] = set()
        self._put_off: dict[tuple[int, int], float] = {}
        self._leads = False
        self._pruned = time.monotonic()
        self.lateness = Histogram("absurd_tick_lateness_seconds")

    @property
    def leads(self) -> bool:
        """Whether it is this one that fires what is due, and others stand by."""
        return self._leads

    async def round(self) -> float:
        """Fire what is due; gives the seconds until something is again, at most `LONGEST_LOOK`."""
        probe = self._listener.probe_channel if self._listener is not None else None
        look = await self._database.run(schedules.get_due_schedules(self._holder, LEASE, probe))
        if self._listener is not None:
            self._listener.probed()
        leads = look.leader == self._holder
        if leads != self._leads:
            self._leads = leads
            if leads:
                log.info(Event.SCHEDULER_LEADS, scheduler=self._holder)
            else:
                log.info(Event.SCHEDULER_STANDS_BY, scheduler=self._holder, leader=look.leader)
        due = [each for each in look.due if self._may_fire((each["id"], each["version"]))]
        mine = [each for each in due if leads or self._is_left(each, look.now)]
        for first in range(0, len(mine), _AT_ONCE):
            at_once = (self._fire(each, look.now) for each in mine[first : first + _AT_ONCE])
            for error in await asyncio.gather(*at_once, return_exceptions=True):
                if error is not None:  # only when all have ended: none is left to itself
                    raise error
        if leads and time.monotonic() > self._pruned + PRUNE_SECONDS:
            self._pruned = time.monotonic()
            await self._database.run(schedules.prune_ticks())
        if mine:
            return 0.0  # what took long may have made others due
        wait = LONGEST_LOOK if look.next_seconds is None else look.next_seconds + (0.0 if leads else STANDBY)
        if due:  # left to the one that leads, who may be gone
            wait = min(wait, STANDBY)
        return min(LONGEST_LOOK, max(wait, 0.0))

    async def resign(self) -> None:
        """Leave the lead to another."""
        if self._leads:
            self._leads = False
            await self._database.run(schedules.resign_leader(self._holder))

    def _may_fire(self, mark: tuple[int, int]) -> bool:
        if self._put_off.get(mark, 0.0) > time.monotonic():
            return False
        self._put_off.pop(mark, None)
        return mark not in self._failed

    def _is_left(self, schedule: dict[str, Any], now: datetime) -> bool:
        """Whether it waits for anybody: who leads is gone, or lacks what the trigger needs."""
        due = schedule["next_due"] or schedule["settled_at"]
        return bool(due <= now - timedelta(seconds=STANDBY))

    async def _fire(self, schedule: dict[str, Any], now: datetime) -> None:
        """Fire one schedule.  What is wrong with it is noted and logged, and holds up no other."""
        mark = schedule["id"], schedule["version"]
        try:
            found = await asyncio.to_thread(self._settle, schedule, now)
        except Exception as error:
            self._failed.add(mark)
            told = _complain(schedule, error)
            await self._database.run(schedules.set_next_due(*mark, None, told))
            return
        try:
            if found.due:
                call = schedules.fire_schedule(*mark, found.due, found.settled, found.next)
                if await self._database.run(call) is not None:  # by this one, and by no other meanwhile
                    for each in found.due:
                        if each.skipped is None:
                            self.lateness.observe(max(0.0, (now - each.at).total_seconds()))
            else:
                await self._database.run(schedules.set_next_due(*mark, found.next))
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # it stays due; the others must not wait until the database takes it
            self._put_off[mark] = time.monotonic() + LONGEST_LOOK
            _complain(schedule, error)

    def _settle(self, schedule: dict[str, Any], now: datetime) -> Settlement:
        known = self._known.get(schedule["id"])
        if known is None or known.version != schedule["version"]:
            trigger = read_trigger(
                schedule["trigger"],
                zone=schedule["zone"],
                site=schedule["site"],
                origin=schedule["starts_at"] or schedule["created_at"].replace(microsecond=0),
            )
            known = self._known[schedule["id"]] = _Known(schedule["version"], trigger)
        policy = Policy.read(schedule["misfire"], schedule["grace"], schedule["look_back"])
        since = schedule["settled_at"]
        if schedule["starts_at"] is not None:  # which is itself among what may be due
            since = max(since, schedule["starts_at"] - timedelta(microseconds=1))
        return settle(known.trigger, policy, since, now, schedule["ends_at"])


def _complain(schedule: dict[str, Any], error: Exception) -> str:
    told = error.message if isinstance(error, AbsurdError) else f"{type(error).__name__}: {error}"
    log.error(Event.SCHEDULE_FAILED, schedule=schedule["name"], error=told, exc_info=error)
    return told
