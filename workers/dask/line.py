"""What is said to the runs on one Dask worker, and heard from them, by calls that the scheduler passes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog

from absurd.errors import AbsurdError
from absurd.port import Port
from absurd.workers.dask.cluster import Client
from absurd.workers.runs.asking import answer
from absurd.workers.runs.wire import dump_error

COLLECT_SECONDS = 5.0
"""How long a Dask worker whose runs have nothing to say keeps a call waiting."""
ANSWER_SECONDS = 15.0
"""How long it may take beyond that before a call counts as failed."""
TRIES = 3
"""How often a call is made before the Dask worker counts as lost."""

log = structlog.get_logger("absurd.worker")


class Place(NamedTuple):
    """Where a run is."""

    worker: str
    """Address of the Dask worker."""
    boot: str
    """Which of the processes that have had this address."""
    token: str
    """Which execution of the run: the scheduler may try one again."""
    host: str

    def __str__(self) -> str:
        return f"{self.worker} ({self.host})"


class Line:
    """Collects from one Dask worker while there are `flights`; `job` ends with the last of them, or when it is lost."""

    def __init__(
        self,
        client: Client,
        session: str,
        worker: str,
        boot: str,
        port: Port,
        heard: Callable[[Line, dict[str, Any]], None],
    ) -> None:
        self.client = client
        self.worker = worker
        self.boot = boot
        self.flights: set[Any] = set()
        self.left = False
        """Whether the Dask worker has left in good order."""
        self._session = session
        self._port = port
        self._heard = heard
        self._calls: set[asyncio.Task[None]] = set()
        self.job = asyncio.create_task(self._run())

    async def tell(self, message: dict[str, Any]) -> bool:
        """Deliver a message; whether a run there has taken it, or may have: the reply may be lost on its way.

        A Dask worker that cannot be told counts as lost: its run would wait for the answer.
        """
        sent = False
        for left in reversed(range(TRIES)):
            try:
                sent = sent or self.client.status == "running"
                return bool(await self._call("absurd_deliver", messages=[json.dumps(message)]))
            except (OSError, TimeoutError) as error:
                if left:
                    await asyncio.sleep(0.2)
                elif not self.job.done():
                    log.warning("dask_worker_lost", dask_worker=self.worker, error=str(error))
                    self.job.cancel()
        return sent

    async def _run(self) -> None:
        heard, failed = 0, 0
        if self.client.status != "running":  # lost since the run has announced itself
            return
        self.client.subscribe_topic(self.worker, self._happened)
        try:
            while True:
                try:
                    reply = await self._call("absurd_collect", heard=heard, wait=COLLECT_SECONDS)
                except (OSError, TimeoutError) as error:
                    failed += 1
                    if failed == TRIES or self.client.status != "running":
                        log.warning("dask_worker_lost", dask_worker=self.worker, error=str(error))
                        return
                    await asyncio.sleep(0.2)
                    continue
                if not reply:  # its runs have ended, or it is another process
                    return
                failed, heard = 0, reply["last"]
                for each in reply["messages"]:
                    self._take(json.loads(each))
                if not self.flights and not reply["messages"]:
                    return
        finally:
            if self.client.status == "running":
                self.client.unsubscribe_topic(self.worker)

    def _take(self, message: dict[str, Any]) -> None:
        if "call" in message:
            call = asyncio.create_task(self._answer(message))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        else:
            self._heard(self, message)

    async def _answer(self, message: dict[str, Any]) -> None:
        try:
            made = await answer(self._port, message["method"], message["args"])
        except Exception as error:  # whatever it is: the run waits for an answer
            log.exception("run_broken", dask_worker=self.worker, method=message["method"])
            made = {"error": dump_error(AbsurdError(f"{type(error).__name__}: {error}"))}
        await self.tell({"answer": message["call"]} | made)

    def _happened(self, event: tuple[float, Any]) -> None:
        """What the scheduler says of the Dask worker."""
        if isinstance(event[1], dict) and event[1].get("action") == "remove-worker":
            self.left = bool(event[1].get("expected"))
            self.job.cancel()

    async def _call(self, method: str, **arguments: Any) -> Any:
        """Raises OSError, whatever has failed, for Dask passes on errors of all kinds; or TimeoutError."""
        if self.client.status != "running":  # a client that is closed has no scheduler to ask
            raise OSError("the connection to the scheduler was lost")
        try:
            async with asyncio.timeout(COLLECT_SECONDS + ANSWER_SECONDS):
                replies = await self.client.scheduler.broadcast(
                    msg={"op": method, "session": self._session, "boot": self.boot, **arguments}, workers=[self.worker]
                )
            return replies[self.worker]
        except (OSError, TimeoutError):
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
