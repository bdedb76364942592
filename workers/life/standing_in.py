"""What the heart of a worker does while that is silent: it beats in its stead."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from absurd.claims import beat
from absurd.config import Settings
from absurd.database import AsyncDatabase, AsyncSession
from absurd.errors import AbsurdError, StaleClaimError
from absurd.telemetry import configure_logging

if TYPE_CHECKING:
    from absurd.workers.life.heart_process import Watch

log = structlog.get_logger("absurd.worker")


def stand_in(watch: Watch) -> None:
    """Beat until the worker does so itself."""
    level, form = watch.order["log"]
    configure_logging(Settings(log_level=level, log_format=form))
    asyncio.run(_Substitute(watch).run())


class _Substitute:
    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        order = watch.order
        self._database = AsyncDatabase(
            order["url"], schema=order["schema"], prepared_statements=order["prepared_statements"]
        )
        self._session: AsyncSession | None = None
        self._heard = asyncio.Event()
        self._given_up = False
        self._beaten = False

    async def run(self) -> None:
        watch = self._watch
        loop = asyncio.get_running_loop()
        loop.add_reader(watch.channel, self._read)
        if watch.life is not None:
            loop.add_reader(watch.life, os._exit, 0)
        silent_since, told = watch.told, ""
        try:
            while time.monotonic() >= watch.due:
                if watch.is_gone():
                    os._exit(0)
                reason = self._why_not()
                if reason != told:
                    told = reason
                    seconds = round(time.monotonic() - silent_since, 1)
                    log.warning(
                        "worker_held_up", id=watch.order["worker"], seconds=seconds, note=reason or "kept alive"
                    )
                pause = watch.interval if reason else await self._beat()
                self._heard.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._heard.wait()
        finally:
            self._disconnect()
            loop.remove_reader(watch.channel)
            if watch.life is not None:
                loop.remove_reader(watch.life)

    def _read(self) -> None:
        self._watch.read()
        self._heard.set()

    def _why_not(self) -> str:
        """Why this worker must not be kept alive; empty if it may be."""
        if self._given_up:
            return "it was given up: its lease had ended"
        if self._watch.is_stopped():
            return "its process is stopped: others may take what it holds"
        if self._watch.is_past_limit() and self._beaten:  # one beat tells the database why there will be no more
            return "its runs are past their time limits: others may take what it holds"
        return ""

    async def _beat(self) -> float:
        """One beat; gives the pause after it."""
        watch = self._watch
        begun = time.monotonic()
        try:
            async with asyncio.timeout(max(1.0, watch.interval)):
                if self._session is None:
                    self._session = AsyncSession(
                        await self._database.connect(),
                        schema=self._database.schema,
                        address=self._database.address,
                        prepared_statements=self._database.prepared_statements,
                    )
                await self._session.run(beat(watch.order["worker"], None))
        except StaleClaimError:
            self._given_up = True
            return 0.0
        except Exception as error:  # whatever it is: beats must go on
            self._disconnect()
            told = error.message if isinstance(error, AbsurdError) else f"{type(error).__name__}: {error}"
            log.warning("beat_failed", error=told, note="in the worker's stead")
            return min(1.0, watch.interval)
        self._beaten = True
        watch.report(begun)
        return watch.interval

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.connection.terminate()
