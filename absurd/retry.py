"""When the next attempt at a failed task is due (pure)."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from absurd.errors import InvalidOptionError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    The delay after failed attempt n (counted from 1) is ``min(maximum, base * factor ** (n - 1))``
    seconds, then multiplied by a random number in ``[1 - jitter, 1 + jitter]`` and held to
    `maximum` again.
    """

    max_attempts: int = 5
    """How many attempts a task has in all; 1 means no retry."""
    base: float = 1.0
    """Delay after the first failed attempt, in seconds."""
    factor: float = 2.0
    """By how much the delay grows from one attempt to the next; 1 keeps it fixed."""
    maximum: float = 300.0
    """The longest delay, in seconds."""
    jitter: float = 0.2
    """Share of the delay that chance may add or take, 0 to 1."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("max_attempts", 0, 32_767),
            ("base", 0.0, 31_536_000.0),
            ("factor", 1.0, 1_000.0),
            ("maximum", 0.0, 31_536_000.0),
            ("jitter", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InvalidOptionError(
                    f"retry.{name} is {value!r}; it must be a number from {low} to {high}", option=f"retry.{name}"
                )

    def delay(self, attempt: int, chance: random.Random | None = None) -> float:
        """Seconds to wait after failed attempt `attempt` (1 for the first)."""
        try:
            plain = self.base * self.factor ** max(0, attempt - 1)
        except OverflowError:  # far past any maximum
            plain = self.maximum
        spread = (chance or random).uniform(1 - self.jitter, 1 + self.jitter)
        return min(self.maximum, min(self.maximum, plain) * spread)

    def to_json(self) -> dict[str, Any]:
        """The policy as it is stored with a task."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> RetryPolicy:
        """The policy that `to_json` stored; unknown keys are refused with their name."""
        unknown = set(stored) - set(cls.__dataclass_fields__)
        if unknown:
            names = ", ".join(sorted(unknown))
            raise InvalidOptionError(f"retry has unknown keys: {names}", option="retry")
        return cls(**stored)
