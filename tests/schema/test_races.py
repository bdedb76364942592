"""Two sessions at once: what the lock order and the marks are there for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sessions import Session

Until = Callable[[Callable[[], object]], None]

SPAWN = "task_id from spawn_task('default', 'demo.add', '{}', %s)"
COMPLETE = "complete_runs(%s::bigint[], %s, '{0}', '{null}')"
FAIL = "fail_runs(%s::bigint[], %s, '{0}', array['{}'], array[null]::double precision[])"
CLAIM = "task_ids from claim_runs(%s, (select id from queue where name = 'default'), %s, %s::integer[], %s::bigint[])"

EDIT = 'edit_task(%s, \'{"priority": 5, "set": {"a": 1}}\')'


def depends(*parents: UUID) -> str:
    return json.dumps({"depends_on": [str(parent) for parent in parents]})


class Leases:
    """Lease ids of one worker."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.worker = session.call("register_worker('t', 'h', 1, '{default}', 1, '{}', '{}', 30)")
        self.count = 0

    def claim(
        self, wanted: int = 1, *, session: Session | None = None, marks: dict[int, int] | None = None
    ) -> tuple[int, list[UUID]]:
        self.count += 1
        lease = (self.worker << 32) + self.count
        known = marks or {}
        tasks = (session or self.session).call(CLAIM, lease, wanted, list(known), list(known.values()))
        return lease, tasks or []


def test_two_parents_ending_at_once_release_their_child_once(sessions: Callable[[], Session], until: Until) -> None:
    """Each completion is held open in turn; the child is released by the second, exactly once (B75)."""
    one, two, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    parents = [observer.call(SPAWN, None) for _ in range(2)]
    child = observer.call(SPAWN, depends(*parents))
    observer.call("sweep_late()")
    first, _ = leases.claim()
    second, _ = leases.claim()

    one.begin()
    one.call(COMPLETE, [first], [parents[0]])
    two.call_later(COMPLETE, [second], [parents[1]])
    until(lambda: two.waits(observer))
    one.commit()
    assert two.result() is None

    assert observer.call("get_state(%s)", child) == "pending"
    assert observer.call("count(*) from ready where task_id = %s", child) == 1


def test_claim_beside_cancel_of_one_row(sessions: Callable[[], Session], until: Until) -> None:
    """A claim passes over what is being cancelled; a cancel that meets a claim takes the run from it (B1)."""
    one, two, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    task = observer.call(SPAWN, None)

    one.begin()
    assert one.call("cancel_task(%s)", task) == "cancelled"
    assert leases.claim()[1] == []  # returns at once
    one.connection.execute("rollback")

    one.begin()
    lease, tasks = leases.claim(session=one)
    assert tasks == [task]
    two.call_later("cancel_task(%s)", task)
    until(lambda: two.waits(observer))
    one.commit()

    assert two.result() == "cancelled"
    assert observer.call("get_state(%s)", task) == "cancelled"
    assert observer.call(COMPLETE, [lease], [task]) == [task]


@pytest.mark.parametrize("first", ["cancel", "report"])
@pytest.mark.parametrize("outcome", ["complete", "fail"])
def test_cancel_beside_the_end_of_a_run(
    sessions: Callable[[], Session], until: Until, outcome: str, first: str
) -> None:
    """Each is held open in turn beside the other: no deadlock, and one clean end wins (B19, B48)."""
    one, two, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    task = observer.call(SPAWN, None)
    lease, _ = leases.claim()
    report = (
        COMPLETE if outcome == "complete" else "fail_runs(%s::bigint[], %s, '{0}', array['{}'], array[null::float8])"
    )
    calls: list[tuple[Any, ...]] = [("cancel_task(%s)", task), (report, [lease], [task])]
    if first == "report":
        calls.reverse()

    one.begin()
    told = {calls[0][0]: one.call(*calls[0])}
    two.call_later(*calls[1])
    until(lambda: two.waits(observer))
    one.commit()
    told[calls[1][0]] = two.result()

    end = "cancelled" if first == "cancel" else {"complete": "completed", "fail": "failed"}[outcome]
    assert told == {"cancel_task(%s)": end, report: [task] if first == "cancel" else None}
    assert observer.call("get_state(%s)", task) == end
    assert observer.call("count(*) from run where ends") == 1


@pytest.mark.parametrize("held_open", ["spawn", "completion"])
def test_spawn_on_a_parent_that_is_just_ending(sessions: Callable[[], Session], until: Until, held_open: str) -> None:
    """Whichever of the two transactions is held open while the other commits, the child is released."""
    one, two, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    parent = observer.call(SPAWN, None)
    lease, _ = leases.claim()

    if held_open == "spawn":
        one.begin()
        child = one.call(SPAWN, depends(parent))
        assert two.call(COMPLETE, [lease], [parent]) is None
        two.call("sweep_late()")
        one.commit()
        observer.call("sweep_late()")
    else:
        one.begin()
        one.call(COMPLETE, [lease], [parent])
        child = observer.call(SPAWN, depends(parent))
        two.call_later("sweep_late()")  # waits for the end of the completion, then sees it
        until(lambda: two.waits(observer))
        one.commit()
        assert two.result() == 1

    assert observer.call("get_state(%s)", child) == "pending"
    assert observer.call("count(*) from late") == 0


def test_a_low_seq_committed_late_is_claimed(sessions: Callable[[], Session]) -> None:
    """A spawn that commits after later ones were claimed is found by the next look from the base."""
    slow, observer = sessions(), sessions()
    leases = Leases(observer)
    observer.call(SPAWN, None)
    leases.claim()
    slow.begin()
    late = slow.call(SPAWN, None)
    quick = observer.call(SPAWN, None)
    # The base mark must not pass a transaction that is still open, however often it is advanced.
    for _ in range(4):
        observer.call("advance_marks()")
    assert leases.claim(5)[1] == [quick]
    high = observer.call("last_value from ready_seq")
    for _ in range(4):
        observer.call("advance_marks()")

    slow.commit()

    assert leases.claim(5, marks={0: high + 1})[1] == []  # above the hot mark there is nothing
    assert leases.claim(5)[1] == [late]


def test_the_base_mark_passes_what_is_over(sessions: Callable[[], Session]) -> None:
    """Once every transaction has ended the base rises to the lowest live row, and to no higher."""
    observer = sessions()
    leases = Leases(observer)
    observer.call("setval('ready_seq', 5000)")  # a raise is of a thousand at least
    tasks = [observer.call(SPAWN, None) for _ in range(10)]
    assert leases.claim(9)[1] == tasks[:9]
    for _ in range(4):
        observer.call("advance_marks()")

    assert observer.call("base from _levels()") == observer.call("seq from ready")

    assert leases.claim(9)[1] == tasks[9:]


def test_marks_that_rise_before_the_first_task_strand_nothing(sessions: Callable[[], Session]) -> None:
    """Rounds on an empty queue note that nothing was handed out yet: the first task is found and counted."""
    observer = sessions()
    leases = Leases(observer)
    for _ in range(4):
        observer.call("maintain()")
        observer.call("advance_marks()")
    task = observer.call(SPAWN, None)
    for _ in range(4):
        observer.call("maintain()")
        observer.call("advance_marks()")

    assert observer.call("(get_queue_stats('default')).pending") == 1
    assert leases.claim()[1] == [task]
    assert observer.call("count(*) from tally") == 1  # of the claim: what came before is folded


def test_counts_wait_for_the_fold(sessions: Callable[[], Session]) -> None:
    """However far the marks rise, a count that was not folded yet stays counted, and is folded once."""
    observer = sessions()
    for _ in range(3):
        observer.call(SPAWN, None)
        for _ in range(4):
            observer.call("advance_marks()")
    assert observer.call("(get_queue_stats('default')).pending") == 3

    assert observer.call("fold_tallies()") == 3
    for _ in range(4):
        observer.call("advance_marks()")

    assert observer.call("fold_tallies()") == 0
    assert observer.call("(get_queue_stats('default')).pending") == 3


def test_overlapping_cascades_do_not_deadlock(sessions: Callable[[], Session], until: Until) -> None:
    """Two failures whose subtrees share nodes cancel the union, whichever commits first."""
    one, two, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    left, right = observer.call(SPAWN, None), observer.call(SPAWN, None)
    shared = observer.call(SPAWN, depends(left, right))
    only_left = observer.call(SPAWN, depends(left))
    only_right = observer.call(SPAWN, depends(right))
    below = observer.call(SPAWN, depends(only_right, shared, only_left))
    observer.call("sweep_late()")
    first, _ = leases.claim()
    second, _ = leases.claim()

    one.begin()
    one.call(FAIL, [first], [left])
    two.call_later(FAIL, [second], [right])
    until(lambda: two.waits(observer))
    one.commit()
    assert two.result() is None

    for task in (shared, only_left, only_right, below):
        assert observer.call("get_state(%s)", task) == "cancelled"
    assert observer.call("(get_queue_stats('default')).cancelled") == 4


def test_a_retry_beside_a_sweep_leaves_no_child_behind(sessions: Callable[[], Session], until: Until) -> None:
    """A child that a sweep cancels for its parent's end, while that parent is retried, waits for the parent again."""
    one, two, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    parent = observer.call(SPAWN, None)
    lease, _ = leases.claim()
    observer.call(FAIL, [lease], [parent])
    child = observer.call(SPAWN, depends(parent))

    one.begin()
    one.call("sweep_late()")
    two.call_later("retry_task(%s)", parent)
    until(lambda: two.waits(observer))
    one.commit()
    two.result()

    assert ["pending", "blocked"] == [observer.call("get_state(%s)", each) for each in (parent, child)]
    lease, _ = leases.claim()
    observer.call("sweep_late()")
    observer.call(COMPLETE, [lease], [parent])
    assert "pending" == observer.call("get_state(%s)", child)


def test_a_claim_that_outlives_its_worker_is_handed_back(sessions: Callable[[], Session]) -> None:
    """A claim that saw its worker alive and commits after that was given up, or left, keeps no task for ever."""
    one, two = sessions(), sessions()
    for leaves in ("give_up_worker(%s)", "unregister_worker(%s)"):
        leases = Leases(two)
        task = two.call(SPAWN, None)
        one.begin()
        _, claimed = leases.claim(session=one)
        assert [task] == claimed

        two.call(leaves, leases.worker)
        one.commit()
        assert "running" == two.call("get_state(%s)", task)

        assert 1 == two.call("recover_runs()")
        assert "pending" == two.call("get_state(%s)", task)
        two.call("cancel_task(%s)", task)


def test_two_retries_make_one_attempt(sessions: Callable[[], Session], until: Until) -> None:
    """Of two retries of one failed task at once, one puts it back and the other is refused."""
    one, two, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    task = observer.call(SPAWN, None)
    lease, _ = leases.claim()
    observer.call(FAIL, [lease], [task])

    one.begin()
    assert one.call("retry_task(%s)", task) == "pending"
    two.call_later("retry_task(%s)", task)
    until(lambda: two.waits(observer))
    one.commit()
    with pytest.raises(psycopg.Error) as caught:
        two.result()

    assert caught.value.sqlstate == "AB004"
    assert observer.call("count(*) from ready where task_id = %s", task) == 1


def test_waiting_and_emitting_cannot_miss_each_other(sessions: Callable[[], Session], until: Until) -> None:
    """A wait and an emission in two open transactions: whichever commits first, the task wakes (B70)."""
    for emits_first in (True, False):
        one, two, observer = sessions(), sessions(), sessions()
        leases = Leases(observer)
        name = f"event-{emits_first}"
        task = observer.call(SPAWN, None)
        lease, _ = leases.claim()
        wait = ("suspend_runs(%s::bigint[], %s, '{0}', '{null}', '{event}', %s)", [lease], [task], [name])
        emit = ("emit_event(%s, '1')", name)

        one.begin()
        one.call(*(emit if emits_first else wait))
        two.call_later(*(wait if emits_first else emit))
        until(lambda two=two, observer=observer: two.waits(observer))  # type: ignore[misc]
        one.commit()
        two.result()

        assert observer.call("get_state(%s)", task) == "pending"
        leases.claim()


def test_one_key_from_many_sessions_is_one_task(sessions: Callable[[], Session], until: Until) -> None:
    """A spawn under a key that another open transaction holds waits for it and becomes its task."""
    one, two, observer = sessions(), sessions(), sessions()
    one.begin()
    first = one.call(SPAWN, '{"key": "k"}')
    two.call_later(SPAWN, '{"key": "k"}')
    until(lambda: two.waits(observer))
    one.commit()

    assert two.result() == first
    assert observer.call("count(*) from task") == 1


def test_claims_of_many_sessions_share_nothing(database_url: str) -> None:
    """Eight sessions drain 2,000 tasks in batches of 7: each task is claimed once (B1)."""
    with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as connection:
        connection.execute(
            "select count(*) from (select spawn_task('default', 'demo.add', '{}') from generate_series(1, 2000)) s"
        )
    claimed: list[UUID] = []

    def drain() -> None:
        session = Session(database_url)
        leases = Leases(session)
        while True:
            lease, tasks = leases.claim(7)
            if not tasks:
                break
            claimed.extend(tasks)
            session.call(
                "complete_runs(%s::bigint[], %s, array_fill(0, array[%s]), array_fill(null::text, array[%s]))",
                [lease] * len(tasks),
                tasks,
                len(tasks),
                len(tasks),
            )
        session.connection.close()

    threads = [threading.Thread(target=drain) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len(set(claimed)) == 2000


def test_a_claim_passes_over_an_open_edit(sessions: Callable[[], Session]) -> None:
    """While an edit is open its task is not claimed; afterwards the claim sees the new params."""
    editor, claimer = sessions(), sessions()
    leases = Leases(claimer)
    task = claimer.call(SPAWN, None)

    editor.begin()
    editor.call(EDIT, task)
    assert leases.claim()[1] == []
    editor.commit()

    assert leases.claim()[1] == [task]
    assert claimer.call("params from task") == {"a": 1}


def test_an_edit_loses_to_an_open_claim(sessions: Callable[[], Session], until: Until) -> None:
    """An edit that meets an uncommitted claim waits for it, and is refused: the run has the old params."""
    editor, claimer, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    task = observer.call(SPAWN, None)

    claimer.begin()
    assert leases.claim(session=claimer)[1] == [task]
    editor.call_later(EDIT, task)
    until(lambda: editor.waits(observer))
    claimer.commit()

    with pytest.raises(psycopg.Error, match="is running"):
        editor.result()
    assert observer.call("params from task") == {}


def test_a_retry_that_is_open_keeps_the_task(sessions: Callable[[], Session]) -> None:
    """A prune passes over a task that is being retried, and it stays (B46)."""
    retrier, pruner = sessions(), sessions()
    task = pruner.call(SPAWN, None)
    pruner.call("cancel_task(%s)", task)

    retrier.begin()
    retrier.call("retry_task(%s)", task)
    assert pruner.call("prune_queue('default', 0)") == 0
    retrier.commit()

    assert pruner.call("prune_queue('default', 0)") == 0
    assert pruner.call("get_state(%s)", task) == "pending"


def test_a_batch_that_spawns_locks_workflows_in_order(sessions: Callable[[], Session], until: Until) -> None:
    """Two batches of nodes of two workflows, one of which spawns into the higher one, both end: no deadlock."""
    holder, spawning, plain, observer = sessions(), sessions(), sessions(), sessions()
    leases = Leases(observer)
    tasks = []
    low, high = sorted(observer.call("new_task_id()") for _ in range(2))
    for workflow in (low, high):
        tasks.append([observer.call("new_task_id()") for _ in range(2)])
        observer.call(
            "count(*) from spawn_workflow(%s, 'w', %s, '{default,default}', '{x,x}', '{null,null}',"
            """ array['{"priority": 1}', '{}']::jsonb[])""",
            workflow,
            tasks[-1],
        )
    firsts, seconds = (list(pair) for pair in zip(*tasks, strict=True))
    first, claimed = leases.claim(2)
    assert claimed == firsts
    second, claimed = leases.claim(2)
    assert claimed == seconds
    sql = "complete_runs(%s::bigint[], %s, '{0,0}', '{null,null}', null, %s::jsonb)"
    spawn = {"task": str(firsts[1]), "id": str(observer.call("new_task_id()")), "queue": "default", "name": "x"}

    holder.begin()
    holder.call("id from workflow where id = %s for update", low)
    plain.call_later(sql, [second] * 2, seconds, None)
    until(lambda: plain.waits(observer))
    spawning.call_later(sql, [first] * 2, firsts, json.dumps([spawn]))
    until(lambda: spawning.waits(observer))
    holder.commit()

    assert [plain.result(), spawning.result()] == [None, None]
    assert observer.call("array_agg(state order by id) from workflow") == ["completed", "running"]


def test_a_purge_takes_its_locks_in_order(sessions: Callable[[], Session], until: Until) -> None:
    """A long queue is purged beside a session that holds its dependents: neither is a deadlock's victim."""
    purger, holder, observer = sessions(), sessions(), sessions()
    low, high = sorted(observer.call("new_task_id()") for _ in range(2))
    for child in (high, low):
        parent = observer.call(SPAWN, None)
        observer.call(SPAWN, json.dumps({"id": str(child), "depends_on": [str(parent)]}))
        observer.call(
            "count(*) from spawn_tasks(array(select new_task_id() from generate_series(1, 1000)),"
            " array_fill('default'::text, '{1000}'), array_fill('x'::text, '{1000}'),"
            " array_fill(null::jsonb, '{1000}'))"
        )
    observer.call("sweep_late()")

    holder.begin()
    holder.call("1 from blocked where task_id = %s for update", low)
    purger.call_later("purge_queue('default')")
    until(lambda: purger.waits(observer))
    holder.call("1 from blocked where task_id = %s for update", high)
    holder.commit()

    assert purger.result() == 2002
    assert observer.call("array[get_state(%s), get_state(%s)]", low, high) == ["cancelled", "cancelled"]


def test_a_deadline_beside_a_prune(sessions: Callable[[], Session], until: Until) -> None:
    """The round that looks for overdue tasks passes by one that is being pruned: neither is a deadlock's victim."""
    pruner, round_, holder, observer = sessions(), sessions(), sessions(), sessions()
    task = observer.call(SPAWN, '{"finish_within": 0.001}')
    leases = Leases(observer)
    lease, _ = leases.claim()
    observer.call("set_checkpoint(%s, %s, 'a', '1')", lease, task)
    observer.call(COMPLETE, [lease], [task])

    holder.begin()
    holder.call("1 from checkpoint for update")
    pruner.call_later("prune_queue('default', 0)")
    until(lambda: pruner.waits(observer))
    round_.call_later("cancel_overdue()")
    until(lambda: round_.waits(observer))
    holder.commit()

    assert [round_.result(), pruner.result()] == [0, 1]
    assert observer.call("count(*) from deadline") == 0


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_claim_made_again_while_the_first_is_under_way(
    sessions: Callable[[], Session], until: Until, end: str
) -> None:
    """A worker whose connection was cut asks again before the server has noticed: it gets that claim, or its own."""
    cut, again, observer = sessions(), sessions(), sessions()
    leases = Leases(observer)
    tasks = [observer.call(SPAWN, None) for _ in range(4)]

    cut.begin()
    lease, claimed = leases.claim(2, session=cut)
    assert claimed == tasks[:2]
    again.call_later(CLAIM, lease, 2, [], [])
    until(lambda: again.waits(observer))
    cut.connection.execute(end)

    assert again.result() == tasks[:2]
    assert observer.call("array_agg(task_ids) from lease") == [tasks[:2]]


def test_a_subtree_is_cancelled_with_what_was_spawned_meanwhile(sessions: Callable[[], Session], until: Until) -> None:
    """While the cancel waits for a task of the subtree, another is spawned below it: that is cancelled too."""
    one, two, observer = sessions(), sessions(), sessions()
    top = observer.call(SPAWN, None)
    middle = observer.call(SPAWN, depends(top))
    one.begin()
    one.call(EDIT, middle)
    two.call_later("cancel_task(%s, null, true)", top)
    until(lambda: two.waits(observer))
    low = observer.call(SPAWN, json.dumps({"depends_on": [str(middle)], "when": "all_done"}))
    assert two.waits(observer)
    one.commit()

    assert two.result() == "cancelled"
    observer.call("sweep_late()")
    assert [observer.call("get_state(%s)", each) for each in (top, middle, low)] == ["cancelled"] * 3
    assert observer.call("count(*) from audit where action = 'cancel'") == 3
