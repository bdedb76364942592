"""``absurd pipeline watch``: record sub-bands as they arrive, until it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.connection import client_of
from absurd.cli.output import clean, json_option, note, plural, to_json
from absurd.cli.pipeline import need_the_extra
from absurd.cli.pipeline_configured import configured, given_or_told, remark, required, told
from absurd.cli.values import seconds

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.visibility.arrivals import Look

Say = Callable[[dict[str, Any], str], None]


@click.command(epilog="Example: absurd pipeline watch /data/incoming --out /data/ms")
@click.argument("folder", type=click.Path(file_okay=False), required=False)
@click.option("--intake", default="incoming", show_default=True, metavar="NAME", help="Under which all is recorded.")
@click.option(
    "--out", metavar="FOLDER", help="Where Measurement Sets go.  [as before; measurement_sets/INTAKE beside FOLDER]"
)
@click.option("--telescope", metavar="NAME", help="Whose whole band Measurement Sets have.  [as before; none]")
@click.option("--queue", "-q", metavar="NAME", help="Queue of the conversions.  [the executor's]")
@click.option("--subbands", type=click.IntRange(1, 4096), metavar="N", help="Of a complete group.  [as before; 16]")
@click.option("--min-subbands", type=click.IntRange(1), metavar="N", help="With fewer a group fails.  [as before; 12]")
@click.option("--tolerance", type=seconds, help="Between a stamp and the time of its group.  [as before; 60s]")
@click.option("--dec-tolerance", type=float, metavar="DEG", help="Of declinations in one group.  [as before; 0.1]")
@click.option("--timeout", type=seconds, help="How long a group waits after its last file.  [as before; 5m]")
@click.option(
    "--steady", type=seconds, default="5s", show_default=True, help="A file is read once it is so long steady."
)
@click.option("--every", type=seconds, default="30s", show_default=True, help="Between looks at the whole folder.")
@click.option("--events/--no-events", default=True, help="Whether to go by what the system tells, too.  [events]")
@configured("pipeline watch")
@json_option
@click.pass_context
def watch(
    ctx: click.Context,
    /,
    folder: str | None,
    intake: str,
    every: float,
    steady: float,
    events: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Record the sub-bands that arrive in FOLDER, and have each group converted once.

    With a configuration FOLDER is its hdf5_dir.  Several may watch one folder.  With --json, one line for each thing
    that happens.  Ctrl-C ends it; what is recorded stays, and the next watch goes on.
    """
    need_the_extra("h5py", "numpy")
    from absurd.systemd import ServiceManager, stop_signals
    from absurd.tasks.radio.telescope import load_telescope
    from absurd.tasks.visibility.arrivals import Arrivals
    from absurd.tasks.visibility.intake import prepare
    from absurd.tasks.visibility.watching import watch as watch_folder

    folder = folder or required(told().get("folder"), "FOLDER")
    policy = given_or_told(given, told())
    out, telescope = policy.pop("out"), policy.pop("telescope")
    if telescope is not None:
        load_telescope(telescope)  # what is wrong is said here, once, and not by each conversion
    manager = ServiceManager.take()
    stop = threading.Event()
    for each in stop_signals():
        signal.signal(each, lambda *_: stop.set())

    def say(document: dict[str, Any], text: str) -> None:
        if as_json:
            click.echo(to_json(document, indent=None))
        if not remark(text) and not as_json:
            click.echo(clean(text))

    def trouble(text: str) -> None:
        if not remark(text, logging.WARNING):
            note(clean(text))

    def alive() -> None:
        if manager.watchdog_seconds is not None:
            manager.tell(WATCHDOG=1)

    policy["time_tolerance"] = policy.pop("tolerance")
    policy["declination_tolerance"] = policy.pop("dec_tolerance")
    with client_of(ctx) as client:
        change = prepare(client, intake, folder, {"out": out, "telescope": telescope}, policy)
        arrivals = Arrivals(client, intake, folder, steady_s=steady, alive=alive)
        say(
            {"event": "watching", "folder": str(arrivals.folder), "intake": intake, "policy": change},
            f"Watching {arrivals.folder} as intake {intake}, whose policy is {change}.  Ctrl-C ends it.",
        )
        manager.tell(READY=1)
        watch_folder(
            arrivals,
            stop,
            every_s=max(every, 0.05),
            events=events,
            told=lambda look: tell(client, look, say, trouble),
            trouble=trouble,
            alive=alive,
        )
        manager.tell(STOPPING=1)


def tell(client: SyncAbsurdClient, look: Look, say: Say, trouble: Callable[[str], None]) -> None:
    """Say what a look has brought: each file that is in no conversion, and each group that stands otherwise."""
    from absurd.errors import RecordingNotFoundError

    for each in look.recorded:
        if each["state"] in ("late", "duplicate", "unreadable"):
            text = f"{os.path.basename(each['path'])} is {each['state']}: {each['reason']}"
            say({"event": "file"} | each, text)
    groups = {each["group_id"] for each in look.recorded if each["state"] == "grouped"}
    for number in sorted(groups | {each["id"] for each in look.settled}):
        try:
            group = client.get_subband_group(number)
        except RecordingNotFoundError:  # its files have gone to another one
            continue
        say({"event": "group"} | group, group_line(group))
    if look.forgotten:
        say(
            {"event": "forgotten", "files": look.forgotten},
            f"{plural(look.forgotten, 'file')} gone before a conversion",
        )
    for problem in look.problems:
        trouble(problem)


def group_line(group: dict[str, Any]) -> str:
    """A group and how it stands."""
    place = "" if group["declination_deg"] is None else f" at {group['declination_deg']:+.2f} deg"
    count = f"{len(group['present'])} of {group['expected']} sub-bands"
    task = f", task {group['task_id']}" if group["state"] in ("complete", "partial") else ""
    reason = f": {group['reason']}" if group["reason"] else ""
    return f"group {group['id']}, {stamp(group)}{place}: {count}, {group['state']}{task}{reason}"


def stamp(group: dict[str, Any]) -> str:
    """The first stamp of a group, UTC, as in the names of its files."""
    from datetime import UTC, datetime

    return f"{datetime.fromisoformat(group['first_stamp']).astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
