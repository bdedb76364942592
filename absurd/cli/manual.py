"""``absurd man``: manual pages, made of what the commands say of themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from absurd.cli.output import emit, json_option, note
from absurd.cli.programs import programs, subcommands


@click.command("man", epilog="Example: absurd man ~/.local/share/man/man1")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@json_option
def man(folder: Path, as_json: bool) -> None:
    """Write a manual page for each command into FOLDER, which is made if need be.

    Then `man absurd-task` shows that of `absurd task`, and `man absurd` names all.
    """
    pages = dict(written())
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    emit(sorted(pages), as_json=as_json, text=f"{folder}: {len(pages)} pages")
    if not as_json and folder.name != "man1":
        note("man looks for them in a folder of the name man1.")


def written() -> Iterator[tuple[str, str]]:
    """Name and text of each page: programs, their commands, and those of groups."""
    for name, program in programs().items():
        open_ = [click.Context(program, info_name=name)]
        while open_:
            ctx = open_.pop()
            below = list(subcommands(ctx))
            open_ += below
            yield f"{_title(ctx)}.1", page(ctx, below)


def page(ctx: click.Context, below: list[click.Context]) -> str:
    """The page of one command in the language of man, with the commands `below` it named."""
    command, title = ctx.command, _title(ctx)
    text = inspect.cleandoc(command.help or "").replace("\b", "")
    first, *more = [" ".join(each.split()) for each in re.split(r"\n\s*\n", text)]
    lines = [
        f'.TH "{title.upper()}" "1" "" "absurd {version("absurd")}" "absurd"',
        ".SH NAME",
        _plain(f"{title} - {first.rstrip('.')}"),
        ".SH SYNOPSIS",
        f".B {_plain(ctx.command_path)}",
        _plain(" ".join(command.collect_usage_pieces(ctx))),
        ".SH DESCRIPTION",
        _plain(first),
    ]
    for each in more:
        lines += [".PP", _plain(each)]
    options = [each for each in (param.get_help_record(ctx) for param in command.get_params(ctx)) if each]
    lines += _listed("OPTIONS", options)
    lines += _listed("COMMANDS", [(each.command_path, each.command.get_short_help_str(limit=200)) for each in below])
    if command.epilog:
        lines += [".SH EXAMPLE", _plain(command.epilog.removeprefix("Example: "))]
    seen = [_title(each) for each in (ctx.parent, *below) if each is not None]
    if seen:
        lines += [".SH SEE ALSO", ", ".join(f"\\fB{_plain(each)}\\fR(1)" for each in seen)]
    return "\n".join(lines) + "\n"


def _listed(title: str, entries: list[tuple[str, str]]) -> list[str]:
    lines = [f".SH {title}"] if entries else []
    for name, text in entries:
        lines += [".TP", f"\\fB{_plain(name)}\\fR", _plain(" ".join(text.split()))]
    return lines


def _title(ctx: click.Context) -> str:
    return ctx.command_path.replace(" ", "-")


def _plain(text: str) -> str:
    """Text in which nothing is taken for a request or an escape, a hyphen can be copied, and all is ASCII."""
    told = text.replace("\\", "\\e").replace("-", "\\-")
    told = "".join(each if each.isascii() else f"\\[u{ord(each):04X}]" for each in told)
    return f"\\&{told}" if told.startswith((".", "'")) else told
