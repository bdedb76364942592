"""Output on its way to the database: while that is away, when answers are lost, and when claims are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from live import soon
from sql_queue import Connection, Queue
from structlog.testing import capture_logs

from absurd.call import Call
from absurd.database import AsyncDatabase
from absurd.errors import DatabaseUnavailableError, InvalidInputError
from absurd.logs import read_log
from absurd.model import Claim
from absurd.redaction import hide_in_lines
from absurd.workers.log import output as output_module
from absurd.workers.log.output import Output


class Line:
    """A way to the database that can be cut, before a call arrives or before its answer does."""

    def __init__(self, run: Callable[[Call[Any]], Awaitable[Any]]) -> None:
        self._run = run
        self.calls = 0
        self.away = False
        self.loses_answers = 0
        self.refuses = False

    async def call(self, call: Call[Any]) -> Any:
        """Make a call, or not."""
        self.calls += 1
        if self.away:
            raise DatabaseUnavailableError("it is away")
        if self.refuses:
            raise InvalidInputError("never")
        answer = await self._run(call)
        if self.loses_answers:
            self.loses_answers -= 1
            raise DatabaseUnavailableError("the answer was lost")
        return answer


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[AsyncDatabase]:
    async with AsyncDatabase(database_url) as opened:
        yield opened


@pytest.fixture
def line(database: AsyncDatabase) -> Line:
    return Line(database.run)


@pytest.fixture
async def output(line: Line) -> AsyncIterator[Output]:
    made = Output(line.call, limit=10_000)
    yield made
    await made.close()


@pytest.fixture
def queue(connection: Connection) -> Queue:
    return Queue(connection)


def claimed(queue: Queue, wanted: int = 1, **options: Any) -> list[Claim]:
    for _ in range(wanted):
        queue.spawn(**options)
    lease, tasks, _ = queue.claim(wanted)
    return [Claim(lease, task, 1, "default", "demo.add", {}) for task in tasks]


async def stored(database: AsyncDatabase, task: UUID) -> str:
    return "".join(line.text for line in (await database.run(read_log(task))).lines)


async def test_runs_share_a_call(queue: Queue, database: AsyncDatabase, line: Line, output: Output) -> None:
    """Whatever many runs have written goes in one; a run that has ended is forgotten."""
    claims = claimed(queue, 20)
    for claim in claims:
        output.write(claim, "stdout", b"one\n")
        output.write(claim, "stderr", b"two\n")
    await asyncio.gather(*map(output.finish, claims))

    assert line.calls == 1
    assert {await stored(database, claim.task_id) for claim in claims} == {"one\ntwo\n"}
    assert output.talking == {}


async def test_a_lost_answer_appends_nothing_twice(
    queue: Queue, database: AsyncDatabase, line: Line, output: Output
) -> None:
    """It is sent again under the same number, and what came meanwhile behind it."""
    (claim,) = claimed(queue)
    line.loses_answers = 2
    output.write(claim, "stdout", b"one\n")
    await soon(lambda: output.away)
    output.write(claim, "stdout", b"two\n")
    await soon(lambda: not output.away)
    await output.finish(claim)

    assert await stored(database, claim.task_id) == "one\ntwo\n"


async def test_the_database_away_and_back(
    queue: Queue, database: AsyncDatabase, line: Line, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits, a bounded amount is kept, the rest counted; it is stored when it is back, even after the end."""
    monkeypatch.setattr(output_module, "LONGEST_PAUSE", 0.05)
    line.away = True
    first, second = claimed(queue, 2)
    with capture_logs() as logs:
        output.write(first, "stdout", b"first\n")
        await soon(lambda: output.away)
        for number in range(5000):
            output.write(first, "stdout", b"%09d\n" % number)
            output.write(second, "stdout", b"%09d\n" % number)
        await asyncio.gather(output.finish(first), output.finish(second))
        queue.complete(first.lease, first.task_id)
        assert await stored(database, first.task_id) == ""
        assert output.talking

        line.away = False
        await soon(lambda: not output.talking)

    lines = (await database.run(read_log(first.task_id))).lines
    assert (lines[0].text, lines[-1].text) == ("first\n", "000004999\n")
    kept = sum(len(each.text) for each in lines if each.stream != "worker")
    assert kept <= 10_000
    assert 50_006 - kept == sum(each.dropped_bytes for each in lines)
    assert [each["event"] for each in logs] == ["log_delayed"], "once, not at each try"


async def test_memory_is_bounded_over_runs_too(
    queue: Queue, line: Line, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a long outage the logs of runs that ended first are given up, and that is said."""
    monkeypatch.setattr(output_module, "AWAY_BYTES", 50_000)
    monkeypatch.setattr(output_module, "LONGEST_PAUSE", 0.05)
    line.away = True
    claims = claimed(queue, 20)
    with capture_logs() as logs:
        for claim in claims:
            output.write(claim, "stdout", b"x" * 9_000)
            await output.finish(claim)
        await soon(lambda: any(each["event"] == "log_dropped" for each in logs))
        await soon(lambda: len(output.talking) <= 6)

    assert claims[-1][:2] in output.talking
    assert claims[0][:2] not in output.talking


async def test_a_claim_that_is_lost_or_a_log_that_is_refused(
    queue: Queue, database: AsyncDatabase, line: Line, output: Output
) -> None:
    """Neither is sent again, and the outcome does not wait for it."""
    lost, held = claimed(queue)[0], claimed(queue)[0]
    stale = lost._replace(lease=99)
    output.write(stale, "stdout", b"stale\n")
    output.write(held, "stdout", b"held\n")
    await asyncio.gather(output.finish(stale), output.finish(held))
    assert (await stored(database, lost.task_id), await stored(database, held.task_id)) == ("", "held\n")

    line.refuses = True
    with capture_logs() as logs:
        output.write(held, "stdout", b"refused\n")
        await output.finish(held)
    assert [each["event"] for each in logs] == ["log_refused"]
    assert output.talking == {}


async def test_a_part_that_is_refused_takes_no_other_with_it(
    queue: Queue, database: AsyncDatabase, line: Line, output: Output
) -> None:
    """Of many runs' parts in a call the one at fault is found; its log says what is missing, all others are whole."""
    claims = claimed(queue, 9)
    with capture_logs() as logs:
        for number, claim in enumerate(claims):
            output.write(claim, "stdout", b"one\n")
            if number == 4:
                output.write(claim, "no\0stream", b"never\n")
            output.write(claim, "stdout", b"two\n")
        await asyncio.gather(*map(output.finish, claims))
        calls, line.calls = line.calls, 0
        await asyncio.gather(*map(output.finish, claims))

    told = [await stored(database, claim.task_id) for claim in claims]
    assert told.pop(4) == "[14 bytes in 3 lines were dropped here]\nThe database refused them (invalid_params).\n"
    assert told == ["one\ntwo\n"] * 8
    assert calls <= 10, "whole, halves down to the one (4 times two at most), and the note"
    assert line.calls == 0
    assert [("log_refused", [str(claims[4].task_id)], 14)] == [
        (each["event"], each["tasks"], each["bytes"]) for each in logs
    ]
    assert output.talking == {}


async def test_looking_for_secrets_holds_up_nobody(
    queue: Queue, database: AsyncDatabase, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done beside the loop, and while it lasts runs write on: a flood of what looks like secrets takes long."""
    looking, goes_on = threading.Event(), threading.Event()
    waited: list[bool] = []

    def hide(text: str, secrets: object) -> str:
        looking.set()
        waited.append(goes_on.wait(20))
        return hide_in_lines(text, secrets)  # type: ignore[arg-type]

    monkeypatch.setattr(output_module, "hide_in_lines", hide)
    first, second = claimed(queue, 2)
    output.write(first, "stdout", b"token=abcd\n" * 800)
    await soon(looking.is_set)
    output.write(first, "stdout", b"more\n")
    output.write(second, "stdout", b"other\n")
    goes_on.set()
    await asyncio.gather(output.finish(first), output.finish(second))

    assert all(waited)
    assert await stored(database, first.task_id) == "token=***\n" * 800 + "more\n"
    assert await stored(database, second.task_id) == "other\n"


async def test_what_is_left_behind_writes_nowhere(
    queue: Queue, database: AsyncDatabase, line: Line, output: Output
) -> None:
    """A thread or a job that goes on after its run's end neither adds to its log nor is kept."""
    (claim,) = claimed(queue)
    output.write(claim, "log", b"in time\n")
    await output.finish(claim)
    output.holds = lambda _: False

    output.write(claim, "log", b"too late\n")

    assert output.talking == {}
    assert await stored(database, claim.task_id) == "in time\n"


async def test_threads_write_at_once(queue: Queue, database: AsyncDatabase, output: Output) -> None:
    """Nothing is lost of what many threads write while it is being stored."""
    claims = claimed(queue, 4)

    def write(claim: Claim) -> None:
        for number in range(200):
            output.write(claim, "log", b"%d\n" % number)

    await asyncio.gather(*(asyncio.to_thread(write, claim) for claim in claims))
    await asyncio.gather(*map(output.finish, claims))

    for claim in claims:
        assert await stored(database, claim.task_id) == "".join(f"{number}\n" for number in range(200))
