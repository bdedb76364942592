"""Gains and bandpasses, solved from visibilities and a model of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.finish import finish, prior_term
from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.calibration.remarks import remarks
from absurd.tasks.calibration.rows import Intervals, Rows, intervals, select, why_unusable
from absurd.tasks.calibration.settings import GainSettings
from absurd.tasks.calibration.stefcal import BAD_FIT, LOW_SNR, SOLVED, Solved, solve_sums
from absurd.tasks.calibration.sums import Term, squares, sums
from absurd.tasks.radio.errors import CalibrationError
from absurd.tasks.visibility.visibilities import Visibilities

_NOISE_MEDIAN = 2 * math.log(2)
"""Of w |noise|^2, where w is 1 / variance of one of its parts."""
_FIRST_LIMIT = 16.0
"""How much stronger than the median a visibility may be, in power, while no gains are known."""
_MAX_PASSES = 6
_ENOUGH_TO_COMPARE = 6
"""Solutions that a median is taken of."""
_SETTLED = 0.02
"""A pass with other weights that changes gains by less, in standard deviations, is the last."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one pass over the visibilities gave: amplitudes and phases, whatever the mode: a fit is to tell outliers."""

    solved: Solved
    term: Term
    outliers: float
    """Share of the visibilities beyond the limit."""


def solve_gains(
    visibilities: Visibilities,
    model: NDArray[Any],
    settings: GainSettings | None = None,
    *,
    prior: Sequence[Gains] = (),
) -> Gains:
    """One gain for each interval, antenna and polarisation, the same for all channels.

    `model` broadcasts to the data (row, channel, correlation), in the units that corrected data shall have.  `prior`
    are gains that are known already: what is solved is what is left.  Raises CalibrationError where there is nothing
    to solve from, or no solution passes.
    """
    return _solve(visibilities, model, settings or GainSettings(), "gain", prior)


def solve_bandpass(
    visibilities: Visibilities,
    model: NDArray[Any],
    settings: GainSettings | None = None,
    *,
    prior: Sequence[Gains] = (),
) -> Gains:
    """One gain for each interval, antenna, channel and polarisation; otherwise as `solve_gains`."""
    return _solve(visibilities, model, settings or GainSettings(min_snr=5.0, normalise=True), "bandpass", prior)


def _solve(
    visibilities: Visibilities, model: NDArray[Any], settings: GainSettings, kind: Kind, prior: Sequence[Gains]
) -> Gains:
    rows = select(visibilities, model, settings)
    when = intervals(visibilities, settings.interval_s, settings.combine)
    known = prior_term(visibilities, rows, prior)
    made = take_step(rows, known, nothing(rows, when, kind, len(visibilities.array.names)), settings)
    for _ in range(_MAX_PASSES if settings.robust else 0):
        before, made = made, take_step(rows, known, made.term, settings)
        if change(before, made, settings.min_snr) < _SETTLED:
            break
    return finish(visibilities, rows, when, made.solved, told(made, visibilities, settings), settings, kind)


def nothing(rows: Rows, when: Intervals, kind: Kind, antennas: int) -> Term:
    """A term of which nothing is known yet."""
    channels = rows.channels if kind == "bandpass" else 1
    return Term(np.zeros((len(when.time_s), antennas, channels, len(rows.polarisations)), np.complex128), when.number)


def take_step(rows: Rows, known: Term, sought: Term, settings: GainSettings) -> Step:
    """Solve once, with the weights that go with what has been found of `sought` so far.

    Raises CalibrationError where no visibility can be used.
    """
    limits = np.full(len(rows.polarisations), np.inf)
    if settings.robust:
        factor = settings.outlier_sigma**2 / _NOISE_MEDIAN if sought.values.any() else _FIRST_LIMIT
        limits = np.array([factor * _median(each) for each in squares(rows, known, sought)])
    summed = sums(rows, known, sought, limits)
    if not summed.used:
        raise CalibrationError(f"no visibility can be used: {why_unusable(rows)}")
    solved = solve_sums(
        summed,
        rows.pairs,
        sought.values,
        min_baselines=settings.min_baselines,
        tolerance=settings.tolerance,
        max_iterations=settings.max_iterations,
    )
    _leave_out_bad_fits(solved, settings.max_chi_squared)
    term = Term(np.where(solved.state == SOLVED, solved.values, 0), sought.number)
    share = summed.outliers / summed.used
    if not settings.robust:
        share = _share_beyond(squares(rows, known, term), settings.outlier_sigma)
    return without_weak(Step(solved, term, share), settings.min_snr)


def without_weak(step: Step, min_snr: float) -> Step:
    """The same without solutions below that SNR."""
    solved = step.solved
    weak = (solved.state == SOLVED) & (solved.snr < min_snr)
    solved.state[weak] = LOW_SNR
    return replace(step, term=Term(np.where(weak, 0, step.term.values), step.term.number))


def _leave_out_bad_fits(solved: Solved, most: float) -> None:
    """Flag what fits far worse than most: interference that fills a channel or a time is fitted, and not by gains."""
    known = solved.freedom > 0
    if known.sum() < _ENOUGH_TO_COMPARE:
        return
    ratio = np.where(known, solved.chi_squared / np.where(known, solved.freedom, 1), 0.0)
    bad = ratio > most * np.median(ratio[known])
    solved.state[np.broadcast_to(bad[:, None], solved.state.shape) & (solved.state == SOLVED)] = BAD_FIT


def change(before: Step, after: Step, min_snr: float) -> float:
    """By how much solutions differ, in their standard deviations, root mean square over those that pass in both.

    Phases of an interval, channel and polarisation are compared among antennas.  Infinite where none is in both.
    """
    first, second = before.term.values, after.term.values
    both = (first != 0) & (second != 0) & (after.solved.snr >= min_snr)
    if not both.any():
        return math.inf
    turn = np.sum(np.where(both, first * np.conj(second), 0), axis=1, keepdims=True)
    size = np.abs(turn)
    turned = second * np.where(size > 0, turn / np.where(size > 0, size, 1), 1)
    off = np.abs(turned - first)[both] / np.abs(second)[both] * after.solved.snr[both]
    return float(np.sqrt(np.mean(off**2)))


def told(made: Step, visibilities: Visibilities, settings: GainSettings) -> tuple[list[str], float]:
    """What is to be said of a step, and its share of outliers."""
    return (
        remarks(made.solved.state, made.solved.snr, visibilities.array.names, settings, made.outliers),
        made.outliers,
    )


def _median(values: NDArray[np.float64]) -> float:
    """Infinite where there are none, or where half of them leave nothing."""
    middle = float(np.median(values)) if len(values) else 0.0
    return middle if middle > 0 else math.inf


def _share_beyond(found: Sequence[NDArray[np.float64]], sigma: float) -> float:
    beyond = sum(int((each > sigma**2 / _NOISE_MEDIAN * _median(each)).sum()) for each in found)
    return beyond / max(1, sum(len(each) for each in found))
