"""Interference in one waterfall: the surface is fitted, what stands out is left out, and it is fitted again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from absurd.tasks.visibility.flagging.deviations import look, without
from absurd.tasks.visibility.flagging.low_pass import Bools, Floats, half_width
from absurd.tasks.visibility.flagging.strategy import SigmaClip, Smooth, SumThreshold
from absurd.tasks.visibility.flagging.sum_threshold import lengths, limits, sum_threshold
from absurd.tasks.visibility.flagging.trend import TALLEST, prepare

Search = Callable[[Floats, float, Bools], None]
"""Of deviations, by what limits are higher; it fills the flags."""
LEAST = 16
"""Usable samples of a waterfall below which little can be said of its noise."""
FEWEST = 3
"""As above, below which nothing can."""


@dataclass(frozen=True, slots=True)
class Waterfall:
    """One correlation of one baseline; arrays are (time, channel)."""

    values: Floats
    """Amplitudes without what all channels have in common and without hollows of the band, or of either sign."""
    shown: Floats
    """The same for the surface: without what is far too tall for its time and its channel."""
    usable: Bools


def of_amplitudes(amplitude: Floats, usable: Bools, smooth: Smooth) -> Waterfall:
    """The waterfall of amplitudes in any unit, with any noise."""
    values = amplitude.copy()
    shown = np.empty(amplitude.shape, np.float32)
    prepare(values, usable, smooth.times, smooth.channels, shown)
    return Waterfall(values, shown, usable)


def by_sum_threshold(
    waterfall: Waterfall, smooth: Smooth, settings: SumThreshold, *, only_above: bool = False
) -> Bools:
    """Find interference by SumThreshold, first what is strong, then, with a surface without that, what is weaker.

    Deviations of both signs are left out of the next surface: interference in antiphase with a source takes from its
    amplitude, and would draw the surface down.  What is beside something strong, where a surface is too high, is left
    out with it, and comes back: each round searches anew.  Those below count never where interference can only add
    (`only_above`).
    """
    of_time, of_channel = (lengths(settings.longest, size) for size in waterfall.values.shape)
    chi = limits(settings.first_threshold, settings.rho, settings.longest)

    def search(values: Floats, limit: float, found: Bools) -> None:
        sum_threshold(values, waterfall.usable, of_time, of_channel, chi * limit, not only_above, found)

    return _rounds(waterfall, smooth, settings.rounds, settings.strictness, search)


def by_sigma_clip(waterfall: Waterfall, smooth: Smooth, settings: SigmaClip) -> Bools:
    """Find single samples that are too many standard deviations from the surface around them."""
    alone = np.ones(1, np.int64)
    chi = np.array([np.inf, settings.sigma])

    def search(values: Floats, limit: float, found: Bools) -> None:
        sum_threshold(values, waterfall.usable, alone, alone, chi * limit, True, found)

    return _rounds(waterfall, smooth, settings.rounds, 1.0, search)


def coarse_deviations(waterfall: Waterfall, found: Bools, smooth: Smooth) -> Floats:
    """Deviations, (time, channel), from a surface that is not fitted again, and so follows less of what is faint.

    What was found takes no part in it, and has deviations too.
    """
    clean = np.empty(found.shape, np.bool_)
    far = np.zeros(found.shape, np.float32)
    if without(waterfall.usable, found, clean) >= LEAST:
        _look(waterfall, clean, smooth, 1, far)
    return far


def _rounds(waterfall: Waterfall, smooth: Smooth, rounds: int, strictness: float, search: Search) -> Bools:
    found = np.zeros(waterfall.usable.shape, np.bool_)
    if np.count_nonzero(waterfall.usable) < LEAST:
        return _of_few(waterfall)
    clean = np.zeros(found.shape, np.bool_)
    far = np.zeros(found.shape, np.float32)
    for left in reversed(range(rounds)):
        if without(waterfall.usable, found, clean) < LEAST:
            break
        _look(waterfall, clean, smooth, smooth.fits, far)
        search(far, strictness**left, found)
    return found


def _of_few(waterfall: Waterfall) -> Bools:
    """What is far above the median of too few samples to tell their noise."""
    some = waterfall.values[waterfall.usable]
    limit = TALLEST * np.median(some) if some.size >= FEWEST else np.inf
    found: Bools = waterfall.usable & (waterfall.values > limit)
    return found


def _look(waterfall: Waterfall, clean: Bools, smooth: Smooth, fits: int, far: Floats) -> None:
    halves = half_width(smooth.times), half_width(smooth.channels)
    look(waterfall.values, waterfall.shown, waterfall.usable, clean, *halves, fits, far)
