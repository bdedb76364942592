"""The reference pages that are written from the code: settings, errors and the command line.

``make docs`` runs this file, which writes the pages; tests/test_docs.py fails while a page is not what it would write.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from house import ROOT

from absurd import errors
from absurd.cli import absurd
from absurd.cli.run import EXIT_CODES, FAILED
from absurd.cli.scheduler import absurd_scheduler
from absurd.cli.worker import absurd_worker
from absurd.config import PREFIX, Settings

WIDTH = 88
"""Columns of the help texts."""

NOTICE = "<!-- Written from the code by `make docs`; change the docstrings there. -->"


def pages() -> dict[Path, str]:
    """The path and the text of each page."""
    reference = ROOT / "docs" / "reference"
    return {
        reference / "settings.md": settings_page(),
        reference / "errors.md": errors_page(),
        reference / "cli.md": cli_page(),
    }


def settings_page() -> str:
    """A table of every setting: name, variable, default, meaning."""
    meanings = _attribute_docstrings(Settings)
    rows = [
        (f"`{field.name}`", f"`{PREFIX}{field.name.upper()}`", _default(field), meanings[field.name])
        for field in dataclasses.fields(Settings)
        if field.name != "warnings"
    ]
    return _page(
        "Settings",
        "A setting is taken from the first of these that names it: a flag, the environment, the file, the default. "
        "The file is `absurd.toml`, or the table `[tool.absurd]` of `pyproject.toml`, in the working directory; its "
        "keys are the names below. An unknown key of the file is refused; an unknown `ABSURD_` variable is a warning "
        "that suggests the right one. An empty variable counts as unset.",
        _table(("Setting", "Variable", "Default", "Meaning"), rows),
    )


def errors_page() -> str:
    """A table of every error for each family, with the exit code of the family."""
    sqlstates = {error: state for state, error in errors.BY_SQLSTATE.items()}
    parts = []
    for family in errors.AbsurdError.__subclasses__():
        members = [each for each in [family, *_descendants(family)] if each.__module__ == errors.__name__]
        rows = [
            (f"`{each.code}`", f"`{each.__name__}`", f"`{sqlstates[each]}`" if each in sqlstates else "", _first(each))
            for each in members
        ]
        parts.append(f"## {family.__name__}: exit code {EXIT_CODES.get(family, FAILED)}\n")
        parts.append(_table(("Code", "Class", "SQLSTATE", "Meaning"), rows))
    return _page(
        "Errors",
        "Every error is an `AbsurdError` and carries a `code` that does not change between versions: the same in "
        'Python (`error.code`), under `--json` (`{"error": {"code", "message", "details"}}`) and in logs. The family '
        "says what a caller can do about it, and becomes the exit code of a command. SQL functions raise the SQLSTATE.",
        "\n".join(parts),
    )


def cli_page() -> str:
    """The help text of every command."""
    parts = []
    for name, program in (("absurd", absurd), ("absurd-worker", absurd_worker), ("absurd-scheduler", absurd_scheduler)):
        for ctx in _commands(program, name, None):
            text = click.unstyle(ctx.command.get_help(ctx))
            depth = "###" if ctx.parent else "##"
            parts.append(f"{depth} {ctx.command_path}\n\n```text\n{text}\n```\n")
    return _page(
        "Command line",
        "Exit codes: 0 done, 1 failed, 2 called wrongly, 3 not found, 4 database not reached, 5 conflict with the "
        "present state, 130 interrupted. With `--json` a command prints one JSON document; so is its error.",
        "\n".join(parts),
    )


def _commands(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """A context for `command` and for each below it, in the order of the help."""
    wanted = {**command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    ctx = click.Context(command, info_name=name, parent=parent, **wanted)
    yield ctx
    if isinstance(command, click.Group):
        for each in command.list_commands(ctx):
            found = command.get_command(ctx, each)
            if found is not None and not found.hidden:
                yield from _commands(found, each, ctx)


def _descendants(family: type[errors.AbsurdError]) -> Iterator[type[errors.AbsurdError]]:
    for each in family.__subclasses__():
        yield each
        yield from _descendants(each)


def _attribute_docstrings(owner: type) -> dict[str, str]:
    """The string under each annotated attribute of a class, by the attribute's name."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for attribute, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{attribute.target.id} has no docstring"
            assert isinstance(text.value, ast.Constant)
            found[attribute.target.id] = " ".join(str(text.value.value).split())
    return found


def _default(field: dataclasses.Field[object]) -> str:
    if field.name == "home":  # depends on the platform; its meaning tells
        return ""
    value = field.default
    if value is None or value == ():
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _first(owner: type) -> str:
    return " ".join((inspect.getdoc(owner) or "").partition("\n\n")[0].split())


def _table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headers, tuple("---" for _ in headers), *rows]
    return "".join(f"| {' | '.join(_cell(text) for text in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _page(title: str, introduction: str, body: str) -> str:
    return f"# {title}\n\n{NOTICE}\n\n{introduction}\n\n{body}"


if __name__ == "__main__":
    for page, content in pages().items():
        page.write_text(content, encoding="utf-8")
