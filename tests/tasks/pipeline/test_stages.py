"""Each key of the configuration has the effect that it says, on the stages that it names."""

from __future__ import annotations

from typing import Any

import pytest

from absurd.executor import load_modules, registry
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.pipeline import (
    PipelineConfig,
    ValidationError,
    environment_names,
    load_pipeline_config,
    stage_params,
)
from absurd.tasks.pipeline.environments import described_keys
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.stages import stages

load_modules(list(EXECUTOR_MODULES), shipped=False)

OTHER: dict[str, Any] = {
    "telescope": "OTHER.toml",
    "paths.skymodels_dir": "lists",
    "services.expected_subbands": 8,
    "services.min_subbands": 6,
    "calibration.engine": "casatasks",
    "calibration.flagging.strategy": "quick",
    "calibration.gcal_refant": "pad104, pad105",
    "calibration.bcal_refant": "pad106",
    "calibration.gcal_mode": "p",
    "calibration.gcal_solint": "int",
    "calibration.bcal_solint": "10min",
    "calibration.prebp_solint": "30s",
    "calibration.gcal_uvrange": "<500m",
    "calibration.bcal_uvrange": "<500m",
    "calibration.prebp_uvrange": "<500m",
    "calibration.bcal_combine": ["scan"],
    "quality.limits": {"antennas": {"fail_below": 6}},
    "skymodel.flux.power_law_index": -2.0,
    "imaging.engine": "wsclean",
    "imaging.deconvolver": "multiscale",
    "imaging.gridder": "idg",
    "imaging.threshold": "2mJy",
    "imaging.image_size": [64, 64],
    "imaging.cell_size": "2arcsec",
    "imaging.weighting": "natural",
    "mosaicking.mosaic_type": "pbweight",
    "mosaicking.mosaic_cell": "2arcsec",
    "photometry.detection.fwhm_pixels": 4.0,
    "photometry.classification.target_flux_range": [0.1, 0.2],
    "photometry.classification.reference_flux_range": [0.1, 0.2],
    "logging.level": "ERROR",
}
"""Another value for keys that are no numbers, folders or switches."""
ONLY_ONE = ("environment", "imaging.interactive", "imaging.savemodel")
"""Keys that can have one value only: the environment that was asked for, and what no task can be or does."""
KEYS = dict(described_keys(PipelineConfig))


def changed(name: str) -> dict[str, Any]:
    """Overrides that give a key another value."""
    usual: Any = load_pipeline_config()
    for part in name.split("."):
        usual = usual[part]
    value = OTHER[name] if name in OTHER else _another(usual)
    for part in reversed(name.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _another(usual: Any) -> Any:
    """A number, folder or switch that is not `usual`."""
    if isinstance(usual, bool):
        return not usual
    if isinstance(usual, str):
        return f"{usual}/other"
    return usual * 0.875 if isinstance(usual, float) else usual + 1


@pytest.fixture(autouse=True)
def another_telescope(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A telescope's file of another name, in the working folder."""
    from importlib.resources import files

    text = (files("absurd.tasks.radio") / "telescopes" / "dsa110.toml").read_text()
    (tmp_path / "OTHER.toml").write_text(text.replace("subbands = 16", "subbands = 8"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", [name for name, field in KEYS.items() if name not in ONLY_ONE])
def test_a_key_has_its_effect(name: str) -> None:
    """Another value changes the params of each stage that is told to read the key, and of no other."""
    told = set(KEYS[name].json_schema_extra["read_by"])
    usual, other = load_pipeline_config(), load_pipeline_config(overrides=changed(name))

    assert usual != other
    assert {each for each in stages() if stage_params(usual, each) != stage_params(other, each)} == told


@pytest.mark.parametrize("environment", environment_names())
def test_params_are_those_that_the_stages_take(environment: str) -> None:
    """Each executor that is registered here takes what an environment gives it, with what the run is about."""
    config = load_pipeline_config(environment)
    about = {"ms": "some.ms", "out": "other.ms", "image": "a.fits", "images": ["a.fits"], "positions": "a.parquet"}

    for stage in stages():
        params = stage_params(config, stage)
        if (executor := registry.get(stage)) is not None:
            fields = executor.params_type.model_fields
            executor.load_params({name: value for name, value in about.items() if name in fields} | params)
    SimulationSettings(**stage_params(config, "pipeline simulate")["settings"])


def test_every_stage_that_is_named_is_one() -> None:
    """A key that is for a stage which nobody knows would be for nothing."""
    named = {each for field in KEYS.values() for each in field.json_schema_extra["read_by"]}

    assert named == set(stages())


def test_an_unknown_stage_is_refused() -> None:
    """With those there are."""
    with pytest.raises(ValidationError, match=r"calibration\.solve, "):
        stage_params(load_pipeline_config(), "calibration.solv")
