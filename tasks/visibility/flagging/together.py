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
    """Mean deviations in standard deviations of a mean, (time, channel, correlation), less each channel's median.

    What a channel has at all times goes by that: in a mean over thousands of baselines the shape of the receivers'
    band would stand out.  The second array tells where there are enough baselines.
    """
    usable = count >= least_baselines
    mean = np.where(usable, total / np.sqrt(np.maximum(count, 1)), np.nan)
    constant = np.zeros(mean.shape[1:])
    some = usable.any(axis=0)
    constant[some] = np.nanmedian(mean[:, some], axis=0)
    return np.nan_to_num(mean - constant).astype(np.float32), usable
