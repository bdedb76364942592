"""``absurd pipeline plan``: what would be done with sub-bands, and why not."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.connection import client_of
from absurd.cli.output import Table, emit, json_option, plural
from absurd.cli.pipeline import need_the_extra
from absurd.cli.pipeline_configured import configured, remark, told
from absurd.cli.pipeline_watch import stamp

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.visibility.subband_groups import Group, Policy

MOST_GROUPS = 10_000
"""Recorded groups among which those of new files are looked for: of more than a month."""


@click.command(epilog="Example: absurd pipeline plan /data/incoming")
@click.argument("folder", required=False, type=click.Path(file_okay=False, exists=True))
@click.option("--intake", default="incoming", show_default=True, metavar="NAME", help="Under which all is recorded.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many groups.")
@configured("pipeline plan")
@json_option
@click.pass_context
def plan(ctx: click.Context, /, folder: str | None, intake: str, limit: int, as_json: bool) -> None:
    """Show what will be done with each group of sub-bands, and why not.

    The latest come first.  With FOLDER, or a configuration with that, also what its files would become that are not
    recorded; of an intake that is yet to be made by the policy of the configuration.  Nothing is changed.
    """
    need_the_extra("h5py", "numpy")
    from absurd.errors import RecordingNotFoundError
    from absurd.tasks.visibility.plan import policy_of

    folder = folder or told().get("folder")
    with client_of(ctx) as client:
        known = next((each for each in client.list_intakes() if each["name"] == intake), None)
        if known is None and folder is None:
            raise RecordingNotFoundError(f"there is no intake called {intake!r}; name the FOLDER to plan for it")
        policy = policy_of(known, told().get("policy"))
        groups = _groups(client, intake, limit, policy) if known else []
        files = (
            client.list_subbands(intake, ["waiting", "late", "duplicate", "unreadable"], limit=limit) if known else []
        )
        foreseen = _foreseen(client, intake if known else None, folder, policy) if folder else {}
    remark(f"{plural(len(groups), 'group')} recorded in intake {intake}")
    for problem in foreseen.get("problems", []):
        remark(problem, logging.WARNING)
    document = {"intake": known, "groups": groups, "files": files} | foreseen
    emit(document, as_json=as_json, text=_text(document, folder))


def _groups(client: SyncAbsurdClient, intake: str, limit: int, policy: Policy) -> list[dict[str, Any]]:
    from datetime import datetime

    from absurd.schedules import get_clock
    from absurd.tasks.visibility.plan import what_next

    now: datetime = client.run(get_clock())
    found = client.list_subband_groups(intake, limit=limit)
    return [each | {"next": what_next(each, now, policy.min_subbands)} for each in found]


def _foreseen(client: SyncAbsurdClient, intake: str | None, folder: str, policy: Policy) -> dict[str, Any]:
    """What recording the files of a folder would bring that are not recorded."""
    from absurd.tasks.visibility.arrivals import ASKED_AT_ONCE, Look, files_below
    from absurd.tasks.visibility.plan import foresee, near, what_first

    look = Look()
    there = sorted(files_below(os.path.abspath(folder), look))
    new: list[str] = []
    for at in range(0, len(there), ASKED_AT_ONCE):
        some = there[at : at + ASKED_AT_ONCE]
        new += [some[n][0] for n in client.changed_subbands(intake, some)] if intake else [path for path, _ in some]
    recorded = []
    if new and intake:
        known = client.list_subband_groups(intake, limit=MOST_GROUPS)
        recorded = [client.get_subband_group(each["id"]) for each in near(known, new, policy)]
    found = foresee(new, policy, recorded)
    return {
        "new_files": len(new),
        "other_files": look.others,
        "foreseen": [_told(each) | {"next": what_first(each, policy)} for each in found.groups],
        "unusable": [{"path": path, "reason": reason} for path, reason in found.unusable],
        "problems": look.problems,
    }


def _told(group: Group) -> dict[str, Any]:
    return {
        "id": group.number,
        "first_stamp": group.stamps[0].isoformat(),
        "declination_deg": group.declination_deg,
        "expected": group.expected,
        "present": sorted(group.grouped),
        "missing": group.missing,
        "late": sorted(group.late),
        "duplicates": [each.path for each in group.duplicates],
    }


def _text(document: dict[str, Any], folder: str | None) -> str:
    parts = []
    if document["intake"]:
        recorded = [[each["id"], *_shown(each), each["state"], each["next"]] for each in document["groups"]]
        headers = ["group", "first stamp", "dec", "sub-bands", "state", "what next"]
        parts.append(
            str(Table(headers, recorded, right=("group", "dec"), shrink="what next", empty="No group is recorded."))
        )
        if document["files"]:
            told = [(os.path.basename(each["path"]), each["state"], each["reason"]) for each in document["files"]]
            parts.append(str(Table(("file", "state", "why"), told, shrink="why")))
    if folder is not None:
        others = f"; {plural(document['other_files'], 'file')} with other names" if document["other_files"] else ""
        parts.append(f"{folder}: {plural(document['new_files'], 'file')} not recorded yet{others}")
        rows = [[each["id"] or "new", *_shown(each), each["next"]] for each in document["foreseen"]]
        if rows:
            headers = ["group", "first stamp", "dec", "sub-bands", "what then"]
            parts.append(str(Table(headers, rows, right=("group", "dec"), shrink="what then")))
        parts += [f"{os.path.basename(each['path'])}: {each['reason']}" for each in document["unusable"]]
        parts += document["problems"]
    return "\n".join(parts)


def _shown(group: dict[str, Any]) -> tuple[str, str, str]:
    declination = "" if group["declination_deg"] is None else f"{group['declination_deg']:+.2f}"
    return stamp(group), declination, f"{len(group['present'])}/{group['expected']}"
