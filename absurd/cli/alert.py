"""``absurd alert``: what is watched, who is told, and what was told."""

from __future__ import annotations

from typing import Any

import click

from absurd.cli.alert_file import apply
from absurd.cli.connection import database_of
from absurd.cli.output import Cell, Table, agree, clean, duration, emit, json_option, moment, settings_of
from absurd.cli.values import amount, seconds

WORDS = {"ok": "ok", "firing": "fail", "recovered": "ok", "unknown": "warn"}
"""Colour of each word; see `absurd.cli.output.COLOURS`."""
OPTIONS = ("queue", "executor", "schedule", "telescope", "folder", "code", "window", "least")
"""What measures take; each its own."""


@click.group()
def alert() -> None:
    """Have people told when something is wrong: by webhook, e-mail, chat.

    The scheduler measures; where messages go, the setting alert_targets tells by name.
    """


@alert.command(epilog="Example: absurd alert add backlog queue_age 1h --queue default --for 5m --to oncall")
@click.argument("name")
@click.argument("measure")
@click.argument("threshold", type=amount)
@click.option("--to", "targets", multiple=True, metavar="TARGET", help="Who is told, by name; repeatable.")
@click.option("--for", "hold", type=seconds, help="How long the threshold must be passed before it fires.  [0]")
@click.option("--severity", type=click.Choice(("warning", "critical")), help="How bad it is.  [warning]")
@click.option("--queue", "-q", help="Only this queue.")
@click.option("--executor", help="Only tasks of this executor.")
@click.option("--schedule", help="Only this schedule.")
@click.option("--telescope", help="Only this telescope.")
@click.option("--folder", help="Whose disk, on the machine of the scheduler.")
@click.option("--code", help="Only problems with this code.")
@click.option("--window", type=seconds, help="How far back to look.  [1h]")
@click.option("--least", type=int, metavar="N", help="Of fewer nothing is concluded.  [1]")
@click.option("--dry-run", is_flag=True, help="Only say what it would see now.")
@json_option
@click.pass_context
def add(ctx: click.Context, /, name: str, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Make or change the alert NAME, which fires when MEASURE passes THRESHOLD.

    Measures: calibration_age, dead_letters, disk_free, failure_rate, image_noise, problems, quarantined, queue_age,
    queue_depth, run_age, run_seconds, schedule_lateness, success_age, workers.  disk_free and workers fire below the
    threshold, all others above.  Thresholds: 90, 15m, 10%.
    """
    from absurd.alerts import free_shares, measure_alert, set_alert

    rule = {key: value for key, value in given.items() if value is not None and key not in ("hold", "targets")}
    rule |= {"targets": list(given["targets"])} | ({"for": given["hold"]} if given["hold"] else {})
    with database_of(ctx) as database:
        if dry_run:
            disks = free_shares([given["folder"]] if given["folder"] else [])
            found = {"name": name} | database.run(measure_alert(name, rule, disks))
            emit(found, as_json=as_json, text=f"{_would(found)}{clean(found['message'])}.")
            return
        change = database.run(set_alert(name, rule))
    said = "is so already" if change == "unchanged" else f"is {change}"
    emit({"name": name, "change": change}, as_json=as_json, text=f"Alert {name} {said}.")


def _would(found: dict[str, Any]) -> str:
    return "It would fire: " if found["breached"] else "It would not fire: "


alert.add_command(apply)


@alert.command("list", epilog="Example: absurd alert list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Show alerts, what was measured last, and who is told."""
    from absurd.alerts import list_alerts

    with database_of(ctx) as database:
        found = database.run(list_alerts())
    rows = [
        (
            each["name"],
            _standing(each),
            each["measure"],
            valued(each["value"], each["unit"]),
            ("< " if each["below"] else "> ") + valued(each["threshold"], each["unit"]),
            each["severity"],
            " ".join(each["targets"]),
            f"until {moment(each['silenced_until'])}" if each["silenced_until"] else "",
        )
        for each in found
    ]
    headers = ("alert", "state", "measure", "value", "fires at", "severity", "tells", "silent")
    text = Table(
        headers, rows, right=("value",), shrink="alert", empty="There are no alerts; `absurd alert add` makes one."
    )
    emit(found, as_json=as_json, text=text)


def _standing(found: dict[str, Any]) -> Cell:
    word = "unknown" if found["state"] == "ok" and found["value"] is None else found["state"]
    return Cell(word, WORDS[word])


def valued(value: float | None, unit: str) -> str:
    """A measured value with its unit."""
    if value is None:
        return ""
    if unit == "s":
        return duration(value)
    if unit == "1":
        return f"{100 * value:.1f} %"
    return f"{value:g} {unit.removesuffix('s') if value == 1 else unit}"


@alert.command(epilog="Example: absurd alert silence backlog 2h --reason 'the disk is being changed'")
@click.argument("name")
@click.argument("span", type=seconds, required=False, metavar="[DURATION]")
@click.option("--reason", metavar="TEXT", help="Why, for those who look.")
@click.option("--end", is_flag=True, help="Let it be told again.")
@json_option
@click.pass_context
def silence(ctx: click.Context, name: str, span: float | None, reason: str | None, end: bool, as_json: bool) -> None:
    """Have nobody told that NAME fires, for a DURATION such as 2h.

    It goes on being measured.  If it fires still when the silence ends, that is told then; that one is over of which
    somebody was told is told in any case.
    """
    from absurd.alerts import silence_alert

    if end == (span is not None):
        raise click.UsageError("Say for how long, or --end")
    with database_of(ctx) as database:
        found = database.run(silence_alert(name, span or 0.0, reason))
    until = found["silenced_until"]
    emit(found, as_json=as_json, text=f"Alert {name} is {f'silent until {moment(until)}' if until else 'told again'}.")


@alert.command(epilog="Example: absurd alert test backlog --dry-run")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Send nothing.")
@json_option
@click.pass_context
def test(ctx: click.Context, name: str, dry_run: bool, as_json: bool) -> None:
    """Measure NAME now, and send its targets a message that is marked as a test.

    It is sent from here, with the settings that are here; the scheduler has its own.
    """
    from absurd.alerts import free_shares, get_alert, measure_alert
    from absurd.targets import try_all

    with database_of(ctx) as database:
        rule = database.run(get_alert(name))
        found = database.run(measure_alert(name, disks=free_shares([rule["folder"]] if "folder" in rule else [])))
    sent = [] if dry_run else try_all(settings_of(ctx), rule, found["message"])
    lines = [f"{_would(found)}{clean(found['message'])}."]
    if dry_run:
        lines += [f"A message would go to {each}." for each in rule["targets"]]
    lines += [f"{each['target']}: {clean(each['error'] or 'has taken it')}" for each in sent]
    emit({"name": name} | found | {"targets": rule["targets"], "sent": sent}, as_json=as_json, text="\n".join(lines))
    if any(each["error"] for each in sent):
        ctx.exit(1)


@alert.command(epilog="Example: absurd alert history backlog")
@click.argument("name", required=False)
@click.option("--limit", "-n", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
@json_option
@click.pass_context
def history(ctx: click.Context, name: str | None, limit: int, as_json: bool) -> None:
    """Show when alerts began to fire and recovered, and what became of each message."""
    from absurd.alerts import list_alert_events

    with database_of(ctx) as database:
        found = database.run(list_alert_events(name, limit=limit))
    rows = [
        (moment(each["at"]), each["alert"], Cell(each["state"], WORDS[each["state"]]), each["message"], _told(each))
        for each in found
    ]
    text = Table(("time", "alert", "state", "message", "told"), rows, shrink="message", empty="Nothing has fired.")
    emit(found, as_json=as_json, text=text)


def _told(event: dict[str, Any]) -> str:
    if event["silenced"]:
        return "silenced"
    return ", ".join(
        f"{each['target']} {each['state']}" + (f" ({each['error']})" if each["error"] and not each["sent_at"] else "")
        for each in event["notices"]
    )


@alert.command(epilog="Example: absurd alert remove backlog --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def remove(ctx: click.Context, name: str, yes: bool, as_json: bool) -> None:
    """Remove an alert and its history."""
    from absurd.alerts import get_alert, remove_alert

    with database_of(ctx) as database:
        database.run(get_alert(name))
        agree(f"Remove the alert {name} and its history?", yes=yes, may_ask=not as_json)
        removed = database.run(remove_alert(name))
    emit({"name": name, "removed": removed}, as_json=as_json, text=f"Alert {name} is removed.")
