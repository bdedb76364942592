"""``absurd pipeline config``: the configuration as the stages have it, and what may be in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from absurd.cli.output import clean, emit


@click.command(epilog="Example: absurd pipeline config --environment production --file site.toml")
@click.option("--environment", "-e", metavar="NAME", default="development", help="[development]")
@click.option("--file", "path", metavar="FILE", type=click.Path(), help="A .toml or .yaml laid over it.")
@click.option("--set", "changes", metavar="KEY=VALUE", multiple=True, help="Over that, as TOML; repeatable.")
@click.option("--stage", metavar="NAME", help="What it means to a stage: params of an executor, as JSON.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of configurations.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def config(
    environment: str, path: str | None, changes: tuple[str, ...], stage: str | None, schema: bool, as_json: bool
) -> None:
    """Show the configuration of the radio pipeline, checked, as TOML.

    That is the usual values, the layer of an environment, and a file of yours over both.
    """
    from absurd.tasks.pipeline.environments import load_pipeline_config, pipeline_config_schema

    if schema:
        emit(pipeline_config_schema(), as_json=True)
        return
    loaded = load_pipeline_config(environment, path, overrides=_overrides(changes))
    if stage is not None:
        from absurd.tasks.pipeline.stages import stage_params

        emit(stage_params(loaded, stage), as_json=True)
        return
    document = loaded.model_dump(mode="json")
    emit(document, as_json=as_json, text="\n".join(_toml(document)))


def _overrides(changes: tuple[str, ...]) -> dict[str, Any]:
    import tomllib

    told: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{change!r} must be KEY=VALUE, as in imaging.niter=500", param_hint="--set")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value.strip()  # a text needs no quotes here
        *sections, last = key.strip().split(".")
        table = told
        for each in sections:
            table = table.setdefault(each, {})
            if not isinstance(table, dict):
                raise click.BadParameter(f"{change!r}: {each} has a value already", param_hint="--set")
        table[last] = parsed
    return told


def _toml(table: dict[str, Any], above: str = "") -> Iterator[str]:
    """Lines of a table: its own keys, then its sections.  TOML has no null; what is none is left out."""
    for key, value in table.items():
        if value is not None and not isinstance(value, dict):
            yield f"{key} = {clean(json.dumps(value, ensure_ascii=False))}"
    for key, value in table.items():
        if isinstance(value, dict):
            name = f"{above}{key}"
            own = list(_toml(value, f"{name}."))
            if own and own[0]:
                yield from ("", f"[{name}]")
            yield from own
