"""What the proofs share: their seed, and how long they go on."""

from __future__ import annotations

import os
import random

# Read when this is imported: no test sees a variable of absurd's.
_SEED = os.environ.get("ABSURD_TEST_SEED")
_SOAK = bool(os.environ.get("ABSURD_TEST_SOAK"))


def seed_of(name: str) -> int:
    """The seed of a run: ABSURD_TEST_SEED, or a new one; printed, so that a failure can be repeated."""
    seed = int(_SEED or random.randrange(10**6))
    print(f"{name}: ABSURD_TEST_SEED={seed}")
    return seed


def amount(usual: int, soak: int) -> int:
    """How much of something: `usual`, or `soak` in the long version (`make soak` sets ABSURD_TEST_SOAK)."""
    return soak if _SOAK else usual
