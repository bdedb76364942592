"""The table of the seeds in docs/reference/seeds.md: complete, with places that are there and tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from house import ROOT

PAGE = ROOT / "docs" / "reference" / "seeds.md"
COUNTS = {0: 87, 1: 55, 2: 37, 3: 64, 4: 34}
"""How many lines the list of each seed has."""

_ROW = re.compile(r"^\| (?P<id>S\d\.\d\d) \| (?P<what>.+?) \| (?P<place>.+?) \| (?P<tests>.*?) \|$", re.MULTILINE)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_FILE = re.compile(r"`((?:absurd|docs|scheduler|schema|tasks|tests|workers)/[^`]*|Makefile|pyproject\.toml)`")
_TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<name>test_\w+)`")


def rows() -> list[re.Match[str]]:
    """The rows of all tables of the page."""
    return list(_ROW.finditer(PAGE.read_text(encoding="utf-8")))


@cache
def collected(path: str) -> set[str]:
    """The names of the tests that pytest collects from a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_line_of_the_seeds_has_its_row() -> None:
    """Every number is there once and in order, and says where it is; one without a test says that it is not yet."""
    wanted = [f"S{seed}.{number:02}" for seed, count in COUNTS.items() for number in range(1, count + 1)]

    assert [row["id"] for row in rows()] == wanted
    bare = [row["id"] for row in rows() if not _TEST.search(row["tests"]) and "not yet" not in row["place"].lower()]
    assert bare == []


def test_the_numbers_are_those_of_the_list(shared: Path) -> None:
    """The list from which the seeds are told names the same numbers."""
    appendix = (shared / "seed-checklist.md").read_text(encoding="utf-8").partition("## Appendix")[2]

    assert [row["id"] for row in rows()] == sorted(set(re.findall(r"\bS[0-4]\.\d\d\b", appendix)))


def test_each_place_is_there() -> None:
    """Pages, headings, folders and modules that the rows name exist."""
    lost = []
    for row in rows():
        for link in _LINK.finditer(row["place"]):
            target, _, heading = link["target"].partition("#")
            page = (PAGE.parent / target).resolve()
            if not page.exists() or (heading and heading not in headings(page)):
                lost.append((row["id"], link["target"]))
        lost += [(row["id"], each) for each in _FILE.findall(row["place"]) if not (ROOT / each).exists()]

    assert lost == []


def headings(page: Path) -> set[str]:
    """The names by which the headings of a page are linked to."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in found}


def test_each_test_is_one() -> None:
    """Tests that the rows name are collected; all that stands in their cell is tests."""
    named = [(row["id"], test["file"], test["name"]) for row in rows() for test in _TEST.finditer(row["tests"])]

    assert [each for each in named if not (ROOT / each[1]).is_file() or each[2] not in collected(each[1])] == []
    assert [row["id"] for row in rows() if _TEST.sub("", row["tests"]).replace("<br>", "")] == []
