"""Cause and cure of errors: each code has them, and each error tells where."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from commands import commands_in, what_is_wrong
from house import files

from absurd.cli.remedies import remedies
from absurd.config import Settings

if TYPE_CHECKING:
    from cli.conftest import Run

SOURCE = ("absurd/**/*.py", "scheduler/**/*.py", "tasks/**/*.py", "workers/**/*.py")
WITHOUT_A_CLASS = {"internal", "interrupted", "usage"}
_CODE = re.compile(r'^    code(?:: ClassVar\[str\])? = "(\w+)"$', re.MULTILINE)


def test_each_code_has_cause_and_cure() -> None:
    """None is without, none is of a code that there is not, and each is a sentence or two."""
    codes = {code for path in files(*SOURCE) for code in _CODE.findall(path.read_text(encoding="utf-8"))}

    assert set(remedies()) == codes | WITHOUT_A_CLASS
    for code, each in remedies().items():
        assert all(re.fullmatch(r"[A-Z`].{4,400}\.", text) for text in (each.cause, each.cure)), code


def test_what_a_cure_names_is_there() -> None:
    """Commands with their options, variables and settings that a cause or a cure names are those of the program."""
    names = {each.name for each in fields(Settings)}
    lost = []
    for code, each in remedies().items():
        text = f"{each.cause} {each.cure}"
        spans = re.findall(r"`([^`]+)`", text)
        lost += [(code, command) for command in commands_in(text) if what_is_wrong(command)]
        variables = [span for span in spans if re.fullmatch(r"ABSURD_[A-Z_]+", span)]
        lost += [(code, span) for span in variables if span.removeprefix("ABSURD_").lower() not in names]
        settings = [span for span in spans if re.fullmatch(r"(worker|web|embedded)_\w+", span)]
        lost += [(code, span) for span in settings if span not in names]

    assert lost == []


def test_an_error_tells_where_it_is_explained(run: Run) -> None:
    """Its line ends with the command that explains it; its document is as ever."""
    refused = run("--schema", "Bad-Schema", "status", "--json")
    hint = re.search(r"\(see `absurd (explain \w+)`\)\n$", refused.err)
    assert hint is not None, refused.err
    told = run(*hint[1].split())
    document = run(*hint[1].split(), "--json").document

    assert "explain" not in refused.document["error"]["message"]
    assert told.out.startswith("Cause: ")
    assert "\nCure: " in told.out
    assert document == {"code": "configuration_invalid"} | {
        key: getattr(remedies()["configuration_invalid"], key) for key in ("cause", "cure")
    }


@pytest.mark.parametrize(("code", "near"), [("schema_mising", "schema_missing"), ("xyzzy", "errors of your own")])
def test_an_unknown_code(run: Run, code: str, near: str) -> None:
    """Is not found; one that is nearly one is told."""
    ended = run("explain", code)

    assert (3, True) == (ended.code, near in ended.err)
