"""Interference too faint for a single baseline: all of them receive it at the same time and channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.visibility.flagging.low_pass import Bools, Floats

CUT = 5.0
"""No deviation counts more: what a few baselines have strongly is theirs alone."""


@kernel
def gather(
    deviations: Floats,
    usable: Bools,
    time: NDArray[np.int64],
    correlation: int,
    total: NDArray[np.float64],
    count: NDArray[np.int64],
) -> None:
    """Add a waterfall's deviations, (row, channel), to the sums of all, (time, channel, correlation).

    `time`, (row,), is the number of the time of each row among the times of all baselines.
    """
    rows, channels = deviations.shape
    for row in range(rows):
        at = time[row]
        for channel in range(channels):
            if usable[row, channel]:
                total[at, channel, correlation] += min(max(deviations[row, channel], -CUT), CUT)
                count[at, channel, correlation] += 1


def changes(
    total: NDArray[np.float64], count: NDArray[np.int64], least_baselines: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Mean deviations, (time, channel, correlation), in standard deviations of a mean, less medians.

    What a channel has at all times goes by its median, and what a time has in most channels by that: in a mean over
    thousands of baselines the shape of the receivers' band and the course of a source would stand out.  The second
    array tells where there are enough baselines.
    """
    usable = count >= least_baselines
    mean = np.where(usable, total / np.sqrt(np.maximum(count, 1)), np.nan)
    for axis in (0, 1):
        some = usable.any(axis=axis, keepdims=True)
        median = np.nanmedian(np.where(some, mean, 0.0), axis=axis, keepdims=True)
        mean = mean - np.where(some, median, 0.0)
    return np.nan_to_num(mean).astype(np.float32), usable
