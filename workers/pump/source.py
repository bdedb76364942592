"""The queues a worker claims from, and whose turn it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from absurd.model import Claim
from absurd.workers.pump.calls import Answer
from absurd.workers.pump.marks import Marks

Until = Literal["forever", "burst", "drain"]
"""When a worker leaves by itself: never, when nothing can be claimed now, when nothing is left to come."""


class Source:
    """A queue this worker claims from."""

    __slots__ = ("credit", "due", "heard", "hungry", "marks", "name", "queue_id", "quiet", "waits", "weight")

    def __init__(self, name: str, queue_id: int, weight: int = 1) -> None:
        self.name = name
        self.queue_id = queue_id
        self.weight = weight
        self.credit = 0
        self.marks = Marks()
        self.hungry = True
        """Whether a claim may find something: false from a look from the base on, unless that finds all it wants."""
        self.due = 0.0
        """When to look again all the same, in monotonic seconds; counts while not hungry."""
        self.waits = False
        """Whether something waits there for a slot: then it is due when a run ends, and nothing is claimed ahead."""
        self.quiet = False
        """Whether nothing waits there, and it will be heard when something does."""
        self.heard = 0
        """How often something was heard of it."""

    def wake(self) -> None:
        """Something may be there to be claimed."""
        self.hungry, self.quiet = True, False
        self.heard += 1

    def rest(self, seconds: float) -> None:
        """Claim nothing for so long, unless something is heard."""
        self.hungry = False
        self.due = time.monotonic() + seconds

    def learn(self, sent: Step, answer: Answer, poll_seconds: float) -> None:
        """Whether to come again at once, from the answer to a step that claimed here."""
        self.marks.note(answer.levels, answer.seqs, sent.wanted, sent.from_base, sent.at)
        self.waits = answer.waits
        if answer.wait_ms is not None:  # never longer than a poll: the rate may be changed meanwhile
            self.rest(min(answer.wait_ms / 1000, poll_seconds))
        elif len(answer.task_ids) == sent.wanted or (answer.waits and answer.task_ids):
            self.hungry = True

    def hear_end(self, claim: Claim) -> None:
        """A run has ended, of whatever queue: what it held, or its slot, may be what something waits for here."""
        if claim.needs or self.waits:
            self.hungry = True


class Step(NamedTuple):
    """A step on its way: what it claims, from where, since when."""

    source: Source | None
    lease: int
    wanted: int
    from_base: bool
    at: float


def choose(sources: Sequence[Source], now: float) -> Source | None:
    """The queue whose turn it is among those that may have something, by smooth weighted round robin.

    `now` is in monotonic seconds.
    """
    for source in sources:
        if not source.hungry and now >= source.due:
            source.hungry = True
    hungry = [source for source in sources if source.hungry]
    if len(hungry) <= 1:
        return hungry[0] if hungry else None
    for source in hungry:
        source.credit += source.weight
    chosen = max(hungry, key=lambda each: each.credit)
    chosen.credit -= sum(source.weight for source in hungry)
    return chosen
