"""Logs in SQL: appended once, under a claim that holds, within their limit, and gone with their task."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sessions import Session
from sql_queue import Queue


def append(
    queue: Queue | Session, lease: int, task: UUID, part: int, text: str, *, limit: int = 1000, dropped: int = 0
) -> Any:
    pieces = json.dumps([["stdout", 0, text]])
    return queue.call(
        "append_log(array[%s::bigint], array[%s::uuid], array[%s], array[%s], array[%s], array[%s::bigint],"
        " array[%s::bigint], array[%s], %s)",
        lease, task, part, len(text), text.count("\n"), dropped, dropped // 10, pieces, limit,
    )  # fmt: skip


def parts(queue: Queue, task: UUID, **asked: Any) -> list[dict[str, Any]]:
    names = "".join(f", p_{name} => %s" for name in asked)
    found: list[dict[str, Any]] = queue.call(f"get_log(%s{names})", task, *asked.values())["parts"]
    return found


def text(queue: Queue, task: UUID, **asked: Any) -> str:
    return "".join(piece[2] for part in parts(queue, task, **asked) for piece in part["pieces"])


def test_parts_are_read_in_order_and_page_by_page(queue: Queue) -> None:
    """All of it, one attempt, what is behind a place, or the last lines; none for a task that is not there."""
    task = queue.spawn()
    for attempt in (1, 2):
        lease, _, _ = queue.claim(1)
        for part in (1, 2, 3):
            assert append(queue, lease, task, part, f"{attempt}.{part}\n") == []
        if attempt == 1:
            queue.fail(lease, task, 0)
            queue.call("promote_timers()")

    assert text(queue, task) == "1.1\n1.2\n1.3\n2.1\n2.2\n2.3\n"
    assert text(queue, task, attempt=2) == "2.1\n2.2\n2.3\n"
    second = parts(queue, task)[1]
    rest = {"after_attempt": 1, "after_upto": second["upto"], "after_lines": second["lines"]}
    assert text(queue, task, **rest) == "1.3\n2.1\n2.2\n2.3\n"
    assert [text(queue, task, tail=n) for n in (1, 4)] == ["2.3\n", "1.3\n2.1\n2.2\n2.3\n"]
    assert text(queue, task, bytes=8) == "1.1\n1.2\n"
    assert queue.call("get_log(%s, p_bytes => 8) -> 'more'", task)
    assert queue.call("get_log(%s) -> 'state'", task) == "running"
    assert queue.call("get_log(new_task_id())") is None
    assert queue.call("get_task(%s) -> 'log'", task) == {"bytes": 24, "lines": 6, "dropped_bytes": 0}
    assert queue.call("get_task(%s) ->> 'log'", queue.spawn()) is None


def test_a_part_that_comes_twice_is_taken_once(queue: Queue) -> None:
    """An answer was lost, and all is sent again; also when another run has taken the attempt over meanwhile."""
    task = queue.spawn()
    lease, _, _ = queue.claim(1)
    for part in (1, 2, 1, 2, 3, 3):
        assert append(queue, lease, task, part, f"{part}\n") == []
    queue.call("return_runs(array[%s::bigint], array[%s::uuid], '{5}')", lease, task)
    second, _, _ = queue.claim(1)
    append(queue, second, task, 1, "4\n")

    append(queue, lease, task, 3, "3\n")
    append(queue, second, task, 1, "4\n")

    assert text(queue, task) == "1\n2\n3\n4\n"


def test_the_last_words_may_come_after_the_outcome(queue: Queue) -> None:
    """For a day, of a run that ended by itself or was cancelled; for its own attempt."""
    done, cancelled, failed = (queue.spawn() for _ in range(3))
    lease, _, _ = queue.claim(3)
    queue.complete(lease, done)
    queue.call("cancel_task(%s)", cancelled)
    queue.fail(lease, failed, 0)
    queue.call("promote_timers()")
    second, _, _ = queue.claim(1)
    append(queue, second, failed, 1, "second\n")
    for task in (done, cancelled, failed):
        assert append(queue, lease, task, 1, "last words\n") == []
    queue.move_clock("25 hours")

    assert append(queue, lease, done, 2, "too late\n") == [done]

    assert [text(queue, each) for each in (done, cancelled)] == ["last words\n"] * 2
    assert text(queue, failed) == "last words\nsecond\n"


def test_a_lost_claim_appends_nothing(queue: Queue) -> None:
    """Neither that of a worker which was given up, nor one that never was; the others of the call count."""
    lost, held = queue.spawn(), queue.spawn()
    gone = queue.new_worker()
    lease, _, _ = queue.claim(1, gone)
    queue.call("give_up_worker(%s)", gone)
    queue.claim(1)
    other, _, _ = queue.claim(1)
    stale = queue.call(
        "append_log(array[%s, %s, %s]::bigint[], array[%s, %s, %s]::uuid[], '{1,1,1}', '{2,2,2}', '{1,1,1}', '{0,0,0}',"
        " '{0,0,0}', %s, 1000)",
        lease, other, 99, lost, held, held, ['[["stdout", 0, "a\\n"]]'] * 3,
    )  # fmt: skip

    assert sorted(stale) == sorted([lost, held])
    assert (text(queue, lost), text(queue, held)) == ("", "a\n")


def test_the_first_and_the_last_half_stay(queue: Queue) -> None:
    """What goes in between is told by the part behind it, with what the worker dropped itself."""
    task = queue.spawn()
    lease, _, _ = queue.claim(1)
    for part in range(1, 101):
        append(queue, lease, task, part, f"{part:09}\n", limit=200, dropped=50 if part == 60 else 0)

    found = parts(queue, task)
    assert [int(part["pieces"][0][2]) for part in found] == [*range(1, 11), *range(91, 101)]
    gaps = [(part["dropped_bytes"], part["dropped_lines"]) for part in found]
    assert gaps == [(0, 0)] * 10 + [(850, 85)] + [(0, 0)] * 9
    assert queue.call("count(*) from log") == 20
    assert queue.call("get_task(%s) -> 'log'", task) == {"bytes": 200, "lines": 20, "dropped_bytes": 850}
    behind = parts(queue, task, after_attempt=1, after_upto=found[12]["upto"], after_lines=found[12]["lines"])
    assert [part["dropped_bytes"] for part in behind] == [0] * 7


def test_two_who_append_at_once_wait_for_each_other(queue: Queue, database_url: str) -> None:
    """The same part sent twice is one, and parts of two runs of an attempt both count."""
    task = queue.spawn()
    lease, _, _ = queue.claim(1)
    queue.call("return_runs(array[%s::bigint], array[%s::uuid], '{5}')", lease, task)
    second, _, _ = queue.claim(1)
    for other, expected in ((lease, "a\n"), (second, "a\nb\n")):
        first, later, observer = (Session(database_url) for _ in range(3))
        first.begin()
        append(first, lease, task, 1, "a\n")
        later.call_later(
            "append_log(array[%s::bigint], array[%s::uuid], '{1}', '{2}', '{1}', '{0}', '{0}', %s, 1000)",
            other, task, ['[["stdout", 0, "b\\n"]]'],
        )  # fmt: skip
        if other == lease:
            while not later.waits(observer):
                pass
        first.commit()
        assert later.result() == []
        assert text(queue, task) == expected
        for each in (first, later, observer):
            each.connection.close()


def test_it_goes_with_its_task(queue: Queue) -> None:
    """By hand and by retention; and lies in the week of its task until then."""
    task, kept = queue.spawn(), queue.spawn()
    lease, _, _ = queue.claim(2)
    for each in (task, kept):
        append(queue, lease, each, 1, "a\n")
    weeks = "tableoid::regclass::text from"
    assert queue.call(f"{weeks} log limit 1") == queue.call(f"{weeks} task limit 1").replace("task", "log")
    queue.complete(lease, task)

    assert queue.call("prune_queue('default', 0)") == 1

    assert queue.call("array_agg(task_id) from log") == [kept]


def test_only_who_follows_is_notified(queue: Queue, database_url: str) -> None:
    """Of what is added to that task's log; nobody pays for notifications that nobody asked for."""
    followed, other = queue.spawn(), queue.spawn()
    lease, _, _ = queue.claim(2)
    listener = Session(database_url).connection
    listener.execute("listen absurd_log")
    append(queue, lease, followed, 1, "a\n")
    queue.call("await_tasks(array[%s::uuid])", followed)
    append(queue, lease, other, 1, "a\n")
    append(queue, lease, followed, 2, "b\n")

    heard = [notice.payload for notice in listener.notifies(timeout=10, stop_after=1)]

    assert heard == [str(followed)]
    assert [*listener.notifies(timeout=0)] == []
    listener.close()
