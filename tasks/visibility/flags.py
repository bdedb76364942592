"""Why a visibility is flagged: one registry of reasons, each a bit, that all stages share."""

from __future__ import annotations

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

Reasons = NDArray[np.uint16]
"""(row, channel, correlation): bits of `Reason`; 0 where a visibility may be used."""


_AT_ONCE = 1 << 20


class Reason(IntFlag):
    """Bits, as they are kept: none is ever given another meaning.

    The first ones are in the order in which they are found, so the lowest of a visibility tells what flagged it first.
    """

    INPUT = 1 << 0
    MISSING = 1 << 1
    INVALID = 1 << 2
    ZERO = 1 << 3
    CLIP = 1 << 4
    AUTO = 1 << 5
    EDGE = 1 << 6
    SIGMA = 1 << 7
    SUM = 1 << 8
    AOFLAGGER = 1 << 9
    TOGETHER = 1 << 10
    GROWN = 1 << 11
    DEAD = 1 << 12


MEANING = {
    Reason.INPUT: "was flagged already, by whoever recorded or converted it",
    Reason.MISSING: "is of a sub-band that never came",
    Reason.INVALID: "is not a number, infinite, or larger than anything received",
    Reason.ZERO: "is exactly 0: nothing was recorded",
    Reason.CLIP: "has an amplitude outside the limits that were given",
    Reason.AUTO: "is of an antenna with itself",
    Reason.EDGE: "is at an edge of the band or of a sub-band",
    Reason.SIGMA: "is so many standard deviations from what is around it",
    Reason.SUM: "is one of neighbours in time or frequency whose sum is too far from what is around them",
    Reason.AOFLAGGER: "was flagged by AOFlagger",
    Reason.TOGETHER: "is of a time and channel at which all baselines together stand out",
    Reason.GROWN: "lies among flagged ones: in time, in frequency or in the other correlations",
    Reason.DEAD: "is of an antenna of which nearly all is flagged",
}
"""What holds of a visibility with that bit."""

INTERFERENCE = Reason.CLIP | Reason.SIGMA | Reason.SUM | Reason.TOGETHER | Reason.AOFLAGGER
"""What is flagged since something else than the sky was received; only this grows."""
SEARCHED = INTERFERENCE | Reason.GROWN | Reason.DEAD
"""What each search finds anew.  What an earlier one has found takes no part: it would grow further every time."""
STRUCTURE = Reason.AUTO | Reason.EDGE | Reason.MISSING
"""What says nothing about the antennas: it is the same for each."""


def histogram(reasons: Reasons) -> NDArray[np.int64]:
    """How many visibilities have each combination of reasons, (65536,)."""
    flat = reasons.reshape(-1)
    counts = np.zeros(1 << 16, np.int64)
    for first in range(0, flat.size, _AT_ONCE):
        counts += np.bincount(flat[first : first + _AT_ONCE], minlength=1 << 16)
    return counts


def tally(combinations: NDArray[np.int64], *, first: bool = False) -> dict[str, int]:
    """How many visibilities of a `histogram` have each reason, by its name in lower case; those of none are left out.

    With `first`, each visibility counts only for the reason that came first.
    """
    bits = np.arange(combinations.size)
    if first:
        bits &= -bits
    found = {each: int(combinations[(bits & each) != 0].sum()) for each in Reason}
    return {str(each.name).lower(): count for each, count in found.items() if count}


def names(bits: int) -> list[str]:
    """The reasons in a mask, in lower case."""
    return [str(each.name).lower() for each in Reason if bits & each]
