"""Secrets in params and headers: a real worker and its child process tell them to nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from absurd import AbsurdClient, RunContext, TaskFailed, executor
from absurd.config import Settings
from absurd.telemetry import configure_logging
from absurd.workers import AbsurdWorker


def tell(ctx: RunContext, params: dict[str, Any]) -> None:
    """Log and raise all there is."""
    ctx.log.info("telling", params=params, headers=dict(ctx.headers), text=f"token={params['token']}")
    try:
        raise ValueError(f"cannot use {params} with {ctx.headers['authorization']} at all")
    except ValueError:
        ctx.log.exception("told")
        raise


@executor("secret.process", runs_in="process")
def in_process(ctx: RunContext, params: dict[str, Any]) -> None:
    tell(ctx, params)


@executor("secret.thread", runs_in="thread")
def in_thread(ctx: RunContext, params: dict[str, Any]) -> None:
    tell(ctx, params)


@executor("secret.loop")
async def in_loop(ctx: RunContext, params: dict[str, Any]) -> None:
    tell(ctx, params)


@pytest.mark.parametrize("kind", ["process", "thread", "loop"])
async def test_neither_logs_nor_stored_errors_hold_secrets(
    settings: Settings, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of what an executor logs and raises, at level debug, no secret reaches stderr, the task's error or its runs."""
    settings = replace(settings, log_level="debug", log_format="json")
    configure_logging(settings)
    worker = AbsurdWorker(settings=settings, executors=[in_process, in_thread, in_loop])
    async with AbsurdClient(settings=settings) as client:
        task_id = await client.spawn(
            f"secret.{kind}",
            {"token": "geheim-1", "deep": [{"password": "geheim-2"}], "band": "g"},
            headers={"authorization": "geheim-3"},
            max_attempts=1,
        )
        await worker.run("drain")
        with pytest.raises(TaskFailed) as failed:
            await client.wait(task_id, timeout=120)
        task = await client.get_task(task_id)

    said = "".join(capfd.readouterr())
    assert "telling" in said and '"level": "info"' in said
    assert "geheim" not in said + str(failed.value) + str(task.error) + str(task.runs)
    assert "'band': 'g'" in str(task.error)
