"""``absurd schedule``: make, change, look at, pause, trigger and remove schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from absurd.cli.catalog import load_here, with_modules
from absurd.cli.connection import database_of
from absurd.cli.output import (
    Cell,
    Table,
    agree,
    clean,
    duration,
    emit,
    import_option,
    json_option,
    settings_of,
)
from absurd.cli.schedule_file import apply
from absurd.cli.schedule_table import local, outcome, schedule_table, told
from absurd.cli.values import instant, pairs, read_params, seconds

TRIGGERS = {
    "cron": "Cron text, five fields or six with seconds: '30 3 * * *'.",
    "every": "An interval: 90s, 15m, 1h30m.",
    "at": "One time: 2027-01-31T21:30Z.",
    "lst": "Sidereal time at the site: 03:30.",
    "jd": "Days between Julian dates: 'every 0.5 from 2461000.25'.",
    "sun": "Sun at the site: rise, set, '-8.5 setting', '30 rising'.",
    "twilight": "astronomical, nautical or civil, with begin or end.",
}


def trigger_options(command: Any) -> Any:
    """Give a command one option for each kind of trigger, with the zone and the site."""
    site = "Longitude (east), latitude in degrees, height in metres: -118.28,37.23,1222."
    command = click.option("--site", type=_site, metavar="LON,LAT[,M]", help=site)(command)
    command = click.option("--tz", "zone", metavar="ZONE", help="Whose clocks cron goes by.  [UTC]")(command)
    for kind in reversed(TRIGGERS):
        command = click.option(f"--{kind}", kind, metavar="TEXT", help=TRIGGERS[kind])(command)
    return command


def trigger_text(given: dict[str, Any]) -> str | None:
    """The trigger that the options name, taken out of `given`; None for none."""
    named = {kind: text for kind in TRIGGERS if (text := given.pop(kind)) is not None}
    if len(named) > 1:
        raise click.UsageError(f"One trigger, not {len(named)}: {', '.join(f'--{kind}' for kind in named)}")
    return next((text if kind == "cron" else f"{kind} {text}" for kind, text in named.items()), None)


def _site(text: str) -> dict[str, float]:
    try:
        numbers = [float(part) for part in text.split(",")]
        return dict(zip(("longitude", "latitude", "height"), numbers, strict=False)) if len(numbers) in (2, 3) else {}
    except ValueError:
        raise click.BadParameter(f"{text!r} is no site; write -118.28,37.23,1222") from None


@click.group()
def schedule() -> None:
    """Spawn tasks again and again: by cron text, by intervals, by the sky."""


@schedule.command(epilog="Example: absurd schedule add nightly demo.add a=1 b=2 --cron '30 3 * * *' --tz Europe/Berlin")
@click.argument("name")
@click.argument("executor")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--params", "document", metavar="JSON|@FILE|-", help="All params as JSON, from a file or from stdin.")
@trigger_options
@click.option("--queue", "-q", help="Queue of the tasks.  [the executor's; default]")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of each task: priority=5.")
@click.option("--misfire", metavar="POLICY", help="What is made up for: skip, once, all, 'last N'.  [once]")
@click.option("--grace", type=seconds, help="How late a time due may be and is not missed.  [1m]")
@click.option("--look-back", type=seconds, help="How long ago what is made up for may have been due.  [1d]")
@click.option("--overlap", metavar="POLICY", help="While the last task goes on: allow, skip, queue, cancel.  [allow]")
@click.option("--jitter", type=seconds, help="Start each task up to so much later.")
@click.option("--starts", "starts_at", type=instant, metavar="TIME", help="Nothing is due before.")
@click.option("--ends", "ends_at", type=instant, metavar="TIME", help="Nothing is due after.")
@click.option("--paused/--active", default=None, help="Make it paused; or let it go on.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@import_option
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    /,
    name: str,
    executor: str,
    words: tuple[str, ...],
    document: str | None,
    options: tuple[str, ...],
    modules: tuple[str, ...],
    queue: str | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Make or change the schedule NAME, which spawns tasks for EXECUTOR.

    Needs a running absurd-scheduler (absurd up has one) to come true.
    """
    from absurd.scheduler.schedules_sync import Waiting, done

    trigger = trigger_text(given)
    if trigger is None:
        raise click.UsageError(f"Say when: {', '.join(f'--{kind}' for kind in TRIGGERS)}")
    params = read_params(words, document)
    given["options"] = pairs(options, "an option") | ({"queue": queue} if queue else {})
    load_here(with_modules(settings_of(ctx), modules))
    with database_of(ctx) as database:
        methods = Waiting(database)
        change = done(methods.set_schedule(name, trigger, executor, params, dry_run=dry_run, **given))
        found = {"name": name, "change": change}
        if not (dry_run and change == "created"):
            found["next_due"] = done(methods.get_schedule(name))["next_due"]
    would = "would be " if dry_run else ""
    due = f"; it is due next at {local(found['next_due'])}" if found.get("next_due") else ""
    said = "is so already" if change == "unchanged" else f"{would or 'is '}{change}"
    emit(found, as_json=as_json, text=f"Schedule {name} {said}{due}.")


schedule.add_command(apply)


@schedule.command("list", epilog="Example: absurd schedule list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Show each schedule, when it is due next, and what came of the last time."""
    from absurd.schedules import list_schedules

    with database_of(ctx) as database:
        found = database.run(list_schedules())
    emit(found, as_json=as_json, text=schedule_table(found))


@schedule.command(epilog="Example: absurd schedule show nightly")
@click.argument("name")
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show all about a schedule, and when it is due next."""
    from absurd.cli.story import brief
    from absurd.redaction import hide
    from absurd.scheduler.schedules import due_times, take
    from absurd.schedules import get_clock, get_schedule

    with database_of(ctx) as database:
        found = database.run(get_schedule(name))
        found["params"] = hide(found["params"])
        start = database.run(get_clock())
    found["next"] = [] if found["error"] else [due.isoformat() for due in take(due_times(found, start), 3)]
    facts = {
        "state": found["state"],
        "trigger": found["trigger"],
        "zone": found["zone"],
        "site": brief(found["site"]) if found["site"] else "",
        "executor": found["executor"],
        "queue": found["queue"] or "the executor's",
        "params": brief(found["params"]),
        "options": brief(found["options"]) if found["options"] else "",
        "misfire": f"{found['misfire']}, of what is {duration(found['grace'])} to {duration(found['look_back'])} late",
        "overlap": found["overlap"],
        "jitter": duration(found["jitter"]) if found["jitter"] else "",
        "starts": local(found["starts_at"]) if found["starts_at"] else "",
        "ends": local(found["ends_at"]) if found["ends_at"] else "",
        "error": found["error"],
        "next due": ", ".join(map(local, found["next"])) or "never again",
        "last due": f"{local(found['last']['due_at'])}: {told(found['last'])}" if found["last"] else "never",
    }
    lines = [f"  {fact:<9} {clean(value)}" for fact, value in facts.items() if value]
    emit(found, as_json=as_json, text="\n".join([clean(found["name"]), *lines]))


@schedule.command("next", epilog="Example: absurd schedule next --cron '*/10 2-5 * * *' --tz America/Los_Angeles -n 5")
@click.argument("name", required=False)
@trigger_options
@click.option("--from", "start", type=instant, metavar="TIME", help="After this time.  [now]")
@click.option("-n", "--count", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many.")
@json_option
@click.pass_context
def next_(
    ctx: click.Context, /, name: str | None, start: datetime | None, count: int, as_json: bool, **given: Any
) -> None:
    """Show when a schedule, or any trigger, is due next."""
    from absurd.scheduler.schedules import due_times, take
    from absurd.scheduler.trigger import read_zone
    from absurd.schedules import get_clock, get_schedule

    trigger = trigger_text(given)
    if (name is None) == (trigger is None):
        raise click.UsageError("Give the NAME of a schedule, or one trigger such as --cron")
    if name is None:
        found: dict[str, Any] = {"trigger": trigger, **given}
        start = start or datetime.now().astimezone()
    else:
        with database_of(ctx) as database:
            found = database.run(get_schedule(name))
            start = start or database.run(get_clock())
    zone = read_zone(found["zone"] or "UTC")
    times = [due.astimezone(zone).isoformat() for due in take(due_times(found, start), count)]
    emit(times, as_json=as_json, text="\n".join(times) or "It is never due again.")


@schedule.command(epilog="Example: absurd schedule history nightly -n 20")
@click.argument("name")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@click.option("--before", type=instant, metavar="TIME", help="Only what was due before.")
@json_option
@click.pass_context
def history(ctx: click.Context, name: str, limit: int, before: datetime | None, as_json: bool) -> None:
    """Show what came of each time a schedule was due, the latest first."""
    from absurd.schedules import list_ticks

    with database_of(ctx) as database:
        found = database.run(list_ticks(name, before=before, limit=limit))
    rows = [
        (
            local(tick["due_at"]),
            duration(tick["late_seconds"]),
            Cell(tick["state"] or "gone", tick["state"] or "") if tick["task_id"] else None,
            "by hand" if tick["by_hand"] else None,
            outcome(tick),
        )
        for tick in found
    ]
    headers = ("due", "late by", "state", "", "outcome")
    text = Table(headers, rows, right=("late by",), shrink="outcome", empty=f"Schedule {name} was never due yet.")
    emit(found, as_json=as_json, text=text)


@schedule.command(epilog="Example: absurd schedule pause nightly")
@click.argument("name")
@json_option
@click.pass_context
def pause(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let nothing come of a schedule; its tasks go on."""
    from absurd.schedules import set_schedule_paused

    with database_of(ctx) as database:
        database.run(set_schedule_paused(name, True))
    text = f"Schedule {name} is paused; `absurd schedule resume {name}` lets it go on."
    emit({"name": name, "paused": True}, as_json=as_json, text=text)


@schedule.command(epilog="Example: absurd schedule resume nightly")
@click.argument("name")
@json_option
@click.pass_context
def resume(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let a paused schedule go on from now; what was due meanwhile is not made up for."""
    from absurd.schedules import set_schedule_paused

    with database_of(ctx) as database:
        database.run(set_schedule_paused(name, False))
    emit({"name": name, "paused": False}, as_json=as_json, text=f"Schedule {name} goes on.")


@schedule.command(epilog="Example: absurd schedule trigger nightly")
@click.argument("name")
@click.option("--overlap", metavar="POLICY", help="allow, skip, queue or cancel.  [the schedule's]")
@json_option
@click.pass_context
def trigger(ctx: click.Context, name: str, overlap: str | None, as_json: bool) -> None:
    """Spawn the task of a schedule now.

    Also of a paused one.  Exit code 1 if its overlap policy skips it.
    """
    from absurd.schedules import trigger_schedule

    with database_of(ctx) as database:
        tick = database.run(trigger_schedule(name, overlap))
    text = f"{tick['task_id']}" if tick["task_id"] else f"Nothing is spawned: {tick['detail']}."
    emit(tick, as_json=as_json, text=text)
    if not tick["task_id"]:
        ctx.exit(1)


@schedule.command(epilog="Example: absurd schedule remove nightly --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def remove(ctx: click.Context, name: str, yes: bool, as_json: bool) -> None:
    """Remove a schedule and its history; its tasks stay."""
    from absurd.schedules import get_schedule, remove_schedule

    with database_of(ctx) as database:
        database.run(get_schedule(name))
        agree(f"Remove the schedule {name} and its history?", yes=yes, may_ask=not as_json)
        removed = database.run(remove_schedule(name))
    emit({"name": name, "removed": removed}, as_json=as_json, text=f"Schedule {name} is removed.")
