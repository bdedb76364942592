"""What commands say about themselves, and how fast."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from absurd.cli import absurd
from absurd.cli.export import fast_export
from absurd.cli.extract_catalog import extract_catalog_program
from absurd.cli.run import call
from absurd.cli.scheduler import absurd_scheduler
from absurd.cli.worker import absurd_worker

HEAVY = ("asyncpg", "psycopg", "pydantic", "numpy", "structlog", "asyncio", "absurd.client", "absurd.database")


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command below `command`, by the words that call it."""
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            each = command.get_command(ctx, name)
            assert each is not None, name
            yield from commands(each, *path, name)
    else:
        yield " ".join(path), command


ALL = dict(commands(absurd))
PROGRAMS = {
    "absurd-worker": absurd_worker,
    "absurd-scheduler": absurd_scheduler,
    "fast-export": fast_export,
    "extract-catalog": extract_catalog_program,
}


@pytest.mark.parametrize("words", ALL)
def test_each_command_has_help_an_example_and_json(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help says what it does in one line that is not cut, ends with an example of it, and offers --json."""
    command = ALL[words]

    assert 0 == call(absurd, "absurd", [*words.split(), "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "..." not in command.get_short_help_str(limit=80)
    _, _, example = shown.partition("Example: ")
    assert f"absurd {words}" in example
    assert "--json" in shown


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_has_help_and_an_example(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The daemons, too, say what they do."""
    assert 0 == call(PROGRAMS[program], program, ["--help"])
    assert f"Example: {program}" in capsys.readouterr().out


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """``absurd --help`` names each command with what it does."""
    assert 0 == call(absurd, "absurd", ["--help"])
    shown = capsys.readouterr().out
    for section in absurd.sections.values():
        for name in section:
            assert f"\n  {name} " in shown


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """In lines, as ``--help`` does, not in one sentence of an error; but nothing was done, so it is no success."""
    code = call(absurd, "absurd", ["worker"])
    told = capsys.readouterr()

    assert (2, "") == (code, told.out)
    assert told.err.startswith("Usage: absurd worker [OPTIONS] COMMAND [ARGS]...\n\n  List workers")
    assert "Error" not in told.err


def test_help_loads_nothing_heavy() -> None:
    """Help is shown without a driver, pydantic or numpy, so that it is there at once."""
    script = (
        "import sys\n"
        "from absurd.cli import absurd\n"
        "from absurd.cli.run import call\n"
        "code = call(absurd, 'absurd', ['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "[]\n" == done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version names program and version."""
    assert 0 == call(absurd, "absurd", ["--version"])
    name, version = capsys.readouterr().out.split()
    assert "absurd" == name
    assert version[0].isdigit()
