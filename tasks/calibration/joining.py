"""Gains of two recordings as one table, so that what lies between them is interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.finish import refer_all, reference_names
from absurd.tasks.calibration.gains import Gains
from absurd.tasks.radio.errors import CalibrationError


def join(one: Gains, other: Gains) -> Gains:
    """The solutions of both in order of time, for the antennas of either; where one has none they are flagged.

    Phases of both are counted from one antenna: a reference antenna of the first, else that with the best signal.
    Where it has no solution another one stands in with the phase that it had, which `warnings` tell.  Raises
    CalibrationError for tables of different kinds, channels or polarisations, and where nothing is solved.
    """
    if (one.kind, one.polarisations) != (other.kind, other.polarisations) or one.kind == "bandpass":
        raise CalibrationError(f"gains cannot be joined: {_told(one)} and {_told(other)}")
    if one.kind == "delay" and not np.array_equal(one.frequencies_hz, other.frequencies_hz):
        raise CalibrationError("delays cannot be joined: their phases are 0 at different frequencies")
    antennas = (*one.antennas, *(each for each in other.antennas if each not in one.antennas))
    both = [_spread(each, antennas) for each in (one, other)]
    values, flags, snr, times, intervals = (
        np.concatenate([getattr(each, name) for each in both])
        for name in ("values", "flags", "snr", "time_s", "interval_s")
    )
    order = np.argsort(times, kind="stable")
    joined = replace(
        one,
        values=values[order],
        flags=flags[order],
        snr=snr[order],
        time_s=times[order],
        interval_s=intervals[order],
        frequencies_hz=(one.frequencies_hz + other.frequencies_hz) / 2,
        antennas=antennas,
        reference=tuple((*one.reference, *other.reference)[each] for each in order),
        source=one.source if one.source == other.source else f"{one.source}, {other.source}",
        warnings=tuple(dict.fromkeys((*one.warnings, *other.warnings))),
    )
    return refer(joined, one.reference)


def refer(gains: Gains, preferred: Sequence[str]) -> Gains:
    """The same gains with the phases of one antenna 0, which changes nothing that they do to visibilities.

    It is a preferred one, if any of these has as many solutions as another.  For each polarisation its own phase: what
    turns X against Y is lost, as it is in every solution that has a reference antenna.  Raises CalibrationError where
    there is no solution.
    """
    usable = np.logical_not(gains.flags)
    if not usable.any():
        raise CalibrationError("gains cannot be joined: no antenna has a solution")
    # Delays are referred as the phases that they make at a frequency so low that none goes round.
    turn = 1.0
    values: NDArray[np.complex128] = gains.values.copy()
    if gains.kind == "delay":
        turn = 0.25 / max(1e-30, float(np.abs(values.real).max()))
        values = np.exp(1j * turn * values.real).astype(np.complex128)
    chain = [gains.antennas.index(each) for each in dict.fromkeys(preferred) if each in gains.antennas]
    signal = np.where(gains.flags, 0, gains.snr).sum(axis=(0, 2, 3))
    share = usable.mean(axis=(0, 2, 3))
    order = sorted(range(len(gains.antennas)), key=lambda each: (-share[each], each not in chain, -signal[each]))
    taken = refer_all(values, usable, order, gains.kind)
    if gains.kind == "delay":
        values = (np.angle(values) / turn).astype(np.complex128)
    values = np.where(gains.flags, gains.values, values)
    stand_ins = int(((taken >= 0) & (taken != order[0])).sum())
    warnings = gains.warnings
    if stand_ins:
        warnings += (
            f"no antenna has solutions at all times: {gains.antennas[order[0]]} is the reference, and in {stand_ins} "
            f"of {int((taken >= 0).sum())} places others stand in with the phases that they had",
        )
    return replace(gains, values=values, reference=reference_names(taken, gains.antennas, order), warnings=warnings)


def _spread(gains: Gains, antennas: tuple[str, ...]) -> Gains:
    """For more antennas, flagged where there is none."""
    places = [antennas.index(each) for each in gains.antennas]
    shape = (len(gains.time_s), len(antennas), *gains.values.shape[2:])
    values = np.full(shape, 0 if gains.kind == "delay" else 1, np.complex128)
    flags, snr = np.ones(shape, np.bool_), np.zeros(shape, np.float32)
    values[:, places], flags[:, places], snr[:, places] = gains.values, gains.flags, gains.snr
    return replace(gains, values=values, flags=flags, snr=snr, antennas=antennas)


def _told(gains: Gains) -> str:
    return f"a {gains.kind} of {', '.join(gains.polarisations)}"
