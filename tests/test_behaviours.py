"""Each behaviour that queues of this kind are tested for is tested here too, or told to be otherwise by choice.

The numbers are those of a survey of the test suites of a dozen queues: B1 to B88 are claims, spawning, retries,
cancellation, crashes, steps and dependencies, B105 to B116 retention, inspection and the whole under faults.  A test
names what it covers in its docstring, as ``(B17)`` or ``(B20, B25-B27)``; a rule of ours that differs stands in
docs/concepts/rules.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from house import ROOT, files

WANTED = {*range(1, 89), *range(105, 117)}

_NAMED = re.compile(r"\bB(\d+)(?:\s*-\s*B?(\d+))?")


def numbers(text: str) -> Iterator[int]:
    """The behaviours that a text names."""
    for low, high in _NAMED.findall(text):
        yield from range(int(low), int(high or low) + 1)


def docstrings() -> Iterator[str]:
    """Those of all tests."""
    for path in files("tests/**/test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                and path.name != "test_behaviours.py"
            ):
                yield ast.get_docstring(node) or ""


def test_each_behaviour_is_tested_or_told() -> None:
    """No number is left without a test or a rule."""
    tested = {number for text in docstrings() for number in numbers(text)}
    told = set(numbers((ROOT / "docs/concepts/rules.md").read_text(encoding="utf-8")))

    assert [] == [f"B{number}" for number in sorted(WANTED - tested - told)]
