"""`PipelineOrchestrator` on a real queue with a real worker, whose stages take a moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from block_executors import Stages
from live import working

from absurd import AbsurdClient
from absurd.config import Settings
from absurd.tasks.pipeline import (
    DataError,
    PipelineConfig,
    PipelineMetrics,
    PipelineOrchestrator,
    load_pipeline_config,
)

MIDNIGHT = datetime(2023, 1, 1, tzinfo=UTC)
GAP = [0, 1, 2, 3, 40, 41, 42, 43]
"""Begins of recordings of a minute: two runs of four."""


def recordings(folder: Path, minutes: list[int]) -> list[str]:
    """Empty folders that are called as Measurement Sets."""
    names = [f"drift_{MIDNIGHT + timedelta(minutes=each):%Y%m%dT%H%M%S}_00.ms" for each in minutes]
    for name in names:
        (folder / name).mkdir(parents=True)
    return [Path(each).stem for each in names]


def configured(folder: Path, **services: Any) -> PipelineConfig:
    """Blocks of two recordings of a minute without overlap, two at a time."""
    told = {"mosaic_duration_min": 2.0, "mosaic_overlap_min": 0.0, "max_concurrent_blocks": 2}
    return load_pipeline_config("testing", overrides={"paths": {"base_dir": str(folder)}, "services": told | services})


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return configured(tmp_path)


@pytest.fixture
async def client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AbsurdClient]:
    """Of the test's database, which the executors find by the environment."""
    assert settings.database_url is not None
    monkeypatch.setenv("ABSURD_DATABASE_URL", settings.database_url)
    async with AbsurdClient(settings=settings) as opened:
        yield opened


async def test_four_blocks_with_a_gap_between_them(
    tmp_path: Path, config: PipelineConfig, client: AbsurdClient, settings: Settings
) -> None:
    """All are found, two are worked on at a time; one that fails is told with its cause, and the rest is done."""
    names = recordings(Path(config.paths.folder("ms_stage1_dir") or ""), GAP)
    stages = Stages(
        fails=lambda name, ms: name == "imaging.image" and ms == names[2],
        block_of={name: f"block {n // 2}" for n, name in enumerate(names)},
    )
    orchestrator = PipelineOrchestrator(config, workflow="quick-imaging", client=client)

    blocks = orchestrator.find_blocks("2023-01-01T00:00:00", "2023-01-02T00:00:00")
    assert [[Path(ms).stem for ms in each.ms_files] for each in blocks] == [names[n : n + 2] for n in (0, 2, 4, 6)]
    assert not any(each.is_partial for each in blocks)
    async with working(settings, executors=stages.executors, concurrency=16):
        results = await orchestrator.process_blocks(blocks)

    assert [each.success for each in results] == [True, False, True, True]
    assert stages.most_at_once == 2
    assert [each.image_count for each in results] == [2, 1, 2, 2]
    assert results[1].errors == [
        f"imaging.image[{names[2]}] failed: {names[2]} cannot be had",
        f"qa.image[{names[2]}] cancelled: upstream",
    ]
    assert results[0].output_files[f"imaging.image[{names[0]}]"].endswith(f"images/{names[0]}.fits")
    assert results[0].stage_results[f"visibility.flag[{names[0]}]"]["path"] == names[0]
    assert results[0].processing_time > 0
    assert all(count == 1 for (_, name), count in stages.runs.items() if name != names[2])


async def test_the_same_again_does_what_failed_and_nothing_else(
    config: PipelineConfig, client: AbsurdClient, settings: Settings
) -> None:
    """What was done is told from the database; with `again` all of it is done anew."""
    names = recordings(Path(config.paths.folder("ms_stage1_dir") or ""), [0, 1])
    broken = {names[1]}
    stages = Stages(fails=lambda name, ms: name == "calibration.apply" and ms in broken)
    async with working(settings, executors=stages.executors, concurrency=8):
        first = PipelineOrchestrator(config, workflow="quick-imaging", client=client)
        (block,) = first.find_blocks()
        failed = await first.process_block(block)
        broken.clear()
        done = await PipelineOrchestrator(config, workflow="quick-imaging", client=client).process_block(block)
        before = stages.runs.copy()
        same = await PipelineOrchestrator(config, workflow="quick-imaging", client=client).process_block(block)
        assert stages.runs == before
        await PipelineOrchestrator(config, workflow="quick-imaging", client=client, again=True).process_block(block)

    assert not failed.success
    assert len(failed.errors) == 3
    assert "cannot be had" in failed.errors[0]
    assert "upstream" in failed.errors[1]
    assert (done.success, done.image_count) == (True, 2)
    assert (same.success, same.image_count, same.output_files) == (True, 2, done.output_files)
    assert before["visibility.flag", names[1]] == 1
    assert stages.runs["visibility.flag", names[1]] == 2


async def test_what_blocks_have_in_common_is_done_once(
    tmp_path: Path, client: AbsurdClient, settings: Settings
) -> None:
    """A recording in the overlap is imaged for one block, and is in the mosaic of both; if it fails both tell."""
    config = configured(tmp_path, mosaic_duration_min=3.0, mosaic_overlap_min=1.0, max_concurrent_blocks=4)
    names = recordings(Path(config.paths.folder("ms_stage1_dir") or ""), [0, 1, 2, 3, 4])
    stages = Stages(fails=lambda name, ms: False)
    orchestrator = PipelineOrchestrator(config, workflow="nightly-mosaic", client=client)
    blocks = orchestrator.find_blocks()
    async with working(settings, executors=stages.executors, concurrency=8):
        results = await orchestrator.process_blocks(blocks)

    assert [len(each.ms_files) for each in blocks] == [3, 3]
    assert [each.success for each in results] == [True, True], results
    assert [each.image_count for each in results] == [3, 3]
    assert [stages.runs["imaging.image", each] for each in names] == [1] * 5


async def test_metrics_are_those_of_the_database(
    config: PipelineConfig, client: AbsurdClient, settings: Settings
) -> None:
    """Each block that was worked on counts, whoever did it, with its seconds, recordings and images."""
    names = recordings(Path(config.paths.folder("ms_stage1_dir") or ""), [0, 1, 10])
    stages = Stages(fails=lambda name, ms: name == "imaging.image" and ms == names[2])
    orchestrator = PipelineOrchestrator(config, workflow="quick-imaging", client=client)
    async with working(settings, executors=stages.executors, concurrency=8):
        results = await orchestrator.process_blocks(orchestrator.find_blocks())

    metrics = await PipelineMetrics.of(client, hours=1)

    recent = metrics.get_recent_metrics(hours=1)
    assert (recent["blocks"], recent["failed"], recent["recordings"], recent["images"]) == (2, 1, 3, 2)
    assert metrics.get_success_rate(hours=1) == 0.5
    assert metrics.get_average_processing_time(hours=1) == pytest.approx(sum(r.processing_time for r in results) / 2)


async def test_a_scheduled_batch_is_the_service(
    config: PipelineConfig, client: AbsurdClient, settings: Settings, tmp_path: Path
) -> None:
    """`pipeline.batch` works on the same blocks by the same tasks, waits without a slot, and fails if one failed."""
    names = recordings(Path(config.paths.folder("ms_stage1_dir") or ""), GAP)
    stages = Stages(fails=lambda name, ms: name == "imaging.image" and ms == names[2])
    told = {
        "environment": "testing",
        "overrides": {
            "paths": {"base_dir": str(tmp_path)},
            "services": config.services.model_dump(include={"mosaic_duration_min", "max_concurrent_blocks"}),
        },
        "workflow": "quick-imaging",
        "start": "2023-01-01T00:00:00",
    }
    async with working(settings, executors=stages.executors, concurrency=1):
        task = await client.spawn("pipeline.batch", told, max_attempts=1)
        with pytest.raises(Exception, match=r"1 of 4 blocks failed: .*cannot be had"):
            await client.wait(task, timeout=120)
        before = stages.runs.copy()
        orchestrator = PipelineOrchestrator(config, workflow="quick-imaging", client=client)
        results = await orchestrator.process_blocks(orchestrator.find_blocks())

    assert [each.success for each in results] == [True, False, True, True]
    assert {key for key, count in stages.runs.items() if count != before[key]} == {("imaging.image", names[2])}


async def test_a_folder_that_is_not_there(config: PipelineConfig) -> None:
    """Is told."""
    with pytest.raises(DataError, match=r"ms_stage1 cannot be looked at"):
        PipelineOrchestrator(config).find_blocks()


def test_blocks_of_the_seeds_words(config: PipelineConfig, tmp_path: Path) -> None:
    """Times as text, names without a folder are in that of Measurement Sets, blocks are found by their ends."""
    folder = Path(config.paths.folder("ms_stage1_dir") or "")
    recordings(folder, [0, 1])
    orchestrator = PipelineOrchestrator(config)

    found = orchestrator.find_ms_blocks_for_batch(
        start_time_iso="2023-01-01T00:00:00", end_time_iso="2023-01-01T12:00:00"
    )
    ((end, files),) = found.items()
    block = orchestrator.create_processing_block(end, files)

    assert end == MIDNIGHT + timedelta(minutes=2)
    assert block == orchestrator.create_processing_block("2023-01-01T00:02:00", [Path(each).name for each in files])
    assert block.block_id == "20230101T000000_20230101T000200"
    assert [Path(each).parent for each in block.ms_files] == [folder, folder]
