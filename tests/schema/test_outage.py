"""After a silence nobody is given up for what the silence did; otherwise recovery waits for a lease, and no longer."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sql_queue import Queue

Connection = psycopg.Connection[Any]


class Clock:
    """The database's clock, moved by the test; it begins long after the server was started."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.forward(3600)
        connection.execute("update pulse set at = clock_time()")

    def forward(self, seconds: float) -> None:
        self._connection.execute(
            "create or replace function clock_time() returns timestamptz language sql stable as"
            f" 'select timestamptz ''{self._now()}'' + {seconds} * interval ''1 second'''"
        )

    def _now(self) -> Any:
        row = self._connection.execute("select clock_time()").fetchone()
        assert row is not None
        return row[0]


@pytest.fixture
def clock(connection: Connection) -> Clock:
    return Clock(connection)


@pytest.fixture
def queue(connection: Connection, clock: Clock) -> Queue:
    """A worker of that time, with a run."""
    made = Queue(connection)
    made.spawn()
    made.claim()
    return made


def recovered(queue: Queue) -> int:
    return int(queue.call("maintain() ->> 'recovered'"))


def rounds(queue: Queue, clock: Clock, seconds: int, *, every: int = 1) -> int:
    """Rounds for so many seconds; after how many of them something was recovered."""
    for passed in range(every, seconds + 1, every):
        clock.forward(every)
        if recovered(queue):
            return passed
    return 0


def test_a_dead_worker_is_given_up_after_its_lease(queue: Queue, clock: Clock) -> None:
    """While rounds are made all the time nothing delays it."""
    assert rounds(queue, clock, 60) == 31


@pytest.mark.parametrize("away", [13, 29, 31, 3600])
def test_an_outage_costs_no_lease(queue: Queue, clock: Clock, away: int) -> None:
    """After a silence a worker has a whole lease to come back in; then it is given up."""
    clock.forward(away)

    assert recovered(queue) == 0
    assert rounds(queue, clock, 60) == 31


@pytest.mark.parametrize("first", ["beat", "register"])
def test_whoever_comes_back_first_finds_that_there_was_an_outage(queue: Queue, clock: Clock, first: str) -> None:
    """A sign of life before the first round does not hide the silence from that."""
    other = queue.new_worker()
    clock.forward(100)
    if first == "beat":
        queue.call("beat(%s, '{}')", other)
    else:
        queue.new_worker()

    assert recovered(queue) == 0


def test_a_worker_that_comes_back_keeps_what_it_holds(queue: Queue, clock: Clock) -> None:
    """Its first beat after the outage counts as ever."""
    clock.forward(100)
    recovered(queue)
    assert rounds(queue, clock, 29) == 0
    beat = "select unnest(tasks) from beat(%s, %s)"
    assert len(queue.connection.execute(beat, (queue.worker, [(queue.worker << 32) + 1])).fetchall())

    assert rounds(queue, clock, 29) == 0


def test_a_database_that_comes_and_goes_was_away_all_the_time(queue: Queue, clock: Clock) -> None:
    """A glimpse of it between two outages takes no lease away."""
    for _ in range(5):
        clock.forward(100)
        assert recovered(queue) == 0
        assert rounds(queue, clock, 3) == 0

    assert rounds(queue, clock, 60) == 28


def test_a_worker_that_was_overdue_before_the_outage_gets_no_grace(queue: Queue, clock: Clock) -> None:
    """It had its lease."""
    assert rounds(queue, clock, 30) == 0
    clock.forward(2)
    queue.connection.execute("update pulse set at = clock_time()")  # a round that has not got to it
    clock.forward(100)

    assert recovered(queue) == 1


def test_rounds_may_be_far_apart(queue: Queue, clock: Clock) -> None:
    """Where workers are there and beat, it is no outage that nobody makes a round."""
    other = queue.new_worker()
    for _ in range(4):
        clock.forward(10)
        queue.call("beat(%s, '{}')", other)

    assert recovered(queue) == 1


def test_the_dead_are_found_where_nobody_beats(queue: Queue, clock: Clock) -> None:
    """Where every round follows a silence because no worker is left, it takes an hour, and not for ever."""
    assert 3600 <= rounds(queue, clock, 4000, every=20) <= 3700


def test_each_worker_gets_its_own_lease(queue: Queue, clock: Clock) -> None:
    """A worker with a long lease does not hold up the recovery of others."""
    queue.new_worker(lease_seconds=3600)
    clock.forward(100)
    recovered(queue)

    assert rounds(queue, clock, 60) == 31


def test_a_clock_set_back_does_not_prolong_the_grace(queue: Queue, clock: Clock) -> None:
    """Recovery waits for a lease by the new clock."""
    clock.forward(100)
    recovered(queue)
    clock.forward(-1000)
    queue.connection.execute("update worker set last_seen = clock_time()")

    assert rounds(queue, clock, 60) == 31


def test_a_server_that_was_just_started_gives_nobody_up(queue: Queue, connection: Connection) -> None:
    """However short it was away: the first round after a start is followed by a lease's time."""
    connection.execute(
        "create or replace function clock_time() returns timestamptz language sql stable as"
        " 'select pg_postmaster_start_time() + interval ''1 second'''"
    )
    connection.execute(
        "update pulse set at = clock_time() - interval '2 seconds';"
        " update worker set last_seen = clock_time() - interval '31 seconds'"
    )

    assert recovered(queue) == 0


def test_a_round_beside_another_gives_nobody_up(queue: Queue, clock: Clock, database_url: str) -> None:
    """While a session is finding that there was a silence, no other recovers by what was before."""
    clock.forward(100)
    options = "-c search_path=absurd,public"
    with psycopg.connect(database_url, options=options) as other:
        other.execute("select maintain()")
        assert recovered(queue) == 0
    assert recovered(queue) == 0


def test_a_worker_can_be_given_up_at_once(queue: Queue) -> None:
    """By who knows that it is dead: once, and a number that is not there is no error."""
    assert queue.call("give_up_worker(%s)", queue.worker) == 1
    assert queue.call("give_up_worker(%s)", queue.worker) == 0
    assert queue.call("give_up_worker(%s)", 999) == 0
    assert queue.counts() == {"pending": 1}


def test_neighbours_are_those_that_said_so(queue: Queue) -> None:
    """Same machine but for the last part; who said nothing, has left or was given up is none."""
    sql = "register_worker('w', 'here', 1, '{default}', 1, '{}', '{}', 30, %s)"
    me, other, far, left = (queue.call(sql, machine) for machine in ("a/b/1", "a/b/2", "a/c/3", "a/b/4"))
    queue.call("unregister_worker(%s)", left)

    rows = queue.connection.execute("select id, pid, machine from get_neighbours(%s)", (me,)).fetchall()

    assert rows == [(other, 1, "a/b/2")]
    assert far not in rows
    assert queue.connection.execute("select * from get_neighbours(%s)", (queue.worker,)).fetchall() == []


def test_an_identity_tells_databases_and_schemas_apart(queue: Queue, connection: Connection) -> None:
    """Cluster, database and schema."""
    cluster, database, schema = queue.call("get_identity()").split("/")

    assert cluster.isdigit()
    assert (database, schema) == (connection.info.dbname, "absurd")
