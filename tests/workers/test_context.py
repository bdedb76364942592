"""What an executor can ask of its context, alike in the loop, in a thread and in a process."""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import slot_executors
from memory_port import MemoryPort, claim_of

from absurd.config import Settings, load_settings
from absurd.context import RunContext, run_here
from absurd.errors import InvalidNameError, InvalidOptionError, StaleClaimError
from absurd.executor import registry
from absurd.model import Claim
from absurd.outcome import Completed, Failed, Outcome, Suspended
from absurd.workers.slots import Slots

EVERYWHERE = pytest.mark.parametrize("where", ["loop", "thread", "process"])


@pytest.fixture
def port() -> MemoryPort:
    return MemoryPort()


@pytest.fixture
async def slots(port: MemoryPort, tmp_path: Path) -> AsyncIterator[Slots]:
    settings: Settings = load_settings(environ={}, home=tmp_path)
    made = Slots(concurrency=4, settings=settings, modules=[slot_executors.__name__], port=port)
    yield made
    await made.close()


async def run(slots: Slots, claim: Claim) -> Outcome | None:
    return await slots.run(claim, registry.require(claim.name))


def result(outcome: Outcome | None) -> Any:
    assert isinstance(outcome, Completed), outcome
    return None if outcome.result is None else json.loads(outcome.result)


@EVERYWHERE
async def test_a_step_runs_once(slots: Slots, port: MemoryPort, tmp_path: Path, where: str) -> None:
    """A step that succeeded is not repeated, one that raised is; first and later runs see the same JSON (B66)."""
    ran = tmp_path / "ran"
    claim = claim_of(f"slots.steps.{where}", {"ran": str(ran)})

    assert isinstance(await run(slots, claim), Failed)
    assert {"same": [1, 2]} == port.checkpoints[claim.task_id]
    assert [[1, 2], {"1": "one"}] == result(await run(slots, claim._replace(attempt=2)))
    assert [[1, 2], {"1": "one"}] == result(await run(slots, claim._replace(attempt=3)))

    assert ["first", "second", "second"] == ran.read_text().split()
    assert {"same": [1, 2], "same#2": {"1": "one"}} == port.checkpoints[claim.task_id]


@EVERYWHERE
async def test_who_sleeps_or_waits_gives_its_slot_back(slots: Slots, port: MemoryPort, where: str) -> None:
    """Each wait suspends until its time by the database's clock, is passed over after it, and not slept twice (B68)."""
    until = port.now + timedelta(seconds=100)
    claim = claim_of(f"slots.waits.{where}", {"until": until.isoformat()})

    assert Suspended("sleep", delay=60.0) == await run(slots, claim)
    port.advance(20)  # woken too early: by a crash between the checkpoint and the suspension
    assert Suspended("sleep", delay=40.0) == await run(slots, claim)
    port.advance(70)
    assert Suspended("sleep", delay=10.0) == await run(slots, claim)
    port.advance(500)
    assert Suspended("event", delay=30.0, event="dawn") == await run(slots, claim)
    port.checkpoints[claim.task_id]["event:dawn"] = {"payload": None}
    assert ["payload", None] == result(await run(slots, claim))
    port.checkpoints[claim.task_id]["event:dawn"] = {"timeout": True}
    assert ["too late", None] == result(await run(slots, claim))


@EVERYWHERE
async def test_a_context_tells_of_its_task(slots: Slots, port: MemoryPort, tmp_path: Path, where: str) -> None:
    """Facts of the claim, progress, and a file under the run's own name with its checksum."""
    path = tmp_path / "new" / "hello.txt"
    claim = claim_of(
        f"slots.facts.{where}", {"path": str(path)}, attempt=3, headers={"h": 1}, tags=("t",), parents={"p": [2]}
    )

    outcome = await run(slots, claim)

    assert {
        "task_id": str(claim.task_id),
        "attempt": 3,
        "name": claim.name,
        "queue": "default",
        "headers": {"h": 1},
        "tags": ["t"],
        "parents": {"p": [2]},
        "cancelled": False,
    } == result(outcome)
    assert [(1.0, 2.0, "half")] == port.told
    assert isinstance(outcome, Completed)
    (artifact,) = outcome.artifacts
    assert (str(path), "text", 5) == (artifact.path, artifact.kind, artifact.bytes)
    assert "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" == artifact.sha256
    assert not path.exists()
    assert "hello" == Path(artifact.attempt_path).read_text()


@EVERYWHERE
async def test_a_lost_claim_leaves_nothing_to_report(slots: Slots, port: MemoryPort, where: str) -> None:
    """StaleClaimError of any call marks the run cancelled, and whatever the executor makes of it is not reported."""
    port.stale = True

    assert await run(slots, claim_of(f"slots.lost.{where}")) is None


@pytest.mark.parametrize("where", ["thread", "process"])
async def test_an_async_step_of_a_plain_executor_is_explained(slots: Slots, where: str) -> None:
    """The error names the step, and no coroutine is left unawaited."""
    outcome = await run(slots, claim_of(f"slots.async_step.{where}"))

    assert isinstance(outcome, Failed)
    assert "step 'compute' is async" in outcome.error["message"]


# The class by itself -----------------------------------------------------------------------------


@pytest.fixture
def ctx(port: MemoryPort) -> RunContext:
    return RunContext(claim_of("any"), port, run_here)


def test_progress_may_be_told_at_every_turn(ctx: RunContext, port: MemoryPort) -> None:
    """Of what comes in a moment the first and the last are sent; what PostgreSQL cannot keep never is."""
    ctx.progress(math.nan, 1)
    for n in range(1001):
        ctx.progress(n, 1000, f"\0 {n} \ud800")

    assert [(0.0, 1000.0, "\ufffd 0 ?"), (1000.0, 1000.0, "\ufffd 1000 ?")] == port.told


def test_a_run_told_to_stop_gets_nothing_done(ctx: RunContext, port: MemoryPort) -> None:
    """After `cancel` every call raises StaleClaimError and none reaches the database."""
    ctx.cancel()

    for call in (ctx.heartbeat, lambda: ctx.step("a", dict), lambda: ctx.progress(1), lambda: ctx.sleep(1)):
        with pytest.raises(StaleClaimError):
            call()
    assert (0, []) == (port.checked, port.told)
    assert ctx.cancelled
    assert not ctx.lost


def test_step_names_never_meet(ctx: RunContext, port: MemoryPort) -> None:
    """A name that looks like a numbered one does not take the place of that."""
    values = [ctx.step(name, lambda n=n: n) for n, name in enumerate(["a", "a#2", "a", "a", "a#2"])]  # type: ignore[misc]

    assert [0, 1, 2, 3, 4] == values
    assert ["a", "a#2", "a#3", "a#4", "a#2#2"] == list(port.checkpoints[ctx.task_id])


def test_a_thousand_steps_of_one_name_are_numbered_quickly(ctx: RunContext, port: MemoryPort) -> None:
    """Numbers go up by one each time (B67)."""
    for _ in range(2_000):
        ctx.step("again", int)

    assert "again#2000" in port.checkpoints[ctx.task_id]


@pytest.mark.parametrize("name", ["", "a\0b", "event:x", "x" * 501, "\ud800", None])
def test_bad_step_names_are_refused(ctx: RunContext, name: Any) -> None:
    """Before the function runs."""
    with pytest.raises(InvalidNameError):
        ctx.step(name, lambda: pytest.fail("it ran"))


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, timedelta(days=-1)])
def test_bad_delays_are_refused(ctx: RunContext, delay: Any) -> None:
    """Negative ones and those without end, with the value."""
    with pytest.raises(InvalidOptionError):
        ctx.sleep(delay)
    with pytest.raises(InvalidOptionError):
        ctx.await_event("e", timeout=delay)


def test_a_time_without_zone_is_refused(ctx: RunContext) -> None:
    """It would mean something else on each host."""
    with pytest.raises(InvalidOptionError, match="zone"):
        ctx.sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001


def test_a_step_that_cannot_be_stored_is_named(ctx: RunContext, port: MemoryPort) -> None:
    """The error leads to the place, and nothing is stored."""
    with pytest.raises(Exception, match=r"step odd.*\.x"):
        ctx.step("odd", lambda: {"x": object()})
    assert {} == port.checkpoints


def test_names_of_artifacts(ctx: RunContext, tmp_path: Path) -> None:
    """Hidden, in the same folder, own to the claim, with all suffixes; however long; announced once."""
    path = Path(ctx.artifact(tmp_path / "m31.fits.gz"))
    other = RunContext(ctx._claim._replace(lease=8), MemoryPort())
    long = Path(ctx.artifact(tmp_path / ("ä" * 125 + ".fits")))
    long.touch()

    assert (tmp_path, True, True) == (path.parent, path.name.startswith("."), path.name.endswith("m31.fits.gz"))
    assert str(path) == ctx.artifact(tmp_path / "m31.fits.gz")
    assert str(path) != other.artifact(tmp_path / "m31.fits.gz")
    assert 2 == len(ctx.artifacts)
    with pytest.raises(IsADirectoryError):
        ctx.artifact(tmp_path)
    with pytest.raises(InvalidNameError):
        ctx.artifact(tmp_path / "\udcff.fits")


def test_what_no_artifact_may_replace(ctx: RunContext, tmp_path: Path) -> None:
    """A device or a pipe is refused; a link stays one, and what it points to is the artifact."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.fits").symlink_to("disk/image.fits")

    for each in (tmp_path / "pipe", "/dev/null"):
        with pytest.raises(FileExistsError, match="a device or a pipe"):
            ctx.artifact(each)
    mine = ctx.artifact(tmp_path / "link.fits")
    assert ctx.artifacts == [(mine, str(tmp_path / "disk" / "image.fits"), "file")]
    assert Path(mine).parent == tmp_path / "disk"


def test_an_attempt_removes_what_a_killed_one_left(port: MemoryPort, tmp_path: Path) -> None:
    """A file of an attempt that died with its worker goes when the next attempt writes the same artifact."""
    claim = claim_of("slots.none", {})
    left = Path(RunContext(claim, port, run_here).artifact(tmp_path / "image.fits"))
    left.write_text("half")
    other = Path(RunContext(claim_of("slots.none", {}), port, run_here).artifact(tmp_path / "image.fits"))
    other.write_text("somebody else's")

    mine = RunContext(claim._replace(attempt=2, lease=claim.lease + 1), port, run_here).artifact(
        tmp_path / "image.fits"
    )

    assert not left.exists()
    assert other.exists()
    assert mine != str(left)
