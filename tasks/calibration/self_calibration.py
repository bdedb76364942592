"""Self-calibration: gains from a model that was made of the same visibilities, in rounds, for as long as it helps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.apply import apply_gains
from absurd.tasks.calibration.gains import Gains
from absurd.tasks.calibration.rows import select
from absurd.tasks.calibration.settings import GainSettings
from absurd.tasks.calibration.solve import solve_gains
from absurd.tasks.radio.errors import CalibrationError, ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

MOST_ROUNDS = 5
RECIPE = (
    GainSettings(mode="p", interval_s=300.0),
    GainSettings(mode="p", interval_s=120.0),
    GainSettings(mode="p", interval_s=60.0),
    GainSettings(mode="ap", min_snr=10.0),
)
"""Phases of ever shorter intervals, and then amplitudes of the whole, which a strong signal alone can bear."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is made of visibilities as they are corrected so far."""

    visibilities: NDArray[Any]
    """Broadcasts to (row, channel, correlation)."""
    snr: float
    """Of the picture that they make: its peak over its noise."""


Remodel = Callable[[Visibilities, int], Model]
"""Makes a model of corrected visibilities; the number of the round, 0 before the first."""


@dataclass(frozen=True, slots=True)
class SelfCalibrationSettings:
    """Which rounds there are, and when it is enough.  Raises ValidationError for values that cannot be meant."""

    rounds: tuple[GainSettings, ...] = RECIPE
    """At most five."""
    least_snr_gain: float = 0.05
    """A round that raises the SNR of the picture by a smaller share, and ..."""
    least_chi_squared_drop: float = 0.05
    """... lowers chi-squared by a smaller one too, is the last."""
    beam_power: float = 1.0
    """Of the strongest source: amplitudes are not solved for one further out than half power."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.rounds) <= MOST_ROUNDS:
            raise ValidationError(f"self-calibration has 1 to {MOST_ROUNDS} rounds, not {len(self.rounds)}")
        if not (self.least_snr_gain >= 0 and self.least_chi_squared_drop >= 0 and 0 <= self.beam_power <= 1):
            raise ValidationError("least gains are 0 or more, and the power of the beam is between 0 and 1")


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did; number 0 is before the first."""

    number: int
    mode: str
    interval_s: float
    snr: float
    chi_squared: float
    """Mean of w |V - model|^2 over 2: of what is usable, and the weights as they were told."""
    flagged: float
    """Share of the gains without a solution."""
    kept: bool


@dataclass(frozen=True, slots=True)
class SelfCalibration:
    """The gains of the best round, none if no round was better than the beginning."""

    gains: Gains | None
    visibilities: Visibilities
    """Corrected by them, as `apply_gains` does it."""
    rounds: tuple[Round, ...]
    stopped_by: str
    """In words."""


def self_calibrate(
    visibilities: Visibilities, remodel: Remodel, settings: SelfCalibrationSettings | None = None
) -> SelfCalibration:
    """Solve gains against the model of the round before, always from the visibilities as they came.

    It stops after the last round, or when a round brings too little, makes things worse (that round is given up), or
    finds no gains.
    """
    settings = settings or SelfCalibrationSettings()
    model = remodel(visibilities, 0)
    best, best_gains = visibilities, None
    done = [Round(0, "", math.inf, model.snr, _chi_squared(visibilities, model), 0.0, kept=True)]
    stopped_by = "all rounds are done"
    for number, each in enumerate(settings.rounds, 1):
        if "a" in each.mode and settings.beam_power < 0.5:
            stopped_by = f"the beam has {settings.beam_power:.2f} of its power at the source: no amplitudes are solved"
            break
        try:
            gains = solve_gains(visibilities, model.visibilities, each)
        except CalibrationError as error:
            stopped_by = f"round {number} found no gains: {error}"
            break
        corrected = apply_gains(visibilities, gains).visibilities
        after = remodel(corrected, number)
        chi_squared, before = _chi_squared(corrected, after), done[-1]
        worse = not (after.snr >= before.snr * (1 - settings.least_snr_gain) and chi_squared < math.inf) or (
            chi_squared > before.chi_squared * (1 + settings.least_chi_squared_drop) and after.snr <= before.snr
        )
        done.append(
            Round(number, each.mode, each.interval_s, after.snr, chi_squared, float(gains.flags.mean()), kept=not worse)
        )
        if worse:
            stopped_by = (
                f"round {number} made it worse: SNR {before.snr:.4g} to {after.snr:.4g}, chi-squared "
                f"{before.chi_squared:.4g} to {chi_squared:.4g}"
            )
            break
        best, best_gains, model = corrected, gains, after
        gained, dropped = after.snr / before.snr - 1, 1 - chi_squared / before.chi_squared
        if gained < settings.least_snr_gain and dropped < settings.least_chi_squared_drop:
            stopped_by = f"round {number} brought {gained:.1%} of SNR, and {dropped:.1%} less chi-squared"
            break
    return SelfCalibration(best_gains, best, tuple(done), stopped_by)


def _chi_squared(visibilities: Visibilities, model: Model) -> float:
    """Infinite where nothing is usable.  Of correlations that gains are solved from."""
    rows = select(visibilities, model.visibilities, GainSettings())
    hands = rows.hands
    good = visibilities.usable[..., hands] & ~visibilities.is_auto[:, None, None]
    expected = np.broadcast_to(model.visibilities, visibilities.data.shape)[..., hands]
    off = np.abs(np.where(good, visibilities.data[..., hands] - expected, 0)) ** 2 * visibilities.weights[..., hands]
    return float(off.sum() / (2 * good.sum())) if good.any() else math.inf
