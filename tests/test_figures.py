"""Figures of the documentation show what the code does now."""

from __future__ import annotations

import pytest
from figures import FIGURES, FOLDER, Figure, check, digest

PAGES = FOLDER.parent


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_shows_what_is_measured(figure: Figure) -> None:
    """Some of its points are measured anew, and agree with the numbers that are kept; `make soak` measures all."""
    check(figure, figure.again)


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
