"""Workers come, give signs of life, and are lost; and the database is away for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from stateful.model.claims import Claims
from stateful.model.things import SECOND, Task, Worker

LEASE = 30 * SECOND
SILENCE = 12 * SECOND
"""So long is nobody silent while the database is there: four tenths of a lease."""
HOUR = 3600 * SECOND


class Workers(Claims):
    """Workers and their leases."""

    def __init__(self) -> None:
        super().__init__()
        self.pulse = 0
        """When anybody last gave a sign of life."""
        self.away_from: int | None = None
        self.back_at: int | None = None

    def note_pulse(self) -> None:
        """Nobody was there for long: so the database was away.  All at once again: it was away the whole time."""
        if self.now - self.pulse <= SECOND:
            return
        if self.pulse < self.now - SILENCE:
            again = self.back_at is not None and self.pulse < self.back_at + LEASE
            if not (again and self.away_from is not None and self.now < self.away_from + HOUR):
                self.away_from = self.pulse
            self.back_at = self.now
        self.pulse = self.now

    def _seen(self, worker: Worker) -> int:
        """One that could not answer because the database was away has a whole lease from when it was back."""
        if self.away_from is not None and self.back_at is not None and worker.seen >= self.away_from - LEASE:
            return max(worker.seen, self.back_at)
        return worker.seen

    def register(self, worker: int, max_attempts: int, *, dead_letters: bool) -> None:
        self.note_pulse()
        self.workers[worker] = Worker(self.now, max_attempts=max_attempts, dead_letters=dead_letters)

    def beat(self, worker: int, known: Iterable[int], started: Iterable[UUID]) -> dict[UUID, int] | None:
        """What the worker still holds; None when it was given up.  Old leases that it does not know go back."""
        if worker not in self.workers:
            return None
        self.note_pulse()
        self.workers[worker].seen, self.workers[worker].started = self.now, frozenset(started)
        known = set(known)
        self._hand_back(
            lease
            for lease in self.leases_of(worker)
            if lease not in known and self.claimed_at[lease] < self.now - LEASE
        )
        return {task.id: task.lease for task in self.tasks.values() if task.lease in known}

    def leave(self, worker: int) -> None:
        del self.workers[worker]
        self._hand_back(self.leases_of(worker))

    def _hand_back(self, leases: Iterable[int]) -> None:
        self.again([task for lease in leases for task in self.held(lease)], ahead=True)

    # Lost ---------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Workers that were not heard of for longer than their lease are given up."""
        silent = [name for name, worker in self.workers.items() if self._seen(worker) < self.now - LEASE]
        return sum(self.give_up(worker) for worker in sorted(silent))

    def give_up(self, name: int) -> int:
        """Attempts are spent by what has certainly started; in doubt by none, but only once."""
        worker = self.workers[name]
        lost = [task for lease in self.leases_of(name) for task in self.held(lease)]
        spent = [task for task in lost if task.suspect or self.has_certainly_started(task)]
        del self.workers[name]
        for task in lost:
            task.lease = None
        for task in spent:
            task.used = max(task.used, task.attempt)
        last = [task for task in spent if task.attempt >= self._most(task, worker)]
        goes_on = [task for task in lost if task not in last]
        for task in goes_on:
            task.attempt += task in spent
            task.suspect = True
        self.again(goes_on, ahead=True)
        self.bury(last, ["worker_lost"] * len(last), dead_letters=worker.dead_letters)
        return len(lost)

    @staticmethod
    def _most(task: Task, worker: Worker) -> int:
        return worker.max_attempts if task.max_attempts is None else task.max_attempts

    def maintain(self) -> dict[str, int]:
        """The regular round."""
        self.note_pulse()
        recovered = self.recover()
        overdue = 0 if recovered else self.cancel_overdue()
        promoted = self.promote()
        self.end_waits()
        return {"recovered": recovered, "overdue": overdue, "promoted": promoted}
