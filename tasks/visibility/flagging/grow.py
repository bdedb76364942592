"""What lies among flagged ones is flagged too: interference fades in and out below what can be seen of it.

The scale-invariant rank operator of Offringa et al. 2012 (A&A 539, A95): a stretch of neighbours of which more than
1 - eta are flagged is flagged as a whole, however long it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.visibility.flags import INTERFERENCE, Reason, Reasons

_FOUND, _GROWN = int(INTERFERENCE), int(Reason.GROWN)
_WHOLE = 1_000_000
"""eta is a number of these, so that sums are exact."""


@kernel
def rank_operator(flags: NDArray[np.bool_], eta: float) -> NDArray[np.bool_]:
    """Of a line of samples: true where one of the stretches around a sample has at least 1 - eta of them flagged.

    With cumulated weights Psi, eta of a flagged and eta - 1 of another, a stretch qualifies if it adds up to 0 or
    more, so a sample does if the largest Psi behind it is not below the smallest before it: time is linear.
    """
    size = len(flags)
    flagged = np.int64(round(eta * _WHOLE))
    psi = np.zeros(size + 1, np.int64)
    for at in range(size):
        psi[at + 1] = psi[at] + (flagged if flags[at] else flagged - _WHOLE)
    largest = psi.copy()
    for at in range(size - 1, -1, -1):
        largest[at] = max(largest[at], largest[at + 1])
    out = np.zeros(size, np.bool_)
    smallest = psi[0]
    for at in range(size):
        smallest = min(smallest, psi[at])
        out[at] = largest[at + 1] >= smallest
    return out


@kernel
def grow(
    reasons: Reasons, eta_time: float, eta_channel: float, time_part: float, channel_part: float, correlations: bool
) -> None:
    """Grow the interference of a waterfall, (time, channel, correlation), in place.

    First over the correlations, if it is asked for; then along times and along channels by the rank operator (0:
    not); then over the whole of a time of which more than `time_part` is flagged, and of a channel likewise (1: not).
    What is flagged for other reasons, as a dead antenna or an edge, takes no part: stretches are of what is left.
    """
    times, channels, several = reasons.shape
    if correlations and several > 1:
        for time in range(times):
            for channel in range(channels):
                any_found = False
                for each in range(several):
                    any_found |= (reasons[time, channel, each] & _FOUND) != 0
                if any_found:
                    for each in range(several):
                        if reasons[time, channel, each] == 0:
                            reasons[time, channel, each] |= _GROWN
    for each in range(several):
        plane = reasons[:, :, each]
        along_time = np.zeros((times, channels), np.bool_)
        if eta_time > 0:
            for channel in range(channels):
                _line(plane[:, channel], eta_time, along_time[:, channel])
        if eta_channel > 0:
            for time in range(times):
                _line(plane[time], eta_channel, along_time[time])
        for time in range(times):
            for channel in range(channels):
                if along_time[time, channel] and plane[time, channel] == 0:
                    plane[time, channel] |= _GROWN
        if time_part < 1:
            for time in range(times):
                _fill(plane[time], time_part)
        if channel_part < 1:
            for channel in range(channels):
                _fill(plane[:, channel], channel_part)


@kernel
def _line(line: NDArray[np.uint16], eta: float, out: NDArray[np.bool_]) -> None:
    """The rank operator on the samples of a line that are usable or interference; `out` gains flags."""
    wanted = _FOUND | _GROWN
    flags = np.zeros(len(line), np.bool_)
    places = np.zeros(len(line), np.int64)
    count, found = 0, 0
    for at in range(len(line)):
        if line[at] == 0 or line[at] & wanted:
            flags[count] = line[at] != 0
            places[count] = at
            found += flags[count]
            count += 1
    if found in (0, count):
        return
    grown = rank_operator(flags[:count], eta)
    for at in range(count):
        if grown[at]:
            out[places[at]] = True


@kernel
def _fill(line: NDArray[np.uint16], part: float) -> None:
    """Flag the whole of a line of which more than a part is interference."""
    wanted = _FOUND | _GROWN
    count, found = 0, 0
    for at in range(len(line)):
        if line[at] == 0 or line[at] & wanted:
            count += 1
            found += line[at] != 0
    if found > part * count:
        for at in range(len(line)):
            if line[at] == 0:
                line[at] |= _GROWN
