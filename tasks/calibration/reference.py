"""Reference antennas: phases are only known among antennas until one of them is said to have phase 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.sums import Complex

_ENOUGH = 0.5
"""An antenna is usable as reference with this share of the solutions that the best antenna has."""


def reference_order(
    usable: NDArray[np.bool_], snr: NDArray[np.float64], names: Sequence[str], chain: Sequence[str]
) -> tuple[list[int], list[str]]:
    """Antennas by how gladly each is the reference, and what is to be said of it.

    `usable` and `snr` (solution, antenna) over all intervals, channels and polarisations.  First come those of the
    chain that have solutions, in its order, then all others, the best signal first.
    """
    share = usable.mean(axis=0)
    enough = share >= _ENOUGH * share.max()
    signal = np.where(usable, snr, 0.0).sum(axis=0)
    known = {name: number for number, name in enumerate(names)}
    chosen = [known[name] for name in chain if name in known and enough[known[name]]]
    others = sorted((each for each in range(len(names)) if each not in chosen), key=lambda each: -signal[each])
    order = chosen + others
    warnings = []
    if chain and not chosen:
        told = ", ".join(chain[:5]) + (", …" if len(chain) > 5 else "")
        warnings.append(f"no reference antenna of {told} has solutions; {names[order[0]]}, with the best signal, is it")
    elif chain and names[order[0]] != chain[0]:
        why = "has no solutions" if chain[0] in known else "is no antenna here"
        warnings.append(f"reference antenna {chain[0]} {why}; {names[order[0]]} is it")
    return order, warnings


def refer(values: Complex, usable: NDArray[np.bool_], order: Sequence[int]) -> NDArray[np.int64]:
    """Turn the phases of a sequence of solutions, in place, so that the reference has phase 0.

    `values` and `usable` (solution, antenna), along time or channels.  Where the first of `order` has no solution the
    next one stands in, with the phase that it had in the nearest solution before (or else after), so that phases go on
    without a jump.  Gives (solution,) the antenna that was taken, -1 where no antenna has a solution.
    """
    taken = np.full(len(values), -1, np.int64)
    first = order[0]
    held = np.flatnonzero(usable[:, first])
    for at in held:
        values[at] *= np.conj(_direction(values[at, first]))
        taken[at] = first
    missing = [at for at in np.flatnonzero(usable.any(axis=1)) if taken[at] < 0]
    # From the known outwards: each solution is tied to one that has been referred.
    for at in sorted(missing, key=lambda each: int(np.min(np.abs(held - each))) if len(held) else int(each)):
        done = np.flatnonzero(taken >= 0)
        stand_in = next(each for each in order if usable[at, each])
        aim = 1.0 + 0.0j
        if len(done):
            near = done[np.argmin(np.abs(done - at) + 0.5 * (done > at))]
            both = usable[near] & usable[at]
            if both.any():
                stand_in = next(each for each in order if both[each])
                aim = _direction(values[near, stand_in])
        values[at] *= aim * np.conj(_direction(values[at, stand_in]))
        taken[at] = stand_in
    return taken


def _direction(value: complex) -> complex:
    size = abs(value)
    return complex(value / size) if size > 0 else 1.0 + 0.0j
