"""Edits and removals beside claims and retries: the place or the body is locked first, so one of the two wins whole."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from test_races import SPAWN, Leases, Session, sessions

__all__ = ["sessions"]

Until = Callable[[Callable[[], object]], None]
EDIT = 'edit_task(%s, \'{"priority": 5, "set": {"a": 1}}\')'


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
