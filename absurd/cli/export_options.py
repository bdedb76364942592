"""What ``absurd export`` and ``fast-export`` are told: the same options, and what they mean."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import click

from absurd.cli.output import note
from absurd.errors import InvalidInputError

Command = TypeVar("Command", bound=Callable[..., Any])
Given = dict[str, Any]

ADDRESS = ("dsn", "host", "port", "dbname", "user", "password", "password_file", "ask_password")
"""Options that say where the database is; no task may hold what they say."""


def decimal(text: str) -> list[int]:
    """``20,5`` as an option: digits in all, and after the point."""
    parts = text.split(",")
    if len(parts) != 2 or not all(each.strip().isdecimal() for each in parts):
        raise click.BadParameter(f"{text!r} is not two numbers; write 20,5: digits in all, and after the point")
    return [int(each) for each in parts]


def mapped(text: str) -> tuple[str, str]:
    """``numeric=float64`` as an option: a type of PostgreSQL, and one of Arrow."""
    known, _, arrow = text.partition("=")
    if not known or not arrow:
        raise click.BadParameter(f"{text!r} is not TYPE=ARROW, as in numeric=float64")
    return known, arrow


_FILES = (
    click.option("--sql", metavar="QUERY", help="The query: one SELECT, VALUES or TABLE."),
    click.option("--out", metavar="FILE", help="Parquet file to write, or folder of a dataset; or an address."),
    click.option(
        "--config", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
        help="A list of exports in YAML, JSON or TOML, instead of --sql and --out: all from one snapshot.",
    ),
    click.option(
        "--row-group-size", type=click.IntRange(1), metavar="ROWS",
        help="Rows in a row group; fewer where the bound in bytes is met first.  [1000000]",
    ),
    click.option(
        "--block-size", type=click.IntRange(1), metavar="BYTES",
        help="Bytes that may be read ahead of what is written; a longer row is no problem.  [67108864]",
    ),
    click.option(
        "--compression", type=click.Choice(["zstd", "snappy", "gzip", "brotli", "lz4", "none"]),
        help="Of the file's pages.  [zstd]",
    ),
    click.option(
        "--connections", type=click.IntRange(1, 64), metavar="N",
        help="Connections that read side by side where a query can be split.  [2]",
    ),
    click.option(
        "--on-unfit", type=click.Choice(["error", "null", "text"]),
        help="What becomes of a value that its column's type cannot keep.  [error]",
    ),
    click.option(
        "--decimal", type=decimal, metavar="P,S", help="For numeric without a precision: decimals, not text."
    ),
    click.option(
        "--type-map", type=mapped, multiple=True, metavar="TYPE=ARROW",
        help="Keep a PostgreSQL type (its name or OID) as an Arrow type; repeatable.",
    ),
    click.option(
        "--limit-mib-per-second", type=click.FloatRange(0, min_open=True), metavar="N", help="Read no faster than this."
    ),
    click.option(
        "--partition-by", multiple=True, metavar="COLUMN",
        help="Write a dataset: a folder for each value of COLUMN; repeatable.",
    ),
    click.option(
        "--max-rows-per-file", type=click.IntRange(1), metavar="ROWS",
        help="Write a dataset: a folder of files with at most so many rows.",
    ),
    click.option("--keep-temp", is_flag=True, help="Keep the unfinished file of an export that fails, as FILE.part."),
    click.option("--stop-on-failure", is_flag=True, help="After a failure, begin no other export of --config."),
)  # fmt: skip
_ADDRESS = (
    click.option("--service", metavar="NAME", help="Service of pg_service.conf to export from."),
    click.option("--dsn", metavar="DSN", help="libpq URL or keywords."),
    click.option("--host", metavar="HOST", help="Host, or folder of a socket.  [PGHOST]"),
    click.option("--port", metavar="PORT", help="[PGPORT; 5432]"),
    click.option("--dbname", metavar="NAME", help="Database.  [PGDATABASE]"),
    click.option("--user", metavar="NAME", help="Role.  [PGUSER]"),
    click.option(
        "--password", metavar="TEXT",
        help="Others can read it in the list of processes: use PGPASSFILE, a service, or one of the two below.",
    ),
    click.option(
        "--password-file", type=click.Path(allow_dash=True), metavar="FILE",
        help="The password is the first line of FILE; - is stdin.",
    ),
    click.option("--ask-password", is_flag=True, help="Ask for the password."),
)  # fmt: skip


def export_options(command: Command) -> Command:
    """Give `command` the options for what to export, how, and where from."""
    for option in reversed((*_FILES, *_ADDRESS)):
        command = option(command)
    return command


def exports_of(given: Given) -> list[dict[str, Any]]:
    """The exports that are asked for: dicts with `sql`, `out`, and options of their own.

    Raises UsageError, ExportConfigError.
    """
    sql, out, config = given["sql"], given["out"], given["config"]
    if config is not None:
        if sql is not None or out is not None:
            raise click.UsageError("Give either --config, or --sql and --out")
        from absurd.tasks.export.config import load_config

        try:
            return load_config(config)
        except OSError as error:
            raise InvalidInputError(f"{config} cannot be read: {error.strerror or error}", config=config) from None
    if sql is None or out is None:
        raise click.UsageError("Give --sql and --out, or --config")
    if given["stop_on_failure"]:
        raise click.UsageError("--stop-on-failure is for the exports of --config")
    return [{"sql": sql, "out": out}]


def common_options(given: Given) -> dict[str, Any]:
    """What is said for all exports, by the names that executors and kernels know."""
    from absurd.tasks.export.config import OPTIONS, check_types

    common = {name: given[name] for name in OPTIONS if given[name] not in (None, ())}
    if "type_map" in common:
        common["type_map"] = _types(common["type_map"])
        check_types(common["type_map"])
    if "partition_by" in common:
        common["partition_by"] = list(common["partition_by"])
    return common


def _types(wished: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What --type-map says; raises UsageError where it says two things of one type."""
    types: dict[str, str] = {}
    for known, arrow in wished:
        if types.setdefault(known, arrow) != arrow:
            raise click.UsageError(f"--type-map names {known} twice, as {types[known]} and {arrow}: give one of them")
    return types


def address(given: Given) -> str:
    """The DSN of the database that the options and the environment name.

    A password that was given as an argument is taken out of the list of processes, with a warning.
    Raises ExportConfigError, InvalidInputError.
    """
    from absurd.tasks.export.fast_export import build_dsn

    _warn_of_arguments(given)
    return build_dsn(SimpleNamespace(**given | {"password": _password(given)}))


def _password(given: Given) -> str | None:
    ways = [name for name in ("password", "password_file", "ask_password") if given[name]]
    if len(ways) > 1:
        raise click.UsageError(f"Give only one of {' and '.join('--' + each.replace('_', '-') for each in ways)}")
    if given["ask_password"]:
        return str(click.prompt("Password", hide_input=True, err=True))
    source = given["password_file"]
    if source is None:
        return given["password"]  # type: ignore[no-any-return]
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the password cannot be read from {source}: {error}", source=source) from None
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise InvalidInputError(f"the first line of {source} is empty: it should be the password", source=source)
    return lines[0]


def _warn_of_arguments(given: Given) -> None:
    """Say that a secret was readable, and cover it."""
    from absurd.cli.argv import forget
    from absurd.config import redact_url

    dsn = given["dsn"]
    secrets = [given["password"] or "", dsn if dsn and ("password" in dsn or redact_url(dsn) != dsn) else ""]
    if any(secrets):
        gone = forget(secrets)
        now = "It is covered there now" if gone else "It can be seen there until the program ends"
        note(
            f"{click.style('Warning:', fg='yellow')} a password stood among the arguments, where the list of processes "
            f"and the shell's history show it. {now}; PGPASSFILE, a service or --password-file keep it out."
        )


def absolute(out: str) -> str:
    """A path as whoever typed it sees it: a worker's working folder is another one.  Addresses stay as they are."""
    from absurd.tasks.export.destination import place_to_write

    return place_to_write(out)
