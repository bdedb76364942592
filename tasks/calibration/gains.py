"""Gains in memory: one complex number for each solution interval, antenna, channel and polarisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import CalibrationError

Kind = Literal["gain", "bandpass", "delay"]


@dataclass(frozen=True, slots=True)
class Gains:
    """What the antennas did to the sky: a visibility of antennas p and q is g_p * model * conj(g_q)."""

    kind: Kind
    """A gain has one channel that goes for all; a bandpass one for each; a delay is a gain whose phase is a slope."""
    values: NDArray[np.complex128]
    """(time, antenna, channel, polarisation); without unit where data and model are in one, 1 where flagged.

    Of a delay (one channel) the real part is seconds, 0 where flagged: at a frequency of f Hz the gain is
    exp(2 pi i seconds (f - `frequencies_hz[0]`)).
    """
    flags: NDArray[np.bool_]
    """Of the same shape; true where there is no solution."""
    snr: NDArray[np.float32]
    """Of the same shape: |gain| over its standard deviation, also of what is flagged for it; 0 where none was found."""
    time_s: NDArray[np.float64]
    """(time,), middle of the solution interval: seconds of UTC since MJD 0."""
    interval_s: NDArray[np.float64]
    """(time,), its length."""
    frequencies_hz: NDArray[np.float64]
    """(channel,), ascending; of a gain the middle of those it was solved from."""
    polarisations: tuple[str, ...]
    """X and Y, or R and L."""
    antennas: tuple[str, ...]
    """Each name once: gains go to visibilities by it."""
    reference: tuple[str, ...]
    """(time,), the antenna whose phase is 0 there."""
    source: str = ""
    """What was looked at."""
    ra_rad: float = float("nan")
    """Of the field that was looked at, ICRS, as `dec_rad`."""
    dec_rad: float = float("nan")
    warnings: tuple[str, ...] = ()
    """What one would want to know before these are applied, a sentence each."""
    chi_squared: float = float("nan")
    """Of the fit, over its degrees of freedom: 1 where the weights tell the noise and the model the sky."""
    outliers: float = float("nan")
    """Share of the visibilities that lie further from the fit than noise does."""

    def __post_init__(self) -> None:
        times, antennas, channels, polarisations = shape = self.values.shape
        wanted = {
            "flags": shape,
            "snr": shape,
            "time_s": (times,),
            "interval_s": (times,),
            "frequencies_hz": (channels,),
            "polarisations": (polarisations,),
            "antennas": (antennas,),
            "reference": (times,),
        }
        if len(set(self.antennas)) < len(self.antennas):
            twice = sorted({each for each in self.antennas if self.antennas.count(each) > 1})
            raise CalibrationError(f"gains are of several antennas called {', '.join(map(repr, twice[:5]))}")
        for name, expected in wanted.items():
            if np.shape(getattr(self, name)) != expected:
                raise CalibrationError(
                    f"{name} has shape {np.shape(getattr(self, name))}, {expected} goes with the gains"
                )
