"""``pipeline.report`` and ``pipeline.batch``: blocks on the queue."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from absurd.client import AbsurdClient
from absurd.client_sync import SyncAbsurdClient
from absurd.config import load_settings
from absurd.context import RunContext
from absurd.executor import executor
from absurd.outcome import Reject
from absurd.tasks.pipeline.blocks import ProcessingBlock
from absurd.tasks.pipeline.calibrators import version_of
from absurd.tasks.pipeline.environments import load_pipeline_config
from absurd.tasks.pipeline.orchestrator import PipelineOrchestrator, outcome_of
from absurd.tasks.pipeline.outcome import ProcessingResult, result_of, summary
from absurd.tasks.radio.errors import StageError

OPEN = ("collecting", "complete", "partial", "converting")
"""States of a sub-band group that has a conversion before it."""


class ReportParams(BaseModel):
    """Which block."""

    model_config = ConfigDict(extra="forbid")

    block: str = Field(min_length=1, description="The block's id: its begin and its end.")
    workflow: str = Field(min_length=1, description="Name of what was done with it.")
    start: str = Field(description="Its begin, ISO.")
    end: str = Field(description="Its end, ISO.")
    recordings: int = Field(ge=1, description="Measurement Sets of it.")
    missing: int = Field(default=0, ge=0, description="Measurement Sets that it has room for and lacks.")


@executor("pipeline.report", runs_in="process")
def report(ctx: RunContext, params: ReportParams) -> dict[str, Any]:
    """Tell what came of a block: the last task of its workflow, which comes after all others, however they end.

    The result has seconds, images and products; where something failed the task fails, and tells what.  It waits
    without a slot for what is tried again.
    """
    with SyncAbsurdClient(settings=load_settings()) as client:
        own = client.get_task(ctx.task_id)
        ctx.wait_for(own.depends_on, return_exceptions=True)
        tasks = [client.get_task(each) for each in own.depends_on]
    result = result_of(params.block, tasks, recordings=params.recordings, asked_at=own.created_at)
    if not result.success:
        raise Reject(f"block {params.block}: {summary(result.errors)}")
    ctx.log.info("block_processed", block=params.block, seconds=result.processing_time, images=result.image_count)
    return result.told()


class BatchParams(BaseModel):
    """Which recordings, and what is done with them."""

    model_config = ConfigDict(extra="forbid")

    environment: str = Field(default="production", min_length=1, description="Whose configuration.")
    config: str | None = Field(default=None, min_length=1, description="A TOML or YAML file laid over it.")
    overrides: dict[str, Any] = Field(default={}, description="Keys over that, by section.")
    workflow: Literal["standard", "quick-imaging", "calibrator", "target", "nightly-mosaic", "night"] = Field(
        default="standard", description="What is done with each block."
    )
    start: str | None = Field(default=None, description="Recordings from then on, ISO; without it of the last hours.")
    end: str | None = Field(default=None, description="Recordings before then, ISO; without it until now.")
    hours: float = Field(default=24.0, gt=0, le=8760, description="How many hours, without `start`.")
    settle_s: float = Field(
        default=600.0,
        ge=0,
        description="A block is left alone until so long after its end, and after its newest Measurement Set was made, "
        "and while sub-bands of its time wait to be converted: what is to come has come.",
    )
    max_blocks: int | None = Field(default=None, ge=1, description="No more than so many, the earliest.")


@executor("pipeline.batch", runs_in="process")
def batch(ctx: RunContext, params: BatchParams) -> dict[str, Any]:
    """Find blocks and have them worked on, as `absurd pipeline batch` does; scheduled, it is the pipeline's service.

    What was done is not done again.  It waits without a slot; the result tells what came of each block, and if one
    failed the task fails once all have ended.
    """
    reports: dict[str, str] = ctx.step("begin", lambda: asyncio.run(_begin(params)))
    results = []
    for block, task in reports.items():
        result = None
        while result is None:
            ctx.wait_for(list(reports.values()), return_exceptions=True)
            result = asyncio.run(_outcome(task))
        results.append(result.told())
        if not result.success:
            ctx.log.error("block_failed", block=block, errors=result.errors)
    failed = [each for each in results if not each["success"]]
    if failed:
        told = "; ".join(f"{each['block_id']}: {summary(each['errors'])}" for each in failed)
        raise StageError(f"{len(failed)} of {len(results)} blocks failed: {told}")
    return {"blocks": results}


async def _begin(params: BatchParams) -> dict[str, str]:
    """The last task of each block that is spawned, by the block's id."""
    config = load_pipeline_config(params.environment, params.config, overrides=params.overrides)
    now = datetime.now(UTC)
    settled = now - timedelta(seconds=params.settle_s)
    async with AbsurdClient(settings=load_settings()) as client:
        orchestrator = PipelineOrchestrator(config, workflow=params.workflow, client=client)
        found = orchestrator.find_blocks(params.start or now - timedelta(hours=params.hours), params.end or now)
        coming = await _coming(client, orchestrator.folder) if found else []
        length = orchestrator.rules.duration  # a recording before the first of a block makes it another block
        blocks = [
            each
            for each in found
            if _came(each) <= settled and not any(each.start_time - length <= stamp < each.end_time for stamp in coming)
        ][: params.max_blocks]
        if not blocks:
            return {}
        begun = await orchestrator.begin(blocks, client)
    return {block: str(task) for block, task in begun.reports.items()}


async def _coming(client: AbsurdClient, folder: str) -> list[datetime]:
    """When recordings begin that will be Measurement Sets in a folder, and are not yet."""
    stamps = []
    for intake in await client.list_intakes():
        if intake["params"].get("out") == folder:
            open_groups = await client.list_subband_groups(intake["name"], OPEN, limit=10_000)
            stamps += [datetime.fromisoformat(each["first_stamp"]) for each in open_groups]
    return stamps


def _came(block: ProcessingBlock) -> datetime:
    """When the last of a block came: it ended then, or recordings were converted late."""
    made = (datetime.fromtimestamp(int(each) / 1e9, UTC) for each in map(version_of, block.ms_files) if each)
    return max([block.end_time, *made])


async def _outcome(task: str) -> ProcessingResult | None:
    async with AbsurdClient(settings=load_settings()) as client:
        return await outcome_of(client, task)
