"""Which sub-band files are one recording, and what becomes of each: the rules of the database, as plain Python.

The database decides (`record_subbands` and its like): watchers on several machines agree there.  Here the same rules
say beforehand what it would do, and tests hold the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

FileState = Literal["waiting", "grouped", "late", "duplicate", "unreadable"]
GroupState = Literal["collecting", "complete", "partial", "converting", "converted", "failed"]
TAKING = ("collecting", "complete", "partial")
"""States of a group whose conversion has not begun: more sub-bands are welcome."""
DECLINATION_TOLERANCE_DEG = 0.1
SAME_TIME = 0.1
"""Integrations by which times of one recording may differ from one file to another."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How files are grouped."""

    subbands: int = 16
    """Of a group that is complete; their numbers count from 0."""
    min_subbands: int = 12
    """With so many a group is converted once its time is out; with fewer it fails."""
    time_tolerance_s: float = 60.0
    """Of a stamp to the time of its group: stamps of one group lie within twice of that."""
    declination_tolerance_deg: float = DECLINATION_TOLERANCE_DEG
    """Of a file to its group: those of one group lie within twice of that."""
    timeout_s: float = 300.0
    """After the last file of a group."""

    @property
    def span(self) -> timedelta:
        """Between any two stamps of a group, at most."""
        return timedelta(seconds=2 * self.time_tolerance_s)


@dataclass(frozen=True, slots=True)
class Subband:
    """A whole file."""

    path: str
    number: int
    stamp: datetime
    declination_deg: float | None = None
    content: str | None = None
    begins_at: datetime | None = None
    integration_s: float = 0.0

    def same_recording(self, other: Subband) -> bool | None:
        """Whether both begin at one time, to a tenth of an integration; None where one does not tell."""
        if self.begins_at is None or other.begins_at is None:
            return None
        return abs((self.begins_at - other.begins_at).total_seconds()) <= SAME_TIME * self.integration_s + 0.001


@dataclass(slots=True, eq=False)
class Group:
    """Sub-bands of one recording."""

    expected: int
    stamps: tuple[datetime, datetime]
    """The first and the last of those that are grouped."""
    declination_deg: float | None
    content: str | None
    state: GroupState = "collecting"
    due_s: float = math.inf
    """When it waits no longer, on the caller's clock."""
    round: int = 0
    """Conversions that were asked for."""
    grouped: dict[int, Subband] = field(default_factory=dict)
    late: dict[int, Subband] = field(default_factory=dict)
    duplicates: list[Subband] = field(default_factory=list)
    number: int | None = None
    """Of a group that the database has."""

    @property
    def missing(self) -> list[int]:
        """Numbers of sub-bands that it lacks."""
        return [number for number in range(self.expected) if number not in self.grouped]

    def holder(self, number: int) -> Subband | None:
        """The file that is this sub-band."""
        return self.grouped.get(number) or self.late.get(number)

    @property
    def files(self) -> Iterator[tuple[FileState, Subband]]:
        """Each of its files, and as what it is there."""
        for state, some in (
            ("grouped", self.grouped.values()),
            ("late", self.late.values()),
            ("duplicate", self.duplicates),
        ):
            yield from ((state, each) for each in some)  # type: ignore[misc]

    def measure(self) -> None:
        """Bring the stamps up to what is grouped; they stay where nothing is."""
        stamps = [each.stamp for each in self.grouped.values()]
        if stamps:
            self.stamps = min(stamps), max(stamps)


class Groups:
    """Groups of one intake."""

    def __init__(self, policy: Policy, groups: Iterable[Group] = ()) -> None:
        self.policy = policy
        self.groups = list(groups)
        self._group_with = {file.path: group for group in self.groups for _, file in group.files}

    def find(self, path: str) -> tuple[Group, FileState] | None:
        """The group that has a file, and as what."""
        group = self._group_with.get(path)
        return None if group is None else (group, next(state for state, each in group.files if each.path == path))

    def add(self, file: Subband, now_s: float = 0.0) -> tuple[Group | None, FileState]:
        """Put a whole file where it belongs; no group: its number is none of the policy's, and it is unreadable.

        A file that is there already is taken to have changed.
        """
        known = self.find(file.path)
        if known is not None:
            group, state = known
            if group.state not in TAKING and state != "duplicate":
                held = group.grouped if state == "grouped" else group.late
                number = next(number for number, each in held.items() if each.path == file.path)
                # Its stamp stays, as the database has it: the conversion has begun with the file that it was.
                held[number] = replace(held[number], begins_at=file.begins_at)
                return group, state
            self._take_out(group, file.path)
        if not 0 <= file.number < self.policy.subbands:
            return None, "unreadable"
        found = self._group_of(file)
        if found is None:
            stamps = (file.stamp, file.stamp)
            found = Group(self.policy.subbands, stamps, file.declination_deg, file.content)
            self.groups.append(found)
        self._group_with[file.path] = found
        if found.holder(file.number) is not None:
            found.duplicates.append(file)
            return found, "duplicate"
        if found.state not in TAKING:
            found.late[file.number] = file
            return found, "late"
        found.grouped[file.number] = file
        if found.state == "collecting":
            found.due_s = now_s + self.policy.timeout_s
        found.measure()
        self._review(found)
        return found, "grouped"

    def _ask(self, group: Group, state: GroupState) -> None:
        group.state, group.due_s, group.round = state, math.inf, group.round + 1

    def _group_of(self, file: Subband) -> Group | None:
        def distance(group: Group) -> tuple[bool, float]:
            first, last = group.stamps
            together = any(file.same_recording(each) for each in (*group.grouped.values(), *group.late.values()))
            return not together, abs((first + (last - first) / 2 - file.stamp).total_seconds())

        return min((each for each in self.groups if self._fits(each, file)), key=distance, default=None)

    def _fits(self, group: Group, file: Subband) -> bool:
        first, last = group.stamps
        if file.stamp - first > self.policy.span or last - file.stamp > self.policy.span:
            return False
        if group.declination_deg is None or file.declination_deg is None:
            if group.declination_deg is not file.declination_deg:
                return False
        elif abs(group.declination_deg - file.declination_deg) > self.policy.declination_tolerance_deg:
            return False
        holder = group.holder(file.number)
        return group.content == file.content and (holder is None or file.same_recording(holder) is not False)

    def _take_out(self, group: Group, path: str) -> None:
        del self._group_with[path]
        for files in (group.grouped, group.late):
            for number, each in list(files.items()):
                if each.path == path:
                    del files[number]
                    self._promote(group, number)
        group.duplicates = [each for each in group.duplicates if each.path != path]
        group.measure()
        self._review(group)

    def _promote(self, group: Group, number: int) -> None:
        """Let the first duplicate by path take the place of a file that is gone."""
        same = [each for each in group.duplicates if each.number == number]
        if same:
            heir = min(same, key=lambda each: each.path)
            group.duplicates.remove(heir)
            group.grouped[number] = heir

    def _review(self, group: Group) -> None:
        if group.state == "collecting":
            if not group.grouped:
                self.groups.remove(group)
            elif not group.missing:
                self._ask(group, "complete")
        elif group.state in ("complete", "partial"):
            group.state = "partial" if group.missing else "complete"
