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
from absurd.tasks.calibration.settings import MOST_ROUNDS, RECIPE, GainSettings
from absurd.tasks.calibration.solve import solve_gains
from absurd.tasks.radio.errors import CalibrationError, ValidationError
from absurd.tasks.visibility.visibilities import Visibilities


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
    most_flagged: float = 0.5
    """A round that leaves a larger share of its gains without a solution is given up: of noise alone it is more."""
    beam_power: float = 1.0
    """Of the strongest source: amplitudes are not solved for one further out than half power."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.rounds) <= MOST_ROUNDS:
            raise ValidationError(f"self-calibration has 1 to {MOST_ROUNDS} rounds, not {len(self.rounds)}")
        if not (self.least_snr_gain >= 0 and self.least_chi_squared_drop >= 0):
            raise ValidationError("least gains are 0 or more")
        if not (0 <= self.most_flagged <= 1 and 0 <= self.beam_power <= 1):
            raise ValidationError("the share of gains that are flagged and the power of the beam are between 0 and 1")


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

    It stops after the last round, or when a round brings too little, makes things worse or finds too few gains (that
    round is given up), or finds none.
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
        flagged = float(gains.flags.mean())
        is_kept = not worse and flagged <= settings.most_flagged
        done.append(Round(number, each.mode, each.interval_s, after.snr, chi_squared, flagged, is_kept))
        if flagged > settings.most_flagged:
            stopped_by = f"round {number} leaves {flagged:.0%} of its gains without a solution"
            break
        if worse:
            stopped_by = (
                f"round {number} made it worse: SNR {before.snr:.4g} to {after.snr:.4g}, chi-squared "
                f"{before.chi_squared:.4g} to {chi_squared:.4g}"
            )
            break
        best, best_gains, model = corrected, gains, after
        gained, dropped = _share(after.snr, before.snr) - 1, 1 - _share(chi_squared, before.chi_squared)
        if gained < settings.least_snr_gain and dropped < settings.least_chi_squared_drop:
            stopped_by = f"round {number} brought {gained:.1%} of SNR, and {dropped:.1%} less chi-squared"
            break
    return SelfCalibration(best_gains, best, tuple(done), stopped_by)


def signal_to_noise(visibilities: Visibilities, model: NDArray[Any]) -> float:
    """SNR of a model in visibilities, whatever its scale and phase: that of the peak in a picture made to fit it.

    With w the weights, V the visibilities and M the model: a = |sum w V conj(M)| / sum w |M|^2, over its standard
    deviation sqrt(chi^2 / sum w |M|^2) with chi^2 = sum w |V - a M|^2 / 2n, of n that are usable; so weights need to
    be right only among themselves.  0 where nothing is usable, infinite without noise.
    """
    power, total, product, count = 0.0, 0.0, 0j, 0
    for hand in select(visibilities, model, GainSettings()).hands:
        good = visibilities.usable[..., hand] & ~visibilities.is_auto[:, None]
        weights = visibilities.weights[..., hand][good].astype(np.float64)
        seen = visibilities.data[..., hand][good].astype(np.complex128)
        expected = np.broadcast_to(model, visibilities.data.shape)[..., hand][good].astype(np.complex128)
        power += float((weights * np.abs(expected) ** 2).sum())
        product += complex((weights * seen * expected.conj()).sum())
        total += float((weights * np.abs(seen) ** 2).sum())
        count += len(seen)
    if not power > 0:
        return 0.0
    chi_squared = max(0.0, total - abs(product) ** 2 / power) / (2 * count)
    return abs(product) / math.sqrt(power * chi_squared) if chi_squared > 0 else math.inf


def _share(after: float, before: float) -> float:
    """Infinite where there was nothing before."""
    return after / before if before > 0 else math.inf


def _chi_squared(visibilities: Visibilities, model: Model) -> float:
    """Infinite where nothing is usable.  Of correlations that gains are solved from."""
    rows = select(visibilities, model.visibilities, GainSettings())
    hands = rows.hands
    good = visibilities.usable[..., hands] & ~visibilities.is_auto[:, None, None]
    expected = np.broadcast_to(model.visibilities, visibilities.data.shape)[..., hands]
    off = np.abs(np.where(good, visibilities.data[..., hands] - expected, 0)) ** 2 * visibilities.weights[..., hands]
    return float(off.sum() / (2 * good.sum())) if good.any() else math.inf
