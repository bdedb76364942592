"""Lines of a task's log on the screen: as they were written, each run under a heading of its own."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.output import clean, emit, note, to_json

if TYPE_CHECKING:
    from absurd.logs import LogLine

_NOT_SHOWN = re.compile(r"\x1b(?!\[[0-9;]*m)(\[[0-9;?]*[A-Za-z])?|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")
"""What could do something to a terminal; colours may stay."""


def show_lines(lines: Iterable[LogLine], *, as_json: bool, live: bool = False) -> None:
    """Print `lines`; with `live` each at once, and each run has a heading even if it is the only one."""
    if as_json and not live:
        emit([_document(line) for line in lines], as_json=True)
        return
    if not live:
        lines = list(lines)
    headed = live or len({(line.attempt, line.run) for line in lines}) > 1
    terminal = sys.stdout.isatty()
    before: LogLine | None = None
    for line in lines:
        if as_json:
            click.echo(to_json(_document(line), indent=None))  # a line each
            continue
        is_new = before is None or (before.attempt, before.run) != (line.attempt, line.run)
        if before is not None and (is_new or line.stream == "worker") and not before.text.endswith("\n"):
            click.echo()
        if headed and is_new:
            sys.stdout.flush()
            goes_on = before is not None and before.attempt == line.attempt
            where = f" on {clean(line.worker)}" if line.worker else ""
            heading = f"Attempt {line.attempt}{' goes on' if goes_on else ''}{where}, {line.at:%Y-%m-%d %H:%M:%S%z}"
            note(click.style(heading, dim=True))
        text = _NOT_SHOWN.sub("", line.text) if terminal else line.text
        if line.stream == "worker" and terminal:
            text = click.style(text, dim=True)
        sys.stdout.write(text)  # click would take the colours out of what goes into a file
        if live:
            sys.stdout.flush()
        before = line
    if before is not None and not as_json and not before.text.endswith("\n"):
        click.echo()


def _document(line: LogLine) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(line).items() if name != "run"}
