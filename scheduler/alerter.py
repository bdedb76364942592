"""Alerts measured again and again, and who is to be told of them told."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from absurd import alerts, schedules, targets
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.errors import DeliveryError
from absurd.telemetry import Event

SHORTEST_LEASE = 60.0
"""Seconds of a lead that is not renewed; three rounds if these take longer."""

log = structlog.get_logger("absurd.scheduler")


class Alerter:
    """Measures, and sends what is due.  Of any number of them one leads; each message is handed to one of them.

    What was sent is noted before anything else is done, also when the database was away in between: a message comes
    twice only if this process dies between the sending and the note, or another takes the lead there.
    """

    def __init__(self, database: AsyncDatabase, holder: str, settings: Settings) -> None:
        self._database = database
        self._holder = holder
        self._settings = settings
        self._folders: list[str] = []
        self._unnoted: dict[tuple[int, int], tuple[dict[str, Any], str | None]] = {}
        self._leads = False

    async def round(self) -> float:
        """Measure once and send; gives the seconds until it is needed again."""
        await self._note()
        interval = self._settings.alert_interval
        disks = await asyncio.to_thread(alerts.free_shares, self._folders)
        step = await self._database.run(alerts.step_alerts(self._holder, max(SHORTEST_LEASE, 3 * interval), disks))
        self._leads = step.leader == self._holder
        await asyncio.gather(*(asyncio.to_thread(self._send, notice) for notice in step.notices))
        waits = [interval, *await self._note()]
        if step.folders != self._folders:
            self._folders = step.folders
            waits.append(0.0)  # what their disks have was not known yet
        return min(waits if step.next_seconds is None else [*waits, max(0.0, step.next_seconds)])

    async def resign(self) -> None:
        """Leave the lead to another."""
        if self._leads:
            self._leads = False
            await self._database.run(schedules.resign_leader(self._holder))

    def _send(self, notice: dict[str, Any]) -> None:
        told = {name: value for name, value in notice.items() if name not in ("attempt", "target")}
        error = None
        try:
            targets.send(self._settings, notice["target"], told)
        except DeliveryError as failure:
            error = failure.message
        except Exception as failure:  # of a library that speaks to services: its text may repeat the address
            error = f"{notice['target']} did not take it: {type(failure).__name__}"
        self._unnoted[notice["id"], notice["attempt"]] = notice, error

    async def _note(self) -> list[float]:
        """Tell the database what became of messages; gives the seconds after which failed ones are tried again."""
        waits = []
        for (number, attempt), (notice, error) in list(self._unnoted.items()):
            wait = await self._database.run(alerts.end_notice(number, attempt, error))
            del self._unnoted[number, attempt]
            about = {name: notice[name] for name in ("alert", "state", "target", "attempt")}
            if error is None:
                log.info(Event.ALERT_SENT, **about)
            elif wait is None:
                log.error(Event.ALERT_GIVEN_UP, **about, error=error)
            else:
                log.warning(Event.ALERT_NOT_SENT, **about, error=error, again_in=wait)
                waits.append(wait)
        return waits
