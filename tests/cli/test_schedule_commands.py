"""``absurd schedule``, and schedules in ``absurd status``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from cli.conftest import Run

Connection = psycopg.Connection[tuple[object, ...]]

FILE = """
[schedules.nightly]
trigger = "30 3 * * *"
zone = "America/Los_Angeles"
executor = "cli.add"
params = {a = 1, b = 2}
overlap = "skip"
grace = "5m"
options = {priority = 3}

[schedules.often]
trigger = "every 15m"
executor = "cli.add"
params = {a = 1, b = 2}
"""


@pytest.fixture(autouse=True)
def nothing(connection: Connection) -> None:
    """No schedule at first."""
    connection.execute("delete from schedule")


def test_a_schedule_is_made_changed_and_looked_at(run: Run) -> None:
    """`add` makes and changes, `list`, `next` and `status` show, and a dry run changes nothing."""
    words = ("schedule", "add", "nightly", "cli.add", "a=1", "b=2", "--tz", "America/Los_Angeles")
    assert "Schedule nightly would be created.\n" == run(*words, "--cron", "30 3 * * *", "--dry-run").out
    assert [] == run("schedule", "list", "--json").document
    assert run(*words, "--cron", "30 3 * * *").out.startswith("Schedule nightly is created; it is due next at ")
    assert "is so already" in run(*words, "--cron", "30 3 * * *").out
    assert "changed" == run(*words, "--cron", "45 3 * * *", "--json").document["change"]

    (listed,) = run("schedule", "list", "--json").document
    assert ("nightly", "45 3 * * *", {"a": 1, "b": 2, "c": None}) == (
        listed["name"],
        listed["trigger"],
        listed["params"],
    )
    assert "45 3 * * * America/Los_Angeles" in run("schedule", "list").out
    assert "nightly" in run("status").out
    assert ["nightly"] == [each["name"] for each in run("status", "--json").document["schedules"]]
    shown = run("schedule", "show", "nightly").out
    assert "  trigger   45 3 * * *\n" in shown
    assert "  misfire   once, of what is 1 min to 1 d late" in shown
    times = run("schedule", "next", "nightly", "-n", "3", "--json").document
    assert ["T03:45:00-0"] * 3 == [each[10:21] for each in times]


def test_next_answers_for_any_trigger(run: Run) -> None:
    """Without a database: cron text, zones, intervals and one instant."""
    words = ("schedule", "next", "--json", "--from", "2026-03-07T12:00Z", "-n", "2")
    assert ["2026-03-08T03:00:00-07:00", "2026-03-09T02:30:00-07:00"] == run(
        *words, "--cron", "30 2 * * *", "--tz", "America/Los_Angeles"
    ).document
    assert ["2026-03-07T12:01:30+00:00", "2026-03-07T12:03:00+00:00"] == run(*words, "--every", "90s").document
    assert ["2027-01-01T00:00:00+00:00"] == run(*words, "--at", "2027-01-01T00:00:00Z").document
    assert "It is never due again.\n" == run("schedule", "next", "--at", "2020-01-01T00:00:00Z").out


def test_a_schedule_is_paused_triggered_and_removed(run: Run) -> None:
    """A paused one says so; a trigger by hand spawns all the same; its history tells; removed, it is gone."""
    run("schedule", "add", "s", "cli.add", "a=1", "b=2", "--every", "1d", "--overlap", "skip")
    assert "Schedule s is paused; `absurd schedule resume s` lets it go on.\n" == run("schedule", "pause", "s").out
    assert "paused" in run("schedule", "list").out
    task = run("schedule", "trigger", "s").out.strip()
    assert ["cli.add", ["schedule:s"]] == [
        run("task", "show", task, "--json").document[key] for key in ("name", "tags")
    ]
    again = run("schedule", "trigger", "s")
    assert (1, f"Nothing is spawned: task {task} has not ended.\n") == (again.code, again.out)
    assert task in run("schedule", "history", "s").out
    assert [None, task] == [each["task_id"] for each in run("schedule", "history", "s", "--json").document]
    assert "Schedule s goes on.\n" == run("schedule", "resume", "s").out
    assert 2 == run("schedule", "remove", "s").code
    assert "Schedule s is removed.\n" == run("schedule", "remove", "s", "--yes").out
    assert 3 == run("schedule", "remove", "s", "--yes").code == run("schedule", "history", "s").code


def test_a_file_is_applied_as_a_whole(run: Run, tmp_path: Path) -> None:
    """A dry run shows what would change; applied again, the file changes nothing; others go on request."""
    file = tmp_path / "schedules.toml"
    file.write_text(FILE)
    run("schedule", "add", "other", "cli.add", "a=1", "b=2", "--every", "1d")
    assert ["+ nightly", "+ often"] == run("schedule", "apply", str(file), "--dry-run").out.splitlines()
    assert ["other"] == [each["name"] for each in run("schedule", "list", "--json").document]
    assert ["+ nightly", "+ often"] == run("schedule", "apply", str(file)).out.splitlines()
    assert ["  nightly", "  often"] == run("schedule", "apply", str(file)).out.splitlines()

    file.write_text(FILE.replace("30 3", "31 3").replace('"skip"', '"queue"').replace('"5m"', '"1m"'))
    shown = run("schedule", "apply", str(file), "--remove-others", "--dry-run").out.splitlines()
    assert [
        "~ nightly  trigger: 30 3 * * * → 31 3 * * *; overlap: skip → queue; grace: 300 → 60", "  often", "- other",
    ] == shown  # fmt: skip
    assert 2 == run("schedule", "apply", str(file), "--remove-others").code
    assert 0 == run("schedule", "apply", str(file), "--remove-others", "--yes").code
    assert ["nightly", "often"] == [each["name"] for each in run("schedule", "list", "--json").document]

    file.write_text(FILE.replace("15m", "15m of an hour").replace("30 3", "33 3"))
    refused = run("schedule", "apply", str(file))
    assert 2 == refused.code
    assert "schedule often: '15m of an hour' is not a duration" in refused.err
    assert "31 3 * * *" == run("schedule", "list", "--json").document[0]["trigger"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("colour = 5", "schedule s: unknown colour; known are "),
        ("dry_run = true", "schedule s: unknown dry_run; known are "),
        ("zone = 5", "schedule s: zone is 5; it must be the name of a time zone"),
        ("site = 5", "schedule s: site is 5; it must be a table"),
        ("options = 5", "schedule s: options is 5; it must be a table"),
        ("options = 5\nqueue = 'q'", "schedule s: options is 5; it must be a table"),
        ("queue = 7", "schedule s: queue name 7 is not valid"),
        ("grace = 'soon'", "schedule s: 'soon' is not a duration"),
        ("starts_at = 2027-01-01", "schedule s: starts_at is "),
        ("misfire = 3", "schedule s: "),
    ],
)
def test_a_file_with_a_wrong_value_is_refused_in_a_line(run: Run, tmp_path: Path, line: str, told: str) -> None:
    """It names the schedule, the value and what it must be."""
    file = tmp_path / "schedules.toml"
    params = "params = {a = 1, b = 2}"
    file.write_text(f'[schedules.s]\ntrigger = "@daily"\nexecutor = "cli.add"\n{params}\n{line}\n')

    refused = run("schedule", "apply", str(file))

    assert 2 == refused.code
    assert refused.err.startswith(f"Error: {told}")
    assert 1 == len(refused.err.strip().splitlines())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("cli.add", "a=1", "b=2"), "Say when: --cron, --every"),
        (("cli.add", "a=1", "b=2", "--cron", "61 * * * *"), "'61' is no minute of a cron text: it goes from 0 to 59"),
        (("cli.add", "a=1", "b=2", "--cron", "0 0 30 2 *"), "never comes"),
        (("cli.add", "a=1", "b=2", "--cron", "@daily", "--every", "5m"), "One trigger, not 2"),
        (("cli.add", "a=1", "b=2", "--cron", "@daily", "--tz", "Mars/Olympus"), "'Mars/Olympus' is no time zone"),
        (("cli.ad", "a=1", "b=2", "--cron", "@daily"), "executor 'cli.ad'"),
        (("cli.add", "a=x", "--cron", "@daily"), "b"),
        (("cli.add", "a=1", "b=2", "--every", "0s"), "from one second to a century"),
        (("cli.add", "a=1", "b=2", "--at", "2020-01-01T00:00:00Z"), "is never due"),
        (("cli.add", "a=1", "b=2", "--at", "2020-01-01T00:00:00"), "lacks its zone"),
        (("cli.add", "a=1", "b=2", "--lst", "03:30"), "needs the site"),
        (("cli.add", "a=1", "b=2", "--cron", "@daily", "--misfire", "twice"), "must be skip, once, all or last N"),
        (
            ("cli.add", "a=1", "b=2", "--cron", "@daily", "--overlap", "twice"),
            "it must be allow, skip, queue or cancel",
        ),
        (("cli.add", "a=1", "b=2", "--cron", "@daily", "--option", "delay=5"), "its schedule says when it runs"),
        (("cli.add", "a=1", "b=2", "--cron", "@daily", "--option", "colour=5"), "colour"),
        (
            (
                "cli.add",
                "a=1",
                "b=2",
                "--cron",
                "@daily",
                "--starts",
                "2030-01-02T00:00Z",
                "--ends",
                "2030-01-01T00:00Z",
            ),
            "ends at",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, words: tuple[str, ...], told: str) -> None:
    """With the value and the way out, at once, and nothing is made."""
    ended = run("schedule", "add", "s", *words)

    assert 2 == ended.code, ended.out
    assert told in ended.err
    assert [] == run("schedule", "list", "--json").document


def test_names_that_are_none(run: Run) -> None:
    """A name with blanks is refused, an unknown one not found."""
    assert 2 == run("schedule", "add", "a b", "cli.add", "a=1", "b=2", "--cron", "@daily").code
    assert {3} == {
        run("schedule", word, "none").code for word in ("show", "pause", "resume", "trigger", "next", "history")
    }


def test_upkeep_is_there_and_off(run: Run, database_url: str) -> None:
    """A fresh queue has schedules for a backup, a health check and pruning, paused; `resume` lets one go on."""
    with psycopg.connect(database_url) as connection:
        connection.execute("drop schema absurd cascade")
    assert 0 == run("db", "migrate").code

    listed = {each["name"]: each["state"] for each in run("schedule", "list", "--json").document}
    assert {"backup": "paused", "health": "paused", "prune": "paused"} == listed
    assert "Schedules" not in run("status").out
    assert "Schedule health goes on.\n" == run("schedule", "resume", "health").out
    assert "maintenance.health" in run("status").out
