"""Blocks: recordings that follow one another, as many as make a mosaic (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from absurd.tasks.radio.errors import ValidationError

_NAMES = (
    re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:_\d+)?\.ms", re.ASCII),
    re.compile(r"drift_(\d{8}T\d{6})(?:_\w+)?\.ms", re.ASCII),
)
"""Of Measurement Sets: as `visibility.convert_group` names them, and ``drift_20230101T000500_00.ms``."""
_APART = 1.5
"""Lengths of a recording from the begin of one to that of the next, from which on there is a gap between them."""


@dataclass(frozen=True, slots=True)
class ProcessingBlock:
    """Recordings that are worked on together.

    Raises ValidationError for one without recordings, or that ends before it begins.
    """

    start_time: datetime
    end_time: datetime
    ms_files: tuple[str, ...]
    missing: int = 0
    """Recordings that are not there of those that it has room for: more than 0 makes it partial."""
    calibrators: tuple[str, ...] = ()
    """Those of `ms_files` that show a calibrator, as far as anybody has looked."""
    versions: tuple[str, ...] = ()
    """Of each of `ms_files`, what changes when it is made anew."""

    def __post_init__(self) -> None:
        if not self.ms_files:
            raise ValidationError("a block has no recordings", advice="name Measurement Sets")
        if self.start_time >= self.end_time:
            raise ValidationError(f"a block from {self.start_time} to {self.end_time} ends before it begins")

    @property
    def block_id(self) -> str:
        """Its begin and its end, ``20230101T000000_20230101T010000``, UTC."""
        return "_".join(f"{each.astimezone(UTC):%Y%m%dT%H%M%S}" for each in (self.start_time, self.end_time))

    @property
    def is_partial(self) -> bool:
        """Whether recordings are missing."""
        return self.missing > 0


@dataclass(frozen=True, slots=True)
class BlockRules:
    """How long blocks and recordings are."""

    duration: timedelta
    """Of a block."""
    overlap: timedelta
    """What a block has in common with the next."""
    recording: timedelta
    """Of a recording."""


def as_time(moment: Any) -> datetime:
    """An aware time from one, from ISO text (UTC where it names no zone), or from what astropy calls a Time.

    Raises ValidationError.
    """
    if hasattr(moment, "to_datetime"):
        moment = moment.to_datetime(timezone=UTC)
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.strip())
        except ValueError:
            raise ValidationError(f"{moment!r} is no time", advice="write 2023-01-01T01:00:00") from None
    if not isinstance(moment, datetime):
        raise ValidationError(f"{moment!r} is no time", advice="give a datetime, or text such as 2023-01-01T01:00:00")
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def stamp_of(path: str | PurePath) -> datetime | None:
    """When a recording begins by the name of its Measurement Set, UTC; None where the name does not tell."""
    name = PurePath(path).name
    for form in _NAMES:
        if found := form.fullmatch(name):
            try:
                return datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
            except ValueError:  # the 31st of February
                return None
    return None


def make_block(end: datetime, ms_files: Iterable[str], rules: BlockRules) -> ProcessingBlock:
    """The block that ends at a time, of these recordings, in the order of their begin.  Raises ValidationError."""
    files = sorted(map(str, ms_files), key=lambda each: (stamp_of(each) or end, each))
    start = end - rules.duration
    return ProcessingBlock(start, end, tuple(files), _missing(files, start, end, rules.recording))


def find_blocks(
    ms_files: Iterable[str], rules: BlockRules, *, since: datetime | None = None, until: datetime | None = None
) -> list[ProcessingBlock]:
    """The blocks of the recordings that begin from `since` on and before `until`, in order of time.

    Recordings that follow one another without a gap are a stretch.  Each stretch has its own blocks, the first of which
    begins with it; so a gap costs no recording, and what is left at the end of a stretch is a partial block.  What the
    last block of a stretch would have in common with the one before, and nothing else, makes no block.  Files whose
    names do not tell when they begin are left alone.
    """
    stamped = sorted(
        (stamp, str(each))
        for each in ms_files
        if (stamp := stamp_of(each)) is not None
        and (since is None or stamp >= since)
        and (until is None or stamp < until)
    )
    blocks = []
    for stretch in _stretches(stamped, _APART * rules.recording):
        start, last = stretch[0][0], stretch[-1][0]
        while True:
            end = start + rules.duration
            within = [path for stamp, path in stretch if start <= stamp < end]
            blocks.append(make_block(end, within, rules))
            if last < end:
                break
            start = end - rules.overlap
    return blocks


def _stretches(stamped: Sequence[tuple[datetime, str]], apart: timedelta) -> list[list[tuple[datetime, str]]]:
    stretches: list[list[tuple[datetime, str]]] = []
    for each in stamped:
        if not stretches or each[0] - stretches[-1][-1][0] > apart:
            stretches.append([])
        stretches[-1].append(each)
    return stretches


def _missing(files: Sequence[str], start: datetime, end: datetime, recording: timedelta) -> int:
    """How many recordings more there is room for, between those that are there and at both ends."""
    stamps = sorted({stamp for each in files if (stamp := stamp_of(each)) is not None and start <= stamp < end})
    if not stamps:
        return max(0, round((end - start) / recording) - len(files))
    spaces = [stamps[0] - start, *(later - each - recording for each, later in pairwise(stamps))]
    spaces.append(end - stamps[-1] - recording)
    return sum(max(0, int(each / recording + 0.5)) for each in spaces)
