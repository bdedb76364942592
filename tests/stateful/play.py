"""Machines of rules, played at random: which rule comes next goes by weights, and a play that fails is made short."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import psycopg


class Machine:
    """What a machine is to the player: it acts by the throw of a die, and is checked after every act."""

    weights: ClassVar[Mapping[str, int]]
    """Names of its rules, which are methods that take a random.Random, and how often each comes."""

    def __init__(self) -> None:
        self.log: list[str] = []
        """Calls that were made, as they can be repeated by hand."""
        self.acted: Counter[str] = Counter()

    def act(self, die: int) -> None:
        """One rule, chosen and fed by one number, so that it stays the same when others are left out."""
        chance = random.Random(die)
        name = chance.choices(list(self.weights), list(self.weights.values()))[0]
        calls = len(self.log)
        getattr(self, name)(chance)
        if len(self.log) > calls:
            self.acted[name] += 1
            self.check()

    def check(self) -> None:
        """Raise an AssertionError when something is wrong."""


def play(make: Callable[[], Machine], seed: int, *, plays: int, steps: int) -> Counter[str]:
    """Play so often, so many steps each.  Returns how often each rule did something.

    Raises an AssertionError with the calls of a short play that fails.
    """
    acted: Counter[str] = Counter()
    for n in range(plays):
        chance = random.Random(f"{seed}/{n}")
        dice = [chance.getrandbits(64) for _ in range(steps)]
        machine = make()
        if _failure(machine, dice) is not None:
            dice = _shortened(make, dice)
            machine = make()
            error = _failure(machine, dice)
            head = f"play {n} of seed {seed}, {len(dice)} steps:"
            raise AssertionError("\n".join([head, *machine.log, f"{type(error).__name__}: {error}"]))
        acted += machine.acted
    return acted


def _failure(machine: Machine, dice: Sequence[int]) -> Exception | None:
    """How a play fails; None when it does not."""
    try:
        for die in dice:
            machine.act(die)
    except (AssertionError, psycopg.Error) as error:
        return error
    return None


def _shortened(make: Callable[[], Machine], dice: Sequence[int]) -> list[int]:
    """The play without those steps, in ever smaller parts, without which it fails as well."""
    left = list(dice)
    size = len(left)
    while size:
        at = len(left)
        while at > 0:
            at = max(0, at - size)
            tried = left[:at] + left[at + size :]
            if _failure(make(), tried) is not None:
                left = tried
        size //= 2
    return left
