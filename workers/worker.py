"""A worker: everything that has to stand around the pump while it works."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress

import structlog

from absurd import claims
from absurd.config import Settings, load_settings
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError, ConfigurationError, DatabaseUnavailableError
from absurd.executor import Executor, load_modules
from absurd.executor import registry as default_registry
from absurd.loop import Loop
from absurd.middleware import CallMiddleware, RunMiddleware, load
from absurd.notify import Listener
from absurd.queue import get_queue_stats
from absurd.resolve import resolve_database
from absurd.scratch import ScratchSpace
from absurd.telemetry import Event, telling_records
from absurd.workers.dask.cluster import offer_cluster
from absurd.workers.garbage import rare_collections
from absurd.workers.host.load import measure
from absurd.workers.host.offers import offers as find_offers
from absurd.workers.life.heartbeat import Heartbeat
from absurd.workers.life.names import Names
from absurd.workers.life.registration import Beginning, announce, register, registry_of
from absurd.workers.life.rounds import Rounds
from absurd.workers.link import Link
from absurd.workers.log.output import Output
from absurd.workers.port import DatabasePort
from absurd.workers.publisher import Publisher
from absurd.workers.pump.calls import get_identity, set_listening
from absurd.workers.pump.delivery import Deliverer, Keeper
from absurd.workers.pump.pump import Pump
from absurd.workers.pump.receipts import Spool
from absurd.workers.pump.source import Until
from absurd.workers.runs.surround import surround
from absurd.workers.runs.timings import Timings
from absurd.workers.slots import Slots

ANSWER_SECONDS = 60.0
"""How long a call beside the pump, of a round or of a run's context, waits for its answer."""
LAST_WORD_SECONDS = 10.0
"""How long a worker whose grace is over tries to reach the database to hand back what it holds."""
INHERIT_SECONDS = 5.0
"""How often a worker looks for receipts of others on its machine that have died; less than any lease in use."""

log = structlog.get_logger("absurd.worker")


class AbsurdWorker:
    """Claims runs from queues and executes them, until stopped.

    None for any argument means: as the settings say.  `queues` may map names to weights: a queue of
    weight 2 is claimed from twice as often as one of weight 1.  `executors` limits the worker to
    these; otherwise it runs every executor that its modules register.  `offers` is what tasks with
    `needs` may count on; beside it stand the machine's ``cpu`` and ``memory_gib``.  `middleware` is
    awaited around each run, `call_middleware` surrounds the executor's function where that runs; the
    first is outermost.  `timings` is told how long runs take.
    """

    _make_rounds: type[Rounds] = Rounds

    def __init__(
        self,
        database_url: str | None = None,
        queues: Sequence[str] | Mapping[str, int] | None = None,
        concurrency: int | None = None,
        executors: Sequence[Executor] | None = None,
        prefetch: int | None = None,
        *,
        offers: Mapping[str, float] | None = None,
        settings: Settings | None = None,
        middleware: Sequence[RunMiddleware] | None = None,
        call_middleware: Sequence[CallMiddleware] | None = None,
        timings: Timings | None = None,
    ) -> None:
        self.settings = settings or load_settings(database_url=database_url)
        if settings is not None and database_url is not None:
            raise ConfigurationError("give AbsurdWorker either settings or a database_url, not both")
        names = queues or [self.settings.queue_name]
        self.queues: dict[str, int] = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1)
        self.concurrency = self.settings.worker_concurrency if concurrency is None else concurrency
        self.prefetch = self.settings.worker_prefetch if prefetch is None else prefetch
        for name, value, least in (("concurrency", self.concurrency, 1), ("prefetch", self.prefetch, 0)):
            if value is not None and value < least:
                raise ConfigurationError(f"{name} of a worker is {value}; it must be {least} or more")
        told = self.settings.worker_offers if offers is None else offers
        self.offers = find_offers(told, self.settings.worker_scratch)
        self._stands_in = offer_cluster(self.settings.worker_dask, self.offers)
        self._registry = registry_of(executors) if executors is not None else default_registry
        self.middleware = load(self.settings.run_middleware) if middleware is None else list(middleware)
        self._spawn_middleware = load(self.settings.spawn_middleware)
        self.call_middleware = load(self.settings.call_middleware) if call_middleware is None else list(call_middleware)
        self._timings = timings
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.id: int | None = None
        self._beginning: Beginning | None = None
        self._pump: Pump | None = None
        self._stop_asked = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()
        self._patience = True
        self._connects = False  # whether there is a link
        self._lost = False  # its number is: it goes on under another
        self.drained = False  # ordered to leave: it claims again only if that is taken back before it has left
        self.ready = asyncio.Event()  # set while it is registered and claims, or did so and lets its runs end
        self._succeeding = True  # whether dead workers of this machine are still to be looked for

    # Life ---------------------------------------------------------------------------------------

    async def run(self, until: Until = "forever") -> None:
        """Work until `stop` is called or this coroutine is cancelled.

        "burst" leaves when nothing can be claimed now, "drain" when nothing is pending, sleeping or
        running in the queues of this worker.  A worker that was stopped does not run again.
        """
        if self._stop_asked.is_set():
            return
        self._stopped.clear()
        try:
            await self._run(until)
        except DatabaseUnavailableError as error:
            if not self._stop_asked.is_set():
                raise
            # Nobody to hand back to: the leases end by themselves, and others take over.
            log.warning("worker_left_unheard", worker=self.name, error=error.message)
        finally:
            self._stopped.set()

    async def _run(self, until: Until) -> None:
        self._patience = True
        for sentence in load_modules(list(self.settings.imports)) if self._registry is default_registry else []:
            log.debug("executors_missing", reason=sentence)
        url = await asyncio.to_thread(resolve_database, self.settings)
        self._database = AsyncDatabase(
            url,
            schema=self.settings.schema,
            prepared_statements=self.settings.prepared_statements,
            patience=ANSWER_SECONDS,
        )
        # Back well within the lease that a worker gets after an outage.
        self._link = Link(
            self._database, lambda: self._patience, longest_pause=min(5.0, self.settings.worker_lease / 6)
        )
        self._connects = True
        spool: Spool | None = None
        try:
            await self._database.open()
            spool = self._spool = Spool(self.settings.home, await self._link.run(get_identity()))
            self._lost = False
            while True:
                former = self.id if self._lost else None
                self._lost = False
                self._succeeding = True
                try:
                    if not await self._register(former):
                        return
                    await self._work(url, until)
                finally:
                    await self._leave()
                if not self._lost or self.drained or self._stop_asked.is_set():
                    return
        finally:
            self._patience = False
            if spool is not None:
                spool.close()
            await self._link.close()
            await self._database.close()

    async def stop(self, grace: float | None = None) -> None:
        """Claim nothing more; give runs `grace` seconds to end, then hand back what is left.

        Handed-back runs spend no attempt.  Returns when the worker has left.
        """
        self._stop_asked.set()
        if self._pump is not None:
            self._pump.stop()
        if self._beginning is not None:
            await self._beginning.call_off()
        if self._pump is None:
            grace = 0
        try:
            async with asyncio.timeout(self.settings.worker_grace if grace is None else grace):
                await self._stopped.wait()
            return
        except TimeoutError:
            if self._pump is not None:
                self._pump.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._stopped.wait()
        self._patience = False  # the database is away: the leases end by themselves
        if self._connects and not self._stopped.is_set():
            self._database.hang_up()  # or it is there, and does not answer
            await self._link.close()
        await self._stopped.wait()

    @property
    def busy(self) -> tuple[int, int]:
        """How many runs are at work, of how many at a time."""
        return (len(pump.running), pump.concurrency) if (pump := self._pump) else (0, self.concurrency)

    async def _work(self, url: str, until: Until) -> None:
        """Run the pump among its helpers, and take them down again."""
        assert self.id is not None
        self._publisher = Publisher(self._database)
        port = DatabasePort(self._database, self._spawn_middleware, ScratchSpace(self.settings.worker_scratch))
        output = Output(self._database.run, limit=self.settings.log_limit)
        slots = self._slots = self._make_slots(port, output)
        pump = self._pump = Pump(
            link=self._link,
            worker_id=self.id,
            sources=self._names.sources(self.queues),
            executors=self._names.executors,
            refresh_names=self._names.read,
            registry=self._registry,
            execute=surround(slots.run, self.middleware, port, slots.defaults, self._timings),
            output=output,
            publish=self._publisher.publish_files,
            listen=self._listen,
            remaining=self._remaining,
            concurrency=self.concurrency,
            prefetch=self.prefetch,
            poll_seconds=self.settings.worker_poll_interval,
            dead_letters=self.settings.dlq_enabled,
        )
        output.holds = pump.running.__contains__
        if self._stop_asked.is_set():
            pump.stop()
        listener = Listener(self._database, ["ready", "lease", "due"])
        heartbeat = self._heartbeat = Heartbeat(
            url,
            self.settings,
            worker_id=self.id,
            loop=asyncio.get_running_loop(),
            leases=pump.leases,
            claiming=pump.claiming,
            longest=slots.longest,
            started=pump.started,
            state=lambda: "stopping" if pump.stopping else "running",
            load=lambda: measure(
                running=len(pump.running),
                concurrency=pump.concurrency,
                polls=listener.reason,
                scratch=port.scratch.problem,
            ),
            quiet=lambda: self._rounds.resting,
            probe=listener.probe_channel,
            on_answer=self._obey,
            on_lost=self._given_up,
        )
        self._rounds = self._make_rounds(
            self._database,
            pump,
            self._publisher,
            listener,
            poll=self.settings.worker_poll_interval,
            pulse=heartbeat.slowest,
        )
        keeper = Keeper(self._spool, pump, self._link, worker_id=self.id, lease=self.settings.worker_lease)
        keeping = Loop("receipts", keeper.look, pause=1.0)
        async with AsyncExitStack() as helpers:  # taken down in the reverse order, however far this came
            heartbeat.start()
            listener.start()
            helpers.push_async_callback(listener.stop)
            helpers.push_async_callback(asyncio.to_thread, heartbeat.stop)  # it waits for its thread
            helpers.push_async_callback(output.close)
            helpers.push_async_callback(slots.close)
            slots.open(self._registry)
            helpers.push_async_callback(self._publisher.finish)
            looking = self._names.look_out(pump, self.id, self._rounds.stir)
            for loop in (self._rounds, Loop("inheritance", self._inherit, pause=INHERIT_SECONDS), looking):
                await loop.start()
                helpers.push_async_callback(loop.stop)
            helpers.callback(keeper.close)
            await keeping.start()
            helpers.push_async_callback(keeping.stop)
            helpers.enter_context(self._rounds.hearing(heartbeat, self.id))
            log.info(
                "worker_started", worker=self.name, id=self.id, queues=[*self.queues], concurrency=self.concurrency
            )
            self.ready.set()
            try:
                with rare_collections(), telling_records():
                    await pump.run(until)
                self._lost = self._lost or pump.spent
            except asyncio.CancelledError:
                pump.abort()
                await asyncio.shield(pump.run())
                raise
            except Exception:  # nothing of it may go on in the program around
                await pump.stop_runs()
                raise
            finally:
                self.ready.clear()

    def _make_slots(self, port: DatabasePort, output: Output) -> Slots:
        return Slots(
            concurrency=self.concurrency,
            settings=self.settings,
            modules=[*self.settings.imports],
            port=port,
            middleware=self.call_middleware,
            sink=output,
            on_cluster=self._announce_cluster,
            stand_in=self._stands_in,
        )

    async def _announce_cluster(self) -> None:
        """Have the tasks woken that were put aside for want of a cluster."""
        await self._database.run(announce(self.settings, self._registry, cluster=True))

    async def _register(self, former: int | None) -> bool:
        """Announce this worker; false if it is to stop before that is done."""
        self._names = Names(
            self._link,
            list(self.queues),
            [each.name for each in self._registry],
            lambda: announce(self.settings, self._registry, list(self.queues), cluster=self._stands_in),
        )
        self._beginning = Beginning(self._link)
        return await self._beginning.run(self._announce(former))

    async def _announce(self, former: int | None) -> None:
        self.id = await register(
            self._link,
            self.name,
            queues=list(self.queues),
            concurrency=self.concurrency,
            offers=self.offers,
            settings=self.settings,
            registry=self._registry,
            home=self._spool.make_home(),
            cluster=self._stands_in,
            former=former,
        )
        await self._names.read()

    async def _leave(self) -> None:
        if self.id is None:
            return
        try:
            async with asyncio.timeout(5):
                await self._database.run(claims.unregister_worker(self.id))
        except (AbsurdError, TimeoutError) as error:
            log.warning("worker_left_unheard", worker=self.name, error=str(error))
        log.info("worker_stopped", worker=self.name, id=self.id)

    # What the pump asks for ---------------------------------------------------------------------

    async def _listen(self, listening: bool) -> None:
        assert self.id is not None
        await self._link.run(set_listening(self.id, [*self._names.queues.values()], listening))
        if not listening:
            self._rounds.stir()

    async def _remaining(self) -> int:
        """Tasks of this worker's queues that are pending, sleeping or running."""
        stats = [await self._link.run(get_queue_stats(name)) for name in self._names.queues]
        return sum(each.pending + each.sleeping + each.running for each in stats)

    # Beside the pump ----------------------------------------------------------------------------

    async def _inherit(self) -> float | None:
        """Deliver what dead workers of this machine left behind; the first time, take their runs over as well."""
        assert self.id is not None
        deliverer = Deliverer(
            self._spool, self._database, self._publisher.publish_files, dead_letters=self.settings.dlq_enabled
        )
        try:
            await deliverer.deliver()
            if self._succeeding:
                self._succeeding = not await deliverer.give_up_dead(self.id)
                if self._pump is not None:
                    self._pump.wake()
        except DatabaseUnavailableError:
            return 1.0  # not the loop's ever longer pauses: a lease's time is all there is
        return 1.0 if self._succeeding else None

    def _obey(self, standing: claims.Standing) -> None:
        """Stop what was taken from this worker, and do as it is ordered."""
        if (pump := self._pump) is None:
            return
        self._rounds.probed()
        pump.lose(standing.held)
        running = [claim for claim, _ in pump.running.values()]
        self._slots.longest.renew((claim, self._registry.get(claim.name)) for claim in running)
        wanted = standing.concurrency or self.concurrency
        drained = self.drained if self._stop_asked.is_set() or self._lost else standing.draining
        if (wanted, drained) == (pump.concurrency, self.drained):
            return
        if wanted != pump.concurrency:
            log.info(Event.WORKER_RESIZED, worker=self.name, id=self.id, before=pump.concurrency, concurrency=wanted)
            pump.concurrency = wanted
            self._slots.resize(wanted)
        if drained != self.drained:
            self.drained = drained
            if drained:
                log.info(Event.WORKER_DRAINING, worker=self.name, id=self.id)
                pump.stop()
            else:
                log.info(Event.WORKER_RESUMED, worker=self.name, id=self.id)
                pump.resume()
        pump.wake()
        self._heartbeat.beat_now()  # those who look see that it was obeyed

    def _given_up(self) -> None:
        """The others took this worker for dead: stop the work, and come back under a new number."""
        log.error("worker_given_up", worker=self.name, id=self.id)
        self._lost = True
        if self._pump is not None:
            self._pump.lose({lease: set() for lease in self._pump.leases()})
            self._pump.stop()
