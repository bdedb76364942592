"""Options by which commands of the pipeline take its configuration: where nothing else is given, it is what counts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import click

from absurd.cli.output import clean, note

LOG = "absurd.pipeline"


def configured(stage: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command ``--environment`` and ``--file``: params of a stage by the configuration, see `told`.

    With either the command logs as `logging` of the configuration says, see `remark`.
    """

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        @click.option("--environment", "-e", metavar="NAME", help="Take what is not given from its configuration.")
        @click.option("--file", "config_file", metavar="FILE", type=click.Path(), help="A .toml or .yaml laid over it.")
        @wraps(command)
        def configured_command(*args: Any, environment: str | None, config_file: str | None, **given: Any) -> None:
            if environment is not None or config_file is not None:
                from absurd.tasks.pipeline.environments import load_pipeline_config
                from absurd.tasks.pipeline.stages import stage_params

                params = stage_params(load_pipeline_config(environment or "development", config_file), stage)
                log_as(**params.pop("log"))
                click.get_current_context().meta[LOG] = params
            command(*args, **given)

        return configured_command

    return with_options


def told() -> dict[str, Any]:
    """What the configuration says to the command; nothing without one."""
    params: dict[str, Any] = click.get_current_context().meta.get(LOG, {})
    return params


def given_or_told(given: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were given, and by the configuration where they were not."""
    source = click.get_current_context().get_parameter_source
    usual = {click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP, None}
    return {name: told[name] if name in told and source(name) in usual else value for name, value in given.items()}


def required(value: str | None, name: str) -> str:
    """An argument that only a configuration can stand in for.  Raises click.MissingParameter without either."""
    if value is None:
        raise click.MissingParameter(param_hint=name, param_type="argument")
    return value


def remark(text: str, level: int = logging.INFO) -> bool:
    """Say something beside the result, if the command has a configuration: whether it has."""
    if LOG not in click.get_current_context().meta:
        return False
    logging.getLogger(LOG).log(level, "%s", clean(text))
    return True


def log_as(level: str, console: bool, file: str | None) -> None:
    """Log so until the command ends.  Raises ConfigurationError for a file that cannot be written."""
    from absurd.errors import ConfigurationError

    handlers: list[logging.Handler] = [logging.NullHandler()]
    if console:
        handlers.append(_Console())
    if file is not None:
        try:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(file, encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from error
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger(LOG)
    log.setLevel(level)
    log.propagate = False
    for each in handlers:
        log.addHandler(each)
    click.get_current_context().call_on_close(lambda: _close(log, handlers))
    log.debug("%s", " ".join(clean(each) for each in sys.argv[1:]))


def _close(log: logging.Logger, handlers: Iterable[logging.Handler]) -> None:
    log.propagate = True
    for each in handlers:
        log.removeHandler(each)
        each.close()


class _Console(logging.Handler):
    """To stderr, as other remarks of commands."""

    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())
