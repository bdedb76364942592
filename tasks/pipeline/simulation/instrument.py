"""What antennas do to the sky, as it is drawn: gains that change smoothly, bandpasses, antennas that are dead.

All of it is a function of the seed, the antenna, and the absolute time or frequency: the same in each group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.pipeline.simulation.settings import GainKind
from absurd.tasks.radio.telescope import Band

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

WAVES = 3
"""Sines that make up a smooth change."""


@dataclass(frozen=True, slots=True)
class _Waves:
    """Sums of sines, (antenna, polarisation, wave): their periods, phases and heights."""

    period: Floats
    phase: Floats
    height: Floats

    @classmethod
    def drawn(
        cls, random: np.random.Generator, shape: tuple[int, int], periods: tuple[float, float], rms: float
    ) -> _Waves:
        """With periods between two, evenly in their logarithm, and an rms that is reached on average."""
        size = (*shape, WAVES)
        period = np.exp(random.uniform(np.log(periods[0]), np.log(periods[1]), size))
        return cls(period, random.uniform(0, 2 * np.pi, size), random.normal(0, rms * np.sqrt(2 / WAVES), size))

    def at(self, place: Floats) -> Floats:
        """(place, antenna, polarisation)."""
        angle = 2 * np.pi * place[:, None, None, None] / self.period + self.phase
        value: Floats = (self.height * np.sin(angle)).sum(axis=-1)
        return value


class Instrument:
    """Gains and bandpasses of antennas."""

    def __init__(
        self,
        random: np.random.Generator,
        antennas: int,
        polarisations: int,
        band: Band,
        *,
        gains: GainKind,
        bandpass: bool,
        dead: int,
        spared: int,
    ) -> None:
        """Draw them; antenna `spared` is not among the dead."""
        shape = (antennas, polarisations)
        self._kind, self._has_bandpass, self._band = gains, bandpass, band
        self._amplitude = np.exp(random.normal(0, 0.1, shape))
        self._phase = random.uniform(-np.pi, np.pi, shape)
        self._swells = _Waves.drawn(random, shape, (1200, 7200), 0.02)
        self._turns = _Waves.drawn(random, shape, (1200, 7200), np.radians(6))
        width = band.channel_width_hz * band.channels * band.subbands
        self._ripples = _Waves.drawn(random, shape, (width / 8, width), 0.08)
        self._bends = _Waves.drawn(random, shape, (width / 8, width), np.radians(4))
        self._delay_s = random.normal(0, 0.5e-9, shape)
        self._rough_seed = int(random.integers(2**63))
        others = np.setdiff1d(np.arange(antennas), [spared])
        self.dead = np.sort(random.permutation(others)[:dead])
        """Numbers of antennas that give noise alone."""

    def gains(self, time_s: Floats) -> Complex:
        """(time, antenna, polarisation); 0 where an antenna is dead."""
        shape = (len(time_s), *self._amplitude.shape)
        value = np.ones(shape, np.complex128)
        if self._kind != "perfect":
            value *= self._amplitude * np.exp(1j * self._phase)
        if self._kind == "drifting":
            value *= (1 + self._swells.at(time_s)) * np.exp(1j * self._turns.at(time_s))
        value[:, self.dead] = 0
        return value

    def bandpass(self, frequencies_hz: Floats) -> Complex:
        """(antenna, channel, polarisation)."""
        antennas, polarisations = self._amplitude.shape
        if not self._has_bandpass:
            return np.ones((antennas, len(frequencies_hz), polarisations), np.complex128)
        offset = frequencies_hz - self._band.lowest_hz
        width = self._band.channel_width_hz * self._band.channels
        within = offset / width % 1  # of its sub-band: 0 and 1 are its edges
        edges = 1 - 0.3 * np.exp(-((np.minimum(within, 1 - within) / 0.02) ** 2))
        middle = width * self._band.subbands / 2
        phase = 2 * np.pi * self._delay_s * (offset - middle)[:, None, None] + self._bends.at(offset)
        value = (1 + self._ripples.at(offset)) * edges[:, None, None] * np.exp(1j * phase) * self._rough(frequencies_hz)
        return np.ascontiguousarray(value.transpose(1, 0, 2))

    def _rough(self, frequencies_hz: Floats) -> Complex:
        """A scatter of 1 % from channel to channel, (channel, antenna, polarisation), by the channel's frequency."""
        made = [
            np.random.default_rng([self._rough_seed, round(float(each))]).normal(0, 0.01, (2, *self._amplitude.shape))
            for each in frequencies_hz
        ]
        value: Complex = np.array([1 + one[0] + 1j * one[1] for one in made])
        return value
