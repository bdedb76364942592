"""A sentence for every cause: what a task waits for, or how it ended."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue

Connection = psycopg.Connection[Any]


class Asked(Queue):
    """The queue `default`, whose tasks are asked why."""

    def why(self, task: UUID) -> str:
        return str(self.call("task_why(%s)", task))

    def known(self) -> None:
        """Have the executor of the tests known."""
        self.call("register_executors(%s)", json.dumps([{"name": "demo.add"}]))

    def limit(self, **limits: Any) -> None:
        self.call("set_queue_limits('default', %s)", json.dumps(limits))


@pytest.fixture
def queue(connection: Connection) -> Asked:
    asked = Asked(connection)
    asked.known()
    return asked


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ("all_success", "It waits for 2 of its parents to complete: "),
        ("all_done", "It waits for 2 of its parents to end: "),
        ("any_success", "It waits for one of its parents to complete; 2 have not ended: "),
        ("any_failed", "It waits for one of its parents to fail; 2 have not ended: "),
        ("quorum(2)", "It waits for 2 of its parents to complete; 0 have, 2 have not ended: "),
    ],
)
def test_it_waits_for_parents(queue: Asked, when: str, sentence: str) -> None:
    """A blocked task tells what its condition wants, and which parents have not ended, with their states."""
    parents = sorted([queue.spawn(), queue.spawn(delay=60)])
    child = queue.spawn(depends_on=[str(each) for each in parents], when=when)

    told = queue.why(child)

    assert told.startswith(sentence + f"{parents[0]} ({queue.state(parents[0])}), {parents[1]} ")
    assert "about to be counted" in told
    queue.call("sweep_late()")
    assert "about to be counted" not in queue.why(child)


def test_its_parents_have_ended_and_are_not_counted_yet(queue: Asked) -> None:
    """A child whose parents have all ended says that this is about to be counted."""
    parent = queue.spawn()
    lease, _, _ = queue.claim()
    queue.complete(lease, parent)
    child = queue.spawn(depends_on=[str(parent)])

    assert queue.why(child) == "All of its 1 parents have ended; that is about to be counted."


def test_many_parents_are_not_all_listed(queue: Asked) -> None:
    """Ten parents are named, and how many more there are."""
    parents = [str(queue.spawn()) for _ in range(13)]

    assert queue.why(queue.spawn(depends_on=parents)).count("(pending)") == 10
    assert "and 3 more" in queue.why(queue.spawn(depends_on=parents))


def test_it_sleeps_until_its_time(queue: Asked) -> None:
    """A delay names the time, and a deadline is told beside it."""
    task = queue.spawn(run_at="2100-01-02T03:04:05Z", start_within=86400, finish_within=172800)

    told = queue.why(task)

    assert told.startswith(
        "It was spawned to start at 2100-01-02 03:04:05Z. It is cancelled if it has not started by 2"
    )
    assert "It is cancelled if it has not ended by 2" in told


def test_it_waits_for_its_next_attempt(queue: Asked) -> None:
    """A retry tells what went wrong, the number of the next attempt and its time."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.fail(lease, task, 60)

    assert queue.why(task).startswith("Its last attempt failed (it broke); attempt 2 is due at 2")


def test_it_waits_for_an_event(queue: Asked) -> None:
    """An event is named, with the time at which the wait ends if it does."""
    for delay, rest in ((None, "."), (60, ", until 2")):
        task = queue.spawn()
        lease, _, _ = queue.claim()
        queue.call(
            "suspend_runs(%s::bigint[], %s, '{0}', %s::double precision[], '{event}', '{night-closed}')",
            [lease],
            [task],
            [delay],
        )
        assert queue.why(task).startswith(f"It waits for the event 'night-closed'{rest}")


def test_it_sleeps_by_its_own_wish(queue: Asked) -> None:
    """A run that went to sleep tells its reason and until when."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.call("suspend_runs(%s::bigint[], %s, '{0}', '{60}', '{sleep}', '{null}')", [lease], [task])

    assert queue.why(task).startswith("It sleeps (sleep) until 2")


def test_no_worker_knows_its_executor(queue: Asked) -> None:
    """Put aside by a worker that does not know it; or, pending, never heard of."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.call("suspend_runs(%s::bigint[], %s, '{0}', '{60}', '{no_executor}', '{null}')", [lease], [task])
    assert "knows the executor demo.add" in queue.why(task)

    queue.connection.execute("update executor set registered_at = null")
    assert queue.why(queue.spawn()).endswith("No worker has ever told that it knows the executor demo.add.")


def test_there_is_no_process_for_it(queue: Asked) -> None:
    """Put off by a worker that cannot start one."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.call("suspend_runs(%s::bigint[], %s, '{0}', '{60}', '{no_process}', '{null}')", [lease], [task])

    assert "could start no process for it" in queue.why(task)


def test_its_queue_is_paused(queue: Asked) -> None:
    """A pause goes before any limit."""
    task = queue.spawn()
    queue.limit(running=1)
    queue.call("set_queue_paused('default', true)")

    assert queue.why(task).startswith("Its queue default is paused since 2")


def test_no_worker_serves_its_queue(queue: Asked) -> None:
    """Workers that stopped or are silent do not count."""
    task = queue.spawn()
    queue.connection.execute("update worker set last_seen = last_seen - interval '1 hour'")

    assert queue.why(task).startswith("No worker serves its queue default; start one with")


def test_no_worker_offers_what_it_needs(queue: Asked) -> None:
    """The largest offer of each need is named; a worker that offers all of it ends that."""
    queue.connection.execute("""update worker set offers = '{"cpu": 8}'""")
    task = queue.spawn(needs={"cpu": 16, "gpu": 1})
    assert queue.claim()[1] == []
    assert queue.why(task).startswith(
        "No worker of its queue offers what it needs: 16 cpu (the largest offer is 8), 1 gpu (the largest offer is 0);"
    )

    queue.connection.execute("""update worker set offers = '{"cpu": 16, "gpu": 2}'""")
    assert queue.why(task).startswith("It may be claimed now")
    assert queue.claim()[1] == [task]


def test_its_queue_is_at_its_limit(queue: Asked) -> None:
    """The limit and what runs are named."""
    queue.spawn(), queue.spawn()
    queue.limit(running=2)
    queue.claim()

    assert queue.why(queue.spawn()) == "Its queue default is limited to 2 tasks at once, and 2 run."


def test_its_lane_is_at_its_limit(queue: Asked) -> None:
    """The lane, its limit and what runs are named; another lane is not held up."""
    queue.spawn(lane="tile-7")
    queue.limit(per_lane=1)
    queue.claim()

    assert queue.why(queue.spawn(lane="tile-7")) == "Its lane tile-7 is limited to 1 tasks at once, and 1 run."
    assert "limited" not in queue.why(queue.spawn(lane="tile-8"))


def test_its_queue_is_held_back_by_its_rate(queue: Asked) -> None:
    """The rate is named, and when the next start is due."""
    queue.spawn()
    queue.limit(rate=1, rate_seconds=3600)
    queue.claim()

    told = queue.why(queue.spawn())

    assert told.startswith("Its queue default starts no more than 1 tasks in 01:00:00; the next may start at 2")


def test_all_workers_are_busy(queue: Asked) -> None:
    """When every slot is taken, that is said, with the rank."""
    queue.spawn()
    queue.claim()
    queue.spawn()

    assert queue.why(queue.spawn()) == (
        "All workers of its queue are busy: 1 runs on 1 slots; 1 task of its queue is ahead of it."
    )


def test_its_rank_in_the_queue(queue: Asked) -> None:
    """What has a higher priority or came before is ahead of it; in a fair queue, of its lane."""
    for priority in (5, 0, -1):
        queue.spawn(priority=priority)
    task = queue.spawn(lane="a")
    assert queue.why(task) == "It may be claimed now; 2 tasks of its queue are ahead of it."

    queue.limit(fair=True)

    assert queue.why(task) == (
        "It may be claimed now; 0 tasks of its lane, which takes turns with others, are ahead of it."
    )


def test_a_long_rank_is_counted_so_far(queue: Asked) -> None:
    """Of a long queue only the first 10,000 are counted."""
    queue.connection.execute("select spawn_task('default', 'demo.add', '{}') from generate_series(1, 10001)")

    assert queue.why(queue.spawn()).startswith("It may be claimed now; at least 10000 tasks of its queue are ahead")


def test_it_runs(queue: Asked) -> None:
    """Who runs it, since when, in which attempt, how far it is; and whether its worker has gone silent."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    assert queue.why(task).startswith("It runs on test since 2")
    assert queue.why(task).endswith(", in attempt 1.")

    queue.call("set_progress(%s, %s, 3, 10, 'reading')", lease, task)
    assert queue.why(task).endswith(", in attempt 1: 3 of 10 done (reading).")

    queue.connection.execute("update worker set last_seen = last_seen - interval '1 hour'")
    assert "the run is about to be given to another" in queue.why(task)


def test_a_suspect_is_told(queue: Asked) -> None:
    """A task that was lost with its worker says so while it waits and while it runs; its claim says so too."""
    task = queue.spawn(headers={"a": 1})
    queue.connection.execute("with gone as (delete from ready returning *) insert into ready"
                             " select task_id, seq, queue_id, level, attempt, true, lane, needs from gone")  # fmt: skip
    suspect = "Its last run was lost with its worker or killed its process: it runs in a process of its own."
    assert queue.why(task).endswith(suspect)

    other = queue.spawn()
    queue.claims += 1
    lease = (queue.worker << 32) + queue.claims
    claim = (
        "select details from claim_runs(%s, (select id from queue where name = 'default'), 5, '{}', '{}')",
        (lease,),
    )
    for _ in range(2):  # the second time as after a lost answer
        (details,) = queue.connection.execute(*claim).fetchone() or [None]
        assert [each and json.loads(each) for each in details] == [{"headers": {"a": 1}, "suspect": True}, None]

    assert queue.why(task).endswith(suspect)
    assert "lost" not in queue.why(other)


def test_how_it_ended(queue: Asked) -> None:
    """Completed, failed, poison and cancelled tasks tell when, in which attempt, and for what reason."""
    told = {}
    for state in ("completed", "failed", "cancelled"):
        task = queue.spawn()
        lease, _, _ = queue.claim()
        queue.end(lease, task, state)
        told[state] = queue.why(task)
    assert told["completed"].startswith("It completed at 2")
    assert told["completed"].endswith("in attempt 1.")
    assert told["failed"] == "It failed for good in attempt 1: it broke."
    assert told["cancelled"] == "It was cancelled: by request."

    queue.connection.execute(
        "update run set error = %s where state = 'failed'",
        (json.dumps({"code": "poison", "message": "it killed its process 3 times"}),),
    )
    (poisoned,) = queue.connection.execute("select task_id from run where state = 'failed'").fetchone() or [None]
    assert queue.why(poisoned) == "It is poison and was given up: it killed its process 3 times."


@pytest.mark.parametrize(
    ("state", "words"), [("failed", "failed (it broke)"), ("cancelled", "was cancelled (by request)")]
)
def test_it_was_cancelled_because_of_an_ancestor(queue: Asked, state: str, words: str) -> None:
    """However far down, a task that could not run names the ancestor that ended badly, not its own parent."""
    first = queue.spawn()
    fine = queue.spawn(priority=9)
    middle = queue.spawn(depends_on=[str(first), str(fine)])
    last = queue.spawn(depends_on=[str(middle)])
    queue.call("sweep_late()")
    lease, _, _ = queue.claim(2)
    queue.complete(lease, fine)
    queue.end(lease, first, state)

    for task in (middle, last):
        assert queue.why(task) == f"It was cancelled because it could not run any more: above it {first} {words}."


def test_an_unknown_task_has_no_answer(queue: Asked) -> None:
    """No task, no sentence."""
    assert queue.call("task_why(gen_random_uuid())") is None


# Resources ---------------------------------------------------------------------------------------


def test_there_is_no_room_for_it(queue: Asked) -> None:
    """What is short, how much of it is free, and on which worker; from when on room is kept for it."""
    queue.connection.execute("""update worker set offers = '{"cpu": 8}'""")
    queue.spawn(needs={"cpu": 5})
    task = queue.spawn(needs={"cpu": 6})
    assert len(queue.claim()[1]) == 1

    short = "It waits for 6 cpu (3 of 8 free on worker test)."
    assert queue.why(task).startswith(f"{short} Worker test keeps room for it from 2")
    queue.connection.execute("update worker set reserve_after = 0")
    assert queue.why(task).startswith(f"{short} Worker test keeps room for it since 2")


def test_others_hold_what_all_share(queue: Asked) -> None:
    """The total, what is free, and the tasks that hold it; a total of nothing is named as such."""
    queue.call("set_resource('licence', 1)")
    holder, task = queue.spawn(needs={"licence": 1}), queue.spawn(needs={"licence": 1})
    assert queue.claim()[1] == [holder]

    assert queue.why(task) == (
        f"It waits for 1 licence, of which all workers share 1 and 0 are free: held by {holder} (running)."
    )
    assert "2 licence (all workers share 1)" in queue.why(queue.spawn(needs={"licence": 2}))


def test_room_is_kept_for_another(queue: Asked) -> None:
    """The worker, and the task that it keeps room for."""
    queue.connection.execute("""update worker set offers = '{"cpu": 8}', reserve_after = 0""")
    queue.spawn(needs={"cpu": 1})
    queue.claim()
    large, small = queue.spawn(needs={"cpu": 8}), queue.spawn(needs={"cpu": 1}, priority=-1)
    queue.call("set_queue_paused('default', true)")
    queue.call("set_queue_paused('default', false)")
    queue.connection.execute("insert into reservation values (%s, %s, clock_time())", [large, queue.worker])

    assert queue.claim()[1] == []
    assert queue.why(small).startswith(f"Worker test has room, but keeps it for task {large}, which has waited since 2")


def test_it_prefers_a_host(queue: Asked) -> None:
    """The file, the hosts that have it, and until when."""
    queue.connection.execute("""update worker set host = 'far'""")
    near = queue.new_worker()
    queue.connection.execute("""update worker set host = 'near', offers = '{"file:/a": 1}' where id = %s""", [near])
    task = queue.spawn(needs={"file:/a": 60})
    assert queue.claim()[1] == []

    assert "it prefers a host that has /a: near." in queue.why(task)


def test_what_nobody_offers_is_a_problem(queue: Asked) -> None:
    """Status names the needs and the queue, as long as no worker there offers them and nobody shares them."""
    queue.spawn(needs={"gpu": 1})

    def problems() -> list[str]:
        return [each["message"] for each in queue.call("get_status()")["problems"] if each["code"] == "needs_unmet"]

    assert problems() == ['1 task of queue default: no worker there offers {"gpu": 1}']
    queue.call("set_resource('gpu', 1)")
    assert problems() == []
