"""Runs sent to a Dask cluster: one Dask task each, whose run asks here for all that it needs of the database.

Dask repeats what a lost Dask worker has been executing, and would run an attempt twice.  So a run
only starts when it is told to from here, which happens once; what asks again is told to leave.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError  # what Dask raises; the other one is asyncio's
from dataclasses import astuple, dataclass, replace
from importlib.metadata import version
from typing import Any

import structlog

from absurd.config import Settings
from absurd.errors import ExecutionError
from absurd.executor import Executor
from absurd.middleware import CallMiddleware, check_importable
from absurd.model import Claim
from absurd.outcome import Completed, Failed, Outcome, Returned, Suspended
from absurd.port import Port
from absurd.workers.dask.cluster import Client, Cluster
from absurd.workers.dask.line import Line, Place
from absurd.workers.dask.output import pass_on
from absurd.workers.dask.resources import Resources
from absurd.workers.failures import describe
from absurd.workers.log.output import Sink
from absurd.workers.runs.execution import Defaults, failure, out_of_time, time_limit
from absurd.workers.runs.origin import origin_of, origin_of_function
from absurd.workers.runs.wire import dump_claim, load_outcome

NO_CLUSTER_SECONDS = 60.0
"""How long a task for Dask is put aside by a worker without a cluster; one that connects to a cluster wakes it."""
AWAY_SECONDS = 15.0
"""How long it is put aside while the cluster is away; being back wakes it too."""
SILENT_LEASES = 10.0
"""For how many leases a run hears nothing from here before it ends: more than a worker that is held up may stay silent,
for one that is gone is mostly noticed by the scheduler at once."""
SETTINGS = ("log_level", "log_format", "spawn_middleware", "worker_recycle_runs", "worker_recycle_memory_gib")
"""What holds for runs wherever they are; the other settings are those of the Dask worker."""
STOP_SECONDS = 6.0
"""How long a run on a Dask worker that was told to stop is waited for; it gets no more time there."""
OVERDUE_SECONDS = 30.0
"""How long after its limit a run is given up of which nothing is heard: it is ended at its limit where it runs."""
UNSEEN_SECONDS = 10.0
"""How long a file that a run has written is looked for: a network's file system may show it late."""

log = structlog.get_logger("absurd.worker")


class DaskWorkerLostError(ExecutionError):
    """The Dask worker that executed the run is gone, or cannot be reached any more."""

    code = "dask_worker_lost"


class ClusterLostError(ExecutionError):
    """The Dask cluster was lost in the middle of the run, or could not take it."""

    code = "cluster_lost"


class FileUnseenError(ExecutionError):
    """A file that a run wrote on a Dask worker cannot be seen from here, so that it cannot be published."""

    code = "file_unseen"


@dataclass(eq=False, slots=True)
class Flight:
    """A run that was sent to the cluster."""

    client: Client
    claim: Claim
    key: str
    end: asyncio.Future[Outcome | None]
    limit: float | None
    place: Place | None = None
    """Where it runs, or waits to be told that it may."""
    line: Line | None = None
    started: bool = False
    """Whether the Dask worker may have heard that it may start."""

    def land(self, outcome: Outcome | None) -> None:
        """End it."""
        if not self.end.done():
            self.end.set_result(outcome)

    def fail(self, error: Exception) -> None:
        """End it by an error that is not the run's own."""
        if not self.end.done():
            self.end.set_exception(error)

    def lose(self, error: Exception) -> None:
        """End it by what happened to the cluster; one that had not started goes back, and spends no attempt."""
        if self.started:
            self.fail(error)
        else:
            self.land(Returned("not started"))


class DaskRuns:
    """Executes claims on a Dask cluster; None for `cluster` puts them aside."""

    def __init__(
        self,
        cluster: Cluster | None,
        port: Port,
        defaults: Defaults,
        settings: Settings,
        modules: Sequence[str],
        middleware: Sequence[CallMiddleware],
        sink: Sink | None,
    ) -> None:
        self._cluster = cluster
        self._sink = sink
        self._port = port
        self._defaults = defaults
        self._session = secrets.token_hex(8)
        # Not one for each worker that there ever was: the scheduler keeps the last thousand events of each topic.
        self._topic = f"absurd-{socket.gethostname()}"
        self._common = {
            "version": version("absurd"),
            "session": self._session,
            "topic": self._topic,
            "silence": SILENT_LEASES * settings.worker_lease,
            "modules": list(modules),
            "settings": {name: getattr(settings, name) for name in SETTINGS},
            "middleware": [astuple(origin_of_function(check_importable(each))) for each in middleware],
            "defaults": [defaults.retry.to_json(), defaults.timeout],
        }
        self._subscribed: Client | None = None
        self._resources = Resources()
        self._flights: dict[str, Flight] = {}
        self._lines: dict[tuple[str, str], Line] = {}
        self._jobs: set[asyncio.Task[object]] = set()

    def start(self) -> None:
        """Connect to the cluster."""
        if self._cluster is not None:
            self._cluster.on_lost = self._disconnected
            self._cluster.start()

    async def close(self) -> None:
        """Disconnect; the cluster gives up what was sent there."""
        for job in [*self._jobs, *(line.job for line in self._lines.values())]:
            job.cancel()
        if self._cluster is not None:
            await self._cluster.stop()

    async def run(self, claim: Claim, executor: Executor) -> Outcome | None:
        """Run a claim to its outcome.  Cancelled, it ends the run where that is."""
        if self._cluster is None:
            return Suspended("no_cluster", delay=NO_CLUSTER_SECONDS)
        client = await self._cluster.client()
        resources = {} if client is None else await self._resources.of(client, claim.needs)
        if client is None or client.status != "running":
            return Suspended("no_cluster", delay=AWAY_SECONDS)
        try:
            outcome = await self._fly(client, claim, executor, resources)
        except (DaskWorkerLostError, ClusterLostError) as lost:
            return failure(describe(lost) | lost.details, claim, executor, self._defaults)
        if isinstance(outcome, Completed) and outcome.artifacts:
            try:
                await self._see(outcome)
            except FileUnseenError as unseen:
                return failure(describe(unseen) | unseen.details, claim, executor, self._defaults)
        return outcome

    async def _fly(
        self, client: Client, claim: Claim, executor: Executor, resources: dict[str, float]
    ) -> Outcome | None:
        loop = asyncio.get_running_loop()
        limit = time_limit(claim, executor, self._defaults)
        key = f"absurd-{claim.task_id}-{claim.attempt}-{claim.lease:x}"
        flight = Flight(client, claim, key, loop.create_future(), limit)
        if self._subscribed is not client:
            self._subscribed = client
            client.subscribe_topic(self._topic, lambda event: self._announced(client, event[1]))
        self._flights[flight.key] = flight
        flight.end.add_done_callback(_seen)
        order = self._order(flight, executor)
        future = client.submit(_task(), order, key=flight.key, pure=False, retries=0, resources=resources or None)
        watching = asyncio.create_task(self._watch(future, flight))
        try:
            return await flight.end
        except asyncio.CancelledError:
            await self._stop(flight)
            raise
        except TimeoutError:
            assert limit is not None
            await self._stop(flight)
            return failure(describe(out_of_time(claim, limit)), claim, executor, self._defaults)
        finally:
            del self._flights[flight.key]
            if flight.line is not None:
                flight.line.flights.discard(flight)
            watching.cancel()
            future.release()  # the cluster gives up what it has not executed

    def _order(self, flight: Flight, executor: Executor) -> str:
        order = {
            "key": flight.key,
            "claim": dump_claim(flight.claim),
            "origin": astuple(origin_of(executor)),
            "retry": None if executor.retry is None else executor.retry.to_json(),
            "timeout": executor.timeout,
        }
        return json.dumps(self._common | order)

    async def _stop(self, flight: Flight) -> None:
        """Have a run ended, and wait for that."""
        if flight.line is not None and flight.place is not None:
            self._do(flight.line.tell({"stop": flight.place.token}))
            await asyncio.wait([flight.end], timeout=STOP_SECONDS)
        _note_stopped(flight)

    # What is heard of runs ------------------------------------------------------------------------

    def _announced(self, client: Client, said: dict[str, str]) -> None:
        """A Dask worker has a run, and asks whether it may start."""
        if said.get("session") != self._session:
            return
        place = Place(said["worker"], said["boot"], said["token"], said["host"])
        line = self._lines.get((place.worker, place.boot))
        if line is None or line.client is not client or line.job.done():
            line = Line(client, self._session, place.worker, place.boot, self._port, self._heard)
            self._lines[place.worker, place.boot] = line
            line.job.add_done_callback(lambda _: self._forget(line))
        flight = self._flights.get(said["key"])
        if flight is None or flight.end.done():
            self._do(line.tell({"stop": place.token}))
            return
        if flight.place is None:
            flight.place, flight.line = place, line
            line.flights.add(flight)
            if flight.limit is not None:
                overdue = asyncio.get_running_loop().call_later(flight.limit + OVERDUE_SECONDS, _overdue, flight)
                flight.end.add_done_callback(lambda _: overdue.cancel())
        elif flight.place.token != place.token:  # the scheduler repeats it
            self._do(line.tell({"stop": place.token}))
            flight.lose(_gone(flight))
            return
        self._do(self._begin(flight, line, place))

    async def _begin(self, flight: Flight, line: Line, place: Place) -> None:
        flight.started = line.client.status == "running"  # at once: it may be lost before its reply has come
        flight.started = await line.tell({"start": place.token})

    def _heard(self, line: Line, message: dict[str, Any]) -> None:
        """A run has written something, or has ended."""
        if "output" in message:
            if self._sink is not None:
                pass_on(message, [flight.claim for flight in line.flights], self._sink)
            return
        token = message["ended"]
        flight = next((each for each in line.flights if each.place is not None and each.place.token == token), None)
        if flight is None or flight.end.done():
            return
        assert flight.place is not None
        if "failed" in message:
            flight.fail(ClusterLostError(f"the Dask worker {flight.place} failed: {message['failed']['message']}"))
        elif "left" in message:  # retired, scaled down or at the end of its time: as a worker of ours that leaves
            _note_stopped(flight)
            flight.land(Returned("dask worker left"))
        elif "outcome" in message:
            outcome = load_outcome(message["outcome"])
            if isinstance(outcome, Failed):
                outcome = replace(outcome, error=outcome.error | {"dask_worker": flight.place.worker})
            flight.land(outcome)
        else:
            flight.fail(DaskWorkerLostError(f"the run was stopped on the Dask worker {flight.place}"))

    def _forget(self, line: Line) -> None:
        if self._lines.get((line.worker, line.boot)) is line:
            del self._lines[line.worker, line.boot]
        for flight in line.flights:
            if line.left:
                flight.land(Returned("dask worker left"))
            elif line.client.status == "running":
                flight.lose(_gone(flight))
            else:
                flight.lose(_cut_off(flight))

    def _disconnected(self, client: Client) -> None:
        """The connection to the cluster was lost, and with it all that was sent by it."""
        for flight in list(self._flights.values()):
            if flight.client is client:
                _give_up(flight, _cut_off(flight))

    async def _watch(self, future: Any, flight: Flight) -> None:
        """What the scheduler says of a run: that it could not be executed, or was given up there."""
        from distributed import KilledWorker

        try:
            await future
        except KilledWorker:
            _give_up(flight, _gone(flight))
        except CancelledError as error:
            _give_up(flight, _cut_off(flight, error))
        except Exception as error:  # whatever keeps a Dask worker from executing it
            flight.fail(ClusterLostError(f"the Dask worker could not execute the run: {_explain(error)}"))
        else:
            flight.lose(ClusterLostError("the Dask worker has ended the run without an outcome"))

    # Helpers --------------------------------------------------------------------------------------

    async def _see(self, outcome: Completed) -> None:
        """Raise FileUnseenError unless all files of the outcome can be seen here, whole."""
        deadline = asyncio.get_running_loop().time() + UNSEEN_SECONDS
        for each in outcome.artifacts:
            while not await asyncio.to_thread(_is_there, each.attempt_path, each.bytes):
                if asyncio.get_running_loop().time() > deadline:
                    raise FileUnseenError(
                        f"the file {each.path} was written on a Dask worker and cannot be seen from this worker; "
                        "files of runs on a cluster must lie on a file system that both share",
                        path=each.path,
                    )
                await asyncio.sleep(0.2)

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        job = asyncio.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)


def _task() -> Callable[[str], Coroutine[Any, Any, None]]:
    """What a Dask worker executes: sent as code, because the scheduler, which unpacks it too, may know no absurd."""

    async def absurd_run(order: str) -> None:
        from absurd.workers.dask.host import run_remotely

        await run_remotely(order)

    return absurd_run


def _note_stopped(flight: Flight) -> None:
    where = None if flight.place is None else flight.place.worker
    log.info("run_stopped", task_id=str(flight.claim.task_id), attempt=flight.claim.attempt, dask_worker=where)


def _seen(end: asyncio.Future[Outcome | None]) -> None:
    """A run that was stopped asks no more how it has ended."""
    if not end.cancelled():
        end.exception()


def _overdue(flight: Flight) -> None:
    flight.fail(TimeoutError())


def _give_up(flight: Flight, error: Exception) -> None:
    """End a run that the cluster has given up."""
    if flight.place is None:  # nothing of it has reached a Dask worker
        flight.land(Suspended("no_cluster", delay=AWAY_SECONDS))
    else:
        flight.lose(error)


def _cut_off(flight: Flight, why: object = "the connection to the scheduler was lost") -> ClusterLostError:
    return ClusterLostError(f"the run on the Dask worker {flight.place} was lost: {why}")


def _gone(flight: Flight) -> DaskWorkerLostError:
    address = None if flight.place is None else flight.place.worker
    return DaskWorkerLostError(f"the Dask worker {flight.place} was lost in the middle of the run", dask_worker=address)


def _explain(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "absurd":
        return f"absurd is not installed there; install version {version('absurd')} with the extra dask"
    return f"{type(error).__name__}: {error}"


def _is_there(path: str, size: int) -> bool:
    try:
        os.listdir(os.path.dirname(path))  # has a network's file system look again
        return os.path.getsize(path) == size
    except OSError:
        return False
