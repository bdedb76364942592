"""Packing: what a worker has free, what all workers share, who goes next where room is short."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from packing import Site

Connection = psycopg.Connection[Any]


@pytest.fixture
def site(connection: Connection) -> Site:
    return Site(connection)


def test_a_worker_runs_no_more_than_it_has(site: Site) -> None:
    """What its runs hold is not free; what ends gives room to the next."""
    worker = site.add({"cpu": 8, "memory_gib": 64})
    tasks = [site.spawn(needs={"cpu": 3, "memory_gib": 10}) for _ in range(4)]

    assert site.take(worker) == tasks[:2]
    lease = site.lease
    assert site.holdings() == {"cpu": 6, "memory_gib": 20}
    assert site.take(worker) == []

    site.complete(lease, tasks[0])
    assert site.take(worker) == [tasks[2]]
    assert site.holdings() == {"cpu": 6, "memory_gib": 20}


def test_small_ones_fill_the_gaps_that_a_large_one_leaves(site: Site) -> None:
    """By priority, greedily: what does not fit is passed over, what comes after and fits goes."""
    worker = site.add({"cpu": 8})
    first, large, small, plain = (
        site.spawn(needs={"cpu": 6}), site.spawn(needs={"cpu": 4}), site.spawn(needs={"cpu": 2}), site.spawn(),
    )  # fmt: skip

    assert site.take(worker) == [first, small, plain]
    assert site.state(large) == "pending"


def test_priority_decides_who_gets_the_room(site: Site) -> None:
    """The higher one has it, though it came later."""
    worker = site.add({"cpu": 4})
    low, high = site.spawn(needs={"cpu": 4}), site.spawn(needs={"cpu": 4}, priority=5)

    assert site.take(worker) == [high]
    site.complete(site.lease, high)
    assert site.take(worker) == [low]


def test_amounts_are_exact(site: Site) -> None:
    """Ten tenths are one: amounts are decimal numbers, not binary ones."""
    worker = site.add({"cpu": 1})
    tasks = [site.spawn(needs={"cpu": 0.1}) for _ in range(11)]

    assert site.take(worker, 20) == tasks[:10]


def test_what_needs_something_waits_for_a_slot_without_holding(site: Site) -> None:
    """Only so many as start at once are claimed; what is claimed ahead needs nothing."""
    worker = site.add({"cpu": 8})
    needy = [site.spawn(needs={"cpu": 1}) for _ in range(3)]
    plain = [site.spawn() for _ in range(3)]

    assert site.take(worker, 5, slots=2) == needy[:2]
    assert site.waits, "the third waits for a slot: nothing goes ahead of it"
    assert site.take(worker, 5, slots=0) == []
    assert site.waits
    assert site.take(worker, 5, slots=2) == [needy[2], *plain]
    assert not site.waits


def test_shared_resources_are_counted_over_all_workers(site: Site) -> None:
    """Two tokens for three hosts: two runs, wherever they are; nobody has to offer them."""
    site.call("set_resource('licence:casa', 2)")
    workers = [site.add({"cpu": 4}) for _ in range(3)]
    tasks = [site.spawn(needs={"cpu": 1, "licence:casa": 1}) for _ in range(5)]

    assert site.take(workers[0], 1) == tasks[:1]
    first = site.lease
    assert site.take(workers[1]) == [tasks[1]]
    assert site.take(workers[2]) == []
    (listed,) = site.connection.execute("select name, total, held, tasks, waiting from list_resources()").fetchall()
    assert listed == ("licence:casa", 2, 2, tasks[:2], 3)

    site.complete(first, tasks[0])
    assert site.take(workers[2]) == [tasks[2]]


def test_a_shared_resource_that_is_taken_away_is_each_workers_own_again(site: Site) -> None:
    """What is held goes on counting against the worker that holds it."""
    worker, other = site.add({"disk": 1}), site.add({"disk": 1})
    site.call("set_resource('disk', 1)")
    tasks = [site.spawn(needs={"disk": 1}) for _ in range(3)]
    assert site.take(worker) == tasks[:1]
    assert site.take(other) == []

    assert site.call("remove_resource('disk')")
    assert not site.call("remove_resource('disk')")
    assert site.take(worker) == []
    assert site.take(other) == [tasks[1]]


@pytest.mark.parametrize(
    "way", ["completed", "failed", "cancelled", "suspended", "returned", "lost", "left", "unheard"]
)
def test_however_a_run_ends_it_holds_nothing_any_more(site: Site, way: str) -> None:
    """Its lease lets go of it: nothing is counted that could be left behind, and nothing is kept of it."""
    site.call("set_resource('token', 1)")
    worker, other = site.add({"cpu": 1}), site.add({"cpu": 1})
    task = site.spawn(needs={"cpu": 1, "token": 1})
    assert site.take(worker) == [task]
    lease = site.lease
    assert site.holdings() == {"cpu": 1, "token": 1}
    match way:
        case "suspended":
            site.call("suspend_runs(%s::bigint[], %s, '{0}', '{60}', '{sleep}', '{null}')", [lease], [task])
        case "returned":
            site.call("return_runs(%s::bigint[], %s, '{null}')", [lease], [task])
        case "lost":
            site.call("give_up_worker(%s)", worker)
        case "left":
            site.call("unregister_worker(%s)", worker)
        case "unheard":
            site.connection.execute("update lease set claimed_at = '-infinity'")
            site.call("count(*) from beat(%s, '{}')", worker)
        case _:
            site.end(lease, task, way)

    assert site.call("count(*) from holding") == 0
    waits = site.spawn(needs={"cpu": 1, "token": 1}, priority=1)
    assert site.take(other) == [waits]


def test_what_does_not_count_is_swept(site: Site) -> None:
    """Rows of leases that are gone hold nothing, and the round removes them, and notes of tasks that do not wait."""
    worker = site.add({"cpu": 1})
    task = site.spawn(needs={"cpu": 1})
    site.connection.execute("insert into holding values (%s, %s, 'cpu', 1)", [(worker << 32) + 77, task])
    site.connection.execute("insert into reservation values (new_task_id(), %s, clock_time())", [worker])
    site.connection.execute("insert into affinity values (new_task_id(), clock_time())")

    assert site.holdings() == {}
    site.call("maintain()")
    site.connection.execute("insert into holding values (%s, %s, 'cpu', 1)", [(worker << 32) + 77, task])
    site.call("maintain()")
    assert site.call("count(*) from holding") == 1, "every ten seconds is often enough"
    site.connection.execute("update horizon set swept_at = '-infinity'")
    site.call("maintain()")
    for table in ("holding", "reservation", "affinity"):
        assert site.call(f"count(*) from {table}") == 0, table
    assert site.take(worker) == [task]


def test_what_an_executor_needs_stands_in_for_spawns_in_sql_and_schedules(site: Site) -> None:
    """By its last registration; what the options name goes before it, and 0 is none."""
    site.call("register_executors(%s)", json.dumps([{"name": "demo.add", "needs": {"cpu": 3, "memory_gib": 2}}]))
    site.call(
        "set_schedule('nightly', %s)", json.dumps({"trigger": "every 60 s", "executor": "demo.add", "queue": "default"})
    )
    worker = site.add({"cpu": 9, "memory_gib": 9})

    site.spawn()
    assert len(site.take(worker)) == 1
    assert site.holdings() == {"cpu": 3, "memory_gib": 2}
    site.spawn(needs={"cpu": 1, "memory_gib": 0})
    assert len(site.take(worker)) == 1
    assert site.holdings() == {"cpu": 4, "memory_gib": 2}
    assert site.call("trigger_schedule('nightly')") is not None
    assert len(site.take(worker)) == 1
    assert site.holdings() == {"cpu": 7, "memory_gib": 4}
    with pytest.raises(psycopg.Error, match="needs"):
        site.spawn(needs=7)


# Reservations ------------------------------------------------------------------------------------


def test_a_large_task_is_not_starved_by_small_ones(site: Site) -> None:
    """From its reservation time on others get only what fits beside it; it starts when what ran then has ended."""
    worker = site.add({"cpu": 4}, reserve_after=30)
    site.pass_time(0)
    running = []
    for _ in range(4):
        site.spawn(needs={"cpu": 1})
        running += [(site.lease, task) for task in site.take(worker)]
    large = site.spawn(needs={"cpu": 4})
    for _ in range(20):  # two seconds each: one ends, another one comes
        site.pass_time(1.4)
        site.spawn(needs={"cpu": 1})
        site.complete(*running.pop(0))
        (small,) = site.take(worker)
        assert small != large
        running.append((site.lease, small))
    site.pass_time(5)

    for lease, task in running:
        site.spawn(needs={"cpu": 1})
        assert site.take(worker) == [], "nothing fits beside a task that needs all there is"
        site.complete(lease, task)
    assert site.take(worker) == [large]
    assert site.call("count(*) from reservation") == 0


def test_equals_are_a_line_and_not_starved(site: Site) -> None:
    """What waits for as much as others hold is next when one of them ends: the note goes to the large one behind it."""
    worker = site.add({"cpu": 2})
    small = [site.spawn(needs={"cpu": 1}) for _ in range(4)]
    large = site.spawn(needs={"cpu": 2}, priority=-1)

    assert site.take(worker) == small[:2]
    assert site.take(worker) == []
    assert site.connection.execute("select task_id from reservation").fetchall() == [(large,)]


def test_what_fits_beside_a_reserved_task_goes(site: Site) -> None:
    """Room is kept from what starts after it was reserved: what will fit beside it goes while it waits."""
    worker = site.add({"cpu": 8}, reserve_after=0)
    first = site.spawn(needs={"cpu": 5})
    assert site.take(worker) == [first]
    first_lease = site.lease
    large = site.spawn(needs={"cpu": 6})
    assert site.take(worker) == []
    beside, not_beside, plain = site.spawn(needs={"cpu": 2}), site.spawn(needs={"cpu": 1}), site.spawn()

    assert site.take(worker) == [beside, plain]
    assert site.state(not_beside) == "pending"
    site.complete(first_lease, first)
    assert site.take(worker) == [large]


def test_a_task_is_noted_by_one_worker_and_a_worker_notes_one_task(site: Site) -> None:
    """The second worker notes the next one; a note of a worker that has left goes to another, with its age."""
    workers = [site.add({"cpu": 2}), site.add({"cpu": 2})]
    for worker in workers:
        site.spawn(needs={"cpu": 1})
        assert len(site.take(worker, 1)) == 1
    large = [site.spawn(needs={"cpu": 2}) for _ in range(3)]
    for worker in workers * 2:
        assert site.take(worker) == []
    notes = "task_id, worker_id from reservation order by worker_id"
    assert site.connection.execute(f"select {notes}").fetchall() == list(zip(large, workers, strict=False))
    noted_at = site.call("noted_at from reservation where task_id = %s", large[0])

    site.call("unregister_worker(%s)", workers[0])
    third = site.add({"cpu": 2})
    site.spawn(needs={"cpu": 1}, priority=9)
    assert len(site.take(third)) == 2, "and what the other ran"
    assert site.take(third) == []
    assert site.call("noted_at from reservation where worker_id = %s", third) == noted_at


def test_a_line_at_a_token_needs_no_reservation(site: Site) -> None:
    """Where all that hold a shared resource have as much, the first to end lets the next in: no host is emptied."""
    site.call("set_resource('licence', 1)")
    worker, other = site.add({"cpu": 4}, reserve_after=0), site.add({"cpu": 4}, reserve_after=0)
    first, waits = (site.spawn(needs={"cpu": 4, "licence": 1}) for _ in range(2))
    assert site.take(worker) == [first]
    assert site.take(other) == []
    small = [site.spawn(needs={"cpu": 2}) for _ in range(2)]

    assert site.take(other) == small
    assert site.call("count(*) from reservation") == 0
    assert site.state(waits) == "pending"


def test_a_large_share_is_kept_back_on_all_hosts(site: Site) -> None:
    """Six of ten tokens are not starved by tasks that take one each, on whatever worker."""
    site.call("set_resource('token', 10)")
    workers = [site.add({}, reserve_after=0), site.add({}, reserve_after=0)]
    small = [site.spawn(needs={"token": 1}) for _ in range(8)]
    assert site.take(workers[0]) == small
    lease = site.lease
    large = site.spawn(needs={"token": 6})
    assert site.take(workers[1]) == []
    for _ in range(9):
        site.spawn(needs={"token": 1}, priority=3)
    beside = []
    for n, task in enumerate(small):
        beside += site.take(workers[n % 2])
        assert large not in beside
        site.complete(lease, task)

    assert len(beside) == 4, "no more than fit beside it"
    assert site.take(workers[1], 1) == [large]


def test_an_idle_worker_takes_what_a_busy_one_keeps_room_for(site: Site) -> None:
    """A share that one keeps for a task that it has no room for is no reason to wait: who has room starts that task."""
    site.call("set_resource('token', 6)")
    busy, other = site.add({"cpu": 4}, reserve_after=10), site.add({"cpu": 6}, reserve_after=10)
    site.pass_time(0)
    running = [site.spawn(needs={"cpu": cpu}) for cpu in (1, 3)]
    assert site.take(busy, 2) == running
    elsewhere = site.spawn(needs={"cpu": 3})
    assert site.take(other) == [elsewhere]
    lease = site.lease
    large = site.spawn(needs={"cpu": 4, "token": 6})
    assert site.take(busy) == []
    site.pass_time(11)
    local = site.spawn(needs={"cpu": 2})
    small = site.spawn(needs={"cpu": 1, "token": 1})
    assert site.take(other) == [local], "it has no room for the large one, and keeps none of its own for it"
    assert site.call("(select worker_id from reservation where task_id = %s)", large) == busy

    site.complete(lease, elsewhere)
    assert site.take(other, slots=0) == []
    assert site.take(other) == [large]
    assert site.call("count(*) from reservation") == 0
    assert site.state(small) == "pending"
    assert site.take(busy) == []


def test_the_older_of_two_reservations_goes_first(site: Site) -> None:
    """An idle worker takes over only what fits beside those that wait longer, whoever noted them."""
    site.call("set_resource('token', 6)")
    first, second, idle = (site.add({"cpu": cpu}, reserve_after=0) for cpu in (9, 4, 4))
    site.pass_time(0)
    assert len(site.take(first)) + len(site.take(second)) == 0
    holds = [site.spawn(needs={"cpu": 5, "token": 2}), site.spawn(needs={"cpu": 1})]
    assert site.take(first, 1) == holds[:1]
    lease = site.lease
    assert site.take(second, 1) == holds[1:]
    older = site.spawn(needs={"cpu": 9, "token": 3})
    assert site.take(first) == []
    site.pass_time(1)
    younger = site.spawn(needs={"cpu": 4, "token": 4})
    assert site.take(second) == []
    assert site.call("count(*) from reservation") == 2

    assert site.take(idle) == [], "four are free, but three of six are for the older one"
    site.complete(lease, holds[0])
    assert site.take(first) == [older]
    lease = site.lease
    assert site.take(idle) == []
    site.complete(lease, older)
    assert site.take(idle) == [younger]


def test_what_prefers_a_host_is_left_to_who_noted_it(site: Site) -> None:
    """A task that waits near its files is not taken over."""
    site.call("set_resource('token', 2)")
    busy, other = site.add({"cpu": 2}, reserve_after=0), site.add({"cpu": 2}, reserve_after=0)
    assert site.take(busy) == []
    running = site.spawn(needs={"cpu": 1})
    assert site.take(busy) == [running]
    large = site.spawn(needs={"cpu": 2, "token": 2, "file:/data/none": 60})
    assert site.take(busy) == []
    assert site.take(other) == []
    site.complete((busy << 32) + 2, running)
    assert site.take(busy) == [large]


def test_a_worker_that_drains_keeps_no_room(site: Site) -> None:
    """It will never claim what it has noted, however long its last run takes: another one has that at once."""
    site.call("set_resource('token', 10)")
    leaving, other = site.add({"cpu": 1}, reserve_after=0), site.add({}, reserve_after=0)
    small = site.spawn(needs={"token": 5})
    assert site.take(leaving) == [small]
    lease = site.lease
    large = site.spawn(needs={"cpu": 1, "token": 6})
    assert site.take(leaving) == []
    assert site.call("(select worker_id from reservation where task_id = %s)", large) == leaving
    site.complete(lease, small)
    waits = site.spawn(needs={"token": 5})
    assert site.take(other) == [], "it is the other's note"

    site.call("drain_worker(%s)", leaving)
    assert site.take(other) == [waits]


def test_no_room_is_kept_for_a_paused_queue(site: Site) -> None:
    """What cannot be claimed keeps nobody out; once its queue goes on, room is kept again."""
    worker = site.add({"cpu": 2}, reserve_after=0)
    running = site.spawn(needs={"cpu": 1})
    assert site.take(worker) == [running]
    large = site.call("task_id from spawn_task('other', 'demo.add', '{}', '{\"needs\": {\"cpu\": 2}}')")
    assert site.take(worker, queue="other") == []
    small = [site.spawn(needs={"cpu": 1}) for _ in range(2)]
    assert site.take(worker) == []

    site.call("set_queue_paused('other', true)")
    assert site.take(worker) == small[:1]
    site.call("set_queue_paused('other', false)")
    site.complete((worker << 32) + 1, running)
    assert site.take(worker) == []
    site.complete((worker << 32) + 4, small[0])
    assert site.take(worker, queue="other") == [large]


# Queues and lanes --------------------------------------------------------------------------------


def test_queues_of_a_worker_share_what_it_has(site: Site) -> None:
    """What runs of one queue hold is not free for another."""
    worker = site.add({"cpu": 4})
    mine = site.spawn(needs={"cpu": 3})
    other = site.call("task_id from spawn_task('other', 'demo.add', '{}', '{\"needs\": {\"cpu\": 2}}')")
    assert site.take(worker) == [mine]
    assert site.take(worker, queue="other") == []

    site.complete((worker << 32) + 1, mine)
    assert site.take(worker, queue="other") == [other]


@pytest.mark.parametrize("limits", [{"fair": True}, {"per_lane": 1}, {"fair": True, "per_lane": 2, "running": 9}])
def test_lanes_are_packed_too(site: Site, limits: dict[str, Any]) -> None:
    """What fits goes, in the order of the lanes; a lane whose first does not fit gives its next."""
    site.call("set_queue_limits('default', %s)", json.dumps(limits))
    worker = site.add({"cpu": 4})
    a = site.spawn(lane="a", needs={"cpu": 3})
    large, small = site.spawn(lane="b", needs={"cpu": 2}), site.spawn(lane="b", needs={"cpu": 1})
    loose = site.spawn(needs={"cpu": 1}, priority=-1)

    taken = site.take(worker) + site.take(worker) + site.take(worker)

    assert taken in ([a, small], [a, loose])
    assert site.holdings() == {"cpu": 4}
    site.complete((worker << 32) + 1, a)
    assert large in site.take(worker) + site.take(worker)


def test_a_large_task_of_a_lane_is_not_starved(site: Site) -> None:
    """Other lanes have their turns only as far as they fit beside it."""
    site.call("set_queue_limits('default', '{\"fair\": true}')")
    worker = site.add({"cpu": 4}, reserve_after=0)
    running = site.spawn(lane="a", needs={"cpu": 1})
    assert site.take(worker) == [running]
    lease = site.lease
    large = site.spawn(lane="b", needs={"cpu": 4})
    site.take(worker)
    for _ in range(5):
        site.spawn(lane="a", needs={"cpu": 1})
    assert site.take(worker) == []

    site.complete(lease, running)
    assert site.take(worker, 1) == [large]


# Affinity ----------------------------------------------------------------------------------------


def make_file(site: Site, worker: int, path: str) -> None:
    """Have a run of `worker` make a file."""
    task = site.spawn(priority=1000)
    assert site.take(worker, 1) == [task]
    made = [{"task": str(task), "path": path, "attempt_path": path, "kind": "fits"}]
    site.call("complete_runs(%s::bigint[], %s, '{0}', '{null}', %s)", [site.lease], [task], json.dumps(made))


def test_a_task_prefers_the_host_that_has_its_file(site: Site) -> None:
    """For the stated time after others first passed it over it waits for that host; then anybody may have it."""
    site.pass_time(0)
    near, far = site.add({"cpu": 1}, host="near"), site.add({"cpu": 1}, host="far")
    make_file(site, near, "/data/a.ms")
    tasks = [site.spawn(needs={"cpu": 1, "file:/data/a.ms": 60}) for _ in range(2)]

    assert site.take(far) == []
    assert site.take(near) == tasks[:1]
    site.pass_time(59)
    assert site.take(far) == []
    site.pass_time(2)
    assert site.take(far) == tasks[1:]
    assert site.holdings() == {"cpu": 2}
    assert site.call("count(*) from affinity") == 0


def test_nobody_waits_for_a_host_without_a_worker(site: Site) -> None:
    """Nor for a file that nobody has; and a worker may say that it has one."""
    gone, far = site.add({}, host="gone"), site.add({}, host="far")
    make_file(site, gone, "/data/a.ms")
    site.call("unregister_worker(%s)", gone)
    tasks = [site.spawn(needs={"file:/data/a.ms": 60}), site.spawn(needs={"file:/data/none": 60})]
    assert site.take(far) == tasks

    site.add({"file:/data/b": 1}, host="near")
    waits = site.spawn(needs={"file:/data/b": 60})
    assert site.take(far) == []
    assert site.state(waits) == "pending"
