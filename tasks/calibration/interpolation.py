"""Gains between the times and channels at which they were solved.

Between two solutions amplitude and phase go linearly, the phase the short way round the circle: of two gains half a
turn apart the real and imaginary parts would pass through 0.  Before the first solution and after the last that one
holds: for how long, the validity of the set says (`absurd.tasks.calibration.validity`).  Of frequencies a solution goes
for half the distance to its neighbours, and nothing is made up beyond.

What a solution is worth where it is flagged: nothing.  A time or channel whose nearest solution is flagged has none;
where only the farther one of two is, the nearest holds.  With `bridge` flagged solutions are passed over, as CASA does
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Flags = NDArray[np.bool_]
How = Literal["nearest", "linear"]


@dataclass(frozen=True, slots=True)
class Interpolated:
    """Gains at some times and frequencies."""

    values: Complexes
    """(solution, antenna, channel, polarisation); one channel goes for all frequencies."""
    flags: Flags
    """Of the same shape; true where there is none."""
    solution: NDArray[np.intp]
    """(time,): which of the solutions goes for a time."""


def interpolate(
    gains: Gains,
    time_s: Floats,
    frequencies_hz: Floats,
    *,
    time: How = "linear",
    frequency: How = "nearest",
    bridge: bool = False,
) -> Interpolated:
    """Gains at times (seconds of UTC since MJD 0) and frequencies, both (n,).

    A delay becomes gains for all the frequencies; of a gain the only channel goes for all.
    """
    values, flags = gains.values, gains.flags
    channels = gains.frequencies_hz
    if gains.kind == "bandpass" and not np.array_equal(channels, frequencies_hz):
        values, flags = _moved(
            values, flags, channels, frequencies_hz, axis=2, how=frequency, bridge=bridge, reach=_reach(channels)
        )
    order = np.argsort(gains.time_s, kind="stable")
    times = gains.time_s[order]
    if time == "nearest" and not bridge:
        near = order[_nearest(times, time_s)]
        used, solution = np.unique(near, return_inverse=True)
        values, flags = values[used], flags[used]
    else:
        values, flags = _moved(
            values[order], flags[order], times, time_s, axis=0, how=time, bridge=bridge, polar=gains.kind != "delay"
        )
        solution = np.arange(len(time_s))
    if gains.kind == "delay":
        turns = values.real * (frequencies_hz - channels[0])[:, None]
        values, flags = np.exp(2j * np.pi * turns), np.repeat(flags, len(frequencies_hz), axis=2)
    return Interpolated(values, flags, solution.reshape(-1))


def _moved(
    values: Complexes,
    flags: Flags,
    at: Floats,
    wanted: Floats,
    *,
    axis: int,
    how: How,
    bridge: bool,
    polar: bool = True,
    reach: float = np.inf,
) -> tuple[Complexes, Flags]:
    """Values at other places of an axis, from those at the places `at`, which ascend."""
    values, flags = np.moveaxis(values, axis, 0), np.moveaxis(flags, axis, 0)
    right = np.clip(np.searchsorted(at, wanted), 0, len(at) - 1)
    left = np.where(wanted >= at[right], right, np.maximum(right - 1, 0))
    right = np.where(wanted <= at[left], left, right)
    if bridge:
        before, after = _neighbours(~flags)
        lefts, rights = before[left], after[right]
        none = (lefts < 0) & (rights < 0)
        lefts, rights = np.where(lefts < 0, rights, lefts), np.where(rights < 0, lefts, rights)
        lefts, rights = np.where(none, 0, lefts), np.where(none, 0, rights)
    else:
        whole = (1,) * (values.ndim - 1)
        lefts, rights = left.reshape(-1, *whole), right.reshape(-1, *whole)
    place = wanted.reshape(-1, *(1,) * (values.ndim - 1))
    gap = at[rights] - at[lefts]
    share = np.clip(np.where(gap > 0, (place - at[lefts]) / np.where(gap > 0, gap, 1), 0), 0, 1)
    near = np.where(share > 0.5, rights, lefts)
    missing = np.take_along_axis(flags, near, 0) | (np.abs(at[near] - place) > reach)
    if how == "nearest":
        moved = np.take_along_axis(values, near, 0)
    else:
        both = ~(np.take_along_axis(flags, lefts, 0) | np.take_along_axis(flags, rights, 0))
        one, other = (
            np.take_along_axis(values, np.where(both, lefts, near), 0),
            np.take_along_axis(values, np.where(both, rights, near), 0),
        )
        moved = _between(one, other, share) if polar else one + share * (other - one)
    shape = np.broadcast_shapes(moved.shape, missing.shape)
    moved, missing = np.broadcast_to(moved, shape), np.broadcast_to(missing, shape)
    if polar:
        moved = np.where(missing, 1, moved)
    return np.moveaxis(moved, 0, axis), np.moveaxis(missing, 0, axis)


def _between(one: Complexes, other: Complexes, share: Floats) -> Complexes:
    """Amplitude and phase `share` of the way from one to the other; exactly these at the ends."""
    turn = np.angle(other * np.conj(one))
    amplitude = np.abs(one) + share * (np.abs(other) - np.abs(one))
    between: Complexes = amplitude * np.exp(1j * (np.angle(one) + share * turn))
    return np.where(share == 0, one, np.where(share == 1, other, between))


def _nearest(at: Floats, wanted: Floats) -> NDArray[np.intp]:
    """Which of `at`, ascending, is nearest; of two equally near ones the earlier."""
    right = np.clip(np.searchsorted(at, wanted), 0, len(at) - 1)
    left = np.maximum(right - 1, 0)
    nearest: NDArray[np.intp] = np.where(wanted - at[left] <= at[right] - wanted, left, right)
    return nearest


def _neighbours(good: Flags) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each place of the first axis the good one at or before it, and the one at or after it; -1 for none."""
    count = len(good)
    numbers = np.arange(count).reshape(-1, *(1,) * (good.ndim - 1))
    before = np.maximum.accumulate(np.where(good, numbers, -1), axis=0)
    after = np.minimum.accumulate(np.where(good, numbers, count)[::-1], axis=0)[::-1]
    return before, np.where(after == count, -1, after)


def _reach(at: Floats) -> float:
    """How far from its channel's centre a solution goes: half the usual distance to the next; one alone for all."""
    if len(at) < 2:
        return np.inf
    return float(
        np.median(np.diff(at)) / 2 * 1.001
    )  # edges of channels as wide as these are told from centres by rounding
