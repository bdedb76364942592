"""Where claims begin to look: nothing stranded below a hot mark for longer than a second."""

from __future__ import annotations

from absurd.workers.pump.marks import LOOK_BELOW_SECONDS, Marks


def test_a_new_worker_looks_from_the_base() -> None:
    """Before the first claim nothing is known, so the base mark of the database holds."""
    assert Marks().from_base(0.0)


def test_a_full_claim_moves_the_hot_mark() -> None:
    """After a full claim the next one starts above the last row taken, level by level."""
    marks = Marks()
    marks.note([20, 20, 0], [5, 9, 3], wanted=3, from_base=True, now=0.0)

    assert not marks.from_base(0.1)
    assert marks.arrays(from_base=False) == ([20, 0], [10, 4])
    assert marks.arrays(from_base=True) == ([], [])


def test_a_short_claim_looks_lower_next() -> None:
    """Too few rows may mean that a lower seq has committed late: the next look is from the base."""
    marks = Marks()
    marks.note([0], [9], wanted=2, from_base=False, now=0.0)

    assert marks.from_base(0.0)


def test_a_busy_queue_looks_lower_once_a_second() -> None:
    """Full claims never come back short; time alone must send them below their mark."""
    marks = Marks()
    marks.note([0], [9], wanted=1, from_base=True, now=0.0)

    assert not marks.from_base(LOOK_BELOW_SECONDS * 0.9)
    assert marks.from_base(LOOK_BELOW_SECONDS)


def test_a_full_look_from_the_base_may_lower_the_mark() -> None:
    """It stopped at its last row: what lies between that and the old mark has yet to be seen."""
    marks = Marks()
    marks.note([0], [100], wanted=1, from_base=True, now=0.0)
    marks.note([0], [40], wanted=1, from_base=True, now=1.0)

    assert marks.arrays(from_base=False) == ([0], [41])


def test_an_exhausted_level_keeps_its_highest_mark() -> None:
    """A level that gave all it had is not looked at again below the highest seq seen there."""
    marks = Marks()
    marks.note([20], [100], wanted=1, from_base=True, now=0.0)
    marks.note([20, 0], [40, 7], wanted=2, from_base=True, now=1.0)

    assert marks.arrays(from_base=False) == ([20, 0], [101, 8])


def test_a_claim_on_lanes_moves_no_mark() -> None:
    """What a limited claim passed over may be taken later: its rows, all told as level 0 and seq 0, teach nothing."""
    marks = Marks()
    marks.note([20, 0], [100, 50], wanted=2, from_base=False, now=0.0)
    marks.note([0, 0, 0], [0, 0, 0], wanted=5, from_base=False, now=0.5)

    assert marks.from_base(0.6)  # it came back short
    assert marks.arrays(from_base=False) == ([20, 0], [101, 50 + 1])
