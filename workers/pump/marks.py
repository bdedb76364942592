"""Where a worker's claims on one queue begin to look (pure).

Rows that were claimed leave dead entries at the low end of the `ready` index until vacuum removes
them, which a held snapshot can delay for hours.  A claim that starts above them costs the same
however many there are.  But a row with a lower seq may still commit: so a claim that comes back
short, and one a second in any case, looks from the base mark that the database keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

LOOK_BELOW_SECONDS = 1.0
"""How long full claims may go on without a look from the base."""


class Marks:
    """The hot mark of each level: the lowest seq worth looking at, as far as this worker knows."""

    __slots__ = ("_hot", "_looked_at", "short")

    def __init__(self) -> None:
        self._hot: dict[int, int] = {}
        self._looked_at = float("-inf")
        self.short = True
        """Whether the last claim found less than it wanted."""

    def from_base(self, now: float) -> bool:
        """Whether the next claim must look from the base; `now` in monotonic seconds."""
        return self.short or now - self._looked_at >= LOOK_BELOW_SECONDS

    def arrays(self, from_base: bool) -> tuple[list[int], list[int]]:
        """Levels and their marks, as a claim takes them; none at all means all from the base."""
        if from_base:
            return [], []
        return list(self._hot), list(self._hot.values())

    def note(self, levels: Sequence[int], seqs: Sequence[int], wanted: int, from_base: bool, now: float) -> None:
        """Learn from a claim that took these rows, ordered by falling level, then rising seq."""
        self.short = len(seqs) < wanted
        if from_base:
            self._looked_at = now
        last: dict[int, int] = dict(zip(levels, seqs, strict=True))  # the highest of each level
        for level, seq in last.items():
            # A full look from the base stopped at its last row, which may lie below the old mark.
            stopped_here = from_base and not self.short and level == levels[-1]
            self._hot[level] = seq + 1 if stopped_here else max(seq + 1, self._hot.get(level, 0))
