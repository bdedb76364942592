"""Figures of the documentation at all of their places: minutes.  `make soak` runs it."""

from __future__ import annotations

import pytest
from figures import FIGURES, Figure, check


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_shows_what_is_measured_at_each_place(figure: Figure) -> None:
    """Every number that is drawn is measured anew, and agrees."""
    check(figure, figure.places)
