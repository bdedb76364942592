"""What flagging finds of known interference, and beside it, is what the documentation says."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from flag_table import MAKERS, STRATEGIES, case, measured
from house import ROOT

TOLERANCE = 0.5
"""Per cent: other processors round other digits."""


def documented() -> dict[str, list[float]]:
    """The numbers of the table, per cent: of each case found and wrongly flagged, by strategy."""
    page = (ROOT / "docs" / "executors" / "flagging.md").read_text(encoding="utf-8")
    table = page.partition("<!-- measured: interference -->")[2].partition("\n\n\n")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    return {
        row[0]: [float(cell.removesuffix(" %")) if cell else float("nan") for cell in row[2:]]
        for row in rows
        if row[-1].endswith(" %")
    }


def test_the_table_has_every_case() -> None:
    """None is left out of the documentation, and its share of interference is the one that was made."""
    assert list(documented()) == list(MAKERS)


@pytest.mark.parametrize("name", MAKERS, ids=[re.sub(r"[:,].*", "", name) for name in MAKERS])
def test_what_is_found_is_documented(name: str) -> None:
    """Of interference as much is found, and as much flagged beside it, as the table says."""
    made, told = case(name), documented()[name]
    for number, strategy in enumerate(STRATEGIES):
        if strategy == "aoflagger":
            continue
        np.testing.assert_allclose(measured(made, strategy), told[2 * number : 2 * number + 2], atol=TOLERANCE)


@pytest.mark.skipif(shutil.which("aoflagger") is None, reason="AOFlagger is not installed: apt-get install aoflagger")
@pytest.mark.parametrize("name", ["noise", "bursts: all channels at two single times, amplitude 3"])
def test_what_aoflagger_finds_is_documented(name: str) -> None:
    """The program on PATH, by our strategy of it, finds as much as the table says."""
    told = documented()[name]

    np.testing.assert_allclose(measured(case(name), "aoflagger"), told[-2:], atol=TOLERANCE)
