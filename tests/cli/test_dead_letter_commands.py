"""``absurd dlq``, ``task edit`` and ``queue retention|prune`` as people type them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from sql_queue import Queue

Run = Callable[..., Any]


@pytest.fixture
def queue(connection: psycopg.Connection[Any]) -> Queue:
    return Queue(connection)


def dead(queue: Queue, **params: Any) -> str:
    task = queue.spawn(params)
    lease, _, _ = queue.claim()
    queue.fail(lease, task, None)
    return str(task)


def test_dead_letters_are_listed_by_group_and_singly(run: Run, queue: Queue) -> None:
    """Those that look alike share a line with their count; --ungrouped shows each; the status points here."""
    one, two = dead(queue), dead(queue)

    (group,) = run("dlq", "list", "--json").document
    assert (group["count"], group["sample"]) == (2, two)
    assert [each["id"] for each in run("dlq", "list", "--ungrouped", "--json").document] == [two, one]
    assert "Boom: it broke" in run("dlq", "list").out
    problems = run("status", "--json").document["problems"]
    assert [each["action"] for each in problems if each["code"] == "dead_letters"] == [
        "absurd dlq list --queue default"
    ]


def test_a_dead_letter_is_shown(run: Run, queue: Queue) -> None:
    """Its params, error and runs; what is no dead letter exits with 3."""
    task = dead(queue, size=30)

    shown = run("dlq", "show", task)
    assert shown.code == 0
    assert '{"size": 30}' in shown.out and "Boom: it broke" in shown.out
    assert run("dlq", "show", str(queue.spawn())).code == 3


def test_requeue_with_filter_dry_run_and_edited_params(run: Run, queue: Queue) -> None:
    """A dry run changes nothing; then the chosen go back with a param set; all needs to be said."""
    one, two = dead(queue, band="g", size=1), dead(queue, band="r", size=1)
    assert run("dlq", "requeue").code == 2

    dry = run("dlq", "requeue", "--text", '"band": "g"', "--dry-run", "--json").document
    assert dry["requeued"] == 1
    assert queue.counts() == {"failed": 2}
    done = run("dlq", "requeue", "--text", '"band": "g"', "--set", "size=9", "--yes", "--json").document

    assert [each["id"] for each in done["tasks"]] == [one]
    document = run("task", "show", one, "--json").document
    assert (document["state"], document["params"]) == ("pending", {"band": "g", "size": 9})
    assert "requeue" in run("task", "show", one).out
    assert queue.call("get_state(%s)", two) == "failed"


def test_purge_asks(run: Run, queue: Queue) -> None:
    """Without --yes nothing is forgotten where nobody can be asked."""
    task = dead(queue)
    assert run("dlq", "purge", "--all").code == 2
    assert run("dlq", "purge", "--all", "--dry-run", "--json").document == {"purged": 1, "dry_run": True}
    assert run("dlq", "purge", task, "--yes", "--json").document == {"purged": 1, "dry_run": False}
    assert run("dlq", "list", "--json").document == []


def test_a_purge_forgets_no_more_than_was_told(run: Run, queue: Queue) -> None:
    """What dies between the count and the purge stays, be it that there was nothing before."""
    task = dead(queue)
    queue.connection.execute(
        "create or replace function count_dead_letters(p_filter jsonb default null, p_look integer default null)"
        " returns bigint language sql stable as 'select 0::bigint'"
    )

    assert run("dlq", "purge", "--all", "--yes", "--json").document == {"purged": 0, "dry_run": False}
    assert [each["id"] for each in run("dlq", "list", "--ungrouped", "--json").document] == [task]


def test_a_task_is_edited_found_and_spawned_anew(run: Run, queue: Queue) -> None:
    """`task edit` changes it, `task list --param` finds it, editing a running one exits with 5."""
    task = str(queue.spawn({"band": "g"}))

    changed = run("task", "edit", task, "--priority", "3", "--set", "band=r", "--json").document["changed"]
    assert changed["priority"] == {"old": 0, "new": 3}
    assert [each["id"] for each in run("task", "list", "--param", "band=r", "--json").document] == [task]
    assert run("task", "list", "--param", "band=g", "--json").document == []
    assert "priority 0 → 3" in run("task", "show", task).out
    lease, (claimed,), _ = queue.claim()
    assert run("task", "edit", task, "--priority", "4").code == 5
    queue.complete(lease, claimed)
    fresh = run("task", "retry", task, "--spawn-new", "--json").document["id"]
    assert fresh != task
    assert queue.counts() == {"pending": 1, "completed": 1}


def test_retention_and_prune(run: Run, queue: Queue) -> None:
    """A retention is set and lifted; a prune by hand says what would go, then removes it."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    queue.complete(lease, task)

    assert run("queue", "retention", "default", "30d", "--json").document["retention_seconds"] == 30 * 86400
    assert run("queue", "retention", "default", "none").code == 0
    assert run("queue", "retention", "other", "1d").code == 3
    assert run("queue", "prune", "default", "--older-than", "0", "--dry-run", "--json").document["pruned"] == 1
    assert run("queue", "prune", "default", "--older-than", "0", "--yes", "--json").document["pruned"] == 1
    assert run("task", "show", str(task)).code == 3


def test_secrets_of_dead_letters_and_edits_are_hidden(run: Run, queue: Queue) -> None:
    """What stands under a secret's name is not shown, neither in a letter nor in the history of an edit."""
    letter = dead(queue, api_token="geheim")
    edited = str(queue.spawn({"api_token": "geheim"}))
    assert 0 == run("task", "edit", edited, "--set", "api_token=geheimer").code

    for words in (("dlq", "show", letter), ("task", "show", edited)):
        for form in ((), ("--json",)):
            assert "geheim" not in run(*words, *form).out, words
    assert "geheim" in run("dlq", "show", letter, "--reveal").out


def test_the_story_of_a_task_tells_its_edits_and_wishes(run: Run, queue: Queue) -> None:
    """What was edited is told from what to what; lane, needs and deadlines have their lines."""
    task = str(queue.spawn({"n": 7}, lane="north", needs={"gpu": 1}, finish_within=3600))
    run("task", "edit", task, "--priority", "5", "--set", "n=8")

    text = run("task", "show", task).out

    assert 'edit: params {"n": 7} → {"n": 8}; priority 0 → 5' in text
    assert "north" in text
    assert "gpu 1" in text
    assert "finish by " in text
