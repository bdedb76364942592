"""Which gain set holds for what was recorded when and where."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from absurd.tasks.calibration.validity import Borrowing, Candidate, Target, check, choose, grade, refusals, window
from absurd.tasks.radio.errors import CalibrationError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TARGET = Target(NOON, 54.6, 1.3e9, 1.5e9)


def candidate(number: int, hours: float, declination: float = 54.6, **changes: object) -> Candidate:
    """A set recorded so many hours before noon (after, if below 0)."""
    seen = NOON - timedelta(hours=hours)
    start, end = window(seen, seen)
    made = Candidate(number, f"/gains/{number}", "0" * 64, "3C48", declination, 1.0, 1.28e9, 1.53e9, seen, start, end)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_grades() -> None:
    """Fresh below 6 h, aging below 12, stale below 24, critical beyond; before as after."""
    for hours, expected in (
        (0, "fresh"),
        (5.99, "fresh"),
        (6, "aging"),
        (12, "stale"),
        (24, "critical"),
        (1e4, "critical"),
    ):
        assert grade(hours) == grade(-hours) == grade(timedelta(hours=hours)) == expected


def test_the_nearest_on_either_side_is_taken() -> None:
    """After as well as before; of equally near ones the one registered last; the other side is told too."""
    before, after, far = candidate(1, 5), candidate(2, -3), candidate(3, -9)

    choice = choose([far, before, after], TARGET)

    assert (choice.candidate, choice.age_hours, choice.grade, choice.borrowed) == (after, -3, "fresh", False)
    assert choice.other is not None
    assert (choice.other.candidate, choice.other.age_hours) == (before, 5)
    assert choose([candidate(1, 4), candidate(2, 4)], TARGET).candidate.number == 2
    assert choose([candidate(1, 4), candidate(2, 5)], TARGET).other is None


def test_an_old_calibration_is_refused_with_its_age_and_distance() -> None:
    """In hours and degrees, with how long it holds; it may be borrowed, and then is told to be."""
    old = candidate(7, 30.25, 54.9)

    said = r"set 7 \(3C48\), 30\.2 h and 0\.30 degrees away: it is 30\.2 h old \(critical\)"
    with pytest.raises(CalibrationError, match=said) as caught:
        choose([old], TARGET, telescope="DSA-110")
    assert "no gain set holds for DSA-110 at 2026-03-01 12:00 UTC and declination +54.60" in caught.value.message
    assert caught.value.details["nearest"][0]["age_hours"] == 30.25
    choice = choose([old], TARGET, borrow=Borrowing())
    assert (choice.borrowed, choice.grade) == (True, "critical")
    assert choice.told()["borrowed"] is True
    assert choice.told()["distance_deg"] == 0.3


def test_another_strip_is_refused_with_its_distance() -> None:
    """However fresh; beside it the nearest of the own strip is named, which is too old."""
    wrong, old = candidate(1, 0.5, 16.1), candidate(2, 40)

    with pytest.raises(CalibrationError) as caught:
        choose([wrong, old], TARGET)

    assert (
        "set 1 (3C48), 0.5 h and 38.50 degrees away: its declination +16.10 is 38.50 degrees from +54.60, 1 are allowed"
        in (caught.value.message)
    )
    assert "set 2 (3C48), 40.0 h and 0.00 degrees away" in caught.value.message
    with pytest.raises(CalibrationError, match="5 are allowed"):
        choose([wrong], TARGET, borrow=Borrowing())


def test_borrowing_has_limits_and_goes_after_what_holds() -> None:
    """30 days and 5 degrees; never instead of a set that holds."""
    assert choose([candidate(1, 11), candidate(2, 1, 57)], TARGET, borrow=Borrowing()).candidate.number == 1
    assert choose([candidate(1, 719), candidate(2, 1, 57)], TARGET, borrow=Borrowing()).candidate.number == 2
    assert choose([candidate(1, 719, 59.5)], TARGET, borrow=Borrowing()).borrowed
    for far in (candidate(1, 721), candidate(1, 1, 59.7)):
        with pytest.raises(CalibrationError, match="are allowed"):
            choose([far], TARGET, borrow=Borrowing())


@pytest.mark.parametrize("state", ["candidate", "superseded", "quarantined"])
def test_what_is_not_valid_is_never_chosen(state: str) -> None:
    """Nor borrowed, nor used by its number."""
    one = candidate(1, 1, state=state)

    for borrow in (None, Borrowing()):
        with pytest.raises(CalibrationError, match="there is no valid gain set"):
            choose([one], TARGET, borrow=borrow)
        with pytest.raises(CalibrationError, match=f"gain set 1 is {state}"):
            check(one, TARGET, borrow=borrow)


def test_candidates_are_told_and_not_taken() -> None:
    """Those that would hold, the nearest first, with the command that accepts them; no others, and never chosen."""
    states = ["candidate"] * 6 + ["quarantined", "superseded"]
    places = [(9, 54.6), (-2, 54.6), (5, 54.6), (1, 16.1), (30, 54.6), (7, 54.6), (1, 54.6), (1, 54.6)]
    others = [candidate(n, *place, state=state) for n, (place, state) in enumerate(zip(places, states, strict=True))]

    with pytest.raises(CalibrationError, match="there is no valid gain set for") as caught:
        choose(others, TARGET)
    said = "; candidates that would hold: 1 (3C48), 2 (3C48), 5 (3C48) and 1 more: "
    assert said in caught.value.message
    assert caught.value.message.endswith("accept it as it is: `absurd pipeline gains accept 1`")
    assert caught.value.details["waiting"] == [1, 2, 5, 0]
    with pytest.raises(CalibrationError, match=r"40\.0 h old") as caught:
        choose([*others[:1], candidate(8, 40)], TARGET)
    assert caught.value.details["waiting"] == [0]
    with pytest.raises(CalibrationError) as caught:
        choose([others[3], others[4]], TARGET, borrow=Borrowing())
    assert caught.value.details["waiting"] == [4]
    assert choose([*others, candidate(8, 11)], TARGET).candidate.number == 8
    with pytest.raises(CalibrationError, match=r"gain set 1 is candidate: have qa\.calibration judge it"):
        check(others[1], TARGET)


def test_other_frequencies_are_refused() -> None:
    """Also to borrow."""
    narrow = candidate(1, 1, highest_hz=1.4e9)

    for borrow in (None, Borrowing()):
        with pytest.raises(
            CalibrationError, match=r"1280\.000 to 1400\.000 MHz, do not hold 1300\.000 to 1500\.000 MHz"
        ):
            choose([narrow], TARGET, borrow=borrow)


def test_no_set_at_all() -> None:
    """Is said so."""
    with pytest.raises(CalibrationError, match="there is no valid gain set for"):
        choose([], TARGET)


def test_the_window_holds_its_recording() -> None:
    """12 hours from the middle, and never less than was recorded."""
    assert window(NOON, NOON + timedelta(hours=2)) == (NOON - timedelta(hours=11), NOON + timedelta(hours=13))
    assert window(NOON, NOON + timedelta(hours=2), 0.5) == (NOON, NOON + timedelta(hours=2))


@given(
    sets=st.lists(
        st.tuples(st.floats(-100, 100), st.floats(50, 60), st.sampled_from(["valid", "quarantined"])), max_size=8
    ),
    borrow=st.booleans(),
)
def test_whatever_is_chosen_may_be_used_and_nothing_nearer_holds(
    sets: list[tuple[float, float, str]], borrow: bool
) -> None:
    """Against a search without order: a choice there is exactly where some set may be used."""
    known = [candidate(n, hours, declination, state=state) for n, (hours, declination, state) in enumerate(sets)]
    wider = Borrowing() if borrow else None
    holding = [each for each in known if each.state == "valid" and not refusals(each, TARGET)]
    borrowable = [each for each in known if each.state == "valid" and wider and not refusals(each, TARGET, wider)]
    usable = holding or borrowable
    if not usable:
        with pytest.raises(CalibrationError):
            choose(known, TARGET, borrow=wider)
        return

    choice = choose(known, TARGET, borrow=wider)

    assert choice.candidate in usable
    assert abs(choice.age_hours) == min(abs((NOON - each.observed_at).total_seconds()) / 3600 for each in usable)
    assert choice.borrowed == (not holding)
