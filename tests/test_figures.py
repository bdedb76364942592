"""Figures of the documentation show what the code does now."""

from __future__ import annotations

import json

import numpy as np
import pytest
from figures import FIGURES, FOLDER, Figure, digest, measured

PAGES = FOLDER.parent


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_shows_what_is_measured(figure: Figure) -> None:
    """Some of its points are measured anew, and agree with the numbers that are kept."""
    kept = json.loads(figure.numbers.read_text(encoding="utf-8"))
    found = measured(figure, figure.again)

    assert kept[figure.x_label] == list(figure.places) and list(kept) == list(found)
    at = [figure.places.index(place) for place in figure.again]
    for name, values in found.items():
        told = np.array(kept[name])[at]
        np.testing.assert_allclose(values, told, rtol=figure.relative, atol=figure.absolute, err_msg=name)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_picture_is_of_the_numbers_beside_it(figure: Figure) -> None:
    """The picture names the numbers it was drawn from, is small, and stands on a page."""
    picture = figure.picture.read_text(encoding="utf-8")

    assert digest(figure) in picture, f"draw it anew: .venv/bin/python tests/figures.py {figure.name}"
    assert len(picture) < 60_000
    assert any(f"](figures/{figure.picture.name})" in page.read_text(encoding="utf-8") for page in PAGES.glob("*.md"))


def test_no_figure_is_left_over() -> None:
    """The folder holds the pictures and numbers of figures, and nothing else."""
    assert {each.name for each in FOLDER.iterdir()} == {
        f"{figure.name}.{ending}" for figure in FIGURES for ending in ("json", "svg")
    }
