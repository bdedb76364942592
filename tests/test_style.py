"""The house style: what ruff can check, and a few rules that it cannot."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from house import ROOT, files, name, run_python, told

LONGEST = 400
"""A file holds one concern; past about this many lines it holds two."""
TOLERANCE = 20
LONGEST_TEST = 600
"""What must hold of one thing is many short tests; they stay together."""

TEXT = ("*.md", "*.toml", "Makefile", ".ci/*", "docs/**/*.md")
SOURCE = tuple(
    f"{folder}/**/*.{kind}"
    for folder in ("absurd", "scheduler", "schema", "tasks", "workers")
    for kind in ("py", "sql")
)
TESTS = ("tests/**/*.py",)


def test_ruff_finds_nothing() -> None:
    """Every rule selected in pyproject.toml holds in every file."""
    result = run_python("-m", "ruff", "check", "--output-format=concise", ".")

    assert result.returncode == 0, told(result)


def test_every_file_is_formatted() -> None:
    """Layout is the formatter's, so that no change is about layout."""
    result = run_python("-m", "ruff", "format", "--check", ".")

    assert result.returncode == 0, told(result)


def test_no_file_is_too_long() -> None:
    """One concern per file: none is longer than 400 lines by more than the tolerance; a file of tests, than 600."""
    limits = dict.fromkeys(files(*SOURCE), LONGEST + TOLERANCE) | dict.fromkeys(files(*TESTS), LONGEST_TEST)
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in limits}

    too_long = {name(path): lines for path, lines in lengths.items() if lines > limits[path]}

    assert too_long == {}


def test_no_machine_is_named() -> None:
    """No path of the machine that a file was written on, and no address of its network, is in any file."""
    own = re.compile(r"(?<![\w.])/(?:work|root|Users/[A-Za-z]+)/|file:///|https?://(?:10|192\.168)\.")

    assert _lines_that_match(own, *TEXT, *SOURCE, *TESTS) == []


def test_nothing_is_left_to_do() -> None:
    """What is unfinished is an issue, not a note in a file."""
    notes = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b")

    assert _lines_that_match(notes, *TEXT, *SOURCE, *TESTS) == []


@pytest.mark.parametrize(
    "path", list(files("absurd/**/*.py", "s*/**/*.py", "tasks/**/*.py", "workers/**/*.py")), ids=name
)
def test_no_error_is_swallowed(path: Path) -> None:
    """A broad ``except`` does something with what it caught: no bare one, and no ``except Exception: pass``."""
    handlers = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ExceptHandler)
    ]

    swallowing = [f"{name(path)}:{each.lineno}" for each in handlers if _is_broad(each) and _does_nothing(each)]

    assert swallowing == []


@pytest.mark.parametrize("path", list(files(*TESTS)), ids=name)
def test_each_test_says_what_must_hold(path: Path) -> None:
    """Every test function has a docstring."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]

    silent = [f"{name(path)}:{each.lineno} {each.name}" for each in functions if not ast.get_docstring(each)]

    assert silent == []


def test_every_sql_file_says_what_it_is_for() -> None:
    """The first line of each SQL file is a comment with its purpose."""
    silent = [name(path) for path in files("schema/**/*.sql") if not path.read_text(encoding="utf-8").startswith("-- ")]

    assert silent == []


def _lines_that_match(pattern: re.Pattern[str], *globs: str) -> list[str]:
    return [
        f"{name(path)}:{number}: {line.strip()}"
        for path in files(*globs)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(each, ast.Name) and each.id in ("Exception", "BaseException") for each in names)


def _does_nothing(handler: ast.ExceptHandler) -> bool:
    return all(
        isinstance(each, ast.Pass | ast.Continue)
        or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        for each in handler.body
    )


def test_the_checkout_is_the_one_under_test() -> None:
    """The tests import the package from this checkout, not another one that happens to be installed."""
    import absurd

    assert Path(absurd.__file__ or "").resolve() == ROOT / "absurd" / "__init__.py"
