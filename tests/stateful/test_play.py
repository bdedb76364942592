"""The player of machines: it finds what fails, makes it short, and repeats it by its seed."""

from __future__ import annotations

import random
from typing import ClassVar

import pytest
from stateful.play import Machine, play


class Climbing(Machine):
    """Fails on the third step up, whatever comes between."""

    weights: ClassVar = {"up": 1, "aside": 4, "rest": 1}

    def __init__(self) -> None:
        super().__init__()
        self.height = 0

    def up(self, chance: random.Random) -> None:
        self.log.append("up")
        self.height += 1

    def aside(self, chance: random.Random) -> None:
        self.log.append(f"aside {chance.random()}")

    def rest(self, chance: random.Random) -> None:
        """Does nothing, and so does not count."""

    def check(self) -> None:
        assert self.height < 3, "too high"


def test_a_failure_is_told_by_its_shortest_play() -> None:
    """Of many steps those are left without which it does not fail."""
    with pytest.raises(AssertionError) as caught:
        play(Climbing, 7, plays=1, steps=100)

    lines = str(caught.value).splitlines()
    assert lines[:4] == ["play 0 of seed 7, 3 steps:", "up", "up", "up"]
    assert "too high" in lines[4]


def test_rules_that_did_something_are_counted() -> None:
    """The same seed gives the same play; a rule that made no call has not acted."""
    acted = play(Climbing, 7, plays=2, steps=2)

    assert acted == play(Climbing, 7, plays=2, steps=2)
    assert "rest" not in acted
    assert acted
