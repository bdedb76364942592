"""Each key of the configuration has the effect that it says, on the stages that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pipeline_keys import EFFECTS, GONE

from absurd.executor import load_modules, registry
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.pipeline import (
    ConfigurationError,
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

ONLY_ONE = {"environment": "production", "imaging.interactive": True, "imaging.savemodel": "virtual"}
"""Keys that can have one value only, with another: the environment that was asked for, and what no task is or does."""
KEYS = dict(described_keys(PipelineConfig))


def with_key(name: str, value: Any) -> PipelineConfig:
    """The configuration for development, with another value of a key."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return load_pipeline_config(overrides=value)


def params_of(config: PipelineConfig) -> dict[str, Any]:
    """All params of all stages, by stage and place."""
    return {f"{each} {place}": value for each in stages() for place, value in places_in(stage_params(config, each))}


def places_in(params: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Values that are no tables, with the names that lead to them."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from places_in(value, f"{above}{name}.")
        else:
            yield above + name, value


@pytest.fixture(autouse=True)
def another_telescope(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A telescope's file of another name, in the working folder."""
    from importlib.resources import files

    text = (files("absurd.tasks.radio") / "telescopes" / "dsa110.toml").read_text()
    (tmp_path / "OTHER.toml").write_text(text.replace("subbands = 16", "subbands = 8"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", EFFECTS)
def test_a_key_has_its_effect(name: str) -> None:
    """Another value changes those params that it is for to what they should be, of all that stages are given; these are
    the stages that are told to read the key.
    """
    value, effects = EFFECTS[name]
    before, after = params_of(load_pipeline_config()), params_of(with_key(name, value))

    places = before.keys() | after.keys()
    found = {each: after.get(each, GONE) for each in places if before.get(each, GONE) != after.get(each, GONE)}
    assert found == effects
    assert {each.rpartition(" ")[0] for each in effects} == set(KEYS[name].json_schema_extra["read_by"])


def test_every_key_has_an_effect() -> None:
    """But for those that can have one value only, which refuse another."""
    assert EFFECTS.keys() | ONLY_ONE.keys() == KEYS.keys()
    for name, value in ONLY_ONE.items():
        with pytest.raises(ConfigurationError, match=name.replace(".", r"\.")):
            with_key(name, value)


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
    assert stage_params(config, "pipeline run")["environment"] == environment
    SimulationSettings(**stage_params(config, "pipeline simulate")["settings"])


def test_every_stage_that_is_named_is_one() -> None:
    """A key that is for a stage which nobody knows would be for nothing."""
    named = {each for field in KEYS.values() for each in field.json_schema_extra["read_by"]}

    assert named == set(stages())


def test_an_unknown_stage_is_refused() -> None:
    """With those there are."""
    with pytest.raises(ValidationError, match=r"calibration\.solve, "):
        stage_params(load_pipeline_config(), "calibration.solv")
