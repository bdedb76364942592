"""Limits of queues: what runs at once, per lane, in a time; lanes in turn; what a worker offers."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue

Connection = psycopg.Connection[Any]
Until = Callable[[Callable[[], object]], None]


class Limited(Queue):
    """The queue `default`, with limits, and a clock that stands until it is moved."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.call("create_queue('default')")

    def limit(self, **limits: Any) -> Any:
        return self.call("set_queue_limits('default', %s)", json.dumps(limits))

    def stop_the_clock(self, second: float = 0.0) -> None:
        """From now on it is `second` seconds after the clock was first stopped."""
        self.start = getattr(self, "start", None) or self.call("clock_timestamp()")
        self.connection.execute(
            "create or replace function clock_time() returns timestamptz language sql stable as"
            f" $$ select timestamptz '{self.start}' + interval '{second} seconds' $$"
        )

    def claim_with_wait(self, wanted: int = 10) -> tuple[list[UUID], int | None]:
        self.claims += 1
        row = self.connection.execute(
            "select task_ids, wait_ms"
            " from claim_runs(%s, (select id from queue where name = 'default'), %s, '{}', '{}')",
            ((self.worker << 32) + self.claims, wanted),
        ).fetchone()
        assert row is not None
        return row[0] or [], row[1]

    def lanes(self, tasks: list[UUID]) -> str:
        """The lanes of tasks, one letter each."""
        return "".join(self.call("coalesce(lane, '-') from task where id = %s", task) for task in tasks)


@pytest.fixture
def queue(connection: Connection) -> Limited:
    return Limited(connection)


def test_no_more_run_than_the_limit_says(queue: Limited) -> None:
    """A claim gets what the limit leaves free, and a place that frees is filled at the next (B15)."""
    queue.limit(running=3)
    tasks = [queue.spawn() for _ in range(5)]

    lease, first, _ = queue.claim(10)
    assert first == tasks[:3]
    assert queue.claim(10)[1] == []

    queue.complete(lease, tasks[1])
    _, second, _ = queue.claim(10)
    assert second == [tasks[3]]
    assert queue.counts() == {"running": 3, "completed": 1, "pending": 1}


@pytest.mark.parametrize("way", ["completed", "failed", "cancelled", "suspended", "returned", "lost"])
def test_every_end_of_a_run_frees_its_place(queue: Limited, way: str) -> None:
    """However a run ends, its place goes to the next: nothing is counted that could be left behind."""
    queue.limit(running=1)
    task, other = queue.spawn(), queue.spawn(priority=-1)
    lease, tasks, _ = queue.claim()
    assert tasks == [task]
    match way:
        case "suspended":
            queue.call("suspend_runs(%s::bigint[], %s, '{0}', '{60}', '{sleep}', '{null}')", [lease], [task])
        case "returned":
            queue.call("return_runs(%s::bigint[], %s, '{null}')", [lease], [task])
        case "lost":
            queue.connection.execute("update worker set last_seen = last_seen - interval '1 hour'")
            queue.call("recover_runs()")
            queue.worker = queue.new_worker()
        case _:
            queue.end(lease, task, way)

    assert queue.claim()[1] == [task if way in ("returned", "lost") else other]
    assert queue.claim()[1] == []


def test_a_limit_may_change_while_tasks_run(queue: Limited) -> None:
    """What runs goes on when a limit falls below it; lifted, everything may run."""
    tasks = [queue.spawn() for _ in range(6)]
    lease, first, _ = queue.claim(3)
    assert first == tasks[:3]

    assert queue.limit(running=2) == {"running": 2}
    assert queue.claim()[1] == []
    queue.complete(lease, *tasks[:2])
    assert queue.claim()[1] == [tasks[3]]

    assert queue.limit(running=None) == {}
    assert queue.claim()[1] == tasks[4:]


def test_limits_are_checked_and_kept(queue: Limited) -> None:
    """What is not named stays as it is; a wrong limit is refused with its name and changes nothing."""
    assert queue.limit(running=4, per_lane=2, fair=True) == {"running": 4, "per_lane": 2, "fair": True}
    assert queue.limit(rate=100, rate_seconds=60, fair=False) == {
        "running": 4, "per_lane": 2, "rate": 100, "rate_seconds": 60,
    }  # fmt: skip
    for wrong, message in (
        ({"running": 0}, "running is 0"),
        ({"per_lane": 1.5}, "per_lane is 1.5"),
        ({"rate": 5}, "rate and rate_seconds go together"),
        ({"rate": 3000000, "rate_seconds": 1}, "at most 1000000 a second"),
        ({"speed": 1}, "unknown limit speed"),
        ({"fair": "yes"}, "fair is"),
    ):
        with pytest.raises(psycopg.Error, match=message) as caught:
            queue.limit(**wrong)
        assert caught.value.sqlstate == "AB001"
    with pytest.raises(psycopg.Error) as caught:
        queue.call("set_queue_limits('nowhere', '{}')")
    assert caught.value.sqlstate == "AB005"
    (listed,) = queue.connection.execute("select limits from list_queues()").fetchall()
    assert listed[0] == {"running": 4, "per_lane": 2, "rate": 100, "rate_seconds": 60}


def test_a_paused_queue_yields_nothing_whatever_its_limits(queue: Limited) -> None:
    """A pause, before or after the tasks come, wins over limits; resumed, the backlog comes (B14)."""
    queue.limit(running=2, per_lane=2, fair=True)
    queue.call("set_queue_paused('default', true)")
    tasks = [queue.spawn(lane="a") for _ in range(2)]
    assert queue.claim_with_wait() == ([], None)

    queue.call("set_queue_paused('default', false)")

    assert queue.claim()[1] == tasks


# Lanes -------------------------------------------------------------------------------------------


def test_a_saturated_lane_does_not_starve_those_behind_it(queue: Limited) -> None:
    """A lane at its limit is passed over, however much stands in it; tasks without a lane have no such limit (B17)."""
    queue.limit(per_lane=2)
    full = [queue.spawn(lane="a") for _ in range(300)]
    behind = [queue.spawn(lane="b"), queue.spawn(), queue.spawn(), queue.spawn()]

    lease, first, _ = queue.claim(3)
    assert first == [*full[:2], behind[0]]
    assert queue.claim()[1] == behind[1:]
    assert queue.claim()[1] == []

    queue.complete(lease, full[0])
    assert queue.claim()[1] == [full[2]]


def test_two_tasks_of_a_lane_of_one_never_overlap(queue: Limited) -> None:
    """A lane limit of one is a lock: whatever the priorities, one at a time, the higher first (B18)."""
    queue.limit(per_lane=1)
    tasks = [queue.spawn(lane="tile-7", priority=p) for p in (0, 5, -3)]
    order = []
    for _ in tasks:
        lease, claimed, _ = queue.claim(10)
        assert len(claimed) == 1
        assert queue.claim(10)[1] == []
        queue.complete(lease, *claimed)
        order += claimed

    assert order == [tasks[1], tasks[0], tasks[2]]


def test_lanes_of_a_fair_queue_take_turns(queue: Limited) -> None:
    """One lane's backlog does not go before the others': they alternate, and so do tasks without a lane."""
    queue.limit(fair=True)
    for lane, count in (("a", 6), ("b", 2), (None, 2), ("c", 1)):
        for _ in range(count):
            queue.spawn(**{"lane": lane} if lane else {})

    assert queue.lanes(queue.claim(20)[1]) == "abc-ab-aaaa"


def test_turns_go_on_from_claim_to_claim(queue: Limited) -> None:
    """With a place for one run, each claim serves the next lane, beginning anew after the last."""
    queue.limit(fair=True, running=1)
    for lane in "aaaabbcc":
        queue.spawn(lane=lane)
    served = ""
    for _ in range(8):
        lease, tasks, _ = queue.claim(5)
        served += queue.lanes(tasks)
        queue.complete(lease, *tasks)

    assert served == "abcabcaa"


def test_the_lane_with_the_fewest_running_goes_first(queue: Limited) -> None:
    """A lane that holds long runs waits until the others hold as many; within a lane priority counts."""
    queue.limit(fair=True)
    for _ in range(3):
        queue.spawn(lane="a")
    queue.claim(3)
    for lane, priority in (("a", 9), ("b", 0), ("b", 1), ("b", 0)):
        queue.spawn(lane=lane, priority=priority)

    _, tasks, _ = queue.claim(3)

    assert queue.lanes(tasks) == "bbb"
    assert queue.call("priority from task where id = %s", tasks[0]) == 1


def test_more_lanes_than_one_look_reads_are_all_served(queue: Limited) -> None:
    """With more lanes than a claim looks at, each is served once its turn comes."""
    queue.connection.execute(
        "select count(*) from (select spawn_task('default', 'demo.add', '{}', jsonb_build_object('lane', 'l' || g))"
        " from generate_series(1, 1500) g) s"
    )
    queue.limit(fair=True, per_lane=1)
    served: set[UUID] = set()
    for _ in range(3):
        served.update(queue.claim(500)[1])

    assert len(served) == 1500


def test_a_claim_passes_over_rows_that_are_being_moved(queue: Limited, database_url: str) -> None:
    """A row that another session holds is left out; the claim neither waits nor takes it later by mistake."""
    queue.limit(per_lane=2)
    held, free = queue.spawn(lane="a"), queue.spawn(lane="b")
    with psycopg.connect(database_url, options="-c search_path=absurd,public") as other:
        other.execute("select cancel_task(%s)", (held,))
        assert queue.claim()[1] == [free]
    assert queue.state(held) == "cancelled"
    assert queue.claim()[1] == []


def test_the_limited_claim_reads_no_table_whole(queue: Limited) -> None:
    """Beside 20,000 pending tasks a claim finds its rows by index, and touches few of them."""
    queue.connection.execute(
        "select count(*) from spawn_tasks("
        "array(select new_task_id() from generate_series(1, 20000)), array_fill('default'::text, array[20000]),"
        "array_fill('demo.add'::text, array[20000]), array_fill('{}'::jsonb, array[20000]),"
        "array(select jsonb_build_object('lane', 'l' || g % 10) from generate_series(1, 20000) g))"
    )

    def reads() -> tuple[int, int]:
        row = queue.connection.execute(
            "select sum(seq_tup_read)::bigint, sum(idx_tup_fetch)::bigint from pg_stat_xact_user_tables"
            " where relname in ('ready', 'lease') or relname like 'task_2%'"
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    for limits in ({"running": 30}, {"running": 30, "per_lane": 3}, {"running": 60, "per_lane": None, "fair": True}):
        queue.limit(**limits)
        queue.connection.execute("begin")
        before = reads()
        claimed = queue.claim(10)[1]
        after = reads()
        queue.connection.execute("commit")
        assert len(claimed) == 10
        assert after[0] == before[0]
        assert after[1] - before[1] < 13_000


# Rate --------------------------------------------------------------------------------------------


def test_starts_come_evenly_at_the_rate(queue: Limited) -> None:
    """Four in a minute: one each 15 seconds; a claim that comes early is told when to come again."""
    queue.limit(rate=4, rate_seconds=60)
    tasks = [queue.spawn() for _ in range(5)]
    queue.stop_the_clock()

    assert queue.claim_with_wait() == (tasks[:1], 15000)
    assert queue.claim_with_wait() == ([], 15000)
    queue.stop_the_clock(10)
    assert queue.claim_with_wait() == ([], 5000)
    queue.stop_the_clock(15)
    assert queue.claim_with_wait() == ([tasks[1]], 15000)
    queue.stop_the_clock(120)  # what was not used is not saved up
    assert queue.claim_with_wait() == ([tasks[2]], 15000)


def test_a_high_rate_lets_a_tenth_of_a_second_come_together(queue: Limited) -> None:
    """1,000 a second: 100 at once, then what time brings; in a second no more than 1,100."""
    queue.limit(rate=1000, rate_seconds=1)
    queue.connection.execute("select spawn_task('default', 'demo.add', '{}') from generate_series(1, 1500)")
    started = 0
    for millisecond in range(0, 1000, 7):
        queue.stop_the_clock(millisecond / 1000)
        started += len(queue.claim_with_wait(500)[0])

    assert started == 100 + 994


def test_no_wait_is_told_when_the_rate_is_not_what_holds(queue: Limited) -> None:
    """An empty queue, or one whose places are taken, is not worth looking at again after a time."""
    queue.limit(rate=2, rate_seconds=1, running=1)
    queue.stop_the_clock()
    assert queue.claim_with_wait() == ([], None)
    tasks = [queue.spawn(), queue.spawn()]
    assert queue.claim_with_wait() == (tasks[:1], None)
    assert queue.claim_with_wait() == ([], None)


def test_a_clock_set_back_does_not_close_a_queue(queue: Limited) -> None:
    """After the database's clock went back by a day, the next start is due within a period."""
    queue.limit(rate=1, rate_seconds=60)
    queue.spawn(), queue.spawn()
    queue.stop_the_clock(86400)
    queue.claim()
    queue.stop_the_clock(0)

    assert queue.claim_with_wait() == ([], 60000)


# Many at once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"running": 3}, {"per_lane": 1}, {"running": 5, "per_lane": 2, "fair": True}])
def test_many_workers_never_exceed_the_limits(queue: Limited, database_url: str, limits: dict[str, Any]) -> None:
    """Eight workers claim and end runs at random: at no moment more run than the limits say, and all complete (B17)."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    queue.limit(**limits)
    lanes = ["a", "b", "c", None]
    count = 240
    for n in range(count):
        lane = lanes[n % 4]
        queue.spawn(priority=n % 3, **{"lane": lane} if lane else {})
    finished, over = threading.Event(), list[Any]()

    def work(number: int) -> None:
        chance = random.Random(seed + number)
        with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as connection:
            mine = Queue(connection)
            held: list[tuple[int, UUID]] = []
            while not finished.is_set() or held:
                lease, tasks, _ = mine.claim(chance.randint(1, 4)) if not finished.is_set() else (0, [], [])
                held += [(lease, task) for task in tasks]
                chance.shuffle(held)
                for _ in range(chance.randint(0, len(held))):
                    mine.complete(*held.pop())

    def watch() -> None:
        with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as connection:
            while not finished.is_set():
                rows = connection.execute(
                    "select t.lane from lease l cross join lateral unnest(l.task_ids) u (id) join task t on t.id = u.id"
                ).fetchall()
                per_lane = Counter(lane for (lane,) in rows if lane is not None)
                if len(rows) > limits.get("running", count):
                    over.append(len(rows))
                if per_lane and max(per_lane.values()) > limits.get("per_lane", count):
                    over.append(per_lane)
                if connection.execute("select (get_queue_stats('default')).completed").fetchone() == (count,):
                    finished.set()

    threads = [threading.Thread(target=work, args=[n]) for n in range(8)] + [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    threads[-1].join(60)
    finished.set()
    for thread in threads:
        thread.join(10)

    assert over == []
    assert queue.counts() == {"completed": count}


def test_a_claim_waits_for_the_one_before(queue: Limited, database_url: str, until: Until) -> None:
    """Two claims at one free place: the second sees what the first took, even if that commits late."""
    queue.limit(running=1)
    task, _ = queue.spawn(), queue.spawn()
    with psycopg.connect(database_url, options="-c search_path=absurd,public") as other:
        first = Queue(other)
        assert first.claim()[1] == [task]
        second: list[list[UUID]] = []
        thread = threading.Thread(target=lambda: second.append(queue.claim()[1]))
        thread.start()
        with psycopg.connect(database_url, autocommit=True) as observer:
            until(lambda: observer.execute("select 1 from pg_stat_activity where wait_event_type = 'Lock'").fetchone())
        other.commit()
        thread.join(30)

    assert second == [[]]
