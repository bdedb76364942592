"""Which gain set may be used for what was recorded when and where: pure rules, without a database.

A set holds for hours before and after its recording, for declinations near its own, and for its frequencies.  Of those
that hold the nearest in time is taken, on whichever side.  Its age, counted from the middle of its recording, is
graded: fresh below 6 h, aging below 12, stale below 24, critical beyond.  What does not hold may be borrowed, if that
is asked for, within wider limits, and the choice says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from absurd.tasks.radio.errors import CalibrationError

Grade = Literal["fresh", "aging", "stale", "critical"]
GRADES: tuple[tuple[Grade, float], ...] = (("fresh", 6.0), ("aging", 12.0), ("stale", 24.0))
"""Each with the age in hours at which it ends."""
WINDOW_HOURS = 12.0
"""For how long a set holds before and after its recording."""
STRIP_DEG = 1.0
"""How far from its declination a set holds."""
BORROW_DAYS, BORROW_DEG = 30.0, 5.0
"""How far from its recording and declination a set may be borrowed."""
_NAMED = 3
"""Candidates that a refusal names."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a gain set."""

    number: int
    path: str
    checksum: str
    source: str
    declination_deg: float
    strip_deg: float
    lowest_hz: float
    highest_hz: float
    observed_at: datetime
    valid_from: datetime
    valid_until: datetime
    state: str = "valid"

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Candidate:
        """Of a row of the table `gain_set`."""
        moments = {
            name: told[name] if isinstance(told[name], datetime) else datetime.fromisoformat(told[name])
            for name in ("observed_at", "valid_from", "valid_until")
        }
        return cls(
            number=told["id"],
            path=told["path"],
            checksum=told["checksum"],
            source=told["source"],
            declination_deg=told["declination"],
            strip_deg=told["strip"],
            lowest_hz=told["lowest_hz"],
            highest_hz=told["highest_hz"],
            state=told["state"],
            **moments,
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What gains are wanted for."""

    at: datetime
    """The middle of the recording."""
    declination_deg: float
    lowest_hz: float
    """Centre of the lowest channel, which has to lie within the edges of the set's; of `highest_hz` the highest."""
    highest_hz: float


@dataclass(frozen=True, slots=True)
class Borrowing:
    """How far a set may be from what it is used for where none holds."""

    days: float = BORROW_DAYS
    declination_deg: float = BORROW_DEG


@dataclass(frozen=True, slots=True)
class Choice:
    """A set to use."""

    candidate: Candidate
    age_hours: float
    """Above 0: the set was recorded before; below: after."""
    distance_deg: float
    """Between the declinations."""
    grade: Grade
    borrowed: bool = False
    other: Choice | None = None
    """The nearest on the other side in time that holds, too."""

    def told(self) -> dict[str, Any]:
        """For a result and for provenance."""
        told: dict[str, Any] = {
            "gain_set": self.candidate.number,
            "path": self.candidate.path,
            "checksum": self.candidate.checksum,
            "source": self.candidate.source,
            "age_hours": round(self.age_hours, 3),
            "distance_deg": round(self.distance_deg, 4),
            "grade": self.grade,
            "borrowed": self.borrowed,
        }
        return told


def grade(age: timedelta | float) -> Grade:
    """Of an age, before or after, as a time or in hours."""
    hours = abs(age.total_seconds() / 3600 if isinstance(age, timedelta) else age)
    return next((name for name, end in GRADES if hours < end), "critical")


def window(observed_from: datetime, observed_until: datetime, hours: float = WINDOW_HOURS) -> tuple[datetime, datetime]:
    """From when until when a set holds: so long before and after the middle of its recording, and that whole."""
    middle = observed_from + (observed_until - observed_from) / 2
    span = timedelta(hours=hours)
    return min(middle - span, observed_from), max(middle + span, observed_until)


def choose(
    candidates: Iterable[Candidate], target: Target, *, telescope: str = "", borrow: Borrowing | None = None
) -> Choice:
    """The valid set nearest in time, before or after, of equally near ones the one registered last.

    Where none holds and `borrow` is given, the nearest within its limits.  Raises CalibrationError, with the age in
    hours and the distance in degrees of the nearest, where there is none; it names candidates that would do, if they
    were accepted.
    """
    known = sorted((_choice(each, target) for each in candidates), key=_nearness)
    usable = [each for each in known if each.candidate.state == "valid"]
    holding = [each for each in usable if not refusals(each.candidate, target)]
    if holding:
        first = holding[0]
        other = next((each for each in holding if (each.age_hours < 0) != (first.age_hours < 0)), None)
        return Choice(first.candidate, first.age_hours, first.distance_deg, first.grade, borrowed=False, other=other)
    if borrow is not None:
        for each in usable:
            if not refusals(each.candidate, target, borrow):
                return Choice(each.candidate, each.age_hours, each.distance_deg, each.grade, borrowed=True)
    waiting = [
        each.candidate
        for each in known
        if each.candidate.state == "candidate"
        and not all(refusals(each.candidate, target, limits) for limits in (None, borrow))
    ]
    raise _refused(usable, waiting, target, telescope, borrow)


def check(candidate: Candidate, target: Target, *, telescope: str = "", borrow: Borrowing | None = None) -> Choice:
    """That set, if it may be used.  Raises CalibrationError with its age in hours and distance in degrees if not."""
    if candidate.state != "valid":
        raise CalibrationError(
            f"gain set {candidate.number} is {candidate.state}",
            advice=_acceptance(candidate) if candidate.state == "candidate" else "",
            gain_set=candidate.number,
            state=candidate.state,
        )
    return choose([candidate], target, telescope=telescope, borrow=borrow)


def refusals(candidate: Candidate, target: Target, borrow: Borrowing | None = None) -> list[str]:
    """Why a set may not be used, in words; empty if it may."""
    choice = _choice(candidate, target)
    found = []
    strip = candidate.strip_deg if borrow is None else borrow.declination_deg
    if choice.distance_deg > strip:
        found.append(
            f"its declination {candidate.declination_deg:+.2f} is {choice.distance_deg:.2f} degrees from"
            f" {target.declination_deg:+.2f}, {strip:g} are allowed"
        )
    if borrow is None and not candidate.valid_from <= target.at <= candidate.valid_until:
        found.append(
            f"it is {_age(choice)} and holds from {candidate.valid_from:%F %H:%M} to {candidate.valid_until:%F %H:%M}"
        )
    if borrow is not None and abs(choice.age_hours) > 24 * borrow.days:
        found.append(f"it is {_age(choice)}, {24 * borrow.days:g} h are allowed")
    if target.lowest_hz < candidate.lowest_hz or target.highest_hz > candidate.highest_hz:
        found.append(
            f"its frequencies, {candidate.lowest_hz / 1e6:.3f} to {candidate.highest_hz / 1e6:.3f} MHz, do not hold"
            f" {target.lowest_hz / 1e6:.3f} to {target.highest_hz / 1e6:.3f} MHz"
        )
    return found


def _choice(candidate: Candidate, target: Target) -> Choice:
    age = (target.at - candidate.observed_at).total_seconds() / 3600
    return Choice(candidate, age, abs(candidate.declination_deg - target.declination_deg), grade(age))


def _nearness(choice: Choice) -> tuple[float, int]:
    return abs(choice.age_hours), -choice.candidate.number


def _age(choice: Choice) -> str:
    return (
        f"{abs(choice.age_hours):.1f} h {'old' if choice.age_hours >= 0 else 'younger than the data'} ({choice.grade})"
    )


def _refused(
    usable: list[Choice], waiting: list[Candidate], target: Target, telescope: str, borrow: Borrowing | None
) -> CalibrationError:
    whose = f"{telescope} " if telescope else ""
    wanted = f"{whose}at {target.at:%F %H:%M} UTC and declination {target.declination_deg:+.2f}"
    if not usable:
        return _wanting(f"there is no valid gain set for {wanted}", waiting, nearest=[])
    # The nearest in time, and the nearest of those that lie near enough: each may be what somebody looks for.
    near = [each for each in usable if each.distance_deg <= each.candidate.strip_deg]
    shown = list(dict.fromkeys(each.candidate.number for each in (usable[0], *near[:1])))
    told = {each.candidate.number: each for each in usable}
    sentences = []
    for number in shown:
        each = told[number]
        reasons = " and ".join(refusals(each.candidate, target, borrow))
        sentences.append(
            f"set {number} ({each.candidate.source}), {abs(each.age_hours):.1f} h and {each.distance_deg:.2f} degrees"
            f" away: {reasons}"
        )
    return _wanting(
        f"no gain set holds for {wanted}; the nearest, {'; '.join(sentences)}",
        waiting,
        nearest=[told[number].told() for number in shown],
    )


def _wanting(message: str, waiting: list[Candidate], **details: Any) -> CalibrationError:
    """That there is no set to use, and which ones are candidates for it, the nearest first."""
    numbers = [each.number for each in waiting]
    if not waiting:
        return CalibrationError(message, waiting=numbers, **details)
    names = ", ".join(f"{each.number} ({each.source})" for each in waiting[:_NAMED])
    more = f" and {len(waiting) - _NAMED} more" if len(waiting) > _NAMED else ""
    return CalibrationError(
        f"{message}; candidates that would hold: {names}{more}",
        advice=_acceptance(waiting[0]),
        waiting=numbers,
        **details,
    )


def _acceptance(candidate: Candidate) -> str:
    """How a candidate becomes valid."""
    return (
        f"have qa.calibration judge it (gain_set={candidate.number}), or accept it as it is: "
        f"`absurd pipeline gains accept {candidate.number}`"
    )
