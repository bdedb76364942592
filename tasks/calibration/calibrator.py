"""A scan of a calibrator: its bandpass and its gains in time, solved in turns until neither changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.finish import by_antenna, finish, normalise, project, refer_all
from absurd.tasks.calibration.gains import Gains
from absurd.tasks.calibration.reference import reference_order
from absurd.tasks.calibration.rows import Rows, intervals, select
from absurd.tasks.calibration.settings import CalibratorSettings, Mode
from absurd.tasks.calibration.solve import Step, change, nothing, take_step, told, without_weak
from absurd.tasks.calibration.stefcal import LOW_SNR, NO_DATA, SOLVED
from absurd.tasks.calibration.sums import Term
from absurd.tasks.visibility.visibilities import Visibilities

_HELD = 0.5
"""Share of the first intervals in which an antenna's phase is to be found; else these do not hold its scan together."""


@dataclass(frozen=True, slots=True)
class CalibratorSolution:
    """A visibility of antennas p and q is b_p g_p * model * conj(b_q g_q), b the bandpass and g the gain."""

    bandpass: Gains
    """The mean phase of each antenna over its channels is 0, but where gains have none (mode a); the mean square of its
    amplitudes is 1 if normalised, but where gains have none (mode p)."""
    gain: Gains
    rounds: int
    converged: bool
    remarks: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of both, and of how they were found."""
        bandpass = tuple(f"bandpass: {each}" for each in self.bandpass.warnings)
        return self.remarks + bandpass + tuple(f"gain: {each}" for each in self.gain.warnings)


def solve_calibrator(
    visibilities: Visibilities, model: NDArray[Any], settings: CalibratorSettings | None = None
) -> CalibratorSolution:
    """Phases of short intervals first, with which the bandpass is solved, and then bandpass and gains in turns.

    `model` as for `solve_gains`.  Raises CalibrationError where there is nothing to solve from, or nothing passes.
    """
    settings = settings or CalibratorSettings()
    # What is weak is left out at the end only: out of one half it would take its data from the other, round by round.
    of_bandpass_loosely, of_gain_loosely = (replace(each, min_snr=0.0) for each in (settings.bandpass, settings.gain))
    names, remarks = visibilities.array.names, []
    of_gain, of_bandpass = select(visibilities, model, settings.gain), select(visibilities, model, settings.bandpass)
    gain_when = intervals(visibilities, settings.gain.interval_s, settings.gain.combine)
    bandpass_when = intervals(visibilities, settings.bandpass.interval_s, settings.bandpass.combine)
    bandpass_term = nothing(of_bandpass, bandpass_when, "bandpass", len(names))
    gain_term = nothing(of_gain, gain_when, "gain", len(names))
    early = _early(visibilities, model, settings)
    present = (early.solved.state != NO_DATA).any(axis=(0, 2))
    known, lost = _as_known(early.term, "p"), present & ((early.term.values != 0).mean(axis=(0, 2)) < _HELD)

    before: tuple[Step, Step] | None = None
    converged, number = False, 0
    while not converged and number < settings.max_rounds:
        number += 1
        bandpass = take_step(of_bandpass, known, bandpass_term, of_bandpass_loosely)
        if number == 1 and lost.any():
            told_of = ", ".join(names[each] for each in np.flatnonzero(lost.any(axis=1))[:8])
            remarks.append(f"no phase of {told_of} held over the band: these began with the middle of the scan")
            bandpass = _with_middle(bandpass, of_bandpass, visibilities, known, bandpass_term, settings)
        bandpass_term = _steady(bandpass, names, settings)
        bandpass = replace(bandpass, term=bandpass_term)
        gain = take_step(of_gain, bandpass_term, gain_term, of_gain_loosely)
        gain_term, known = gain.term, _as_known(gain.term, settings.gain.mode)
        if before:
            changes = (
                change(before[0], bandpass, settings.bandpass.min_snr), change(before[1], gain, settings.gain.min_snr)
            )  # fmt: skip
            converged = max(changes) < settings.tolerance
        before = bandpass, gain
    bandpass, gain = without_weak(bandpass, settings.bandpass.min_snr), without_weak(gain, settings.gain.min_snr)
    held = [(step.term.values != 0).any(axis=(0, 2), keepdims=True) for step in (bandpass, gain)]
    for step, own in zip((bandpass, gain), held, strict=True):
        # What each has left out because the other has nothing there was there, and too weak.
        there = present[None, :, None, :] & (step.solved.state == NO_DATA)
        step.solved.state[there & ~own] = LOW_SNR
        # Through a bandpass that was fitted to noise the gain of a dead antenna seems strong, and says nothing.
        step.solved.state[(step.solved.state == SOLVED) & ~np.logical_and(*held)] = LOW_SNR
    if not converged:
        remarks.append(f"bandpass and gains still change after {number} rounds")
    solved = replace(bandpass.solved, values=bandpass_term.values)
    said, of_scan = told(bandpass, visibilities, settings.bandpass), replace(settings.bandpass, normalise=False)
    return CalibratorSolution(
        finish(visibilities, of_bandpass, bandpass_when, solved, said, of_scan, "bandpass"),
        finish(
            visibilities,
            of_gain,
            gain_when,
            gain.solved,
            told(gain, visibilities, settings.gain),
            settings.gain,
            "gain",
        ),
        number,
        converged,
        tuple(remarks),
    )


def _early(visibilities: Visibilities, model: NDArray[Any], settings: CalibratorSettings) -> Step:
    """Phases of short intervals, or gains that change nothing where there are to be none."""
    names = visibilities.array.names
    phase = settings.phase or replace(settings.gain, mode="p", interval_s=np.inf, min_snr=0.0)
    rows = select(visibilities, model, phase)
    when = intervals(visibilities, phase.interval_s, phase.combine)
    found = take_step(rows, Term.ones(rows, len(names)), nothing(rows, when, "gain", len(names)), phase)
    if settings.phase is None:
        found.term.values[...] = 1
    return found


def _with_middle(
    found: Step, rows: Rows, visibilities: Visibilities, known: Term, sought: Term, settings: CalibratorSettings
) -> Step:
    """A bandpass where there is none yet, of the interval in the middle alone: there phases need not be known."""
    phase = settings.phase or settings.gain
    number = intervals(visibilities, phase.interval_s, phase.combine).number
    middle = replace(rows, baseline=np.where(number == number.max() // 2, rows.baseline, -1))
    guessed = Term(np.where(known.values != 0, known.values, 1), known.number)
    made = take_step(middle, guessed, sought, replace(settings.bandpass, min_snr=0.0))
    order, _ = reference_order(
        by_antenna(made.term.values != 0),
        by_antenna(made.solved.snr),
        visibilities.array.names,
        settings.bandpass.reference,
    )
    for each in (found, made):
        refer_all(each.term.values, each.term.values != 0, order, "bandpass")
    lacking = (found.term.values == 0) & (made.term.values != 0)
    found.term.values[lacking] = made.term.values[lacking]
    found.solved.state[lacking] = SOLVED
    found.solved.snr[lacking] = made.solved.snr[lacking]
    return found


def _as_known(term: Term, mode: Mode) -> Term:
    """Gains as they will be applied: what they do not have by their mode is left to the bandpass."""
    return Term(project(term.values, mode), term.number)


def _steady(found: Step, names: tuple[str, ...], settings: CalibratorSettings) -> Term:
    """The bandpass without what gains in time have as well: the mean of its phases, and of its amplitudes."""
    values, usable = found.term.values.copy(), found.term.values != 0
    if not usable.any():
        return found.term
    order, _ = reference_order(by_antenna(usable), by_antenna(found.solved.snr), names, settings.bandpass.reference)
    refer_all(values, usable, order, "bandpass")
    if settings.gain.mode != "a":
        mean = values.sum(axis=2, keepdims=True)
        values *= np.where(mean != 0, np.conj(mean) / np.maximum(np.abs(mean), 1e-300), 1)
    if settings.normalises:
        normalise(values, usable, axis=2)
    return Term(values, found.term.number)
