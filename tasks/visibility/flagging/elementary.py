"""What a single visibility tells by itself: no number, nothing, out of limits.

Arrays are (row, channel, correlation); reasons are changed in place, by bits that are added.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.visibility.flags import Reason, Reasons

INVALID, ZERO, CLIP = int(Reason.INVALID), int(Reason.ZERO), int(Reason.CLIP)


@kernel
def flag_values(
    data: NDArray[np.complex64],
    reasons: Reasons,
    largest: float,
    zeros: bool,
    lowest: float,
    highest: float,
) -> None:
    """Flag values that are not finite or whose amplitude is beyond `largest`, zeros, and what is out of limits.

    `lowest` and `highest` are limits of the amplitude, in the unit of the data; -inf and inf for none.
    """
    rows, channels, correlations = data.shape
    for row in range(rows):
        for channel in range(channels):
            for correlation in range(correlations):
                value = data[row, channel, correlation]
                amplitude = np.hypot(np.float64(value.real), np.float64(value.imag))
                bits = 0
                if not amplitude <= largest:  # NaN too
                    bits = INVALID
                elif amplitude == 0:
                    if zeros:
                        bits = ZERO
                elif amplitude < lowest or amplitude > highest:
                    bits = CLIP
                if bits:
                    reasons[row, channel, correlation] |= bits


@kernel
def amplitudes(
    data: NDArray[np.complex64],
    reasons: Reasons,
    correlation: int,
    amplitude: NDArray[np.float32],
    usable: NDArray[np.bool_],
) -> int:
    """Fill the amplitudes of one correlation, (row, channel), and whether they may be used; count those that may."""
    rows, channels, _ = data.shape
    count = 0
    for row in range(rows):
        for channel in range(channels):
            good = reasons[row, channel, correlation] == 0
            usable[row, channel] = good
            amplitude[row, channel] = 0
            if good:
                value = data[row, channel, correlation]
                amplitude[row, channel] = np.hypot(np.float64(value.real), np.float64(value.imag))
                count += 1
    return count


@kernel
def add(reasons: Reasons, correlation: int, found: NDArray[np.bool_], bit: int) -> None:
    """Give a reason to what was found of one correlation, (row, channel)."""
    rows, channels = found.shape
    for row in range(rows):
        for channel in range(channels):
            if found[row, channel]:
                reasons[row, channel, correlation] |= bit


def edges(frequencies: int, channels: int, subband_channels: int | None, subband_edge: int) -> NDArray[np.bool_]:
    """(channel,): the outer `channels` of the band, and the outer `subband_edge` of each sub-band."""
    at = np.arange(frequencies)
    edge: NDArray[np.bool_] = (at < channels) | (at >= frequencies - channels)
    if subband_channels:
        within = at % subband_channels
        edge |= (within < subband_edge) | (within >= subband_channels - subband_edge)
    return edge
