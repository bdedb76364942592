"""``absurd pipeline gains``: gain sets in the database, whether they may be used, and why not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from absurd.cli.connection import database_of
from absurd.cli.output import Table, clean, emit, json_option, moment
from absurd.cli.pipeline import need_the_extra


@click.group()
def gains() -> None:
    """List gain sets; look at one, accept it, or have it never be used."""


@gains.command("list", epilog="Example: absurd pipeline gains list --state valid")
@click.option("--telescope", help="Only sets of this telescope.")
@click.option(
    "--state", type=click.Choice(["candidate", "valid", "superseded", "quarantined"]), help="Only sets in this state."
)
@click.option(
    "-n", "limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Show at most so many."
)
@json_option
@click.pass_context
def list_(ctx: click.Context, telescope: str | None, state: Any, limit: int, as_json: bool) -> None:
    """Show gain sets, the latest recording first."""
    from absurd.gains import list_gain_sets

    with database_of(ctx) as database:
        found = database.run(list_gain_sets(telescope, state=state, limit=limit))
    rows = [
        (
            each["id"], each["state"], each["telescope"], clean(each["source"]), f"{each['declination']:+.2f}",
            moment(each["observed_at"]), moment(each["valid_until"]), clean(each["path"]),
        )
        for each in found
    ]  # fmt: skip
    headers = ("set", "state", "telescope", "source", "dec", "observed", "holds until", "path")
    empty = "There are no gain sets; `calibration.solve` makes them."
    emit(found, as_json=as_json, text=Table(headers, rows, right=("set", "dec"), shrink="path", empty=empty))


@gains.command(epilog="Example: absurd pipeline gains show 7")
@click.argument("number", type=int)
@json_option
@click.pass_context
def show(ctx: click.Context, number: int, as_json: bool) -> None:
    """Show all that is known of gain set NUMBER."""
    from absurd.errors import GainSetNotFoundError
    from absurd.gains import get_gain_set

    with database_of(ctx) as database:
        found = database.run(get_gain_set(number))
    if found is None:
        raise GainSetNotFoundError(f"there is no gain set {number}; `absurd pipeline gains list` shows them")
    emit(found, as_json=as_json, text=_story(found))


@gains.command(epilog="Example: absurd pipeline gains accept 7")
@click.argument("number", type=int)
@click.option("--again", is_flag=True, help="Also where it was superseded or quarantined; its folder is released.")
@json_option
@click.pass_context
def accept(ctx: click.Context, number: int, again: bool, as_json: bool) -> None:
    """Make gain set NUMBER valid: others of the same recording are superseded.

    With --again its folder is first taken out of quarantine, if it lies there, and has to be what was registered.
    """
    from absurd.gains import accept_gain_set, get_gain_set

    released = None
    with database_of(ctx) as database:
        row = database.run(get_gain_set(number)) if again else None
        if row is not None and row["state"] == "quarantined":
            released = _reinstated(row["path"], row["checksum"])
        state = database.run(accept_gain_set(number, again=again))
    hint = "" if state == "valid" else "; --again changes it"
    told = f"Gain set {number} is {state}{hint}."
    if released is not None:
        told += f"  It was in {clean(released)}."
    emit({"gain_set": number, "state": state, "released_from": released}, as_json=as_json, text=told)


def _reinstated(path: str, checksum: str) -> str | None:
    need_the_extra("numpy", "zarr")
    from absurd.tasks.qa.reinstate import reinstate

    return reinstate(path, checksum)


@gains.command(epilog="Example: absurd pipeline gains quarantine 7 --reason 'antennas 3 and 4 were swapped'")
@click.argument("number", type=int)
@click.option("--reason", required=True, help="Why it must not be used.")
@json_option
@click.pass_context
def quarantine(ctx: click.Context, number: int, reason: str, as_json: bool) -> None:
    """Have gain set NUMBER never be chosen again."""
    from absurd.gains import quarantine_gain_set

    with database_of(ctx) as database:
        done = database.run(quarantine_gain_set(number, reason))
    text = f"Gain set {number} is quarantined." if done else f"Gain set {number} was quarantined before."
    emit({"gain_set": number, "quarantined": done}, as_json=as_json, text=text)


@gains.command(epilog="Example: absurd pipeline gains forget 7")
@click.argument("number", type=int)
@json_option
@click.pass_context
def forget(ctx: click.Context, number: int, as_json: bool) -> None:
    """Remove gain set NUMBER from the database; its folder stays.

    The latest of those that it had superseded is valid again.
    """
    from absurd.errors import GainSetNotFoundError
    from absurd.gains import forget_gain_set

    with database_of(ctx) as database:
        if not database.run(forget_gain_set(number)):
            raise GainSetNotFoundError(f"there is no gain set {number}; `absurd pipeline gains list` shows them")
    emit({"gain_set": number, "forgotten": True}, as_json=as_json, text=f"Gain set {number} is forgotten.")


def _story(told: dict[str, Any]) -> str:
    seen = datetime.fromisoformat(told["observed_at"])
    hours = (datetime.now(UTC) - seen).total_seconds() / 3600
    lines = {
        "State": told["state"] + (f": {clean(told['reason'])}" if told["reason"] else ""),
        "Source": f"{clean(told['source'])}, seen by {told['telescope']} at declination {told['declination']:+.3f}",
        "Observed": f"{moment(told['observed_at'])}, {hours:.1f} h ago",
        "Holds": f"{moment(told['valid_from'])} to {moment(told['valid_until'])}, within {told['strip']:g} degrees",
        "Band": f"{told['lowest_hz'] / 1e6:.3f} to {told['highest_hz'] / 1e6:.3f} MHz",
        "Tables": ", ".join(told["kinds"]),
        "Path": clean(told["path"]),
        "SHA-256": told["checksum"],
    }
    if told["superseded_by"]:
        lines["State"] += f" by {told['superseded_by']}"
    if told["task_id"]:
        lines["Task"] = told["task_id"]
    for name, quality in (told["quality"] or {}).items():
        if isinstance(quality, dict):
            lines[f"Of {name}"] = ", ".join(f"{key} {value}" for key, value in quality.items())
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:{width}}{value}" for name, value in lines.items())
