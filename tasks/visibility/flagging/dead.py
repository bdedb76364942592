"""Antennas that receive nothing, or nothing that can be used: nearly all of their visibilities are flagged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.visibility.flags import STRUCTURE, Reasons

_STRUCTURE = int(STRUCTURE)


@kernel
def count_pairs(
    reasons: Reasons,
    known: Reasons,
    antenna1: NDArray[np.int32],
    antenna2: NDArray[np.int32],
    total: NDArray[np.int64],
    found: NDArray[np.int64],
    flagged: NDArray[np.int64],
) -> None:
    """Add to the counts, (antenna, antenna, correlation) with the lower number first, of what is not structure.

    They are of all, of those with reasons, and of those with reasons or with some that were known before.
    """
    rows, channels, correlations = reasons.shape
    for row in range(rows):
        low, high = min(antenna1[row], antenna2[row]), max(antenna1[row], antenna2[row])
        if low == high:
            continue
        for channel in range(channels):
            for correlation in range(correlations):
                bits = reasons[row, channel, correlation]
                if not bits & _STRUCTURE:
                    total[low, high, correlation] += 1
                    found[low, high, correlation] += bits != 0
                    flagged[low, high, correlation] += (bits | known[row, channel, correlation]) != 0


def flagged_parts(total: NDArray[np.int64], flagged: NDArray[np.int64]) -> NDArray[np.float64]:
    """(antenna, correlation): the flagged part of an antenna's visibilities with others; NaN of one without any."""
    all_, bad = (each.sum(axis=0) + each.sum(axis=1) for each in (total, flagged))
    with np.errstate(invalid="ignore"):
        parts: NDArray[np.float64] = bad / all_
    return parts


def dead_antennas(total: NDArray[np.int64], flagged: NDArray[np.int64], most: float) -> NDArray[np.bool_]:
    """(antenna, correlation): of which more than `most` is flagged.

    The worst goes first and takes its baselines along, so that it does not make its neighbours look dead.
    """
    total, flagged = total.copy(), flagged.copy()
    antennas, _, correlations = total.shape
    dead = np.zeros((antennas, correlations), np.bool_)
    for _ in range(antennas):
        parts = np.nan_to_num(flagged_parts(total, flagged), nan=0.0)
        worst = parts.argmax(axis=0)
        goes = parts[worst, np.arange(correlations)] > most
        if not goes.any():
            break
        for correlation in np.flatnonzero(goes):
            at = worst[correlation]
            dead[at, correlation] = True
            for counts in (total, flagged):
                counts[at, :, correlation] = counts[:, at, correlation] = 0
    return dead
