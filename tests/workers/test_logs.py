"""What a run writes is in its task's log: all of it, in order, under the run that wrote it, and read from anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import log_executors
import pytest
from flood import check, flood
from live import soon, working

from absurd import AbsurdClient, TaskState
from absurd.claims import append_log
from absurd.config import Settings
from absurd.errors import TaskNotFoundError
from absurd.workers import AbsurdWorker
from absurd.workers.log import output


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, imports=(log_executors.__name__,), worker_concurrency=2)


@pytest.fixture
async def worker(settings: Settings) -> AsyncIterator[AbsurdWorker]:
    async with working(settings) as started:
        yield started


async def run(client: AbsurdClient, name: str, params: Any = None, **options: Any) -> UUID:
    task = await client.spawn(name, params or {}, **options)
    await client.wait(task, timeout=60)
    return task


async def texts(client: AbsurdClient, task: UUID, stream: str | None = None, attempt: int | None = None) -> str:
    lines = await client.get_logs(task, attempt=attempt)
    return "".join(line.text for line in lines if stream in (None, line.stream))


async def follow(client: AbsurdClient, task: UUID, seen: list[str]) -> None:
    async for line in client.follow_logs(task):
        seen += [line.text]


# What is caught ----------------------------------------------------------------------------------


async def test_all_that_a_run_writes_is_in_the_log(worker: AbsurdWorker, client: AbsurdClient) -> None:
    """Prints, native code, grandchildren and bytes that are no text: complete once the task has ended."""
    said = await run(client, "logs.say", {"lines": ["one", "", "zwei €"]})
    native = await run(client, "logs.libc")
    others = await run(client, "logs.grandchild")
    raw = await run(client, "logs.raw", {"bytes": [97, 255, 0, 98]})
    silent = await run(client, "logs.say", {})

    assert "one\n\nzwei €\n" == await texts(client, said)
    assert "from C\n" == await texts(client, native)
    assert "from a shell\n" == await texts(client, others, "stdout")
    assert "to stderr\n" == await texts(client, others, "stderr")
    assert "a\ufffd\ufffdb" == await texts(client, raw)
    assert [] == await client.get_logs(silent)
    first = (await client.get_logs(said))[0]
    task = await client.get_task(said)
    assert (1, "stdout", worker.name) == (first.attempt, first.stream, first.worker)
    assert task.started_at is not None
    assert task.finished_at is not None
    assert task.started_at <= first.at <= task.finished_at
    with pytest.raises(TaskNotFoundError):
        await client.get_logs(UUID(int=0))


async def test_two_streams_are_complete_and_in_order(worker: AbsurdWorker, client: AbsurdClient) -> None:
    """Each stream is exact; between them the order is that of reading: of writing, if a moment lies between."""
    fast = await run(client, "logs.both", {"count": 2000})
    apart = await run(client, "logs.both", {"count": 20, "apart": True})

    assert [*range(0, 2000, 2)] == [*map(int, (await texts(client, fast, "stdout")).split())]
    assert [*range(1, 2000, 2)] == [*map(int, (await texts(client, fast, "stderr")).split())]
    assert [*range(20)] == [*map(int, (await texts(client, apart)).split())]


@pytest.mark.parametrize(("how", "words"), [("segfault", "Segmentation fault"), ("exit", ""), ("kill", "")])
async def test_the_last_words_of_a_process(worker: AbsurdWorker, client: AbsurdClient, how: str, words: str) -> None:
    """What it wrote before it died is there with its outcome, faulthandler's traceback too, and then the retry's."""
    task = await run(client, "logs.die", {"how": how})

    first, second = await texts(client, task, attempt=1), await texts(client, task, attempt=2)
    assert "attempt 1\n" in first
    assert words in first
    assert ("in die" in first) == (how == "segfault")
    assert "attempt 2\n" == second
    assert first + second == await texts(client, task)


async def test_a_process_that_is_used_again_tells_runs_apart(
    worker: AbsurdWorker, client: AbsurdClient, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each line is in the log of its own run; what a thread prints between two runs is the worker's to show."""
    tasks = [await run(client, "logs.say", {"lines": [f"run {number}"] * 3}) for number in range(5)]
    left = await run(client, "logs.leftover", {"go": str(tmp_path / "go"), "said": str(tmp_path / "said")})
    (tmp_path / "go").touch()
    await soon((tmp_path / "said").exists)
    after = await run(client, "logs.say", {"lines": ["after"]})

    assert 1 == len({(await client.get_task(each)).result for each in [*tasks, after]})
    assert [f"run {number}\n" * 3 for number in range(5)] == [await texts(client, each) for each in tasks]
    assert ("in time\n", "after\n") == (await texts(client, left), await texts(client, after))
    shown = capfd.readouterr().err
    assert "run 0\nrun 0\n" in shown
    assert "left over\n" in shown


@pytest.mark.parametrize("where", ["", ".thread", ".loop"])
async def test_log_lines_name_their_run_and_no_secret(worker: AbsurdWorker, client: AbsurdClient, where: str) -> None:
    """ctx.log, structlog and logging, wherever the run is, with its task and attempt."""
    task, other = await asyncio.gather(
        *(run(client, f"logs.loggers{where}", {"token": f"s3cret-{number}"}) for number in range(2))
    )

    lines = (await texts(client, task)).splitlines()
    assert 1 == sum("from ctx.log" in line for line in lines)
    assert 1 == sum("from logging" in line for line in lines)
    assert (where == ".loop") == any("from a job" in line for line in lines)
    assert str(other) not in "".join(lines)
    assert "s3cret" not in "".join(lines)
    (told,) = [line for line in lines if "from ctx.log" in line]
    assert str(task) in told
    assert "attempt" in told


async def test_what_is_printed_loses_its_secrets(worker: AbsurdWorker, client: AbsurdClient) -> None:
    """Values under a secret's name in the params, and what stands behind such a name."""
    task = await run(client, "logs.secret", {"token": "s3cret-word"})

    assert "the token is *** and password=***\n" == await texts(client, task)


async def test_runs_of_one_attempt_share_a_log(worker: AbsurdWorker, client: AbsurdClient) -> None:
    """A run that was suspended goes on in the log where it left off."""
    task = await run(client, "logs.nap")

    lines = await client.get_logs(task)
    assert ["before\n", "before\n", "after\n"] == [line.text for line in lines]
    assert [1, 1, 1] == [line.attempt for line in lines]
    assert lines[0].run != lines[1].run == lines[2].run


# Following ---------------------------------------------------------------------------------------


async def test_follow_shows_lines_as_they_are_printed(
    worker: AbsurdWorker, client: AbsurdClient, tmp_path: Path
) -> None:
    """A line is seen while the run goes on, within a second; it ends with the task."""
    task = await client.spawn("logs.say", {"lines": ["here I am"], "go": str(tmp_path / "go")})
    seen: list[str] = []
    following = asyncio.create_task(follow(client, task, seen))
    await soon(lambda: seen == ["here I am\n"])
    assert (await client.get_task(task)).state == TaskState.RUNNING
    lines = await client.get_logs(task)
    assert ["here I am\n"] == [line.text for line in lines]

    (tmp_path / "go").touch()
    await following

    assert ["here I am\n", "gone on\n"] == seen
    assert ["gone on\n"] == [line.text for line in await client.get_logs(task, tail=1)]
    assert [] == await client.get_logs(task, tail=0)


async def test_follow_goes_on_over_retries(worker: AbsurdWorker, client: AbsurdClient) -> None:
    """It begins before there is a run, and ends after the last attempt."""
    task = await client.spawn("logs.die", {"how": "exit"}, delay=0.2)
    lines = [line async for line in client.follow_logs(task)]

    assert [(1, "attempt 1\n"), (2, "attempt 2\n")] == [(line.attempt, line.text) for line in lines]


# Bounds ------------------------------------------------------------------------------------------


async def test_a_flood_is_bounded_and_says_what_it_dropped(worker: AbsurdWorker, client: AbsurdClient) -> None:
    """50 MB: the first and the last half of a mebibyte are kept, the rest is counted, and others go on beside it."""
    task, beside = await flood(client, 50_000_000)

    check(await client.get_logs(task), 50_000_000)
    assert beside > 0


@pytest.mark.parametrize("limit", [0, 2000])
async def test_the_limit_is_a_setting(settings: Settings, client: AbsurdClient, limit: int) -> None:
    """However small; 0 keeps nothing."""
    async with working(replace(settings, log_limit=limit)):
        task = await run(client, "logs.flood.few", {"lines": 5000})

    lines = [line.text for line in await client.get_logs(task) if line.stream != "worker"]
    assert limit // 2 <= sum(map(len, lines)) <= limit
    if limit:
        assert ("0\n", "4999\n") == (lines[0], lines[-1])


# The database ------------------------------------------------------------------------------------


async def test_runs_that_write_nothing_cost_no_statement(
    worker: AbsurdWorker, client: AbsurdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is appended, and nothing asked."""
    calls = []

    def noted(*args: Any) -> Any:
        calls.append(args)
        return append_log(*args)

    monkeypatch.setattr(output, "append_log", noted)

    await run(client, "logs.say", {})
    assert [] == calls
    await run(client, "logs.say", {"lines": ["a"] * 100})
    assert 1 == len(calls)


async def test_a_cancelled_run_tells_how_it_ended(worker: AbsurdWorker, client: AbsurdClient, tmp_path: Path) -> None:
    """Its last words come after its claim is gone, and are its own."""
    task = await client.spawn("logs.wait", {"go": str(tmp_path / "never")})
    await soon(lambda: worker._pump is not None and worker._pump.running)
    seen: list[str] = []
    following = asyncio.create_task(follow(client, task, seen))
    await soon(lambda: seen)
    await client.cancel(task)
    await following

    async with asyncio.timeout(30):
        while await texts(client, task) != "begun\nunwound\n":
            await asyncio.sleep(0.05)
