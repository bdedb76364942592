"""Blocks of recordings: none is lost to a gap, and what is missing is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from absurd.tasks.pipeline import ProcessingBlock, ValidationError
from absurd.tasks.pipeline.blocks import BlockRules, as_time, find_blocks, make_block, stamp_of

HOUR = BlockRules(timedelta(minutes=60), timedelta(minutes=10), timedelta(minutes=5))
MIDNIGHT = datetime(2023, 1, 1, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return MIDNIGHT + timedelta(minutes=minutes)


def named(*minutes: float) -> list[str]:
    return [f"/ms/drift_{at(each):%Y%m%dT%H%M%S}_00.ms" for each in minutes]


def test_names_of_both_kinds_tell_when_a_recording_begins() -> None:
    """Those of this package, with a group's number or without, and those of drift scans; no others."""
    assert stamp_of("/a/2026-01-15T08:00:05.ms") == datetime(2026, 1, 15, 8, 0, 5, tzinfo=UTC)
    assert stamp_of("2026-01-15T08:00:05_17.ms") == datetime(2026, 1, 15, 8, 0, 5, tzinfo=UTC)
    assert stamp_of("drift_20230101T000500_00.ms") == at(5)
    assert stamp_of("drift_20230101T000500.ms") == at(5)
    for other in (
        "drift_20230231T000500_00.ms",
        "flagged.ms",
        "2026-01-15T08:00:05.ms.part",
        ".2026-01-15T08:00:05.ms",
    ):
        assert stamp_of(other) is None


def test_blocks_of_a_run_overlap_and_the_last_is_partial() -> None:
    """An hour each, ten minutes in common; what is left in the end is a block with what it lacks."""
    found = find_blocks(named(*range(0, 125, 5)), HOUR)  # 125 minutes

    assert [each.block_id for each in found] == [
        "20230101T000000_20230101T010000",
        "20230101T005000_20230101T015000",
        "20230101T014000_20230101T024000",
    ]
    assert [len(each.ms_files) for each in found] == [12, 12, 5]
    assert [each.missing for each in found] == [0, 0, 7]
    assert [each.is_partial for each in found] == [False, False, True]


def test_what_would_only_be_overlap_is_no_block() -> None:
    """Its recordings are all in the block before."""
    assert [each.block_id[:15] for each in find_blocks(named(*range(0, 60, 5)), HOUR)] == ["20230101T000000"]
    assert [each.block_id[:15] for each in find_blocks(named(*range(0, 65, 5)), HOUR)] == [
        "20230101T000000",
        "20230101T005000",
    ]


def test_a_gap_costs_no_recording() -> None:
    """Each run of recordings has its own blocks, which begin with it."""
    minutes = [*range(0, 60, 5), *range(73, 93, 5), 200]

    found = find_blocks(named(*minutes), HOUR)

    assert [each.start_time for each in found] == [at(0), at(73), at(200)]
    assert sorted({path for each in found for path in each.ms_files}) == sorted(named(*minutes))
    assert [each.missing for each in found] == [0, 8, 11]


def test_a_time_bounds_what_is_looked_for() -> None:
    """From the first on, and before the last, by the begin of recordings; names that tell none are left alone."""
    files = [*named(*range(0, 60, 5)), "/ms/other.ms"]

    (found,) = find_blocks(files, HOUR, since=at(10), until=at(25))

    assert list(found.ms_files) == named(10, 15, 20)


def test_recordings_longer_than_told_are_one_run() -> None:
    """309 s instead of 300: a block that they fill is not partial."""
    found = find_blocks(named(*(each * 309.24 / 60 for each in range(24))), HOUR)

    assert [each.missing for each in found[:2]] == [0, 0]


def test_a_block_is_made_of_what_is_given() -> None:
    """In order of time, with what it lacks in its middle; without any recording there is none."""
    block = make_block(at(60), named(*range(30, 60, 5), *range(0, 20, 5)), HOUR)

    assert list(block.ms_files) == named(*range(0, 20, 5), *range(30, 60, 5))
    assert (block.start_time, block.end_time, block.missing) == (at(0), at(60), 2)
    with pytest.raises(ValidationError, match="has no recordings"):
        make_block(at(60), [], HOUR)
    with pytest.raises(ValidationError, match="ends before it begins"):
        ProcessingBlock(at(1), at(0), ("a.ms",))


def test_times_are_taken_in_each_form() -> None:
    """A datetime, ISO text, an astropy Time; text without a zone is UTC."""
    from astropy.time import Time

    expected = at(60)
    for form in (expected, "2023-01-01T01:00:00", "2023-01-01T02:00:00+01:00", Time("2023-01-01T01:00:00")):
        assert as_time(form) == expected
    for wrong in ("tomorrow", 5):
        with pytest.raises(ValidationError, match="is no time"):
            as_time(wrong)
