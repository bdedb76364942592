"""What shells and ``man`` are given: made of the commands, so that nothing is missing and nothing is left over."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from absurd.cli.completion import SHELLS
from absurd.cli.programs import PLACES, programs, subcommands

if TYPE_CHECKING:
    from cli.conftest import Run


def all_paths() -> set[str]:
    """The words that call each program and each command, groups too."""
    found, open_ = set(), [click.Context(program, info_name=name) for name, program in programs().items()]
    while open_:
        ctx = open_.pop()
        found.add(ctx.command_path)
        open_ += subcommands(ctx)
    return found


def test_the_programs_are_those_that_are_installed() -> None:
    """Each program of pyproject.toml, and no other."""
    from house import project

    assert set(PLACES) == set(project()["project"]["scripts"])


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_of_each_program(run: Run, shell: str) -> None:
    """The script speaks of all programs, and the shell can parse it if it is here."""
    made = run("completion", shell)

    assert (0, "") == (made.code, made.err)
    assert all(re.search(rf"\b{name}\b", made.out) for name in PLACES)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=made.out, text=True, check=True)


def test_words_are_completed() -> None:
    """As the script asks for them: commands, then options of a command, then the choices of an option."""
    for typed, wanted in (("absurd ta", "task"), ("absurd task list --sta", "--state"), ("absurd completion z", "zsh")):
        words = typed.split()
        asked = {"_ABSURD_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
        told = subprocess.run(
            [Path(sys.executable).parent / "absurd"],
            env=os.environ | asked, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"plain,{wanted}" in told.stdout.splitlines(), typed


def test_each_command_has_a_manual_page(run: Run, tmp_path: Path) -> None:
    """With all its options; `groff`, if it is here, understands each without a warning."""
    made = run("man", str(tmp_path / "man1"), "--json")
    pages = {path.name: path.read_text() for path in (tmp_path / "man1").iterdir()}

    assert made.document == sorted(pages)
    assert set(pages) == {f"{each.replace(' ', '-')}.1" for each in all_paths()}
    plain = {name: text.replace("\\-", "-") for name, text in pages.items()}
    assert "--max-attempts" in plain["absurd-spawn.1"]
    assert "absurd task list" in plain["absurd-task.1"]
    assert all(".SH NAME" in text and ".SH DESCRIPTION" in text for text in pages.values())
    assert all(".SH EXAMPLE" in pages[f"{each.replace(' ', '-')}.1"] for each in ("absurd spawn", "absurd-worker"))
    if shutil.which("groff"):
        read = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z", *sorted((tmp_path / "man1").iterdir())],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert read.stderr == ""
