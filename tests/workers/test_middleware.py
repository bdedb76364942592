"""Middleware around spawns, runs and calls: order, effect, errors, and every kind of executor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from memory_port import MemoryPort, claim_of

from absurd import AbsurdClient, Reject, RunContext, SyncAbsurdClient, TaskFailed, TaskSpec, executor
from absurd.config import Settings, load_settings
from absurd.errors import ConfigurationError
from absurd.executor import Executor
from absurd.middleware import load, through
from absurd.model import Claim
from absurd.outcome import Completed, Failed, Outcome
from absurd.retry import RetryPolicy
from absurd.workers import AbsurdWorker
from absurd.workers.execution import Defaults
from absurd.workers.surround import surround

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
            await client.wait(task_id, timeout=30)


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
