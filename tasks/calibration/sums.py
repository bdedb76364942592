"""Sums over what a gain is constant over: all that the solver has to go through visibilities for.

With w the weight of a visibility V, and H = k_p M conj(k_q) its model M as the gains that are known (k) leave it, the
best gains g minimise sum w |V - g_p H conj(g_q)|^2, for which sum w V conj(H), sum w |H|^2, sum w |V|^2 and the number
of visibilities are enough, for each interval, baseline, polarisation and channel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.rows import Numbers, Rows
from absurd.tasks.radio.compiled import kernel

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]
Singles = NDArray[np.complex64]
_SAMPLE = 60_000
"""Visibilities of a polarisation that a median is taken of: it is known to 0.5 % then."""


@dataclass(frozen=True, slots=True)
class Term:
    """A part of all gains: of one value for all channels, or for all times, where it has one of that axis."""

    values: Complex
    """(interval, antenna, channel, polarisation); 0 where there is none, which leaves out what it would go to."""
    number: Numbers
    """(row,), interval of each row."""

    @classmethod
    def ones(cls, rows: Rows, antennas: int) -> Term:
        """Of antennas that change nothing."""
        values = np.ones((1, antennas, 1, len(rows.polarisations)), np.complex128)
        return cls(values, np.zeros(len(rows.data), np.int64))


@dataclass(frozen=True, slots=True)
class Sums:
    """Each of shape (interval, baseline, polarisation, channel); one channel where all are summed."""

    cross: Complex
    """Sum of w V conj(H), the lower antenna first."""
    model: Floats
    """Sum of w |H|^2."""
    data: Floats
    """Sum of w |V|^2."""
    count: Floats
    """Number of visibilities; of those with less weight as outliers, the share of it that they keep."""
    seen: Floats
    """(interval, polarisation, channel): number of visibilities, each as one."""
    used: int
    """Visibilities that went into all."""
    outliers: int
    """Those of them that have less weight."""


def sums(rows: Rows, known: Term, sought: Term, limits: Floats) -> Sums:
    """Go through all visibilities once, and sum as `sought` is parted.

    A visibility whose w |V - s_p H conj(s_q)|^2, with s of `sought`, is above the `limits` (polarisation,) has its
    weight lowered by the quotient; limits of infinity lower none.
    """
    intervals, _, channels, polarisations = sought.values.shape
    shape = (intervals, len(rows.pairs), polarisations, channels)
    cross, model, data, count = np.zeros(shape, np.complex128), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    seen = np.zeros((intervals, polarisations, channels))
    arguments = _arguments(rows, known, sought, limits, cross, model, data, count, seen)
    # One thread a polarisation: none adds to what another does, so that the bits are the same on any machine.
    with ThreadPoolExecutor(polarisations) as pool:
        found = list(pool.map(lambda hand: _sums(*(*arguments, hand)), range(polarisations)))
    used, outliers = (int(sum(each)) for each in zip(*found, strict=True))
    return Sums(cross, model, data, count, seen, used, outliers)


def squares(rows: Rows, known: Term, sought: Term) -> list[Floats]:
    """Of each polarisation, w |V - s_p H conj(s_q)|^2 of visibilities; a sample, evenly spread, where they are many.

    Of noise with variance 1 / w in each part the median is 2 ln 2.
    """
    each = max(1, rows.data.size // (_SAMPLE * rows.data.shape[2]))
    found = []
    for polarisation in range(len(rows.hands)):
        room = np.empty(rows.data[:, :, 0].size // each + 1)
        n = _squares(*_arguments(rows, known, sought, polarisation, each, room))
        found.append(room[:n])
    return found


def _arguments(rows: Rows, known: Term, sought: Term, *more: Any) -> tuple[Any, ...]:
    return (
        rows.data,
        rows.flags,
        rows.weights.values,
        np.array(rows.weights.steps, np.int64),
        rows.model.values,
        np.array(rows.model.steps, np.int64),
        rows.hands,
        rows.antenna1,
        rows.antenna2,
        rows.baseline,
        rows.first,
        rows.last,
        np.ascontiguousarray(known.values.transpose(0, 1, 3, 2)),
        known.number,
        np.ascontiguousarray(sought.values.transpose(0, 1, 3, 2)),
        sought.number,
        *more,
    )


@kernel
def _sums(
    data: Singles, flags: NDArray[np.bool_], weights: NDArray[np.float32], weight_steps: Numbers,
    model: Singles, model_steps: Numbers, hands: Numbers, antenna1: Numbers, antenna2: Numbers,
    baseline: Numbers, first: Numbers, last: Numbers, known: Complex, known_number: Numbers,
    sought: Complex, number: Numbers,
    limits: Floats, cross: Complex, model_sum: Floats, data_sum: Floats, count: Floats, seen: Floats,
    hand: int,
) -> tuple[int, int]:  # fmt: skip
    channels = data.shape[1]
    weight = np.zeros(channels)  # of a row, as all that follow; 0 where a visibility is not usable
    v_real = np.zeros(channels)
    v_imag = np.zeros(channels)
    h_real = np.zeros(channels)
    h_imag = np.zeros(channels)
    share = np.ones(channels)
    correlation = hands[hand]
    used = 0
    outliers = 0
    for row in range(data.shape[0]):
        b = baseline[row]
        if b < 0:
            continue
        p = antenna1[row]
        q = antenna2[row]
        sign = -1.0 if p > q else 1.0
        i = number[row]
        k = known_number[row]
        n = _fetch(
            data[row, :, correlation], flags[row, :, correlation],
            weights[row * weight_steps[0], :, correlation * weight_steps[2]],
            model[row * model_steps[0], :, correlation * model_steps[2]],
            first[row], last[row], known[k, p, hand], known[k, q, hand], weight, v_real, v_imag, h_real, h_imag,
        )  # fmt: skip
        if n == 0:
            continue
        used += n
        far = 0
        if limits[hand] < np.inf:
            far = _hold_down(
                sought[i, p, hand], sought[i, q, hand], limits[hand],
                v_real, v_imag, h_real, h_imag, weight, share,
            )  # fmt: skip
            outliers += far
        _sum_up(
            weight, v_real, v_imag, h_real, h_imag, share, far > 0, sign,
            cross[i, b, hand], model_sum[i, b, hand], data_sum[i, b, hand], count[i, b, hand], seen[i, hand],
        )  # fmt: skip
    return used, outliers


@kernel
def _fetch(
    data: Singles, flags: NDArray[np.bool_], weights: NDArray[np.float32], model: Singles, start: int, end: int,
    first: Complex, second: Complex,
    weight: Floats, v_real: Floats, v_imag: Floats, h_real: Floats, h_imag: Floats,
) -> int:  # fmt: skip
    """Weights, visibilities and models as the known gains leave them, 0 where unusable: how many are usable."""
    n = 0
    many = first.shape[0] > 1
    same_weight = weights.shape[0] == 1
    same_model = model.shape[0] == 1
    x = first[0].real * second[0].real + first[0].imag * second[0].imag
    y = first[0].imag * second[0].real - first[0].real * second[0].imag
    for c in range(data.shape[0]):
        w = np.float64(weights[0 if same_weight else c])
        v = data[c]
        m = model[0 if same_model else c]
        if many:
            x = first[c].real * second[c].real + first[c].imag * second[c].imag
            y = first[c].imag * second[c].real - first[c].real * second[c].imag
        a = m.real * x - m.imag * y
        b = m.real * y + m.imag * x
        checked = (v.real + v.imag + a + b) * w  # NaN or infinite where one of them is
        good = (
            (not flags[c]) and c >= start and c < end and w > 0.0 and checked - checked == 0.0 and a * a + b * b > 0.0
        )
        weight[c] = w if good else 0.0
        v_real[c] = v.real if good else 0.0
        v_imag[c] = v.imag if good else 0.0
        h_real[c] = a if good else 0.0
        h_imag[c] = b if good else 0.0
        n += 1 if good else 0
    return n


@kernel
def _hold_down(
    first: Complex, second: Complex, limit: float,
    v_real: Floats, v_imag: Floats, h_real: Floats, h_imag: Floats, weight: Floats, share: Floats,
) -> int:  # fmt: skip
    """Lower the weights of what is far from the fit, in place: of how many."""
    found = 0
    many = first.shape[0] > 1
    x = first[0].real * second[0].real + first[0].imag * second[0].imag
    y = first[0].imag * second[0].real - first[0].real * second[0].imag
    for c in range(weight.shape[0]):
        if many:
            x = first[c].real * second[c].real + first[c].imag * second[c].imag
            y = first[c].imag * second[c].real - first[c].real * second[c].imag
        r_real = v_real[c] - (h_real[c] * x - h_imag[c] * y)
        r_imag = v_imag[c] - (h_real[c] * y + h_imag[c] * x)
        off = weight[c] * (r_real * r_real + r_imag * r_imag)
        beyond = off > limit
        share[c] = limit / off if beyond else 1.0
        weight[c] *= share[c]
        found += 1 if beyond else 0
    return found


@kernel
def _sum_up(
    weight: Floats, v_real: Floats, v_imag: Floats, h_real: Floats, h_imag: Floats, share: Floats,
    held_down: bool, sign: float, cross: Complex, model_sum: Floats, data_sum: Floats, count: Floats,
    seen: Floats,
) -> None:  # fmt: skip
    """Add a row to its sums: each channel to its own, or all to one."""
    if cross.shape[0] > 1:
        for c in range(weight.shape[0]):
            w = weight[c]
            cross[c] += complex(
                w * (v_real[c] * h_real[c] + v_imag[c] * h_imag[c]),
                sign * w * (v_imag[c] * h_real[c] - v_real[c] * h_imag[c]),
            )
            model_sum[c] += w * (h_real[c] * h_real[c] + h_imag[c] * h_imag[c])
            data_sum[c] += w * (v_real[c] * v_real[c] + v_imag[c] * v_imag[c])
            count[c] += (share[c] if held_down else 1.0) if w > 0.0 else 0.0
            seen[c] += 1.0 if w > 0.0 else 0.0
    else:
        real = 0.0
        imag = 0.0
        below = 0.0
        power = 0.0
        number = 0.0
        for c in range(weight.shape[0]):
            w = weight[c]
            real += w * (v_real[c] * h_real[c] + v_imag[c] * h_imag[c])
            imag += w * (v_imag[c] * h_real[c] - v_real[c] * h_imag[c])
            below += w * (h_real[c] * h_real[c] + h_imag[c] * h_imag[c])
            power += w * (v_real[c] * v_real[c] + v_imag[c] * v_imag[c])
            number += (share[c] if held_down else 1.0) if w > 0.0 else 0.0
            seen[0] += 1.0 if w > 0.0 else 0.0
        cross[0] += complex(real, sign * imag)
        model_sum[0] += below
        data_sum[0] += power
        count[0] += number


@kernel
def _squares(
    data: Singles, flags: NDArray[np.bool_], weights: NDArray[np.float32], weight_steps: Numbers,
    model: Singles, model_steps: Numbers, hands: Numbers, antenna1: Numbers, antenna2: Numbers,
    baseline: Numbers, first: Numbers, last: Numbers, known: Complex, known_number: Numbers,
    sought: Complex, number: Numbers,
    hand: int, each: int, found: Floats,
) -> int:  # fmt: skip
    n = 0
    correlation = hands[hand]
    channels = data.shape[1]
    for at in range(0, data.shape[0] * channels, each):
        row = at // channels
        c = at % channels
        if baseline[row] < 0 or c < first[row] or c >= last[row] or flags[row, c, correlation]:
            continue
        p = antenna1[row]
        q = antenna2[row]
        i = number[row]
        k = known_number[row]
        f = c if known.shape[3] > 1 else 0
        weight = np.float64(weights[row * weight_steps[0], c * weight_steps[1], correlation * weight_steps[2]])
        v = np.complex128(data[row, c, correlation])
        m = np.complex128(model[row * model_steps[0], c * model_steps[1], correlation * model_steps[2]])
        h = known[k, p, hand, f] * m * np.conj(known[k, q, hand, f])
        f = c if sought.shape[3] > 1 else 0
        r = v - sought[i, p, hand, f] * h * np.conj(sought[i, q, hand, f])
        off = weight * (r.real * r.real + r.imag * r.imag)
        if weight > 0.0 and h.real * h.real + h.imag * h.imag > 0.0 and off < np.inf:
            found[n] = off
            n += 1
    return n
