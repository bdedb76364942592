"""Gains of two recordings as one table, so that what lies between them is interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.radio.errors import CalibrationError


def join(one: Gains, other: Gains) -> Gains:
    """The solutions of both in order of time, for the antennas of either; where one has none they are flagged.

    Phases of both are counted from one antenna, which has solutions at all their times.  Raises CalibrationError for
    tables of different kinds, channels or polarisations, and where there is no such antenna.
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
    )
    return refer(joined, _common(joined, one.reference))


def refer(gains: Gains, antenna: str) -> Gains:
    """The same gains with the phases of one antenna 0, which changes nothing that they do to visibilities.

    For each polarisation its own phase: what turns X against Y is lost, as it is in every solution that has a reference
    antenna.  Raises CalibrationError where that antenna has not all solutions.
    """
    number = gains.antennas.index(antenna)
    if gains.flags[:, number].any():
        raise CalibrationError(f"antenna {antenna} has no solution at some times: it cannot be the reference")
    its = gains.values[:, number : number + 1]
    values: NDArray[np.complex128] = (
        gains.values - its if gains.kind == "delay" else gains.values * np.conj(its) / np.abs(its)
    )
    values = np.where(gains.flags, gains.values, values)
    return replace(gains, values=values, reference=(antenna,) * len(gains.time_s))


def _common(gains: Gains, preferred: Sequence[str]) -> str:
    """An antenna with all solutions: a reference antenna if one of them is, else that with the best signal."""
    whole: NDArray[np.bool_] = np.asarray(np.logical_not(gains.flags).all(axis=(0, 2, 3)))
    if not whole.any():
        raise CalibrationError("gains cannot be joined: no antenna has solutions at all times of both")
    for each in dict.fromkeys(preferred):
        if each in gains.antennas and whole[gains.antennas.index(each)]:
            return each
    signal = np.where(whole, gains.snr.mean(axis=(0, 2, 3)), -1)
    return gains.antennas[int(signal.argmax())]


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
