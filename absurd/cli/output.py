"""How commands read their common options and print: aligned tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from uuid import UUID

import click

from absurd.errors import InvalidOptionError

if TYPE_CHECKING:
    from absurd.config import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

COLOURS = {
    "blocked": "magenta",
    "pending": "yellow",
    "sleeping": "cyan",
    "running": "blue",
    "completed": "green",
    "failed": "red",
    "lost": "red",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}
"""Colour of each word that says how something stands; other words stay plain."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


# Options that every command shares ---------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class Invocation:
    """What the options before the command's name said; `ctx.obj` of every command."""

    flags: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings given as options, by the setting's name; absent means not given."""
    debug: bool = False
    settings: Settings | None = None


def shared_options(*, hidden: bool = False) -> Callable[[Command], Command]:
    """Options for where the database is and for tracebacks, kept in the `Invocation`.

    They stand in the help of the program itself and work, `hidden`, after a command's name as well.
    """

    def keep(ctx: click.Context, option: click.Parameter, value: object) -> None:
        if value is not None and option.name is not None:
            ctx.ensure_object(Invocation).flags[option.name] = value

    def debug(ctx: click.Context, option: click.Parameter, value: bool) -> None:
        ctx.ensure_object(Invocation).debug |= value

    def decorate(command: Command) -> Command:
        for name, callback, arguments in (
            ("--debug", debug, {"is_flag": True, "help": "Show the traceback of an error."}),
            ("--home", keep, {"metavar": "FOLDER", "help": "Folder of the embedded server.  [ABSURD_HOME]"}),
            ("--schema", keep, {"metavar": "NAME", "help": "Database schema of the queue.  [ABSURD_SCHEMA; absurd]"}),
            ("--database-url", keep, {"metavar": "URL", "help": "PostgreSQL to use.  [ABSURD_DATABASE_URL; embedded]"}),
        ):
            option = click.option(name, callback=callback, expose_value=False, hidden=hidden, **arguments)
            command = option(command)
        return command

    return decorate


def json_option(command: Command) -> Command:
    """Give `command` the option ``--json``, passed as `as_json`, and the shared options."""
    command = shared_options(hidden=True)(command)
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")(command)


def dry_run_options(text: str) -> Callable[[Command], Command]:
    """Give a command that destroys or moves much ``--dry-run``, of which `text` tells, and ``--yes`` for `agree`."""

    def decorate(command: Command) -> Command:
        command = click.option("--yes", is_flag=True, help="Do not ask.")(command)
        return click.option("--dry-run", is_flag=True, help=text)(command)

    return decorate


def import_option(command: Command) -> Command:
    """Give `command` the repeatable option ``--import``, passed as `modules`."""
    text = "Also import the executors of a module; repeatable."
    return click.option("--import", "modules", multiple=True, metavar="MODULE", help=text)(command)


def settings_of(ctx: click.Context, **flags: Any) -> Settings:
    """The settings of this call: defaults < config file < environment < options; read once, warnings said.

    `flags` are settings that the command has options of its own for; None means not given.
    """
    invocation = ctx.ensure_object(Invocation)
    if invocation.settings is None:
        from absurd.config import load_settings

        invocation.settings = load_settings(**invocation.flags, **flags)
        for warning in invocation.settings.warnings:
            note(f"{click.style('Warning:', fg='yellow')} {warning}")
    return invocation.settings


def pass_on(ctx: click.Context) -> None:
    """Put the shared options into the environment: for processes this one starts, and for executors in it.

    Both read the settings for themselves.
    """
    from absurd.config import PREFIX

    for name, value in ctx.ensure_object(Invocation).flags.items():
        os.environ[f"{PREFIX}{name.upper()}"] = str(value)


# Printing ----------------------------------------------------------------------------------------


def emit(document: Any, *, as_json: bool, text: object = "") -> None:
    """Print `document` as JSON, or `text` (a string or a `Table`) for people; an empty text prints nothing."""
    if as_json:
        click.echo(to_json(document))
    elif shown := str(text):
        click.echo(shown)


def note(text: str) -> None:
    """Say something beside the result: on stderr, so that stdout stays what was asked for."""
    click.echo(text, err=True)


def agree(question: str, *, yes: bool, may_ask: bool = True) -> None:
    """Go on only if `yes`, or if somebody at a terminal says so; the default answer is no."""
    if yes:
        return
    if not (may_ask and sys.stdin.isatty()):
        raise InvalidOptionError(f"{question} This is not asked here: repeat the command with --yes", option="yes")
    if not click.confirm(question, err=True):
        raise click.Abort


def to_json(document: Any, indent: int | None = 2) -> str:
    """`document` as indented JSON; dataclasses, UUIDs, times and paths become what JSON knows."""
    return json.dumps(document, indent=indent, ensure_ascii=False, default=_plain)


def in_order(document: dict[str, Any], *names: str) -> dict[str, Any]:
    """`document` with `names` first; the database keeps no order of keys."""
    return {name: document[name] for name in names if name in document} | document


def clean(text: object) -> str:
    """One line without control characters: what a task stored cannot steer the terminal."""
    return CONTROL.sub(" ", str(text)).strip()


def styled(word: str, text: str | None = None) -> str:
    """`text` (default: `word`) in the colour of `word`; click removes it where there is no terminal."""
    return click.style(text or word, fg=COLOURS.get(word))


class Cell(NamedTuple):
    """Text of a table in the colour of `word` (see `COLOURS`)."""

    text: str
    word: str


@dataclasses.dataclass(slots=True)
class Table:
    """Aligned columns under plain headers; `str()` gives the text.

    Cells are shown by `str`, None as nothing.  Columns in `right` are aligned to the right.  On a
    terminal the column `shrink` gives way until a line fits; piped output is never cut.
    """

    headers: Sequence[str]
    rows: Iterable[Sequence[Any]]
    right: Collection[str] = ()
    shrink: str | None = None
    empty: str = ""
    """Said instead of a table without rows."""

    def __str__(self) -> str:
        rows = [[_cell(value) for value in row] for row in self.rows]
        if not rows:
            return self.empty
        head = [Cell(title, "") for title in self.headers]
        widths = [max(len(row[at].text) for row in [head, *rows]) for at in range(len(head))]
        if self.shrink is not None and sys.stdout.isatty():
            at = list(self.headers).index(self.shrink)
            excess = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
            widths[at] = max(min(8, widths[at]), widths[at] - max(0, excess))
        first = click.style("  ".join(self._align(head, widths)).rstrip(), dim=True)
        return "\n".join([first, *("  ".join(self._align(row, widths)).rstrip() for row in rows)])

    def _align(self, row: Sequence[Cell], widths: Sequence[int]) -> Iterator[str]:
        for title, cell, width in zip(self.headers, row, widths, strict=True):
            text = cell.text if len(cell.text) <= width else cell.text[: width - 1] + "…"
            padding = " " * (width - len(text))
            shown = styled(cell.word, text) if cell.word in COLOURS and text else text
            yield padding + shown if title in self.right else shown + padding


# Numbers for people ------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """A length of time in at most two units: 40 ms, 4.2 s, 42 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for name, unit, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def size(count: float | None) -> str:
    """A number of bytes with three digits or so: 512 B, 1.2 kB, 34 MB, 1.5 GB (powers of 1000)."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 9.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def moment(time: datetime | str | None) -> str:
    """A time to the second in the reader's own zone, with its offset; text must be ISO 8601."""
    if time is None:
        return ""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    return time.astimezone().isoformat(" ", "seconds")


def plural(count: int, noun: str) -> str:
    """``1 task``, ``2 tasks``, ``12,000 tasks``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return Cell(clean(value.text), value.word)
    return Cell("" if value is None else clean(value), "")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (UUID, PurePath)):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
