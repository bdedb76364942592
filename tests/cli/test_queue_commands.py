"""``absurd queue`` and ``absurd event``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from cli.conftest import Run

Connection = psycopg.Connection[tuple[object, ...]]


def test_queues_are_made_paused_and_listed(run: Run) -> None:
    """A queue is made once; a pause is seen in the list and ends."""
    assert {"name": "cutouts", "created": True} == run("queue", "create", "cutouts", "--json").document
    assert {"name": "cutouts", "created": False} == run("queue", "create", "cutouts", "--json").document

    assert {"name": "cutouts", "paused": True} == run("queue", "pause", "cutouts", "--json").document
    listed = run("queue", "list", "--json").document
    assert [
        {
            "name": "cutouts", "paused": True, "blocked": 0, "pending": 0, "sleeping": 0, "running": 0,
            "completed": 0, "failed": 0, "cancelled": 0, "oldest_pending_seconds": None,
            "limits": {},
        }
    ] == listed  # fmt: skip
    assert "paused" in run("queue", "list").out
    assert "Queue cutouts goes on.\n" == run("queue", "resume", "cutouts").out
    assert "paused" not in run("queue", "list").out


def test_purge_says_what_would_go_and_asks(run: Run, connection: Connection) -> None:
    """--dry-run changes nothing, nobody to ask is a refusal, --yes cancels what waits."""
    connection.execute("select spawn_task('q', 'x', '{}', null) from generate_series(1, 3)")

    assert "3 waiting tasks of queue q would be cancelled.\n" == run("queue", "purge", "q", "--dry-run").out
    assert 2 == run("queue", "purge", "q").code
    assert {"name": "q", "cancelled": 3, "dry_run": False} == run("queue", "purge", "q", "--yes", "--json").document
    assert 3 == run("queue", "list", "--json").document[0]["cancelled"]


def test_a_queue_is_removed_once_nothing_of_it_is_kept(run: Run, connection: Connection) -> None:
    """--dry-run changes nothing, nobody to ask is a refusal; a kept task is a conflict, an unknown name not found."""
    connection.execute("select create_queue('spare'), spawn_task('used', 'x', '{}', null)")

    assert "Queue spare would be removed.\n" == run("queue", "remove", "spare", "--dry-run").out
    assert 2 == run("queue", "remove", "spare").code
    removed = run("queue", "remove", "spare", "--yes", "--json").document
    assert {"name": "spare", "removed": True, "dry_run": False} == removed
    assert 3 == run("queue", "remove", "spare", "--yes").code
    assert 5 == run("queue", "remove", "used", "--dry-run").code == run("queue", "remove", "used", "--yes").code
    assert ["used"] == [each["name"] for each in run("queue", "list", "--json").document]


def test_used_up_queues_of_here_are_left_out(run: Run, connection: Connection) -> None:
    """A queue made for one task is shown while something is left in it, and with --all."""
    connection.execute("select create_queue('here.1'), spawn_task('here.2', 'x', '{}', null)")

    assert ["here.2"] == [each["name"] for each in run("queue", "list", "--json").document]
    assert ["here.1", "here.2"] == [each["name"] for each in run("queue", "list", "--all", "--json").document]


def test_the_first_emission_of_an_event_counts(run: Run, connection: Connection) -> None:
    """An event keeps the payload it was first emitted with."""
    assert {"name": "night", "emitted": True} == run("event", "emit", "night", "n=1", "--json").document
    assert "was emitted before" in run("event", "emit", "night", "n=2").out
    assert [("night", {"n": 1})] == connection.execute("select name, payload from event").fetchall()


def test_a_queue_is_limited_and_lifted(run: Run, connection: Connection) -> None:
    """Limits are set one by one, shown in the list, and lifted together; without any there is nothing to do."""
    connection.execute("select create_queue('cutouts')")

    limited = run("queue", "limit", "cutouts", "--running", "8", "--per-lane", "2", "--rate", "100/minute", "--json")
    assert {"running": 8, "per_lane": 2, "rate": 100, "rate_seconds": 60} == limited.document["limits"]
    assert (
        "Limits of queue cutouts: 8 running, 2 per lane, 100/minute, lanes in turn.\n"
        == run("queue", "limit", "cutouts", "--fair").out
    )
    assert "8 running, 2 per lane" in run("queue", "list").out
    only = run("queue", "limit", "cutouts", "--none", "--rate", "5/30", "--json").document["limits"]
    assert {"rate": 5, "rate_seconds": 30} == only
    assert "Limits of queue cutouts: 5/30 s.\n" == run("queue", "limit", "cutouts", "--no-fair").out
    assert "Limits of queue cutouts: none.\n" == run("queue", "limit", "cutouts", "--none").out

    assert 2 == run("queue", "limit", "cutouts").code
    assert 2 == run("queue", "limit", "cutouts", "--rate", "fast").code
    assert 3 == run("queue", "limit", "nowhere", "--running", "1").code
