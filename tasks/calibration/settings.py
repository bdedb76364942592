"""How gains are solved."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from absurd.tasks.radio.errors import ValidationError

Mode = Literal["p", "a", "ap"]
MODES = ("p", "a", "ap")
BOUNDARIES = ("scan", "field")


@dataclass(frozen=True, slots=True)
class GainSettings:
    """What one solution is of, and when it counts.  Raises ValidationError for values that cannot be meant."""

    mode: Mode = "ap"
    """Phases (amplitudes are 1), amplitudes (phases are 0), or both.  A bandpass has both."""
    interval_s: float = math.inf
    """Of one solution, seconds: infinite is all that is not parted by `combine`, 0 each integration."""
    combine: Collection[str] = ("scan", "field")
    """Boundaries that a solution may reach over: `scan`, `field`.  In a drift scan each integration is a field."""
    reference: tuple[str, ...] = ()
    """Antennas whose phase is 0, the best first: the first that has solutions.  None: the one with the best signal."""
    min_snr: float = 3.0
    """Solutions below are flagged.  Noise alone gives 2.8, see `stefcal`."""
    uv_range_wavelengths: tuple[float, float] = (0.0, math.inf)
    """Only baselines this long, projected, at each channel."""
    min_baselines: int = 4
    """An antenna with fewer has no solution (CASA's `minblperant`)."""
    fill_gaps: int = 0
    """Of a bandpass: so many channels in a row without data, or too weak, are interpolated; not bad fits."""
    normalise: bool = False
    """Have the mean square of each antenna's amplitudes be 1: over channels of a bandpass, over time of gains."""
    robust: bool = True
    """Give visibilities beyond `outlier_sigma` less weight, by the square of how far they are off."""
    outlier_sigma: float = 6.0
    """Standard deviations of a real part.  Of 1.5e8 visibilities with noise alone two are beyond 6."""
    max_chi_squared: float = 5.0
    """Solutions of an interval and channel whose fit leaves so many times the median of all are flagged."""
    tolerance: float = 1e-7
    """Gains have converged when an iteration changes them by less, as a share of their norm."""
    max_iterations: int = 500
    """Solutions that have not converged after so many are flagged."""

    def __post_init__(self) -> None:
        least, most = self.uv_range_wavelengths
        wrong = {
            f"mode {self.mode!r}; take p, a or ap": self.mode not in MODES,
            f"interval_s {self.interval_s}; it is 0 or more": not self.interval_s >= 0,
            f"combine {self.combine!r}; take of {', '.join(BOUNDARIES)}": isinstance(self.combine, str)
            or not set(self.combine) <= set(BOUNDARIES),
            f"reference {self.reference!r}; it is a tuple of names": isinstance(self.reference, str),
            f"min_snr {self.min_snr}; it is 0 or more": not self.min_snr >= 0,
            f"uv_range_wavelengths {self.uv_range_wavelengths}; it is (least, most)": not 0 <= least < most,
            f"min_baselines {self.min_baselines}; it is 1 or more": self.min_baselines < 1,
            f"fill_gaps {self.fill_gaps}; it is 0 or more": self.fill_gaps < 0,
            f"outlier_sigma {self.outlier_sigma}; it is 3 or more": not self.outlier_sigma >= 3,
            f"max_chi_squared {self.max_chi_squared}; it is above 1": not self.max_chi_squared > 1,
            f"tolerance {self.tolerance}; it is between 0 and 0.01": not 0 < self.tolerance <= 0.01,
            f"max_iterations {self.max_iterations}; it is 2 or more": self.max_iterations < 2,
        }
        if found := [each for each, is_wrong in wrong.items() if is_wrong]:
            raise ValidationError(f"gains cannot be solved with {found[0]}")


MOST_ROUNDS = 5
"""Of self-calibration."""
RECIPE = (
    GainSettings(mode="p", interval_s=300.0),
    GainSettings(mode="p", interval_s=120.0),
    GainSettings(mode="p", interval_s=60.0),
    GainSettings(mode="ap", min_snr=10.0),
)
"""Of self-calibration: phases of ever shorter intervals, then amplitudes of the whole, which need a strong signal."""


@dataclass(frozen=True, slots=True)
class CalibratorSettings:
    """Of a scan of a calibrator: phases first, then bandpass and gains in turns.

    The defaults are the recipe of the survey: 60 s phases hold the bandpass together, SNR 5 a channel, 3 a gain.
    """

    phase: GainSettings | None = field(default_factory=lambda: GainSettings(mode="p", interval_s=60.0))
    """Before the bandpass is first solved; None where phases stand still during the scan."""
    bandpass: GainSettings = field(default_factory=lambda: GainSettings(min_snr=5.0, fill_gaps=3, normalise=True))
    gain: GainSettings = field(default_factory=GainSettings)
    max_rounds: int = 10
    """Of bandpass and gains in turns."""
    tolerance: float = 0.1
    """A round that changes solutions by less, in their standard deviations and root mean square, is the last."""

    @property
    def normalises(self) -> bool:
        """Whether bandpass amplitudes have a mean square of 1: not where gains in time have none to take the rest."""
        return self.bandpass.normalise and self.gain.mode != "p"

    def __post_init__(self) -> None:
        if self.max_rounds < 1 or not 0 < self.tolerance < 1:
            raise ValidationError("max_rounds is 1 or more, and the tolerance of rounds between 0 and 1")
