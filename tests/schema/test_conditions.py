"""When a task with parents runs: each condition against each mix of ends, however they come."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue

ENDS = ("completed", "failed", "cancelled")
CONDITIONS = ("all_success", "all_done", "any_success", "any_failed", "quorum(2)")


def expected(when: str, ends: Sequence[str], parents: int) -> str:
    """The state of a child after these ends of its parents, in words instead of counts."""
    done = len(ends) == parents
    needed = {"all_success": parents, "any_success": 1, "quorum(2)": 2}.get(when)
    if when == "all_done":
        return "pending" if done else "blocked"
    if needed is None:
        return "pending" if "failed" in ends else "cancelled" if done else "blocked"
    lost = sum(end != "completed" for end in ends)
    return "pending" if ends.count("completed") >= needed else "cancelled" if parents - lost < needed else "blocked"


@pytest.mark.parametrize("when", CONDITIONS)
@pytest.mark.parametrize("late", [False, True], ids=["whole", "late"])
def test_each_condition_holds_for_each_mix_of_ends(queue: Queue, when: str, late: bool) -> None:
    """After each end of a parent the child stands where its condition says (B74, B78-B81)."""
    for ends in itertools.product(ENDS, repeat=3):
        parents = [queue.spawn() for _ in ends]
        lease, claimed, _ = queue.claim()
        assert parents == claimed
        child = queue.spawn(depends_on=[str(each) for each in parents], when=when)
        grandchild = queue.spawn(depends_on=[str(child)])
        if not late:
            queue.call("sweep_late()")
        for n, end in enumerate(ends, 1):
            queue.end(lease, parents[n - 1], end)
            queue.call("sweep_late()")
            assert queue.state(child) == expected(when, ends[:n], 3), (ends[:n], queue.document(child))
            if queue.state(child) != "blocked":
                break
        for parent in parents:  # those that end later change nothing
            queue.end(lease, parent, "completed")
        ended = queue.state(child)
        if ended == "pending":
            release, again, _ = queue.claim()
            assert [child] == again
            queue.complete(release, child)
            assert "pending" == queue.state(grandchild)
            queue.call("cancel_task(%s)", grandchild)
        else:
            assert ("cancelled", "cancelled") == (ended, queue.state(grandchild))
            assert "upstream" == queue.document(grandchild)["reason"]
    assert set(queue.counts()) == {"completed", "failed", "cancelled"}


def test_parents_of_one_batch_are_all_counted(queue: Queue) -> None:
    """A child of several tasks that end in one report is counted once for each of them."""
    parents = [queue.spawn() for _ in range(5)]
    children = {
        when: queue.spawn(depends_on=[str(each) for each in parents], when=when) for when in (*CONDITIONS, "quorum(5)")
    }
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()

    queue.complete(lease, *parents)

    states = {when: queue.state(child) for when, child in children.items()}
    assert states.pop("any_failed") == "cancelled"
    assert set(states.values()) == {"pending"}
    assert queue.counts() == {"completed": 5, "pending": 5, "cancelled": 1}


def test_a_failure_runs_through_mixed_conditions(queue: Queue) -> None:
    """One failure cancels what needs success, runs what waits for it, and cancels what waited for a failure below."""
    root = queue.spawn()
    lease, _, _ = queue.claim()
    needs = queue.spawn(depends_on=[str(root)])
    rescue = queue.spawn(depends_on=[str(root)], when="any_failed")
    below = queue.spawn(depends_on=[str(needs)])
    tidy = queue.spawn(depends_on=[str(needs), str(below)], when="all_done")
    nobody_failed = queue.spawn(depends_on=[str(below)], when="any_failed")
    queue.call("sweep_late()")

    queue.fail(lease, root, None)

    assert [queue.state(each) for each in (needs, rescue, below, tidy, nobody_failed)] == [
        "cancelled", "pending", "cancelled", "pending", "cancelled",
    ]  # fmt: skip
    assert queue.counts() == {"failed": 1, "pending": 2, "cancelled": 3}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"when": "all_success"}, None),
        ({"when": "all_done"}, "no parents"),
        ({"when": "sometimes", "depends_on": 1}, "'sometimes'"),
        ({"when": "quorum(0)", "depends_on": 1}, "1 parents"),
        ({"when": "quorum(2)", "depends_on": 1}, "1 parents"),
        ({"when": "quorum(x)", "depends_on": 1}, "quorum(x)"),
        ({"when": 3, "depends_on": 1}, "option when"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(queue: Queue, options: dict[str, Any], told: str | None) -> None:
    """The message names the option and its value; nothing is spawned."""
    parent = queue.spawn()
    if "depends_on" in options:
        options = options | {"depends_on": [str(parent)]}
    if told is None:
        queue.spawn(**options)
        return

    with pytest.raises(psycopg.Error) as caught:
        queue.spawn(**options)

    assert caught.value.sqlstate == "AB001"
    assert told in str(caught.value)
    assert queue.counts() == {"pending": 1}


def test_a_subtree_is_cancelled_whatever_it_waits_for(queue: Queue) -> None:
    """With p_subtree all that depends on a task goes, even what runs; a plain cancel follows the conditions."""
    root = queue.spawn()
    after = queue.spawn(depends_on=[str(root)])
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()
    queue.complete(lease, root)
    running, _, _ = queue.claim()
    tidy = queue.spawn(depends_on=[str(after)], when="all_done")
    last = queue.spawn(depends_on=[str(tidy)])

    assert "completed" == queue.call("cancel_task(%s, 'enough', true)", root)

    assert [queue.state(each) for each in (after, tidy, last)] == ["cancelled"] * 3
    assert [after] == queue.complete(running, after)
    assert queue.counts() == {"completed": 1, "cancelled": 3}
    other = queue.spawn()
    follows = queue.spawn(depends_on=[str(other)], when="all_done")
    queue.call("cancel_task(%s)", other)
    queue.call("sweep_late()")
    assert "pending" == queue.state(follows)


def test_a_parent_that_was_removed_is_not_waited_for(queue: Queue) -> None:
    """A child spawned on a task that retention takes away before it is counted ends as upstream instead of waiting."""
    parent = queue.spawn()
    lease, _, _ = queue.claim()
    queue.complete(lease, parent)
    child = queue.spawn(depends_on=[str(parent)])
    for table, column in (("run", "task_id"), ("task", "id")):
        queue.connection.execute(f"delete from {table} where {column} = %s", [parent])

    queue.call("sweep_late()")

    assert "cancelled" == queue.state(child)


# Coming back ---------------------------------------------------------------------------------------


def chain(queue: Queue, *whens: str) -> list[UUID]:
    """A task and those after it, each waiting for the one before."""
    tasks = [queue.spawn()]
    for when in whens:
        tasks.append(queue.spawn(depends_on=[str(tasks[-1])], when=when))
    queue.call("sweep_late()")
    return tasks


def test_a_retried_failure_restores_only_what_it_cancelled(queue: Queue) -> None:
    """Descendants ended as upstream wait again, those that ran because of the failure stay as they are (B77)."""
    root, needs, below = chain(queue, "all_success", "all_success")
    rescue = queue.spawn(depends_on=[str(root)], when="any_failed")
    queue.call("sweep_late()")
    lease, _, _ = queue.claim()
    queue.fail(lease, root, None)
    lease, claimed, _ = queue.claim()
    assert [rescue] == claimed
    queue.complete(lease, rescue)

    queue.call("retry_task(%s)", root)

    assert [queue.state(each) for each in (root, needs, below, rescue)] == [
        "pending",
        "blocked",
        "blocked",
        "completed",
    ]
    queue.call("sweep_late()")
    for expected_next in (root, needs, below):
        lease, claimed, attempts = queue.claim()
        assert ([expected_next], [2 if expected_next == root else 1]) == (claimed, attempts)
        queue.complete(lease, expected_next)
    assert queue.counts() == {"completed": 4}


def test_a_part_is_run_anew_and_the_rest_reused(queue: Queue) -> None:
    """rerun_task repeats a node and its descendants; parents and siblings keep their ends."""
    root, middle, last = chain(queue, "all_success", "all_success")
    sibling = queue.spawn(depends_on=[str(root)])
    queue.call("sweep_late()")
    while (claim := queue.claim())[1]:
        queue.complete(claim[0], *claim[1], result={"n": 1})

    assert 2 == queue.call("rerun_task(%s)", middle)

    assert [queue.state(each) for each in (root, middle, last, sibling)] == [
        "completed", "pending", "blocked", "completed",
    ]  # fmt: skip
    queue.call("sweep_late()")
    for expected_next in (middle, last):
        lease, claimed, attempts = queue.claim()
        assert ([expected_next], [2]) == (claimed, attempts)
        queue.complete(lease, expected_next, result={"n": 2})
    assert queue.counts() == {"completed": 4}
    assert {"n": 2} == queue.document(last)["result"]


def test_what_still_runs_is_not_run_anew(queue: Queue) -> None:
    """A descendant that has not ended refuses the rerun by its name, and nothing changes."""
    root, child = chain(queue, "all_success")
    lease, _, _ = queue.claim()
    queue.complete(lease, root)
    queue.claim()
    before = queue.counts()

    with pytest.raises(psycopg.Error) as caught:
        queue.call("rerun_task(%s)", root)

    assert caught.value.sqlstate == "AB004"
    assert str(child) in str(caught.value)
    assert queue.counts() == before
