"""Runs on a Dask worker: each in a process of its own there, for a worker that is reached through the scheduler.

The Dask worker opens no connection for them.  Who sent a run collects what they have to say and
delivers what they are told, by calls that the scheduler passes on; so nobody needs a way to the
database, nor to any port but the scheduler's.  Messages are JSON texts and are kept until the
next collection says that they have arrived.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import structlog
from distributed import Worker, get_worker

from absurd.config import load_settings
from absurd.errors import ConfigurationError
from absurd.executor import Executor
from absurd.outcome import Outcome
from absurd.retry import RetryPolicy
from absurd.scratch import ScratchSpace, sweep
from absurd.workers.child.children import Children
from absurd.workers.dask.output import RemoteOutput
from absurd.workers.failures import describe
from absurd.workers.runs.asking import AskingPort
from absurd.workers.runs.execution import Defaults
from absurd.workers.runs.origin import Elsewhere, Origin
from absurd.workers.runs.room import find_room
from absurd.workers.runs.wire import dump_outcome, load_claim

COLLECT, DELIVER = "absurd_collect", "absurd_deliver"
"""The calls that a Dask worker takes for its runs."""

ANNOUNCE_SECONDS = 2.0
"""How often a run that waits for its start says that it is there."""
START_SECONDS = 60.0
"""How long a run waits to be told that it may start; nobody may be left who could tell."""
WATCH_SECONDS = 1.0
"""How often a run looks whether somebody still waits for it."""
IDLE_SECONDS = 60.0
"""How long processes are kept warm after the last run."""

log = structlog.get_logger("absurd.worker")


async def run_remotely(order: str) -> None:
    """Execute a run; what the scheduler has a Dask worker do."""
    worker = get_worker()
    told, here = json.loads(order), version("absurd")
    if told["version"] != here:
        raise ConfigurationError(
            f"absurd is {told['version']} where the run comes from and {here} on the Dask worker {worker.address}; "
            "install the same version"
        )
    host = _hosts.get(worker.address)
    if host is None or host.worker is not worker:
        host = _hosts[worker.address] = Host(worker)
    await host.run(told)


class Host:
    """The runs of one Dask worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.boot = secrets.token_hex(8)  # a new process may get an old one's address
        self._sessions: dict[str, _Session] = {}
        worker.handlers[COLLECT] = self.collect
        worker.handlers[DELIVER] = self.deliver

    async def run(self, order: dict[str, Any]) -> None:
        """Announce a run, execute it when told to, and see that its outcome arrives."""
        session = self._sessions.get(order["session"])
        if session is None:
            session = self._sessions[order["session"]] = _Session(order, self.worker.state.nthreads)
        run = _Run(order["key"], order["silence"])
        session.runs[run.token] = run
        try:
            if await self._is_wanted(session, run, order):
                await self._execute(session, run, order)
        finally:
            del session.runs[run.token]
            session.left = time.monotonic()
            self.worker.loop.call_later(IDLE_SECONDS + 1, self._tidy)

    async def _is_wanted(self, session: _Session, run: _Run, order: dict[str, Any]) -> bool:
        """Whether whoever sent the run says that it may start: a run that the scheduler repeats may not."""
        place = {"worker": self.worker.address, "boot": self.boot, "token": run.token, "host": socket.gethostname()}
        begun = time.monotonic()
        while not run.told.is_set() and not self._is_left(run) and time.monotonic() - begun < START_SECONDS:
            self.worker.log_event(order["topic"], place | {"session": order["session"], "key": run.key})
            with suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_SECONDS):
                    await run.told.wait()
        session.heard = time.monotonic()
        return run.may_start

    async def _execute(self, session: _Session, run: _Run, order: dict[str, Any]) -> None:
        job = asyncio.create_task(session.execute(order))
        run.stop = job.cancel
        try:
            while not job.done():
                await asyncio.wait([job], timeout=WATCH_SECONDS)
                if not job.done() and (self._is_left(run) or session.silence() > run.silence):
                    log.warning("run_abandoned", key=run.key, silence=round(session.silence(), 1))
                    job.cancel()
        except asyncio.CancelledError:  # the Dask worker ends in good order
            session.say({"ended": run.token, "left": True})
            job.cancel()
            await asyncio.wait([job])
            raise
        end: dict[str, Any] = {"ended": run.token}
        if not job.cancelled():
            error = job.exception()
            end["failed" if error else "outcome"] = describe(error) if error else dump_outcome(job.result())
        session.output.send()
        number = session.say(end)
        while session.has_unheard(number) and not self._is_left(run) and session.silence() < run.silence:
            session.taken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await session.taken.wait()

    def _is_left(self, run: _Run) -> bool:
        """Whether nobody waits for the run any more: it was given up, or whoever sent it is gone."""
        held = self.worker.state.tasks.get(run.key)
        return held is None or held.state not in ("executing", "long-running")

    def _tidy(self) -> None:
        """End the warm processes of those who send no more runs."""
        for name, session in list(self._sessions.items()):
            if not session.runs and time.monotonic() - session.left > IDLE_SECONDS:
                del self._sessions[name]
                closing = asyncio.ensure_future(session.close())
                _closing.add(closing)
                closing.add_done_callback(_closing.discard)

    # What whoever sent the runs calls, by way of the scheduler -----------------------------------

    async def collect(self, session: str, boot: str, heard: int, wait: float) -> dict[str, Any] | None:
        """What the runs of a session have to say after message `heard`; waits for it for `wait` seconds at most."""
        found = self._sessions.get(session)
        if found is None or boot != self.boot:
            return None
        return await found.collect(heard, wait)

    async def deliver(self, session: str, boot: str, messages: Sequence[str]) -> bool:
        """Tell the runs of a session something; false if there is none here that waits for one of the messages."""
        found = self._sessions.get(session)
        if found is None or boot != self.boot:
            return False
        taken = [found.hear(json.loads(each)) for each in messages]
        return all(taken)


class _Run:
    def __init__(self, key: str, silence: float) -> None:
        self.key = key
        self.silence = silence
        self.token = secrets.token_hex(8)
        self.told = asyncio.Event()
        self.may_start = False
        self.stop: Any = None


class _Session:
    """The runs that one worker has sent, and their processes."""

    def __init__(self, order: dict[str, Any], concurrency: int) -> None:
        here = load_settings()
        told = order["settings"]
        settings = replace(here, database_url=None, **told | {"spawn_middleware": tuple(told["spawn_middleware"])})
        retry, timeout = order["defaults"]
        self.output = RemoteOutput(self.say, self.has_unheard)
        self.port = AskingPort(self._ask, ScratchSpace(settings.worker_scratch))
        self.min_free_gib = settings.worker_min_free_gib
        self.children = Children(
            order["modules"],
            self.port,
            Defaults(RetryPolicy.from_json(retry), timeout),
            settings,
            concurrency=concurrency,
            middleware=[Elsewhere(Origin(*each)) for each in order["middleware"]],
            sink=self.output,
        )
        self.runs: dict[str, _Run] = {}
        self.left = self.heard = time.monotonic()
        self.taken = asyncio.Event()
        self._said: deque[tuple[int, str]] = deque()
        self._number = 0
        self._news = asyncio.Event()
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        threading.Thread(target=self._sweep, name="absurd-sweep", daemon=True).start()  # a disk may hang

    async def execute(self, order: dict[str, Any]) -> Outcome | None:
        """Execute a run in a process."""
        claim = load_claim(order["claim"])
        if (without := await find_room(self.port.scratch, claim, self.min_free_gib)) is not None:
            return without
        executor = Executor(
            name=claim.name,
            function=Elsewhere(Origin(*order["origin"])),
            retry=None if order["retry"] is None else RetryPolicy.from_json(order["retry"]),
            timeout=order["timeout"],
        )
        return await self.children.run(claim, executor)

    async def close(self) -> None:
        """End the processes, and remove their folders."""
        await self.children.close()
        await asyncio.to_thread(self.port.scratch.close)

    def _sweep(self) -> None:
        """Remove what killed Dask workers have left on the scratch disk: nobody else may look here."""
        with suppress(OSError):
            for folder in sweep(self.port.scratch.root):
                log.info("scratch_swept", folder=str(folder))

    def silence(self) -> float:
        """For how many seconds nobody has collected."""
        return time.monotonic() - self.heard

    def say(self, message: dict[str, Any]) -> int:
        """Have a message collected; returns its number."""
        self._number += 1
        self._said.append((self._number, json.dumps(message)))
        self._news.set()
        return self._number

    def has_unheard(self, number: int) -> bool:
        """Whether a message has not been collected yet, as far as is known here."""
        return bool(self._said) and self._said[0][0] <= number

    async def collect(self, heard: int, wait: float) -> dict[str, Any]:
        """As `Host.collect`."""
        self.heard = time.monotonic()
        while self._said and self._said[0][0] <= heard:
            self._said.popleft()
            self.taken.set()
        if not self._said:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
        self.heard = time.monotonic()
        return {"messages": [text for _, text in self._said], "last": self._said[-1][0] if self._said else heard}

    def hear(self, message: dict[str, Any]) -> bool:
        """Take a message of whoever sent the runs; whether a run waits for it."""
        self.heard = time.monotonic()
        match message:
            case {"answer": number} if number in self._calls:
                call = self._calls.pop(number)
                if not call.done():
                    call.set_result(message)
            case {"start": token} if token in self.runs:
                self.runs[token].may_start = True
                self.runs[token].told.set()
            case {"stop": token} if token in self.runs:
                run = self.runs[token]
                run.may_start = False
                run.told.set()
                if run.stop is not None:
                    run.stop()
            case _:
                return False
        return True

    async def _ask(self, method: str, args: list[Any]) -> dict[str, Any]:
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        number = self.say({"call": self._number + 1, "method": method, "args": args})
        self._calls[number] = answer
        try:
            return await answer
        finally:
            self._calls.pop(number, None)


_hosts: dict[str, Host] = {}
_closing: set[asyncio.Future[None]] = set()
