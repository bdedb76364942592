"""Whatever an executor does to its process: the outcome names it, nothing of it stays, and no other run suffers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live import soon
from places import Place, alive

from absurd.executor import registry
from absurd.outcome import Completed, Failed
from absurd.workers.child import process


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.3)
    made = Place(tmp_path)
    yield made
    await made.slots.close()


# Ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "name"), [("segfault", "SIGSEGV"), ("abort", "SIGABRT")])
async def test_a_crash_in_native_code_is_named(place: Place, how: str, name: str) -> None:
    """With its signal, and what the run had used of memory and time until then (B39)."""
    error = await place.failed("hostile.crash", {"how": how})

    assert ("child_died", name) == (error["code"], error["signal"])
    assert 0 < error["peak_memory_gib"] < 1
    assert error["cpu_seconds"] > 0


async def test_a_fork_bomb_leaves_nothing(place: Place, tmp_path: Path) -> None:
    """Sixty-two processes that nobody waits for end with the run, while another run goes on beside it."""
    pids = tmp_path / "pids"
    beside, outcome = await asyncio.gather(
        place.run("slots.pid"), place.run("hostile.bomb", {"pids": str(pids), "levels": 5})
    )

    assert isinstance(outcome, Completed)
    assert isinstance(beside, Completed)
    told = list(map(int, pids.read_text().split()))
    assert 63 == len(told)
    assert [] == [each for each in told if alive(each)]


@pytest.mark.parametrize("die", [False, True])
async def test_a_daemon_does_not_escape(place: Place, tmp_path: Path, die: bool) -> None:
    """Forked twice, in a session of its own, deaf, and of a run that is dead itself: it ends with the run."""
    outcome = await place.run("hostile.daemon", {"pids": str(tmp_path / "pids"), "die": die})

    assert isinstance(outcome, Failed if die else Completed)
    assert not alive(int((tmp_path / "pids").read_text()))


async def test_a_run_deaf_to_signals_is_ended(place: Place, tmp_path: Path) -> None:
    """At its limit of time, by SIGKILL; the error says so (B41)."""
    error = await place.failed("hostile.deaf", {"started": str(tmp_path / "pid")}, timeout=0.5)

    assert ("run_timeout", "SIGKILL") == (error["code"], error["killed_by"])
    assert error["peak_memory_gib"] > 0
    assert not alive(int((tmp_path / "pid").read_text()))


# The channel -------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{"all": False}, {"all": True}, {"all": False, "path": "opened"}])
async def test_a_run_that_closes_all_files_is_an_outcome(place: Place, tmp_path: Path, params: dict[str, Any]) -> None:
    """It cannot tell its result any more; and nothing is written into a file that it opened in the channel's place."""
    if "path" in params:
        params = params | {"path": str(tmp_path / "opened")}
    error = await place.failed("hostile.close", params)

    assert "child_died" == error["code"]
    assert "closed its channel to the worker" in error["message"]
    assert "path" not in params or "" == (tmp_path / "opened").read_text()
    assert await place.value("slots.pid")


@pytest.mark.parametrize("text", ["no newline", "7\n", "{}\n", '{"call": "drop", "args": []}\n'])
async def test_a_run_that_writes_to_the_channel_is_an_outcome(place: Place, text: str) -> None:
    """Whatever it writes there: the run fails, the worker goes on."""
    error = await place.failed("hostile.write", {"text": text})

    assert ("child_died", True) == (error["code"], "channel" in error["message"])
    assert await place.value("slots.pid")


# What is left in the process ---------------------------------------------------------------------

KEPT = ["folder", "umask", "handlers", "mask", "alarm", "files", "locale", "temporary"]
RETIRED = ["core", "environment", "session", "thread", "stuck", "output"]


@pytest.mark.parametrize("what", [*KEPT, "nice", *RETIRED])
async def test_the_next_run_finds_nothing_of_what_a_run_has_changed(place: Place, what: str) -> None:
    """It is put back; or, where it cannot be, the process is not used again."""
    before = await place.value("hostile.facts")
    changed = await place.value("hostile.change", {"what": what})
    after = await place.value("hostile.facts")

    assert before["pid"] == changed
    if what in KEPT:
        assert before == after
    if what in RETIRED:
        assert after["pid"] != changed
        assert not alive(changed)
    own = {"pid", "session"} | ({"tty"} if after["pid"] != changed else set())  # a process has pipes of its own
    assert {name: each for name, each in before.items() if name not in own} == {
        name: each for name, each in after.items() if name not in own
    }


async def test_hooks_at_exit_run_when_the_process_ends(place: Place, tmp_path: Path) -> None:
    """Not before: the process is used again; and they are waited for."""
    used = await place.value("hostile.at_exit", {"path": str(tmp_path / "done")})
    assert used == await place.value("slots.pid")
    assert not (tmp_path / "done").exists()

    await place.slots.close()

    assert "done\n" == (tmp_path / "done").read_text()


@pytest.mark.parametrize("by", ["heartbeat", "artifact", "thread"])
async def test_a_run_that_learns_that_its_claim_is_lost_unwinds_undisturbed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """What it does in `finally` is not cut short by the worker that stops it meanwhile (B48).

    However it has learnt it: from an answer, from the channel's end, or in a thread of its own, which unwinds nothing.
    """
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 30.0)
    told, go = tmp_path / "told", tmp_path / "go"
    job = asyncio.ensure_future(place.run("hostile.lost", {"path": str(told), "go": str(go), "by": by}))
    await soon(lambda: any(child.runs and (by != "artifact" or child._files) for child in place.slots._children._all))
    (child,) = place.slots._children._all
    if by == "artifact":
        child._writer.close()
    place.port.stale = True
    await soon(told.exists)
    pid = child.pid
    job.cancel()
    await soon(lambda: "SIGTERM" in {child.killed_by for child in place.slots._children._all})
    go.touch()
    with pytest.raises(asyncio.CancelledError):
        await job

    assert "unwinding\nunwound\n" == told.read_text()
    assert not alive(pid)


async def test_a_run_without_its_channel_unwinds(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an outcome in the end, and what stands in `finally` was done."""
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 30.0)
    told, go = tmp_path / "told", tmp_path / "go"
    go.touch()
    error = await place.failed("hostile.lost", {"path": str(told), "go": str(go), "by": "closed"})

    assert "closed its channel to the worker" in error["message"]
    assert "unwinding\nunwound\n" == told.read_text()


# Warm, worn out, idle ----------------------------------------------------------------------------


async def test_a_process_is_replaced_after_so_many_runs(tmp_path: Path) -> None:
    """By one that was started ahead."""
    place = Place(tmp_path, worker_recycle_runs=2)
    pids = [await place.value("slots.pid") for _ in range(5)]
    await place.slots.close()

    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert not any(map(alive, pids))


async def test_a_process_that_holds_too_much_is_replaced(tmp_path: Path) -> None:
    """It is looked at after each run; what the run has given back does not count."""
    place = Place(tmp_path, worker_recycle_memory_gib=0.15)
    first = await place.value("hostile.eat", {"where": "numpy", "mib": 300})
    assert first == await place.value("slots.pid")
    hoarder = await place.value("slots.hoard", {"mib": 200})
    assert first == hoarder != await place.value("slots.pid")
    await place.slots.close()


async def test_idle_processes_end_after_a_while(tmp_path: Path) -> None:
    """All of them, the last one too; the next run has a new one."""
    place = Place(tmp_path, worker_child_idle=0.05)
    pids = await asyncio.gather(*(place.value("slots.pid") for _ in range(3)))
    await soon(lambda: not any(map(alive, pids)))

    await soon(lambda: not place.slots._children._all)
    assert None is place.slots._children._look, "nothing is looked at while there is nothing"
    assert await place.value("slots.pid") not in pids
    await place.slots.close()


async def test_a_process_is_started_ahead(tmp_path: Path) -> None:
    """Where an executor of the worker's own runs in one; the first run waits for that, and starts no other."""
    for names, count in ((["slots.pid"], 1), (["slots.think"], 0)):
        place = Place(tmp_path, worker_warm=1)
        place.slots.open([registry.require(name) for name in names])
        await asyncio.sleep(0)
        assert count == len(place.slots._children._beside)
        used = await place.value("slots.pid")
        assert [used] == [child.pid for child in place.slots._children._all]
        await place.slots.close()
        assert not alive(used)


async def test_a_worker_that_stops_ends_what_it_has_started_ahead(tmp_path: Path) -> None:
    """Even if it is not ready yet."""
    place = Place(tmp_path, worker_warm=2)
    place.slots.open([registry.require("slots.pid")])
    await soon(lambda: len(place.slots._children._all) == 2)
    started = [child._process.pid for child in place.slots._children._all]
    await place.slots.close()

    assert not any(map(alive, started))


# Threads -----------------------------------------------------------------------------------------


async def test_libraries_have_as_many_threads_as_the_run_has_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the task needs, rounded up, else its share; what the worker's environment says goes before it."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "5")
    monkeypatch.setattr("absurd.workers.host.pinning.cores", lambda: 8)
    place = Place(tmp_path)
    threads = {}
    for cpu in (None, 2.5, 0.5):
        found = await place.value("hostile.facts", needs={} if cpu is None else {"cpu": cpu})
        environment = found["environment"]
        threads[cpu] = {environment[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        assert "5" == environment["NUMBA_NUM_THREADS"]
    again = await place.value("hostile.facts", needs={"cpu": 3})
    await place.slots.close()

    assert {None: {"2"}, 2.5: {"3"}, 0.5: {"1"}} == threads
    assert "3" == again["environment"]["OMP_NUM_THREADS"]
