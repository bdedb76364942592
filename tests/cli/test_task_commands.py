"""``absurd task``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from cli.conftest import Run

Connection = psycopg.Connection[tuple[object, ...]]

SHOWN = {
    "id", "queue", "name", "state", "priority", "params", "headers", "key", "workflow_id", "depends_on", "attempts",
    "max_attempts", "created_at", "run_at", "started_at", "finished_at", "result", "error", "progress", "runs",
    "artifacts",
}  # fmt: skip
"""Keys that ``task show --json`` promises."""


def test_tasks_are_listed_newest_first_and_filtered(run: Run) -> None:
    """The list can be narrowed by queue, state, executor and tag, and paged."""
    first = run("spawn", "cli.fail", "--queue", "a", "--tag", "night-1").out.strip()
    second = run("spawn", "cli.add", "a=1", "b=2", "--queue", "b", "--delay", "1h").out.strip()

    def listed(*words: str) -> list[str]:
        return [each["id"] for each in run("task", "list", "--json", *words).document]

    assert [second, first] == listed()
    assert [first] == listed("--queue", "a") == listed("--tag", "night-1") == listed("--name", "cli.fail")
    assert [second] == listed("--state", "sleeping") == listed("--limit", "1")
    assert [first] == listed("--after", second)
    assert [] == listed("--state", "failed")
    text = run("task", "list", "--limit", "1")
    assert second in text.out
    assert f"There may be more: go on with --after {second}\n" == text.err
    assert "There are no such tasks.\n" == run("task", "list", "--state", "failed").out


def test_show_tells_the_whole_story(run: Run) -> None:
    """The document has the promised keys; the text tells where the task stands, and each transition."""
    task_id = run("spawn", "cli.add", "a=1", "b=2", "--key", "k", "--header", "who=ada").out.strip()
    run("task", "cancel", task_id, "--reason", "wrong field")

    document = run("task", "show", task_id, "--json").document
    assert document.keys() >= SHOWN
    assert ("cli.add", "cancelled", {"a": 1, "b": 2, "c": None}, {"who": "ada"}, "k") == tuple(
        document[key] for key in ("name", "state", "params", "headers", "key")
    )
    text = run("task", "show", task_id).out
    for part in (task_id, "cancelled", "wrong field", '{"a": 1, "b": 2, "c": null}', "spawned"):
        assert part in text


def test_why_says_what_a_task_waits_for(run: Run) -> None:
    """Nobody serves the queue: the sentence says so, and what to do."""
    task_id = run("spawn", "cli.fail").out.strip()

    assert "absurd-worker --queue default" in run("task", "why", task_id).out
    assert {"id", "why"} == run("task", "why", task_id, "--json").document.keys()


def test_cancel_and_retry(run: Run) -> None:
    """A cancelled task can be retried; cancelling it again changes nothing; retrying what goes on is a conflict."""
    task_id = run("spawn", "cli.fail").out.strip()

    refused = run("task", "retry", task_id, "--json")
    assert (5, "task_state") == (refused.code, refused.document["error"]["code"])
    assert {"id": task_id, "state": "cancelled"} == run("task", "cancel", task_id, "--json").document
    assert f"Task {task_id} is cancelled.\n" == run("task", "cancel", task_id).out
    assert f"Task {task_id} is pending again.\n" == run("task", "retry", task_id).out


def test_wait_gives_up_in_time_and_tells_the_fate(run: Run) -> None:
    """A wait that takes too long, and a task that was cancelled, both end with exit code 1."""
    task_id = run("spawn", "cli.fail").out.strip()

    late = run("task", "wait", task_id, "--timeout", "0.1", "--json")
    assert (1, "wait_timeout") == (late.code, late.document["error"]["code"])
    run("task", "cancel", task_id, "--reason", "clouds")
    ended = run("task", "wait", task_id)
    assert (1, "") == (ended.code, ended.out)
    assert "was cancelled: clouds" in ended.err
    as_json = run("task", "wait", task_id, "--json")
    assert (1, "cancelled") == (as_json.code, as_json.document["state"])


def test_secrets_are_shown_on_request_only(run: Run) -> None:
    """Values under a secret's name are hidden in text and JSON alike, unless they are asked for."""
    words = ["--params", '{"a": 1, "b": 2, "api_token": "geheim"}', "--header", "authorization=geheim"]
    task_id = run("spawn", "cli.fail", *words).out.strip()

    hidden, revealed = (
        run("task", "show", task_id, "--json").document,
        run("task", "show", task_id, "--json", "--reveal"),
    )

    assert ({"a": 1, "b": 2, "api_token": "***"}, {"authorization": "***"}) == (hidden["params"], hidden["headers"])
    assert "geheim" == revealed.document["params"]["api_token"] == revealed.document["headers"]["authorization"]
    assert "geheim" not in run("task", "show", task_id).out
    assert "geheim" in run("task", "show", task_id, "--reveal").out
