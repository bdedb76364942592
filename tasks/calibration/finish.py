"""From what the solver found to gains that can be kept: phases referred, gaps filled, amplitudes normalised."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.calibration.reference import refer, reference_order
from absurd.tasks.calibration.rows import Intervals, Rows
from absurd.tasks.calibration.settings import GainSettings, Mode
from absurd.tasks.calibration.stefcal import LOW_SNR, NO_DATA, SOLVED, Solved
from absurd.tasks.calibration.sums import Complex, Floats, Term
from absurd.tasks.radio.errors import CalibrationError
from absurd.tasks.visibility.visibilities import Visibilities

Bools = NDArray[np.bool_]


def finish(
    visibilities: Visibilities,
    rows: Rows,
    when: Intervals,
    solved: Solved,
    told: tuple[list[str], float],
    settings: GainSettings,
    kind: Kind,
) -> Gains:
    """Gains of what was solved.  Raises CalibrationError, with what is to be said of them, where none passes."""
    warnings, outliers = told
    usable = solved.state == SOLVED
    if not usable.any():
        raise CalibrationError(f"no {kind} passes", advice="; ".join(warnings), warnings=warnings)
    values, snr = np.where(usable, solved.values, 1), solved.snr.copy()
    names = visibilities.array.names
    order, said = reference_order(by_antenna(usable), by_antenna(solved.snr), names, settings.reference)
    taken = refer_all(values, usable, order, kind)
    stand_ins = int(((taken >= 0) & (taken != order[0])).sum())
    if stand_ins:
        said.append(
            f"reference antenna {names[order[0]]} has no solution in {stand_ins} of {int((taken >= 0).sum())} "
            "places, where others stand in with the phases that they had"
        )
    values = project(values, settings.mode)
    if kind == "bandpass" and settings.fill_gaps:
        _fill(values, usable, snr, np.isin(solved.state, (NO_DATA, LOW_SNR)), settings.fill_gaps)
    if settings.normalise:
        normalise(values, usable, axis=2 if kind == "bandpass" else 0)
    values[~usable] = 1
    frequencies = visibilities.frequencies_hz
    centre = visibilities.phase_centres[int(visibilities.field[len(visibilities.field) // 2])]
    return Gains(
        kind=kind,
        values=values,
        flags=~usable,
        snr=snr.astype(np.float32),
        time_s=when.time_s,
        interval_s=when.length_s,
        frequencies_hz=frequencies.copy() if kind == "bandpass" else np.array([frequencies.mean()]),
        polarisations=rows.polarisations,
        antennas=names,
        reference=reference_names(taken, names, order),
        source=centre.name,
        ra_rad=centre.ra_rad,
        dec_rad=centre.dec_rad,
        warnings=(*said, *warnings),
        chi_squared=float(solved.chi_squared.sum() / max(solved.freedom.sum(), 1.0)),
        outliers=outliers,
    )


def by_antenna(array: NDArray[Any]) -> NDArray[Any]:
    """(solution, antenna) of (interval, antenna, channel, polarisation)."""
    return array.transpose(0, 2, 3, 1).reshape(-1, array.shape[1])


def refer_all(values: Complex, usable: Bools, order: Sequence[int], kind: Kind) -> NDArray[np.int64]:
    """Refer phases in place, along the axis that phases are steady along: (interval, channel, polarisation) taken."""
    intervals, _, channels, polarisations = values.shape
    taken = np.full((intervals, channels, polarisations), -1, np.int64)
    for hand in range(polarisations):
        if kind == "bandpass":
            for at in range(intervals):
                series = np.ascontiguousarray(values[at, :, :, hand].T)
                taken[at, :, hand] = refer(series, usable[at, :, :, hand].T, order)
                values[at, :, :, hand] = series.T
        else:
            series = np.ascontiguousarray(values[:, :, 0, hand])
            taken[:, 0, hand] = refer(series, usable[:, :, 0, hand], order)
            values[:, :, 0, hand] = series
    return taken


def project(values: Complex, mode: Mode) -> Complex:
    """What a mode has of gains of amplitude and phase: phases of amplitude 1, or amplitudes; 0 stays 0."""
    if mode == "ap":
        return values
    size = np.abs(values)
    return size.astype(np.complex128) if mode == "a" else values / np.where(size > 0, size, 1)


def normalise(values: Complex, usable: Bools, axis: int) -> None:
    """Have the mean square of amplitudes along `axis` be 1, of what is usable, in place."""
    number = usable.sum(axis=axis, keepdims=True)
    power = (np.abs(values) ** 2 * usable).sum(axis=axis, keepdims=True)
    good = (number > 0) & (power > 0)
    values /= np.where(good, np.sqrt(power / np.maximum(number, 1)), 1)


def prior_term(visibilities: Visibilities, rows: Rows, prior: Sequence[Gains]) -> Term:
    """The product of gains that are known, for each time and channel: nearest in time, at their own channels.

    Raises CalibrationError where they are of other polarisations or channels.
    """
    antennas = visibilities.array.names
    if not prior:
        return Term.ones(rows, len(antennas))
    times, number = np.unique(visibilities.time_s, return_inverse=True)
    channels = rows.channels if any(len(each.frequencies_hz) > 1 for each in prior) else 1
    values = np.ones((len(times), len(antennas), channels, len(rows.polarisations)), np.complex128)
    for each in prior:
        if each.kind == "delay":
            raise CalibrationError("a delay cannot be a prior of gains", advice="apply it to the visibilities first")
        if missing := set(rows.polarisations) - set(each.polarisations):
            raise CalibrationError(f"the prior {each.kind} has no polarisation {', '.join(sorted(missing))}")
        if len(each.frequencies_hz) > 1 and not np.array_equal(each.frequencies_hz, visibilities.frequencies_hz):
            raise CalibrationError(f"the prior {each.kind} is of other channels than the visibilities")
        hands = [each.polarisations.index(name) for name in rows.polarisations]
        places = {name: number for number, name in enumerate(each.antennas)}
        found = np.array([places.get(name, -1) for name in antennas])
        nearest = np.abs(times[:, None] - each.time_s[None, :]).argmin(axis=1)
        own = np.where(each.flags, 0, each.values)[nearest][:, found][..., hands]
        own[:, found < 0] = 0
        values = values * own
    return Term(np.ascontiguousarray(values), number.reshape(-1).astype(np.int64))


def _fill(values: Complex, usable: Bools, snr: Floats, may: Bools, most: int) -> None:
    """Interpolate gaps of up to `most` channels between two that have a solution, amplitude and phase, in place.

    Only where there `may` be a solution: what interference fills is to stay flagged.  The SNR there is the lower of
    the two.
    """
    intervals, antennas, channels, hands = values.shape
    for at, antenna, hand in np.ndindex(intervals, antennas, hands):
        held = np.flatnonzero(usable[at, antenna, :, hand])
        if len(held) in (0, channels):
            continue
        line = values[at, antenna, :, hand]
        for left, right in pairwise(held):
            if not 1 < right - left <= most + 1:
                continue
            gap = np.arange(left + 1, right)
            gap = gap[may[at, antenna, gap, hand]]
            share = (gap - left) / (right - left)
            turn = np.angle(line[right] * np.conj(line[left]))
            size = abs(line[left]) * (1 - share) + abs(line[right]) * share
            line[gap] = size * np.exp(1j * (np.angle(line[left]) + share * turn))
            usable[at, antenna, gap, hand] = True
            snr[at, antenna, gap, hand] = min(snr[at, antenna, left, hand], snr[at, antenna, right, hand])


def reference_names(taken: NDArray[np.int64], names: Sequence[str], order: Sequence[int]) -> tuple[str, ...]:
    """(interval,): the antenna that was taken most often."""
    found = []
    for each in taken.reshape(len(taken), -1):
        held = each[each >= 0]
        counts = np.bincount(held, minlength=len(names)) if len(held) else None
        found.append(names[int(counts.argmax())] if counts is not None else names[order[0]])
    return tuple(found)
