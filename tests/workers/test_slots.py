"""Runs in processes and threads: whatever they do, the worker lives, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import slot_executors
from live import soon
from memory_port import MemoryPort, claim_of

from absurd.config import load_settings
from absurd.executor import Executor, registry
from absurd.model import Claim
from absurd.outcome import Completed, Failed, Outcome, Suspended
from absurd.workers.child import process
from absurd.workers.host import cgroups
from absurd.workers.slots import Slots

HERE = Path(__file__).parents[1]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
async def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slots]:
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.3)
    made = make_slots(tmp_path)
    yield made
    await made.close()


def make_slots(
    home: Path, modules: tuple[str, ...] = (slot_executors.__name__,), port: MemoryPort | None = None
) -> Slots:
    settings = load_settings(environ={}, home=home)
    return Slots(concurrency=4, settings=settings, modules=modules, port=port or MemoryPort())


async def run(slots: Slots, claim: Claim) -> Outcome | None:
    return await slots.run(claim, registry.require(claim.name))


async def failed(slots: Slots, name: str, params: Any = None, **claim: Any) -> Failed:
    outcome = await run(slots, claim_of(name, params, **claim))
    assert isinstance(outcome, Failed), outcome
    return outcome


async def pid(slots: Slots) -> int:
    outcome = await run(slots, claim_of("slots.pid"))
    assert isinstance(outcome, Completed)
    return int(outcome.result or 0)


# Processes ---------------------------------------------------------------------------------------


async def test_a_process_is_used_again(slots: Slots) -> None:
    """Runs one after the other share a process, runs at once do not; it is not the worker's own."""
    first, second = await pid(slots), await pid(slots)
    together = await asyncio.gather(pid(slots), pid(slots), pid(slots))

    assert first == second != os.getpid()
    assert 3 == len(set(together))
    assert first in together


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"code": 3}, "ended by itself with exit code 3"),
        ({"code": 0}, "ended by itself with exit code 0"),
        ({"signal": signal.SIGKILL}, "killed by SIGKILL (by somebody"),
        ({"signal": signal.SIGSEGV}, "killed by SIGSEGV (a fault in native code)"),
        ({"signal": signal.SIGRTMIN + 3}, f"killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
async def test_a_process_that_dies_is_a_failed_run(
    slots: Slots, tmp_path: Path, how: dict[str, Any], cause: str
) -> None:
    """The outcome names the cause, the retry is the executor's, no file stays, and the next run has a new process."""
    before = await pid(slots)
    outcome = await failed(slots, "slots.die", how | {"path": str(tmp_path / "out" / "half")})

    assert ("child_died", 2.0) == (outcome.error["code"], outcome.delay)
    assert cause in outcome.error["message"]
    assert [] == list((tmp_path / "out").iterdir())
    assert before != await pid(slots)


async def test_exceptions_of_the_interpreter_do_not_end_the_process(slots: Slots) -> None:
    """SystemExit is a failed run, and the process goes on."""
    before = await pid(slots)

    assert "SystemExit" == (await failed(slots, "slots.exit")).error["type"]
    assert before == await pid(slots)


@pytest.mark.parametrize("then", ["exit", "return", "hang"])
async def test_nothing_a_run_has_started_outlives_it(slots: Slots, tmp_path: Path, then: str) -> None:
    """Whether the run exits, returns or is killed at its limit: children, forks and own sessions end with it."""
    claim = claim_of("slots.family", {"pids": str(tmp_path / "pids"), "then": then}, timeout=2.0)

    outcome = await run(slots, claim)

    own, *others = map(int, (tmp_path / "pids").read_text().split())
    if then == "exit":
        assert isinstance(outcome, Failed)
        assert "exit code 3" in outcome.error["message"]
    elif then == "hang":
        assert isinstance(outcome, Failed)
        assert ("run_timeout", "SIGKILL") == (outcome.error["code"], outcome.error["killed_by"])
    else:
        assert isinstance(outcome, Completed)
    assert [] == [each for each in (own, *others) if alive(each)]


async def test_a_run_told_to_stop_is_unwound_or_ends_by_itself(slots: Slots, tmp_path: Path) -> None:
    """Cancelled, an executor's finally runs; one that looks at ctx.cancelled returns by itself."""
    for name, end in (("slots.unwind", "unwound\n"), ("slots.cooperate", "stopped\n")):
        started, ended = tmp_path / f"{name}.started", tmp_path / f"{name}.ended"
        job = asyncio.ensure_future(run(slots, claim_of(name, {"started": str(started), "ended": str(ended)})))
        await soon(started.exists)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

        assert end == ended.read_text()


async def test_an_idle_process_that_was_killed_is_replaced(slots: Slots) -> None:
    """No run pays for the death of a process that executed nothing."""
    before = await pid(slots)
    os.kill(before, signal.SIGKILL)
    await soon(lambda: not alive(before))
    ((_, idle),) = (each for idle in slots._children._idle.values() for each in idle)
    await soon(lambda: not idle.usable)

    assert before != await pid(slots)


async def test_closing_ends_all_processes(tmp_path: Path) -> None:
    """Idle processes end at once, and do not have to be killed."""
    slots = make_slots(tmp_path)
    pids = await asyncio.gather(pid(slots), pid(slots))
    await slots.close()

    assert [] == [each for each in pids if alive(each)]


async def test_a_process_may_print(slots: Slots, capfd: pytest.CaptureFixture[str]) -> None:
    """What an executor writes to stdout goes where the worker logs, and disturbs nothing."""
    assert isinstance(await run(slots, claim_of("slots.say")), Completed)

    written = capfd.readouterr()
    assert ("", True) == (written.out, "hello from a run" in written.err)


def test_a_process_dies_with_its_worker(tmp_path: Path, until: Callable[[Callable[[], object]], None]) -> None:
    """SIGKILL of the worker ends the run and everything it has started, in whatever session."""
    pids = tmp_path / "pids"
    worker = start_program(
        f"""
        from slot_executors import family
        run(family, {{"pids": {str(pids)!r}, "then": "hang"}})
        """,
        tmp_path,
    )
    until(lambda: pids.exists() and len(pids.read_text().split()) == 4)
    worker.kill()
    worker.communicate()

    until(lambda: not any(alive(int(each)) for each in pids.read_text().split()))


# Suspects ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_suspect_runs_in_a_process_of_its_own(slots: Slots, tmp_path: Path, where: str) -> None:
    """With all that its context does, wherever its executor usually runs; others run where they belong."""
    for suspect in (False, True):
        outcome = await run(
            slots, claim_of(f"slots.suspect.{where}", {"path": str(tmp_path / "file")}, suspect=suspect)
        )
        assert isinstance(outcome, Completed)
        told = json.loads(outcome.result or "")
        assert (told["value"], told["pid"] != os.getpid()) == (7, suspect)
        assert len(outcome.artifacts) == 1


async def test_a_suspect_that_kills_its_process_is_an_outcome(slots: Slots) -> None:
    """The worker lives, and knows who it was and how (B39)."""
    outcome = await failed(slots, "slots.poison.loop", suspect=True)

    assert ("child_died", "SIGKILL") == (outcome.error["code"], outcome.error["signal"])
    assert "out_of_memory" in outcome.error, "true, false, or null where it cannot be told"


async def test_a_suspect_in_a_process_of_its_own_sleeps_and_waits(tmp_path: Path) -> None:
    """An async executor suspends from there as from the loop, and goes on by what was saved meanwhile."""
    port = MemoryPort()
    slots = make_slots(tmp_path, port=port)
    until = port.now + timedelta(seconds=100)
    claim = claim_of("slots.waits.loop", {"until": until.isoformat()}, suspect=True)
    try:
        assert Suspended("sleep", delay=60.0) == await run(slots, claim)
        port.advance(70)
        assert Suspended("sleep", delay=30.0) == await run(slots, claim)
        port.advance(50)
        assert Suspended("event", delay=30.0, event="dawn") == await run(slots, claim)
        port.checkpoints[claim.task_id]["event:dawn"] = {"payload": {"seeing": 0.7}}
        assert Completed('["payload",{"seeing":0.7}]') == await run(slots, claim)
    finally:
        await slots.close()


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_a_suspect_in_the_loop_of_its_process_is_stopped(slots: Slots, tmp_path: Path, how: str) -> None:
    """Cancelled, or out of time, its process ends, and its file is removed (B41)."""
    started = tmp_path / "started"
    params = {"path": str(tmp_path / "out" / "half"), "started": str(started)}
    claim = claim_of("slots.suspect.loop", params, suspect=True, timeout=2.0 if how == "timeout" else None)
    job = asyncio.ensure_future(run(slots, claim))
    await soon(lambda: started.exists() and started.read_text())
    if how == "cancel":
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await soon(lambda: not alive(int(started.read_text())))
    else:
        outcome = await job
        assert isinstance(outcome, Failed)
        assert "run_timeout" == outcome.error["code"]
    assert [] == list((tmp_path / "out").iterdir())


async def test_a_suspect_that_no_process_finds_runs_in_the_worker(slots: Slots) -> None:
    """As good as can be: an executor inside a function is known to this process only."""

    async def inside(ctx: Any, params: Any) -> int:
        return os.getpid()

    outcome = await slots.run(claim_of("inside", suspect=True), Executor("inside", inside, runs_in="loop"))

    assert isinstance(outcome, Completed)
    assert str(os.getpid()) == outcome.result


@pytest.mark.parametrize(("text", "count"), [("low 0\noom 3\noom_kill 2\n", 2), ("low 0\n", None), (None, None)])
@pytest.mark.parametrize(
    ("groups", "place"),
    [
        ("0::/night/worker\n", "night/worker/memory.events"),
        ("4:cpu,memory:/night/worker\n1:name=systemd:/\n0::/\n", "memory/night/worker/memory.oom_control"),
        ("4:memory:/outside/all\n", "memory/memory.oom_control"),
    ],
)
def test_kills_for_want_of_memory_are_counted_where_it_can_be_told(
    tmp_path: Path, groups: str, place: str, text: str | None, count: int | None
) -> None:
    """From the control group of either version; None where there is none."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    events = tmp_path / "sys" / "fs" / "cgroup" / place
    if text is not None:
        events.parent.mkdir(parents=True)
        events.write_text(text)

    assert count == cgroups.oom_kills(tmp_path)


# Finding executors -------------------------------------------------------------------------------


def start_program(text: str, folder: Path) -> subprocess.Popen[str]:
    """A program of its own that defines ``run(executor, params)``, which prints the outcome."""
    head = """
import asyncio, pathlib
from absurd import executor
from absurd.config import load_settings
from absurd.workers.slots import Slots
from memory_port import MemoryPort, claim_of

def run(each, params=None):
    async def main():
        settings = load_settings(environ={}, home=pathlib.Path("."))
        slots = Slots(concurrency=1, settings=settings, modules=[], port=MemoryPort())
        print(await slots.run(claim_of(each.name, params), each), flush=True)
        await slots.close()
    asyncio.run(main())
"""
    lines = text.splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    script = folder / "program.py"
    script.write_text(head + "\n".join(line[indent:] for line in lines))
    return subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def printed_by(text: str, folder: Path) -> str:
    return start_program(text, folder).communicate(timeout=30)[0]


def test_an_executor_of_the_program_itself_is_found(tmp_path: Path) -> None:
    """The program is imported by the process as multiprocessing does, without what stands under __main__."""
    printed = printed_by(
        """
        @executor("own.double", runs_in="process")
        def double(ctx, params):
            return params * 2

        if __name__ == "__main__":
            run(double, 21)
        """,
        tmp_path,
    )

    assert "Completed(result='42', artifacts=(), spawns=(), products=())\n" == printed


def test_a_program_that_starts_workers_when_imported_is_explained(tmp_path: Path) -> None:
    """It would start workers without end; the run fails with what to write."""
    printed = printed_by(
        """
        @executor("own.double", runs_in="process")
        def double(ctx, params):
            return params * 2

        run(double, 21)
        """,
        tmp_path,
    )

    assert "starts a worker; put that under: if __name__ == '__main__'" in printed


def test_an_executor_inside_a_function_is_explained(tmp_path: Path) -> None:
    """It exists in the program only once the function has run; the error says what to do."""
    printed = printed_by(
        """
        def make():
            @executor("own.hidden", runs_in="process")
            def hidden(ctx, params):
                return 1
            return hidden

        if __name__ == "__main__":
            run(make())
        """,
        tmp_path,
    )

    assert "unknown_executor" in printed
    assert "define it at the top level of a module" in printed


async def test_an_executor_made_without_decoration_is_found(slots: Slots) -> None:
    """By its module and name; one whose module does not exist is a failed run that says so."""
    claim = claim_of("slots.bare", [3])
    outcome = await slots.run(claim, BARE)
    lost = Executor("slots.bare", eval("lambda ctx, params: 1", {"__name__": "no.such.module"}))  # noqa: S307
    missing = await slots.run(claim, lost)

    assert outcome == Completed("[3]")
    assert isinstance(missing, Failed)
    assert "no.such.module" in missing.error["message"] or "No module named 'no'" in missing.error["message"]
    assert outcome == await slots.run(claim, BARE)


def bare(ctx: Any, params: Any) -> Any:
    """Give back what came."""
    return params


BARE = Executor("slots.bare", bare)


async def test_a_module_that_cannot_be_imported_fails_the_run(tmp_path: Path) -> None:
    """With what the import raised, not with an exit code."""
    slots = make_slots(tmp_path, ("no_such_module_at_all",))

    outcome = await failed(slots, "slots.pid")
    await slots.close()

    assert "configuration_invalid" == outcome.error["code"]
    assert "no_such_module_at_all" in outcome.error["message"]


# Threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_a_thread_is_told_to_stop_and_left_behind(slots: Slots, tmp_path: Path, how: str) -> None:
    """Its outcome is there at once; it hears of it by ctx.cancelled, leaves no file, and holds up nothing."""
    started, ended, out = tmp_path / "started", tmp_path / "ended", tmp_path / "out"
    params = {"started": str(started), "ended": str(ended), "path": str(out / "half")}
    claim = claim_of("slots.think", params, timeout=0.05 if how == "timeout" else None)
    job = asyncio.ensure_future(run(slots, claim))
    await soon(started.exists)
    if how == "cancel":
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    else:
        outcome = await job
        assert isinstance(outcome, Failed)
        assert "run_timeout" == outcome.error["code"]

    await soon(lambda: ended.exists() and ended.read_text() == "True\n")
    await soon(lambda: not list(out.iterdir()))


async def test_threads_are_used_again(slots: Slots) -> None:
    """Runs one after the other share a thread."""
    for _ in range(20):
        await run(slots, claim_of("slots.facts.thread", {"path": "/dev/null/x"}))

    assert 1 == len(slots._threads._idle)
