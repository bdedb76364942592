"""``absurd executor``: what can be run, where, and with which params."""

from __future__ import annotations

from typing import Any

import click

from absurd.cli.catalog import Known, known_executors, load_here, unknown, with_modules
from absurd.cli.connection import database_of
from absurd.cli.output import Table, duration, emit, import_option, json_option, note, settings_of


@click.group()
def executor() -> None:
    """List executors and show what params they take."""


@executor.command("list", epilog="Example: absurd executor list --import mysite.executors")
@import_option
@json_option
@click.pass_context
def list_(ctx: click.Context, modules: tuple[str, ...], as_json: bool) -> None:
    """Show what workers have registered and what can be imported here."""
    known, missing = look(ctx, modules)
    for sentence in missing:
        note(sentence)
    rows = [
        (each.name, each.queue or "any", each.runs_in, duration(each.timeout), where(each), each.description)
        for each in known
    ]
    headers = ("executor", "queue", "runs in", "time limit", "known to", "what it does")
    empty = "No worker has registered an executor yet, and none can be imported here (use --import)."
    table = Table(headers, rows, right=("time limit",), shrink="what it does", empty=empty)
    emit([each.document() for each in known], as_json=as_json, text=table)


@executor.command(epilog="Example: absurd executor show cutout.extract")
@click.argument("name")
@import_option
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, modules: tuple[str, ...], as_json: bool) -> None:
    """Show one executor and the params it takes."""
    known, missing = look(ctx, modules)
    each = next((each for each in known if each.name == name), None)
    if each is None:
        raise unknown(name, [each.name for each in known], missing)
    lines = [click.style(each.name, bold=True)]
    if each.description:
        lines.append(f"  {each.description}")
    facts = [
        ("queue", each.queue or "any (the setting queue_name when none is given)"),
        ("runs in", each.runs_in),
        ("time limit", duration(each.timeout) or "none"),
        ("needs", ", ".join(f"{name} {amount:g}" for name, amount in each.needs.items()) or "nothing in particular"),
        ("attempts", "as the settings say" if each.max_attempts is None else str(each.max_attempts)),
        ("known to", where(each)),
    ]
    lines += ["", *(f"  {title:<11} {value}" for title, value in facts), ""]
    fields = fields_of(each.params_schema)
    table = Table(("param", "type", "default", "meaning"), fields, empty="It takes any JSON object as params.")
    lines += ["  " + line for line in str(table).splitlines()]
    wanted = " ".join(f"{field[0]}=…" for field in fields if field[2] == "(required)")
    lines += ["", f"  absurd spawn {each.name} {wanted}".rstrip()]
    emit(each.document(), as_json=as_json, text="\n".join(lines))


def look(ctx: click.Context, modules: tuple[str, ...]) -> tuple[list[Known], list[str]]:
    """The known executors, and why shipped ones cannot be imported here."""
    from absurd.inspection import list_executors

    missing = load_here(with_modules(settings_of(ctx), modules))
    with database_of(ctx) as database:
        rows = database.run(list_executors())
    return known_executors(rows), missing


def where(each: Known) -> str:
    """Who can run it."""
    return " and ".join(word for word, known in (("workers", each.registered), ("here", each.importable)) if known)


def fields_of(schema: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each param in a JSON schema."""
    required = set(schema.get("required", ()))
    fields = []
    for name, given in schema.get("properties", {}).items():
        default = "(required)" if name in required else _default(given)
        fields.append((name, type_of(given, schema), default, given.get("description", "")))
    return fields


def type_of(given: dict[str, Any], schema: dict[str, Any]) -> str:
    """A JSON schema's type in a few words."""
    if "$ref" in given:
        given = schema.get("$defs", {}).get(given["$ref"].rpartition("/")[2], {})
    if "enum" in given:
        return " | ".join(map(str, given["enum"]))
    if "const" in given:
        return str(given["const"])
    for key in ("anyOf", "oneOf"):
        if key in given:
            return " | ".join(dict.fromkeys(type_of(each, schema) for each in given[key]))
    if given.get("type") == "array":
        return f"list of {type_of(given.get('items', {}), schema)}"
    return str(given.get("type", "any"))


def _default(given: dict[str, Any]) -> str:
    import json

    return json.dumps(given["default"]) if "default" in given else ""
