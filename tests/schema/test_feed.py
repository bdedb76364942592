"""The feed: what changes state while somebody watches, whatever the order in which it is committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sessions import Session
from sql_queue import Queue


def read(queue: Queue, snapshot: str | None) -> tuple[str, list[dict[str, Any]]]:
    """The next snapshot, and what was told since the one before."""
    found = queue.call("read_feed(%s)", snapshot)
    assert found["lost"] is False
    return found["snapshot"], found["events"]


def told(events: list[dict[str, Any]]) -> list[tuple[str, str, Any]]:
    return [(each["topic"], each["state"], each.get("ids") or each.get("id") or each["count"]) for each in events]


def test_nothing_is_written_while_nobody_watches(queue: Queue) -> None:
    """What was done before is not told to those who come later, nor what is done once the watch is over."""
    queue.complete(queue.claim()[0], queue.spawn())
    assert queue.call("read_feed()")["events"] == []
    assert queue.call("count(*) from feed") == 0

    queue.call("watch_feed(60)")
    queue.move_clock("2 minutes")
    queue.spawn()
    queue.claim()
    assert queue.call("count(*) from feed") == 0


def test_what_changes_is_told_once(queue: Queue) -> None:
    """Runs that begin, ends of every kind, and what else changes state; each read tells what is new since the last."""
    queue.call("watch_feed()")
    snapshot, _ = read(queue, None)
    done, bad, gone = queue.spawn(), queue.spawn(), queue.spawn(delay=60)
    below = queue.spawn(depends_on=[str(bad)])
    queue.call("sweep_late()")
    lease, claimed, _ = queue.claim()
    snapshot, events = read(queue, snapshot)
    assert [("task", "running", [str(each) for each in claimed])] == told(events)
    assert ("default", ["demo.add"]) == (events[0]["queue"], events[0]["names"])

    queue.complete(lease, done)
    queue.fail(lease, bad, None)
    queue.call("cancel_task(%s)", gone)
    queue.call("set_queue_paused('default', true)")
    queue.call("unregister_worker(%s)", queue.worker)
    snapshot, events = read(queue, snapshot)
    assert told(events) == [
        ("task", "completed", [str(done)]),
        ("task", "failed", [str(bad)]),
        ("task", "cancelled", [str(below)]),
        ("task", "cancelled", [str(gone)]),
        ("queue", "paused", "default"),
        ("worker", "stopped", str(queue.worker)),
    ]
    assert [] == read(queue, snapshot)[1]


def test_of_many_the_number_is_told(queue: Queue) -> None:
    """A statement that moves more than a hundred tasks names none of them."""
    queue.call("watch_feed()")
    snapshot, _ = read(queue, None)
    for _ in range(101):
        queue.spawn()
    lease, claimed, _ = queue.claim(101)
    queue.complete(lease, *claimed)
    assert [("task", "running", 101), ("task", "completed", 101)] == told(read(queue, snapshot)[1])


def test_a_late_commit_is_not_missed(queue: Queue, sessions: Callable[[], Session]) -> None:
    """What is committed after what came later is told when it is; a cut of the feed meanwhile does not take it."""
    queue.call("watch_feed()")
    first = queue.spawn()
    lease, _, _ = queue.claim()
    snapshot, _ = read(queue, None)
    late = sessions()
    late.begin()
    late.call("complete_runs(array[%s::bigint], array[%s::uuid], '{0}', '{1}')", lease, first)
    queue.claim()
    second = queue.spawn()
    queue.claim()
    snapshot, events = read(queue, snapshot)
    assert [("task", "running", [str(second)])] == told(events)

    queue.call("watch_feed(600, 0)")  # cuts at once
    queue.call("watch_feed(600, 0)")
    late.commit()
    snapshot, events = read(queue, snapshot)
    assert [("task", "completed", [str(first)])] == told(events)


def test_what_is_gone_is_said_to_be_lost(queue: Queue) -> None:
    """After a cut, or a time without a watch, who comes with an old snapshot is told so, as is one from elsewhere."""
    queue.call("watch_feed()")
    old, _ = read(queue, None)
    for _ in range(3):
        queue.spawn()
        queue.claim()
        queue.call("watch_feed(600, 0)")
    assert queue.call("read_feed(%s)->'lost'", old) is True
    assert queue.call("read_feed('99999999:99999999:')->'lost'") is True
    recent, _ = read(queue, None)
    assert queue.call("read_feed(%s)->'lost'", recent) is False
    assert queue.call("read_feed(%s, 0)->'lost'", recent) is False
    queue.move_clock("11 minutes")
    assert queue.call("read_feed(%s)->'lost'", recent) is True
    assert queue.call("count(*) from feed") <= 2
