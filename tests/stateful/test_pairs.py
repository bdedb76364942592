"""Two sessions of pairs of functions at once: no deadlock, no lost update, nothing that does not add up."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import boundaries
import psycopg
import pytest
import recount
import world
from proof import amount, seed_of
from sessions import Session

from absurd.schema.grants import FUNCTIONS, READER

REFUSALS = frozenset({"AB002", "AB004", "AB012", "AB014", "AB015", "AB016", "AB017", "AB020", "AB021", "AB022"})
"""What one of two calls may be told: its claim is lost, the task's state is another, what it names is gone or taken."""
PASSING_BY = frozenset({
    "advance_marks", "check_token", "claim_runs", "drop_partition", "ensure_partitions", "fold_tallies", "maintain",
    "promote_timers", "recover_runs", "register_executors", "step", "sweep_late", "watch_feed",
})  # fmt: skip
"""Functions that leave alone what another session holds: what they did is not told by the order of commits."""
UNREPEATABLE = PASSING_BY | {
    "convert_subband_group", "fire_schedule", "record_subbands", "respawn_task", "settle_subband_groups",
    "trigger_schedule",
}  # fmt: skip
"""Functions whose two runs are not alike: these, and those that draw the id of a task."""


class Pairs:
    """Two sessions, an observer, and a queue that is put back before each pair."""

    def __init__(self, url: str) -> None:
        self.observer = Session(url)
        self.connection = self.observer.connection
        recount.freeze(self.connection)
        self.world = world.World(self.connection)
        boundaries.install(self.connection)
        self.saved = recount.Saved(self.connection)
        self.calls = {name: call(self.world) for name, call in world.CALLS.items()}
        self.sessions = [Session(url), Session(url)]
        # What is rolled back is apart: psycopg forgets then what it has prepared, and the observer asks much.
        self.trial = Session(url)
        all_of_them = (self.observer, *self.sessions, self.trial)
        self.stops = [boundaries.Stops(each.connection) for each in all_of_them]
        for each, stops in zip(all_of_them, self.stops, strict=True):
            each.connection.execute("set deadlock_timeout = '100ms'")
            stops.arm()

    def close(self) -> None:
        for each in (self.observer, *self.sessions, self.trial):
            each.connection.close()

    def in_turn(self, *names: str) -> Any:
        """What the calls leave one after the other; nothing stays of it."""
        connection = self.trial.connection
        with connection.transaction(force_rollback=True):
            for name in names:
                with suppress(psycopg.Error), connection.transaction():
                    self.trial.call(*self.calls[name])
            return recount.dump(connection)

    def held_open(self, first: str, second: str) -> list[str]:
        """The first call is made and its transaction held open while the second is made."""
        self.saved.restore()
        one, two = self.sessions
        one.begin()
        problems = [*self._try(first, lambda: one.call(*self.calls[first]))]
        two.call_later(*self.calls[second])
        self._until_it_waits(two)
        one.commit() if not problems else one.connection.execute("rollback")
        return [*problems, *self._try(second, two.result), *recount.faults(self.connection)]

    def halfway(self, first: str, second: str, stop: int) -> list[str]:
        """The second call is made while the first one stands between two of its statements."""
        self.saved.restore()
        one, two = self.sessions
        self.connection.execute("select pg_advisory_lock(4711)")
        try:
            self.stops[1].arm(stop, "wait")
            one.call_later(*self.calls[first])
            self._until_it_waits(one)
            two.call_later(*self.calls[second])
            self._until_it_waits(two)
        finally:
            self.connection.execute("select pg_advisory_unlock(4711)")
        return [*self._try(first, one.result), *self._try(second, two.result), *recount.faults(self.connection)]

    def _until_it_waits(self, session: Session) -> None:
        deadline = time.monotonic() + 120
        while not session.waits(self.observer):
            assert time.monotonic() < deadline, "it neither waits nor ends"

    def _try(self, name: str, call: Any) -> Iterator[str]:
        try:
            call()
        except psycopg.Error as error:
            if error.sqlstate not in REFUSALS:
                yield f"{name} was told {error.sqlstate}: {error}"


@pytest.fixture(scope="module")
def pairs(module_database_url: str) -> Iterator[Pairs]:
    made = Pairs(module_database_url)
    yield made
    made.close()


def test_every_function_that_changes_something_is_in_the_pairs(pairs: Pairs) -> None:
    """A new function needs a call in tests/world.py, or a place among those that only read."""
    granted = set().union(*(names for names in FUNCTIONS.values() if names is not None))

    assert world.CALLS.keys() == world.changing_functions(pairs.connection)
    assert granted <= world.CALLS.keys() | world.READS
    assert READER <= world.READS | {"await_tasks"}


def test_pairs_held_open(pairs: Pairs) -> None:
    """With one call's transaction open the other waits or passes by; all adds up, and both have had their effect."""
    chance = random.Random(seed_of("pairs held open"))
    problems = []
    for first, second in _some_pairs(chance):
        found = pairs.held_open(first, second)
        if not found and not UNREPEATABLE & {first, second} and chance.random() < amount(30, 100) / 100:
            left = recount.dump(pairs.connection)
            pairs.saved.restore()
            if left not in (pairs.in_turn(first, second), pairs.in_turn(second, first)):
                found = ["what is left is what neither order leaves"]
        problems += [f"{first} held open beside {second}: {each}" for each in found]

    assert not problems, "\n".join(problems)


def test_pairs_halfway(pairs: Pairs) -> None:
    """One call stands between two of its statements while the other is made: no deadlock, and all adds up."""
    chance = random.Random(seed_of("pairs halfway"))
    problems = []
    lengths = {name: _length(pairs, name) for name in world.CALLS}
    for first, second in _some_pairs(chance):
        for stop in chance.sample(range(1, lengths[first] + 1), min(amount(1, 20), lengths[first])):
            problems += [f"{first} at {stop} beside {second}: {each}" for each in pairs.halfway(first, second, stop)]

    assert not problems, "\n".join(problems)


def _some_pairs(chance: random.Random) -> list[tuple[str, str]]:
    """All pairs in the long version; usually as many as there are functions times fifteen, others each time."""
    names = sorted(world.CALLS)
    pairs = [(first, second) for first in names for second in names]
    return chance.sample(pairs, amount(15 * len(world.CALLS), len(pairs)))


def _length(pairs: Pairs, name: str) -> int:
    pairs.saved.restore()
    with pairs.connection.transaction(force_rollback=True):
        pairs.stops[0].arm()
        pairs.observer.call(*pairs.calls[name])
        return pairs.stops[0].passed()
