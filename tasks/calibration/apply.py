"""Gains applied to visibilities, and taken away again.

A visibility of antennas p and q is corrected to V / (g_p conj(g_q)), with g the product of the gains of all tables at
its time and frequency.  With `calwt` its weight, which is one over its variance, is multiplied by |g_p|^2 |g_q|^2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.calibration.interpolation import How, interpolate
from absurd.tasks.radio.errors import CalibrationError
from absurd.tasks.visibility.visibilities import Visibilities

Missing = Literal["flag", "leave"]
IN_TIME: Mapping[Kind, How] = {"gain": "linear", "bandpass": "nearest", "delay": "nearest"}
"""How gains of each kind go between the times at which they were solved, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Visibilities to which gains were applied, and what became of them."""

    visibilities: Visibilities
    usable: int
    """Visibilities that were usable before."""
    missing: int
    """Of these, those without a gain: flagged, or left as they were."""
    outside: int
    """Of these, those at a time for which the gains are not valid."""
    antennas: frozenset[str]
    """Those of the rows."""
    antennas_with_gains: frozenset[str]
    """Those that have a gain at one of the times, of whatever rows."""

    @property
    def antennas_missing(self) -> tuple[str, ...]:
        """Antennas of the rows that have no gain at all, in the order of the array."""
        missing = self.antennas - self.antennas_with_gains
        return tuple(each for each in self.visibilities.array.names if each in missing)


def apply_gains(
    visibilities: Visibilities,
    *gains: Gains,
    calwt: bool = True,
    missing: Missing = "flag",
    bridge: bool = False,
    in_time: Mapping[Kind, How] = IN_TIME,
    in_frequency: How = "nearest",
    valid_s: tuple[float, float] | None = None,
) -> Applied:
    """Correct visibilities by the product of gains.

    Visibilities for which one of the gains is missing (flagged, no such antenna or channel, or their time is outside
    `valid_s`, seconds of UTC since MJD 0) are flagged and not changed; with ``leave`` they are not flagged either.
    `bridge` passes over flagged solutions between others.

    Raises CalibrationError for gains of other polarisations, and where no gain is given.
    """
    return _scale(visibilities, gains, -1, calwt, missing, bridge, in_time, in_frequency, valid_s)


def unapply_gains(
    visibilities: Visibilities,
    *gains: Gains,
    calwt: bool = True,
    bridge: bool = False,
    in_time: Mapping[Kind, How] = IN_TIME,
    in_frequency: How = "nearest",
    valid_s: tuple[float, float] | None = None,
) -> Applied:
    """Take away what `apply_gains` did with the same arguments, but for flags: data and weights are as before.

    To the rounding of float32, once in each direction.
    """
    return _scale(visibilities, gains, 1, calwt, "leave", bridge, in_time, in_frequency, valid_s)


def _scale(
    visibilities: Visibilities,
    gains: Sequence[Gains],
    direction: int,
    calwt: bool,
    missing: Missing,
    bridge: bool,
    in_time: Mapping[Kind, How],
    in_frequency: How,
    valid_s: tuple[float, float] | None,
) -> Applied:
    from absurd.tasks.calibration.apply_kernel import scale

    if not gains:
        raise CalibrationError("there are no gains to apply")
    times, at = np.unique(visibilities.time_s, return_inverse=True)
    inside = np.ones(len(times), bool) if valid_s is None else (times >= valid_s[0]) & (times <= valid_s[1])
    tables = [_Table(each, visibilities, times, bridge, in_time[each.kind], in_frequency) for each in gains]
    data = visibilities.data.copy()
    flags = visibilities.flags.copy()
    weights = np.array(visibilities.weights)
    usable = visibilities.usable
    lost = np.zeros(data.shape, np.bool_)
    first, second = _hands(visibilities.correlations, tables[0].polarisations)
    order = np.argsort(at, kind="stable")
    edges = np.searchsorted(at[order], np.arange(len(times) + 1))
    has_gain = np.zeros(len(visibilities.array.names), np.bool_)
    for number in range(len(times)):
        rows = order[edges[number] : edges[number + 1]]
        if inside[number]:
            product, none = tables[0].at(number)
            for each in tables[1:]:
                values, also = each.at(number)
                product, none = product * values, none | also
            none = none | ~(np.isfinite(product) & (product != 0))
        else:
            product, none = np.ones((len(has_gain), 1, 2), np.complex128), np.ones((len(has_gain), 1, 2), np.bool_)
        has_gain |= ~none.all(axis=(1, 2))
        scale(
            data, weights, lost, rows, visibilities.antenna1, visibilities.antenna2, first, second,
            np.ascontiguousarray(product), np.ascontiguousarray(none), direction, calwt,
        )  # fmt: skip
    if missing == "flag":
        flags |= lost
    lost &= usable
    names = np.array(visibilities.array.names)
    there = np.unique(np.concatenate([visibilities.antenna1, visibilities.antenna2]))
    return Applied(
        visibilities.with_(data=data, flags=flags, weights=weights),
        usable=int(usable.sum()),
        missing=int(lost.sum()),
        outside=int(usable[~inside[at.reshape(-1)]].sum()),
        antennas=frozenset(names[there].tolist()),
        antennas_with_gains=frozenset(names[has_gain].tolist()),
    )


class _Table:
    """Gains at the times and channels of visibilities, for their antennas in their order."""

    def __init__(
        self, gains: Gains, visibilities: Visibilities, times: NDArray[np.float64], bridge: bool, time: How, freq: How
    ) -> None:
        self.polarisations = gains.polarisations
        self._gains = interpolate(gains, times, visibilities.frequencies_hz, time=time, frequency=freq, bridge=bridge)
        known = {name: number for number, name in enumerate(gains.antennas)}
        names = visibilities.array.names
        self._antennas = np.array([known.get(name, 0) for name in names], np.intp)
        self._unknown = np.array([name not in known for name in names], np.bool_)[:, None, None]

    def at(self, time: int) -> tuple[NDArray[np.complex128], NDArray[np.bool_]]:
        """Gains at a time, and where there are none: (antenna, channel or 1, polarisation)."""
        number = self._gains.solution[time]
        values, flags = self._gains.values[number], self._gains.flags[number]
        return values[self._antennas], flags[self._antennas] | self._unknown


def _hands(correlations: Sequence[str], polarisations: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each correlation the polarisations of its two antennas, by number; of I both are I."""
    try:
        pairs = [[polarisations.index(hand) for hand in (each * 2)[:2]] for each in correlations]
        first, second = zip(*pairs, strict=True)
    except ValueError:
        raise CalibrationError(
            f"gains of {', '.join(polarisations)} do not go with correlations {', '.join(correlations)}"
        ) from None
    return np.array(first, np.intp), np.array(second, np.intp)
