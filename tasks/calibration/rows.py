"""Rows of visibilities, as the solver goes through them: by baseline and by interval."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.settings import GainSettings
from absurd.tasks.radio.errors import CalibrationError
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT
from absurd.tasks.visibility.visibilities import Visibilities

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
_ALIGNED = {"XX": "X", "YY": "Y", "RR": "R", "LL": "L", "I": "I"}
"""Correlations that a gain without leakage is solved from, and its polarisation."""


@dataclass(frozen=True, slots=True)
class Compact:
    """An array whose axes that only repeat have length 1; `steps` are 0 for these, else 1."""

    values: NDArray[Any]
    steps: tuple[int, int, int]

    @classmethod
    def of(cls, array: NDArray[Any], shape: tuple[int, ...], kind: type[np.generic]) -> Compact:
        """`array`, broadcast to `shape` in thought only."""
        whole = np.broadcast_to(array, shape)
        steps = tuple(int(stride != 0 or length == 1) for stride, length in zip(whole.strides, shape, strict=True))
        once = whole[tuple(slice(None) if step else slice(1) for step in steps)]
        return cls(np.ascontiguousarray(once, kind), (steps[0], steps[1], steps[2]))


@dataclass(frozen=True, slots=True)
class Intervals:
    """Which solution each row belongs to."""

    number: Numbers
    """(row,)."""
    time_s: Floats
    """(interval,), its middle."""
    length_s: Floats
    """(interval,)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Visibilities and their model, ready to be summed."""

    data: NDArray[np.complex64]
    flags: NDArray[np.bool_]
    weights: Compact
    model: Compact
    hands: Numbers
    """(polarisation,), the correlation that it is solved from."""
    polarisations: tuple[str, ...]
    antenna1: Numbers
    """(row,)."""
    antenna2: Numbers
    baseline: Numbers
    """(row,), number of the pair of antennas, whichever comes first; -1 where the row is not to be used."""
    first: Numbers
    """(row,), of the channels that are long enough."""
    last: Numbers
    """(row,), the one after them."""
    pairs: Numbers
    """(baseline, 2), the lower antenna first."""

    @property
    def channels(self) -> int:
        """Of the data."""
        return int(self.data.shape[1])


def select(visibilities: Visibilities, model: NDArray[Any], settings: GainSettings) -> Rows:
    """What is usable for gains; no visibility is copied.

    `model` broadcasts to (row, channel, correlation).  Raises CalibrationError where no correlation is of one
    polarisation with itself, and where the model does not go with the data.
    """
    shape = visibilities.data.shape
    hands = [number for number, name in enumerate(visibilities.correlations) if name in _ALIGNED]
    if not hands:
        told = ", ".join(visibilities.correlations)
        raise CalibrationError(f"gains are solved from XX, YY, RR or LL, and there is only {told}")
    try:
        compact = Compact.of(model, shape, np.complex64)
    except ValueError as error:
        raise CalibrationError(f"the model has shape {np.shape(model)}, and {shape} goes with the data") from error
    lower = np.minimum(visibilities.antenna1, visibilities.antenna2).astype(np.int64)
    upper = np.maximum(visibilities.antenna1, visibilities.antenna2).astype(np.int64)
    antennas = len(visibilities.array.names)
    codes, baseline = np.unique(lower * antennas + upper, return_inverse=True)
    first, last = channels_between(visibilities, settings.uv_range_wavelengths)
    used = (lower != upper) & (first < last)
    return Rows(
        data=np.ascontiguousarray(visibilities.data, np.complex64),
        flags=np.ascontiguousarray(visibilities.flags),
        weights=Compact.of(visibilities.weights, shape, np.float32),
        model=compact,
        hands=np.array(hands, np.int64),
        polarisations=tuple(_ALIGNED[visibilities.correlations[each]] for each in hands),
        antenna1=visibilities.antenna1.astype(np.int64),
        antenna2=visibilities.antenna2.astype(np.int64),
        baseline=np.where(used, baseline.reshape(-1), -1).astype(np.int64),
        first=first,
        last=last,
        pairs=np.stack([codes // antennas, codes % antennas], axis=-1).astype(np.int64),
    )


def why_unusable(rows: Rows) -> str:
    """Where no visibility is left: what became of those of antennas with one another, each counted once, in words."""
    shape = rows.data.shape
    channel = np.arange(shape[1])
    long_enough = (channel >= rows.first[:, None]) & (channel < rows.last[:, None])
    cross = rows.antenna1 != rows.antenna2
    left = np.repeat(cross[:, None, None], shape[1], axis=1).repeat(len(rows.hands), axis=2)
    whole = int(left.sum())
    if not whole:
        return "there is none of two antennas"
    weights, model = (np.broadcast_to(each.values, shape)[..., rows.hands] for each in (rows.weights, rows.model))
    told = []
    for reason, good in (
        ("are outside of the range of baselines", long_enough[..., None]),
        ("are flagged", ~rows.flags[..., rows.hands]),
        ("are no number", np.isfinite(rows.data[..., rows.hands])),
        ("have no weight", np.isfinite(weights) & (weights > 0)),
        ("have a model of 0 or no number", np.isfinite(model) & (model != 0)),
        ("have no gain that goes before", np.False_),
    ):
        if lost := int((left & ~good).sum()):
            told.append(f"{lost / whole:.1%} {reason}")
        left &= good
    return f"of {whole:,} {', '.join(told)}"


def aligned(correlations: Sequence[str]) -> tuple[str, ...]:
    """Polarisations that gains have: of each correlation of one with itself."""
    return tuple(_ALIGNED[each] for each in correlations if each in _ALIGNED)


def intervals(visibilities: Visibilities, interval_s: float, combine: Collection[str]) -> Intervals:
    """Part the rows into solutions, in order of time.

    Within each scan and field (unless combined) intervals are counted from the start of its first integration; an
    integration belongs to the interval that its middle lies in.  Intervals without rows are left out.
    """
    rows = len(visibilities.time_s)
    if rows == 0:
        raise CalibrationError("there is no row to solve gains from")
    parts = np.zeros(rows, np.int64)
    for name, values in (("scan", visibilities.scan), ("field", visibilities.field)):
        if name not in combine:
            _, own = np.unique(values, return_inverse=True)
            parts = parts * (int(own.max()) + 1) + own.reshape(-1)
    _, part = np.unique(parts, return_inverse=True)
    part = part.reshape(-1)
    begins = visibilities.time_s - visibilities.exposure_s / 2
    ends = visibilities.time_s + visibilities.exposure_s / 2
    start = np.full(int(part.max()) + 1, np.inf)
    np.minimum.at(start, part, begins)
    within = np.zeros(rows, np.int64)
    if interval_s == 0:
        _, within = np.unique(np.round(visibilities.time_s, 3), return_inverse=True)
        within = within.reshape(-1).astype(np.int64)
    elif np.isfinite(interval_s):
        # A middle may lie a rounding before the boundary that it is meant to lie on.
        within = np.floor((visibilities.time_s - start[part]) / interval_s + 1e-6).astype(np.int64)
    _, place, number = np.unique(np.stack([part, within], axis=-1), axis=0, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    begin, end = np.full(len(place), np.inf), np.full(len(place), -np.inf)
    np.minimum.at(begin, number, begins)
    np.maximum.at(end, number, ends)
    order = np.argsort((begin + end) / 2, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Intervals(rank[number].astype(np.int64), ((begin + end) / 2)[order], (end - begin)[order])


def channels_between(visibilities: Visibilities, uv_range_wavelengths: tuple[float, float]) -> tuple[Numbers, Numbers]:
    """(row,) twice: the first channel at which a baseline is long enough, and the first at which it is too long.

    Lengths are those of the projected baselines, and both ends of the range are within it.
    """
    least, most = uv_range_wavelengths
    length_s = np.hypot(visibilities.uvw_m[:, 0], visibilities.uvw_m[:, 1]) / SPEED_OF_LIGHT
    frequencies_hz = visibilities.frequencies_hz
    rows, channels = len(length_s), len(frequencies_hz)
    first, last = np.zeros(rows, np.int64), np.full(rows, channels, np.int64)
    if least > 0:
        with np.errstate(divide="ignore"):
            first = np.searchsorted(frequencies_hz, least / length_s, side="left").astype(np.int64)
    if np.isfinite(most):
        with np.errstate(divide="ignore"):
            last = np.searchsorted(frequencies_hz, most / length_s, side="right").astype(np.int64)
    return first, last
