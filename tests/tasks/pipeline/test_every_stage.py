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
from absurd.tasks.pipeline.orchestrator import outcome_of
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.simulate import simulate
from absurd.testing import drain

load_modules(list(EXECUTOR_MODULES), shipped=False)


async def test_a_small_tile_goes_through_every_stage(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the configuration for testing: sub-bands in the end are flux densities of the sources that were simulated.

    The calibrator's recording is found among the block's, and its gains pass their gates before they are applied, as
    image and mosaic do before anything is measured in them.  The same again finds that all is done, though the
    Measurement Set was flagged and corrected meanwhile.  With a gate that the image does not pass it is put away, and
    nothing is made of it.
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
        kept = {each: Path(each).read_bytes() for each in result.output_files.values() if Path(each).is_file()}
        strict = {"image_limits": {"dynamic_range": {"fail_below": 1e6, "warn_below": 1e6}}}
        refusing = PipelineOrchestrator(
            load_pipeline_config("testing", overrides={"paths": {"base_dir": str(tmp_path)}, "quality": strict}),
            client=client,
        )
        begun = await refusing.begin([block], client)
        await drain("default", settings)
        refused = await outcome_of(client, begun.reports[block.block_id])
        image = await client.find_product(result.output_files[f"imaging.image[{Path(block.ms_files[0]).stem}]"])

    assert result.errors == []
    assert (result.success, result.ms_count, result.image_count) == (True, 1, 1)
    assert again == result
    name = Path(block.ms_files[0]).stem
    assert result.stage_results[f"qa.calibration[{name}]"]["state"] == "valid"
    assert result.stage_results[f"qa.image[{name}]"]["verdict"] == "ok"
    assert result.stage_results["qa.mosaic"]["verdict"] == "ok"
    assert refused is not None
    assert refused.errors[0].startswith(f"qa.image[{name}] failed: ")
    assert "dynamic_range" in refused.errors[0]
    assert [each.partition(" ")[0] for each in refused.errors[1:]] == [
        "imaging.mosaic", "photometry.detect", "photometry.forced", "qa.mosaic",
    ]  # fmt: skip
    assert image is not None
    assert image["state"] == "quarantined"
    gone = [each for each in kept if not Path(each).exists()]
    assert gone == [image["path"]]
    rows = pq.read_table(result.output_files["photometry.forced"]).to_pylist()
    (main,) = (each for each in rows if each["detected"] and each["flux_jy"] > 1)
    assert main["flux_jy"] == pytest.approx(8.8, rel=0.01)
    assert (main["ra"], main["dec"]) == pytest.approx((128.72897, 55.57252), abs=1 / 3600)
