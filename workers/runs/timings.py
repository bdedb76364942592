"""How long runs take and how long tasks wait for their first one, for who scrapes this worker."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from absurd.executor import Executor
from absurd.metrics import Histogram, Sample
from absurd.model import Claim
from absurd.outcome import Outcome, Returned, Suspended

Execute = Callable[[Claim, Executor], Awaitable[Outcome | None]]


class Timings:
    """Kept from the start of the process.  Where nobody scrapes there is none, and nothing is paid for it."""

    def __init__(self) -> None:
        self._starts = Histogram("absurd_task_start_seconds")
        self._runs = Histogram("absurd_run_seconds")
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._suspending: set[str] = set()

    def around(self, execute: Execute) -> Callable[[Claim, Executor], Coroutine[Any, Any, Outcome | None]]:
        """`execute`, with each run timed."""

        async def timed(claim: Claim, executor: Executor) -> Outcome | None:
            at, begun = time.time(), time.monotonic()
            kind = "returned"  # by whoever stops it
            outcome: Outcome | None = None
            try:
                outcome = await execute(claim, executor)
                kind = "lost" if outcome is None else type(outcome).__name__.lower()
            except Exception:
                kind = "failed"
                raise
            finally:
                self._runs.observe(time.monotonic() - begun, claim.name)
                self._outcomes[claim.name, kind] += 1
                self._note_start(claim, at, outcome)
            return outcome

        return timed

    def samples(self) -> Iterator[Sample]:
        """All that was timed until now."""
        yield from self._starts.samples()
        yield from self._runs.samples()
        for (executor, outcome), count in sorted(self._outcomes.items()):
            yield Sample("absurd_runs_total", count, {"executor": executor, "outcome": outcome})

    def _note_start(self, claim: Claim, at: float, outcome: Outcome | None) -> None:
        # A run that goes on after a suspension looks as the first one did: what suspends is left out.  What was handed
        # back or lost is begun anew, and counts then.
        if type(outcome) is Suspended:
            self._suspending.add(claim.name)
        ended = outcome is not None and type(outcome) is not Returned
        if ended and claim.attempt == 1 and claim.name not in self._suspending:
            spawned = (claim.task_id.int >> 80) / 1000  # a UUIDv7, by the clock of who made it
            self._starts.observe(max(0.0, at - spawned), claim.queue)
