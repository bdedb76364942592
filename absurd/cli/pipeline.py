"""``absurd pipeline``: visibilities from arriving sub-bands to calibrated data; one module for each command."""

from __future__ import annotations

import click

from absurd.cli.group import LazyGroup

SECTIONS = {
    "Prepare": {
        "config": "absurd.cli.pipeline_config:config",
    },
    "Take in": {
        "watch": "absurd.cli.pipeline_watch:watch",
        "plan": "absurd.cli.pipeline_plan:plan",
        "convert": "absurd.cli.pipeline_convert:convert",
    },
    "Make": {
        "run": "absurd.cli.pipeline_run:run",
        "batch": "absurd.cli.pipeline_batch:batch",
        "simulate": "absurd.cli.pipeline_simulate:simulate",
    },
    "Look": {
        "health": "absurd.cli.pipeline_health:health",
        "gains": "absurd.cli.pipeline_gains:gains",
        "plot": "absurd.cli.pipeline_plot:plot",
    },
}


@click.command(cls=LazyGroup, sections=SECTIONS)
def pipeline() -> None:
    """Radio visibilities: simulate, watch, calibrate, image, look."""


def need_the_extra(*modules: str) -> None:
    """Raise ConfigurationError unless these are installed."""
    from importlib.util import find_spec

    from absurd.errors import ConfigurationError

    missing = [each for each in modules if find_spec(each) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} missing: this needs `pip install 'absurd[radio]'`")
