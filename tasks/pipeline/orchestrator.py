"""Blocks on the queue: found, spawned as workflows, waited for.  Batches and services go through `begin`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from absurd.client import AbsurdClient
from absurd.errors import TaskCancelled, TaskFailed, TaskStateError
from absurd.executor import load_modules
from absurd.model import TaskState
from absurd.tasks.pipeline.blocks import BlockRules, ProcessingBlock, as_time, find_blocks, make_block
from absurd.tasks.pipeline.config import PipelineConfig
from absurd.tasks.pipeline.outcome import ProcessingResult, result_of
from absurd.tasks.pipeline.stages import stage_params
from absurd.tasks.pipeline.workflows import CALIBRATED, REPORT, batch_workflow
from absurd.tasks.radio.errors import DataError

MOST_NODES = 10_000
Told = Callable[[ProcessingResult], object]


@dataclass(frozen=True, slots=True)
class Begun:
    """Blocks that are on the queue."""

    workflow_id: UUID
    reports: dict[str, UUID]
    """The last task of each block, by the block's id."""


class PipelineOrchestrator:
    """Works on blocks by a configuration: each becomes a graph of tasks, which workers run.

    What is spawned goes on without this process, and the same again joins it: what was done is not done again, what
    failed is tried once more; with `again` all is done anew.  `client` is one that is open; without it each call opens
    one by the environment.
    """

    def __init__(
        self, config: PipelineConfig, *, workflow: str = "standard", client: AbsurdClient | None = None,
        again: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.workflow = absolute(config), workflow
        self._client = client
        self._salt = uuid4().hex if again else ""
        told = stage_params(self.config, "pipeline run")
        self.folder: str = told["folder"]
        self.max_concurrent_blocks: int = told["max_concurrent_blocks"]
        self.calibrator_radius_deg: float = told["calibrator_radius_deg"]
        self.rules = BlockRules(*(timedelta(seconds=told[name]) for name in ("duration_s", "overlap_s", "recording_s")))

    # Blocks --------------------------------------------------------------------------------------

    def create_processing_block(
        self, block_end_time: Any, ms_files: Iterable[str | os.PathLike[str]]
    ) -> ProcessingBlock:
        """The block of these recordings that ends at a time: a datetime, ISO text, or an astropy Time.

        A name without a folder is one in ``paths.ms_stage1_dir`` unless it is here.  Raises ValidationError.
        """
        return make_block(as_time(block_end_time), map(self._placed, ms_files), self.rules)

    def find_ms_blocks_for_batch(self, start_time_iso: Any, end_time_iso: Any) -> dict[datetime, list[str]]:
        """Recordings of each block that begins in a time, by the block's end; see `find_blocks`."""
        found = self.find_blocks(start_time_iso, end_time_iso)
        return {each.end_time: list(each.ms_files) for each in found}

    def find_blocks(self, start: Any = None, end: Any = None) -> list[ProcessingBlock]:
        """Blocks of the recordings in ``paths.ms_stage1_dir`` that begin from `start` on and before `end`.

        No recording is lost to a gap, see `blocks.find_blocks`; blocks that are partial tell how many recordings they
        lack.  Raises ValidationError for what is no time, DataError where the folder cannot be looked at.
        """
        try:
            names = [each.path for each in os.scandir(self.folder) if each.is_dir()]
        except OSError as error:
            raise DataError(f"{self.folder} cannot be looked at: {error.strerror}", path=self.folder) from error
        since, until = (None if each is None else as_time(each) for each in (start, end))
        return find_blocks(names, self.rules, since=since, until=until)

    def _placed(self, name: str | os.PathLike[str]) -> str:
        told = os.fspath(name)
        inside = os.path.join(self.folder, told)
        return inside if not os.path.dirname(told) and not os.path.exists(told) else os.path.abspath(told)

    # Work ----------------------------------------------------------------------------------------

    async def process_block(self, block: ProcessingBlock) -> ProcessingResult:
        """Have a block worked on, and give what came of it.

        A stage that fails is told in the result, and raises nothing.  Raises ValidationError for a block that the
        workflow can do nothing with, DatabaseError where the queue cannot be reached.
        """
        return (await self.process_blocks([block]))[0]

    async def process_blocks(
        self, blocks: Sequence[ProcessingBlock], told: Told = lambda result: None
    ) -> list[ProcessingResult]:
        """Have blocks worked on, ``services.max_concurrent_blocks`` at a time, and give what came of each, in order.

        One that fails does not keep the others from going on.  `told` is told of each as it is known.  Raises as
        `process_block`.
        """
        async with self._connected() as client:
            begun = await self.begin(blocks, client)

            async def ended(block: ProcessingBlock) -> ProcessingResult:
                result = None
                while result is None:
                    with suppress(TaskFailed, TaskCancelled):  # the result tells
                        await client.wait(begun.reports[block.block_id])
                    result = await outcome_of(client, begun.reports[block.block_id])
                told(result)
                return result

            return list(await asyncio.gather(*map(ended, blocks)))

    async def begin(self, blocks: Sequence[ProcessingBlock], client: AbsurdClient) -> Begun:
        """Spawn all that is to be done with blocks, in one transaction; nobody has to wait for it.

        What was done is not spawned again.  What had failed is tried once more.
        """
        await asyncio.to_thread(load_modules, [])  # executors lend their tasks retry policy and limits
        known = [await asyncio.to_thread(self._looked_at, each) for each in blocks]
        graph = batch_workflow(self.config, known, self.workflow, at_once=self.max_concurrent_blocks, salt=self._salt)
        run = await client.spawn_workflow(graph)
        await _revive(client, run.id, list(dict.fromkeys(run.tasks.values())))
        return Begun(run.id, {each.block_id: run.tasks[f"{each.block_id}/{REPORT}"] for each in blocks})

    def _looked_at(self, block: ProcessingBlock) -> ProcessingBlock:
        """The block, with what its recordings tell of themselves."""
        from absurd.tasks.pipeline.calibrators import calibrator_of, version_of

        block = replace(block, versions=tuple(map(version_of, block.ms_files)))
        if self.workflow not in CALIBRATED:
            return block
        catalogs = stage_params(self.config, "calibration.solve")["catalogs"]
        shown = []
        for each in block.ms_files:
            with suppress(DataError):  # the first stage tells of it
                if calibrator_of(each, catalogs=catalogs, radius_deg=self.calibrator_radius_deg) is not None:
                    shown.append(each)
        return replace(block, calibrators=tuple(shown))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbsurdClient]:
        if self._client is not None:
            yield self._client
            return
        async with AbsurdClient.from_env() as client:
            yield client


def absolute(config: PipelineConfig) -> PipelineConfig:
    """The configuration with folders that are the same for who works elsewhere."""
    paths = config.paths.model_copy(update={"base_dir": os.path.abspath(config.paths.base_dir)})
    return config.model_copy(update={"paths": paths})


async def outcome_of(client: AbsurdClient, report: UUID | str) -> ProcessingResult | None:
    """What came of a block, by the task of its last node, which has ended.

    None where that has judged what was tried again since: it is to judge once more, and to be waited for.
    """
    told = await client.get_task(report)
    tasks = [await client.get_task(each) for each in told.depends_on]
    result = result_of(told.params["block"], tasks, recordings=told.params["recordings"], asked_at=told.created_at)
    if told.state == TaskState.FAILED and (result.success or not all(each.state.ended for each in tasks)):
        with suppress(TaskStateError):  # somebody else has done so meanwhile
            await client.retry(report)
        return None
    if told.state == TaskState.CANCELLED:
        why = told.reason or "no reason was given"
        return replace(result, success=False, errors=[*result.errors, f"{REPORT} cancelled: {why}"])
    return result


async def _revive(client: AbsurdClient, workflow: UUID, tasks: Sequence[UUID]) -> None:
    """Give those another attempt that were spawned before, and have not completed.

    What was cancelled for them waits for them again by itself.
    """
    fresh = {UUID(each["id"]) for each in (await client.get_workflow(workflow, nodes=MOST_NODES))["nodes"]}
    for state in (TaskState.FAILED, TaskState.CANCELLED):
        states = await client.get_states(each for each in tasks if each not in fresh)
        for each in (task for task, found in states.items() if found == state):
            with suppress(TaskStateError):  # somebody else has done so meanwhile
                await client.retry(each)
