"""What would be done with sub-bands, and why not: of groups that are recorded, and of files that are not yet."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.subband_groups import Group, Groups, Policy, Subband
from absurd.tasks.visibility.subband_header import read_header
from absurd.tasks.visibility.subband_name import parse_name

Document = dict[str, Any]


@dataclass(slots=True)
class Foreseen:
    """What recording some files would bring."""

    groups: list[Group] = field(default_factory=list)
    """Those that would be new or change, with these files in them."""
    unusable: list[tuple[str, str]] = field(default_factory=list)
    """Files that would be in no group as they are now, with the reason."""


def policy_of(intake: Document | None, yet_to_be: Mapping[str, Any] | None = None) -> Policy:
    """The policy of an intake as `list_intakes` gives it; None: that of one that is yet to be made."""
    if intake is None:
        return Policy(**(yet_to_be or {}))
    return Policy(
        subbands=intake["subbands"],
        min_subbands=intake["min_subbands"],
        time_tolerance_s=intake["time_tolerance_seconds"],
        declination_tolerance_deg=intake["declination_tolerance_deg"],
        timeout_s=intake["timeout_seconds"],
    )


def foresee(paths: Iterable[str], policy: Policy, recorded: Iterable[Document] = ()) -> Foreseen:
    """Group files as they would be if all were whole and recorded now, beside groups that are `recorded`.

    The headers are read.  Files that are still being written may be among them: what they lack is told.
    """
    groups = Groups(policy, map(_loaded, recorded))
    before = {id(each): len(each.grouped) + len(each.late) + len(each.duplicates) for each in groups.groups}
    found = Foreseen()
    for path in sorted(paths, key=lambda each: (parse_name(each), each)):
        name = parse_name(path)
        assert name is not None
        try:
            header = read_header(path)
        except OSError as error:
            found.unusable.append((path, f"it cannot be opened: {error.strerror}"))
            continue
        except DataError as error:
            found.unusable.append((path, error.message))
            continue
        facts = (header.declination_deg, header.content, header.begins_at, header.integration_s)
        group, _ = groups.add(Subband(path, name.number, name.stamp, *facts))
        if group is None:
            reason = f"it is sub-band {name.number}, and there are {policy.subbands}, counted from 0"
            found.unusable.append((path, reason))
    found.groups = [
        each
        for each in groups.groups
        if before.get(id(each)) != len(each.grouped) + len(each.late) + len(each.duplicates)
    ]
    return found


def near(groups: Iterable[Document], paths: Iterable[str], policy: Policy) -> list[Document]:
    """Of recorded groups those that may be the files' by their stamps."""
    stamps = sorted({name.stamp for path in paths if (name := parse_name(path)) is not None})
    found = []
    for each in groups:
        first, last = (datetime.fromisoformat(each[name]) for name in ("first_stamp", "last_stamp"))
        at = bisect_left(stamps, last - policy.span)
        if at < len(stamps) and stamps[at] <= first + policy.span:
            found.append(each)
    return found


def what_next(group: Document, now: datetime, min_subbands: int) -> str:
    """What will be done with a recorded group, or why nothing, in a line."""
    again = f"`absurd pipeline convert {group['id']}`"
    late = "".join(
        f"; {_numbers(group[which])} {what}: {again} takes that in"
        for which, what in (("late", "came late"), ("changed", "changed since"))
        if group[which]
    )
    match group["state"]:
        case "collecting":
            left = (datetime.fromisoformat(group["due_at"]) - now).total_seconds()
            enough = len(group["present"]) >= min_subbands
            then = "is converted as it is" if enough else f"fails: at least {min_subbands} sub-bands are converted"
            when = f"in {left:.0f} s" if left > 0 else "with the next look at the folder"
            return f"lacks {_numbers(group['missing'])}; {when} it {then}"
        case "complete" | "partial":
            return f"task {group['task_id']} is to convert it{_without(group)}"
        case "converting":
            return f"task {group['task_id']} converts it{_without(group)}{late}"
        case "converted":
            product = group["product"] or {}
            return f"{product.get('path', 'converted')}{_without(group | product)}{late}"
        case _:
            return f"{group['reason']}; {again} tries{' again' if group['round'] else ''} with what there is"


def what_first(group: Group, policy: Policy) -> str:
    """What recording would bring to a foreseen group, in a line."""
    if group.late:
        return f"{_numbers(sorted(group.late))} would be late"
    if not group.missing:
        return "would be complete, and converted"
    enough = len(group.grouped) >= policy.min_subbands
    then = "be converted as it is" if enough else f"fail: at least {policy.min_subbands} sub-bands are converted"
    return f"would wait {policy.timeout_s:.0f} s for {_numbers(group.missing)}, and then {then}"


def _loaded(document: Document) -> Group:
    """A group of the database with its files."""
    first, last = (datetime.fromisoformat(document[name]) for name in ("first_stamp", "last_stamp"))
    group = Group(document["expected"], (first, last), document["declination_deg"], document["content"])
    group.state, group.round, group.number = document["state"], document["round"], document["id"]
    for each in document["files"]:
        file = Subband(
            each["path"],
            each["number"],
            datetime.fromisoformat(each["stamp"]),
            document["declination_deg"],
            document["content"],
            datetime.fromisoformat(each["begins_at"]) if each["begins_at"] else None,
        )
        match each["state"]:
            case "grouped":
                group.grouped[file.number] = file
            case "late":
                group.late[file.number] = file
            case _:
                group.duplicates.append(file)
    return group


def _without(group: Document) -> str:
    return f" without {_numbers(group['missing'])}" if group["missing"] else ""


def _numbers(numbers: Sequence[int]) -> str:
    """``sb03, sb05-sb07``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"sb{each[0]:02d}" + (f"-sb{each[-1]:02d}" if len(each) > 1 else "") for each in runs)
