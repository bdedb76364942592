"""A small tile through every stage: simulated, taken in, flagged, calibrated, imaged, combined, measured."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from absurd import AbsurdClient
from absurd.config import Settings
from absurd.executor import load_modules
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.pipeline import PipelineOrchestrator, ProcessingResult, load_pipeline_config, stage_params
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.simulate import simulate
from absurd.testing import drain

load_modules(list(EXECUTOR_MODULES), shipped=False)


async def test_a_small_tile_goes_through_every_stage(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the configuration for testing: sub-bands in the end are flux densities of the sources that were simulated.

    The calibrator's recording is found among the block's, and its gains pass their gates before they are applied.  The
    same again finds that all is done, though the Measurement Set was flagged and corrected meanwhile.
    """
    import pyarrow.parquet as pq

    assert settings.database_url is not None
    monkeypatch.setenv("ABSURD_DATABASE_URL", settings.database_url)
    config = load_pipeline_config("testing", overrides={"paths": {"base_dir": str(tmp_path)}})
    told = stage_params(config, "pipeline simulate")
    simulate(SimulationSettings(**told["settings"], seed=1), told["folder"])
    async with AbsurdClient(settings=settings) as client:
        await client.spawn("visibility.ingest", stage_params(config, "visibility.ingest") | {"steady_s": 0})
        await drain("default", settings, check=True)
        orchestrator = PipelineOrchestrator(config, client=client)
        (block,) = orchestrator.find_blocks()
        await orchestrator.begin([block], client)
        for each in await drain("default", settings):
            assert each.state != "failed", (each.name, each.error)
        async with asyncio.timeout(120):  # nobody works any more: if anything were to be done, it would wait for ever
            result: ProcessingResult = await orchestrator.process_block(block)
            again = await orchestrator.process_block(block)

    assert result.errors == []
    assert (result.success, result.ms_count, result.image_count) == (True, 1, 1)
    assert again == result
    name = Path(block.ms_files[0]).stem
    assert result.stage_results[f"qa.calibration[{name}]"]["state"] == "valid"
    assert all(Path(each).exists() for each in result.output_files.values())
    rows = pq.read_table(result.output_files["photometry.forced"]).to_pylist()
    (main,) = (each for each in rows if each["detected"] and each["flux_jy"] > 1)
    assert main["flux_jy"] == pytest.approx(8.8, rel=0.01)
    assert (main["ra"], main["dec"]) == pytest.approx((128.72897, 55.57252), abs=1 / 3600)
