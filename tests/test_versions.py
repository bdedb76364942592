"""What is stated of versions is what the package says of itself."""

from __future__ import annotations

import re

from house import ROOT, project

from absurd.database_errors import OLDEST_SERVER

PAGE = (ROOT / "docs" / "reference" / "versions.md").read_text(encoding="utf-8")


def test_the_stated_pythons_are_those_of_the_package() -> None:
    """From the oldest that it installs on to the newest that it names."""
    about = project()["project"]
    named = [each.rpartition(" ")[2] for each in about["classifiers"] if re.search(r"Python :: 3\.\d+$", each)]

    assert f"| Python | {named[0]} to {named[-1]} |" in PAGE
    assert about["requires-python"] == f">={named[0]}"


def test_the_stated_server_is_the_oldest_that_is_taken() -> None:
    """An older one is refused."""
    assert f"| PostgreSQL | {OLDEST_SERVER} and newer;" in PAGE


def test_the_policy_stands_where_people_look() -> None:
    """SECURITY.md leads to it, and the front page of the reference."""
    assert "docs/reference/versions.md" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "(versions.md)" in (ROOT / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
