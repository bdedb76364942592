"""The loop that multiplies visibilities by gains; compiled, so it is imported where it is used."""

from __future__ import annotations

from typing import Any

from absurd.tasks.radio.compiled import kernel


@kernel
def scale(
    data: Any,
    weights: Any,
    lost: Any,
    rows: Any,
    antenna1: Any,
    antenna2: Any,
    first: Any,
    second: Any,
    gains: Any,
    none: Any,
    direction: int,
    calwt: bool,
) -> None:
    """Change data and weights of some rows in place, and tell where there is no gain.

    `data`, `weights` and `lost` are (row, channel, correlation); `gains` and `none` (antenna, channel or 1,
    polarisation); `first` and `second` (correlation,) number the polarisations.  `direction` -1 divides, 1 multiplies.
    """
    several = gains.shape[1] > 1
    for row in rows:
        p, q = antenna1[row], antenna2[row]
        for channel in range(data.shape[1]):
            c = channel if several else 0
            for k in range(data.shape[2]):
                i, j = first[k], second[k]
                if none[p, c, i] or none[q, c, j]:
                    lost[row, channel, k] = True
                    continue
                one, other = gains[p, c, i], gains[q, c, j]
                factor = one * other.conjugate()
                power = (one.real * one.real + one.imag * one.imag) * (
                    other.real * other.real + other.imag * other.imag
                )
                if direction < 0:
                    data[row, channel, k] = data[row, channel, k] * (factor.conjugate() / power)
                    if calwt:
                        weights[row, channel, k] = weights[row, channel, k] * power
                else:
                    data[row, channel, k] = data[row, channel, k] * factor
                    if calwt:
                        weights[row, channel, k] = weights[row, channel, k] / power
