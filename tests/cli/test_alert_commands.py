"""``absurd alert`` as people type it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from receiver import receiving

from absurd.cli.alert import valued

Run = Callable[..., Any]
ADD = ("alert", "add", "backlog", "queue_depth", "0", "--queue", "default")


def test_an_alert_is_made_looked_at_silenced_and_removed(run: Run, connection: psycopg.Connection[Any]) -> None:
    """Made twice it is so already; without --yes nothing that was kept goes."""
    run("queue", "create", "default")
    assert "is created" in run(*ADD, "--to", "oncall", "--for", "5m", "--severity", "critical").out
    assert "is so already" in run(*ADD, "--to", "oncall", "--for", "5m", "--severity", "critical").out
    (found,) = run("alert", "list", "--json").document
    assert (300, ["oncall"], "critical", "ok") == tuple(found[key] for key in ("for", "targets", "severity", "state"))
    listed = run("alert", "list").out
    assert "unknown" in listed and "> 0 tasks" in listed

    assert "silent until" in run("alert", "silence", "backlog", "2h", "--reason", "clouds").out
    assert "until" in run("alert", "list").out
    assert "told again" in run("alert", "silence", "backlog", "--end").out
    assert [2, 2, 3] == [
        run("alert", "silence", *words).code for words in (("backlog",), ("backlog", "1h", "--end"), ("none", "1h"))
    ]

    assert "Nothing has fired" in run("alert", "history").out
    run("alert", "silence", "backlog", "2h")
    run(*ADD)
    connection.execute("select spawn_task('default', 'demo.add', '{}', null)")
    connection.execute("select step_alerts('h', 60)")
    told = run("alert", "history", "backlog").out
    assert "firing" in told and "silenced" in told and "1 task" in told
    assert "firing" in run("alert", "list").out

    assert 2 == run("alert", "remove", "backlog").code
    assert 0 == run("alert", "remove", "backlog", "--yes").code
    assert [3, 3, 3] == [run("alert", word, "backlog", "--json").code for word in ("remove", "test", "history")]


def test_a_rule_is_tried_before_it_is_made(run: Run) -> None:
    """--dry-run says what it would see; a folder is looked at on this machine."""
    run("queue", "create", "default")
    assert "It would not fire: queue_depth of queue default is 0 tasks" in run(*ADD, "--dry-run").out
    disk = run("alert", "add", "disk", "disk_free", "100%", "--folder", "/", "--dry-run", "--json").document
    assert 0 < disk["value"] <= 1 and disk["breached"] is (disk["value"] < 1)
    assert [] == run("alert", "list", "--json").document
    assert [2, 2, 2] == [
        run("alert", "add", "x", *words).code for words in (("weather", "1"), ("queue_age", "soon"), ("disk_free", "1"))
    ]


def test_a_message_is_sent_to_try_the_targets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marked as a test; one that does not arrive is told and the exit code says so; a dry run sends nothing."""
    run(*ADD, "--to", "oncall", "--to", "nobody")
    with receiving() as receiver:
        monkeypatch.setenv("ABSURD_ALERT_TARGETS", f"oncall={receiver.url}/geheim")
        dry = run("alert", "test", "backlog", "--dry-run")
        assert (0, []) == (dry.code, receiver.got)
        assert "A message would go to oncall." in dry.out
        sent = run("alert", "test", "backlog")

    assert 1 == sent.code
    assert "oncall: has taken it" in sent.out and "names no nobody" in sent.out
    assert "geheim" not in sent.out + sent.err
    assert [("backlog", "test", None)] == [(each["alert"], each["state"], each["id"]) for each in receiver.got]


def test_alerts_come_from_a_file(run: Run, tmp_path: Path) -> None:
    """All at once or none; with --remove-others those that it does not name go."""
    run(*ADD)
    file = tmp_path / "alerts.toml"
    file.write_text(
        '[alerts.late]\nmeasure = "schedule_lateness"\nthreshold = "10m"\nfor = "1m"\n'
        '[alerts.failing]\nmeasure = "failure_rate"\nthreshold = "10%"\nleast = 20\nwindow = "2h"\n'
    )
    dry = run("alert", "apply", str(file), "--remove-others", "--dry-run")
    assert "schedule_lateness is 0 s" in dry.out and "- backlog" in dry.out
    assert ["backlog"] == [each["name"] for each in run("alert", "list", "--json").document]
    applied = run("alert", "apply", str(file), "--remove-others", "--yes", "--json").document
    assert {"late": "created", "failing": "created", "backlog": "removed"} == {
        each["name"]: each["change"] for each in applied
    }
    found = {each["name"]: each for each in run("alert", "list", "--json").document}
    assert (600, 60) == (found["late"]["threshold"], found["late"]["for"])
    assert (0.1, 7200, 20) == tuple(found["failing"][key] for key in ("threshold", "window", "least"))

    for text in ("[alert.x]\n", "alerts = 3\n", "[alerts]\nx = 3\n", "[alerts.x\n"):
        file.write_text(text)
        assert 2 == run("alert", "apply", str(file)).code
    file.write_text('[alerts.good]\nmeasure = "queue_age"\nthreshold = 1\n[alerts.poor]\nmeasure = "weather"\n')
    refused = run("alert", "apply", str(file))
    assert (2, True) == (refused.code, "alert poor" in refused.err)
    assert {"late", "failing"} == {each["name"] for each in run("alert", "list", "--json").document}


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "s", ""),
        (4000, "s", "1 h 6 min"),
        (0.125, "1", "12.5 %"),
        (3, "tasks", "3 tasks"),
        (2e-5, "Jy/beam", "2e-05 Jy/beam"),
    ],
)
def test_values_have_their_units(value: float | None, unit: str, shown: str) -> None:
    """As people write them."""
    assert shown == valued(value, unit)
