"""Others who transmit: in a channel for long, or in many for a moment, seen by all antennas, each in its own way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST = 10_000
"""Transmissions, however much they overlap."""


@dataclass(frozen=True, slots=True)
class Interference:
    """One transmission: a rectangle of integrations x channels, of the whole band."""

    integrations: slice
    channels: slice
    strength: float
    """Amplitude of a visibility in standard deviations of the noise (of the reference noise where there is none)."""
    voltages: NDArray[np.complex128]
    """(antenna, polarisation), without unit: how it comes in, about 1."""


def draw(
    random: np.random.Generator, share: float, integrations: int, channels: int, antennas: int, polarisations: int
) -> tuple[list[Interference], NDArray[np.bool_]]:
    """Transmissions that fill about `share` of integrations x channels, and the mask of what they fill.

    A third are narrow and last, a third are broad and short, the others something between; strengths are 3 to 100,
    evenly in their logarithm.
    """
    mask = np.zeros((integrations, channels), np.bool_)
    found: list[Interference] = []
    wanted = round(share * mask.size)
    while (left := wanted - int(np.count_nonzero(mask))) > 0 and len(found) < MOST:
        match int(random.integers(3)):
            case 0:
                long, wide = integrations, int(random.integers(1, 4))
            case 1:
                long, wide = int(random.integers(1, 3)), int(random.integers(1 + channels // 20, 2 + channels // 4))
            case _:
                long, wide = int(random.integers(2, 3 + integrations // 2)), int(random.integers(2, 12))
        long = min(long, integrations, left)
        wide = min(wide, channels, left // long)
        at, low = (int(random.integers(each)) for each in (1 + integrations - long, 1 + channels - wide))
        shape = (antennas, polarisations)
        place = slice(at, at + long), slice(low, low + wide)
        strength = float(np.exp(random.uniform(np.log(3), np.log(100))))
        voltages = np.exp(random.normal(0, 0.3, shape) + 1j * random.uniform(-np.pi, np.pi, shape))
        found.append(Interference(*place, strength, voltages))
        mask[place] = True
    return found, mask
