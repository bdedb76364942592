"""Middleware around spawns, runs and calls: order, effect, errors, and every kind of executor."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from memory_port import MemoryPort, claim_of
from slot_executors import TRACE

from absurd import AbsurdClient, Reject, RunContext, SyncAbsurdClient, TaskFailed, TaskSpec, executor
from absurd.config import Settings, load_settings
from absurd.context import run_here
from absurd.errors import ConfigurationError
from absurd.executor import Executor
from absurd.middleware import load, through
from absurd.model import Claim
from absurd.outcome import Completed, Failed, Outcome
from absurd.retry import RetryPolicy
from absurd.workers import AbsurdWorker
from absurd.workers.runs.execution import Defaults
from absurd.workers.runs.surround import surround

DEFAULTS = Defaults(RetryPolicy(max_attempts=2, base=1.0, jitter=0.0), None)
KINDS = ("middled.loop", "middled.thread", "middled.process")


@executor("middled.loop")
async def in_loop(ctx: RunContext, params: dict[str, Any]) -> Any:
    return None


@executor("middled.thread", runs_in="thread")
def in_thread(ctx: RunContext, params: dict[str, Any]) -> Any:
    return None


@executor("middled.process")
def in_process(ctx: RunContext, params: dict[str, Any]) -> Any:
    return None


@contextmanager
def noted(ctx: RunContext) -> Iterator[None]:
    """Call middleware that leaves a mark where the executor runs."""
    with Path(ctx.headers["marks"]).open("a") as file:
        file.write(f"{ctx.name} begins\n")
        file.flush()
        yield
        file.write(f"{ctx.name} ends\n")


@executor("middled.spawns.loop")
async def spawns_in_loop(ctx: RunContext, params: dict[str, Any]) -> Any:
    return await ctx.spawn("middled.loop", {}, queue="later")


@executor("middled.spawns.thread", runs_in="thread")
def spawns_in_thread(ctx: RunContext, params: dict[str, Any]) -> Any:
    return ctx.spawn("middled.loop", {}, queue="later")


@executor("middled.spawns.process")
def spawns_in_process(ctx: RunContext, params: dict[str, Any]) -> Any:
    return ctx.spawn("middled.loop", {}, queue="later")


@contextmanager
def received(ctx: RunContext) -> Iterator[None]:
    """Call middleware that takes up the trace of the task."""
    before = TRACE.set(ctx.headers["trace"])
    try:
        yield
    finally:
        TRACE.reset(before)


@contextmanager
def closed(ctx: RunContext) -> Iterator[None]:
    """Call middleware that lets nothing through."""
    if ctx.attempt:
        raise Reject("closed for the night")
    yield


def labelled(label: str) -> Callable[[TaskSpec], TaskSpec]:
    return lambda spec: replace(spec, headers={**(spec.headers or {}), label: len(spec.headers or {})})


async def tried(*middleware: Any, result: Outcome | None = None) -> Outcome | None:
    """Run a claim through run middleware."""

    async def execute(claim: Claim, executor: Executor) -> Outcome | None:
        return result

    run = surround(execute, middleware, MemoryPort(), DEFAULTS)
    return await run(claim_of("middled.loop", {"token": "geheim"}), in_loop)


async def test_spawn_middleware_changes_what_is_spawned(settings: Settings) -> None:
    """In order, the first one first, in both clients and in bulk; an empty list leaves that of the settings out."""
    middleware = [labelled("a"), labelled("b")]
    async with AbsurdClient(settings=settings, middleware=middleware) as client:
        single = await client.spawn("middled.loop", {})
        (bulk,) = await client.spawn_many([TaskSpec("middled.loop", {}, headers={"own": 1})])
        assert (await client.get_task(single)).headers == {"a": 0, "b": 1}
        assert (await client.get_task(bulk)).headers == {"own": 1, "a": 1, "b": 2}
    with SyncAbsurdClient(settings=settings, middleware=middleware) as twin:
        assert twin.get_task(twin.spawn("middled.loop", {})).headers == {"a": 0, "b": 1}


async def test_spawn_middleware_that_raises(settings: Settings) -> None:
    """Its error is the spawn's, and nothing is spawned; one that returns no spec is told so."""

    def broken(spec: TaskSpec) -> TaskSpec:
        raise ValueError("no trace")

    async with AbsurdClient(settings=settings, middleware=[broken]) as client:
        with pytest.raises(ValueError, match="no trace"):
            await client.spawn_many([TaskSpec("middled.loop"), TaskSpec("middled.loop")])
        assert [] == await client.list_tasks()
    with pytest.raises(ConfigurationError, match="returned a NoneType"):
        through(TaskSpec("x"), [lambda spec: None])  # type: ignore[list-item,return-value]


async def test_what_a_run_spawns_goes_through_spawn_middleware(settings: Settings) -> None:
    """In loop, thread and process, where the executor runs: so a trace travels on, from task to task."""
    traced = replace(settings, spawn_middleware=("slot_executors:sent",))
    spawners = [spawns_in_loop, spawns_in_thread, spawns_in_process]
    worker = AbsurdWorker(settings=traced, executors=spawners, call_middleware=[received])
    async with AbsurdClient(settings=settings) as client:
        parents = [await client.spawn(each, {}, headers={"trace": each.name}) for each in spawners]
        await worker.run("drain")
        children = [await client.get_task((await client.wait(each, timeout=120)).result) for each in parents]

    assert [each.name for each in spawners] == [each.headers["trace"] for each in children]
    places = [each.headers["place"].split("/") for each in children]
    own = [str(os.getpid()), str(threading.get_ident())]
    assert own == places[0]
    assert places[1][0] == own[0] and places[1][1] != own[1]
    assert places[2][0] != own[0]


@pytest.mark.parametrize("bridge", [None, run_here], ids=["async", "plain"])
async def test_a_spawn_that_is_done_passes_no_middleware(bridge: Any) -> None:
    """A run that goes on after a suspension has the id from its checkpoint; nothing is called, or can fail, for it."""

    def broken(spec: TaskSpec) -> TaskSpec:
        raise ValueError("no trace")

    port, claim, child = MemoryPort(), claim_of("middled.loop"), uuid4()
    port.spawn_middleware = [broken]
    port.checkpoints[claim.task_id] = {"spawn middled.loop": str(child)}
    ctx = RunContext(claim, port, bridge)

    async def spawned() -> Any:
        found = ctx.spawn("middled.loop")
        return found if bridge else await found

    assert child == await spawned()
    with pytest.raises(ValueError, match="no trace"):
        await spawned()
    assert not ctx.spawns


async def test_run_middleware_is_around_the_run() -> None:
    """The first is outermost; returning nothing leaves the outcome, returning another replaces it."""
    order: list[str] = []

    def named(name: str) -> Any:
        async def middleware(claim: Claim, call_next: Callable[[Claim], Awaitable[Outcome | None]]) -> None:
            order.append(name)
            await call_next(claim)
            order.append(f"/{name}")

        return middleware

    async def replacing(claim: Claim, call_next: Any) -> Outcome:
        await call_next(claim)
        return Completed('"other"')

    assert Completed("1") == await tried(named("a"), named("b"), result=Completed("1"))
    assert ["a", "b", "/b", "/a"] == order
    assert Completed('"other"') == await tried(replacing, named("a"), result=Completed("1"))
    assert None is await tried(replacing, result=None)


async def test_what_run_middleware_raises_is_the_runs_failure() -> None:
    """A failure with retries as the policy has it, without secrets; a signal counts as the executor's own."""

    async def broken(claim: Claim, call_next: Any) -> Outcome:
        raise ValueError(f"cannot trace {claim.params}")

    async def rejecting(claim: Claim, call_next: Any) -> Outcome:
        raise Reject("closed")

    async def lazy(claim: Claim, call_next: Any) -> None:
        return None

    async def forging(claim: Claim, call_next: Any) -> Outcome | None:
        result: Outcome | None = await call_next(claim._replace(lease=8))
        return result

    failed = await tried(broken, result=Completed())
    assert isinstance(failed, Failed)
    assert (failed.error["type"], failed.delay) == ("ValueError", 1.0)
    assert "geheim" not in str(failed.error)
    for middleware, message in (
        (rejecting, "closed"),
        (lazy, "without calling call_next"),
        (forging, "not whose it is"),
    ):
        ended = await tried(middleware, result=Completed())
        assert isinstance(ended, Failed)
        assert ended.delay is None and message in ended.error["message"]


async def test_middleware_holds_for_every_kind_of_executor(settings: Settings, tmp_path: Path) -> None:
    """Run middleware is around runs in loop, thread and process; call middleware is entered where each of them runs."""
    seen: list[str] = []

    async def counting(claim: Claim, call_next: Any) -> None:
        seen.append(f"{claim.name} {type(await call_next(claim)).__name__}")

    marks = tmp_path / "marks"
    worker = AbsurdWorker(
        settings=settings,
        executors=[in_loop, in_thread, in_process],
        concurrency=1,
        middleware=[counting],
        call_middleware=[noted],
    )
    async with AbsurdClient(settings=settings) as client:
        ids = await client.spawn_many([TaskSpec(name, {}, headers={"marks": str(marks)}) for name in KINDS])
        await worker.run("drain")
        states = await client.get_states(ids)

    assert ["completed"] * 3 == [str(states[each]) for each in ids]
    assert [f"{name} Completed" for name in KINDS] == seen
    assert [f"{name} {word}" for name in KINDS for word in ("begins", "ends")] == marks.read_text().splitlines()


async def test_call_middleware_that_raises_ends_the_run(settings: Settings) -> None:
    """What it raises counts as raised by the executor."""
    worker = AbsurdWorker(settings=settings, executors=[in_loop], call_middleware=[closed])
    async with AbsurdClient(settings=settings) as client:
        task_id = await client.spawn("middled.loop", {})
        await worker.run("drain")
        with pytest.raises(TaskFailed, match="closed for the night"):
            await client.wait(task_id, timeout=120)


def test_settings_name_middleware() -> None:
    """``module:function`` in the settings; what is none, cannot be found or is no function is refused with its name."""
    settings = load_settings(environ={"ABSURD_RUN_MIDDLEWARE": "os.path:join, json:dumps"})

    assert ("os.path:join", "json:dumps") == settings.run_middleware
    assert 2 == len(load(settings.run_middleware))
    with pytest.raises(ConfigurationError, match=r"ABSURD_RUN_MIDDLEWARE is 'os\.path'"):
        load_settings(environ={"ABSURD_RUN_MIDDLEWARE": "os.path"})
    for name in ("os.path:jon", "nowhere_at_all:x", "os:name"):
        with pytest.raises(ConfigurationError, match=name):
            load([name])


async def test_call_middleware_must_be_found_by_children(settings: Settings) -> None:
    """One that is defined inside a function could not be imported by a child process, and is refused at the start."""

    @contextmanager
    def local(ctx: RunContext) -> Iterator[None]:
        yield

    with pytest.raises(ConfigurationError, match="top level of a module"):
        await AbsurdWorker(settings=settings, call_middleware=[local]).run("burst")


@pytest.mark.parametrize(
    "made",
    [Completed(cast("str", {"a": 1})), Completed("{bad"), Completed('"\\u0000"'), Failed({"at": object()})],
    ids=["no text", "no JSON", "NUL", "no JSON value"],
)
async def test_an_outcome_of_its_own_that_cannot_be_stored(made: Outcome) -> None:
    """What a middleware makes up is checked where it is made: the run fails and names it, and the worker goes on."""

    async def inventive(claim: Claim, call_next: Any) -> Outcome:
        return made

    outcome = await tried(inventive)
    assert isinstance(outcome, Failed)
    assert (outcome.error["code"], outcome.delay) == ("configuration_invalid", None)
    assert "inventive" in outcome.error["message"]
