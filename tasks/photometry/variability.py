"""How much flux densities of sources change: statistics of light curves, and what steady sources would give.

Arrays have the axes (source, epoch); NaN where there is no measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
_WEIGHTS = 0.5, 0.3, 0.2
Preset = Literal["conservative", "moderate", "sensitive"]
PRESETS: dict[Preset, tuple[float, float, float]] = {
    "conservative": (5.0, 4.0, 3.0),
    "moderate": (3.5, 2.5, 2.0),
    "sensitive": (2.5, 1.5, 1.0),
}
"""Thresholds of the score for extreme scattering events: sigma deviation, reduced chi squared, eta."""


@dataclass(frozen=True, slots=True, eq=False)
class Variability:
    """Statistics of each source, arrays (source,)."""

    epochs: NDArray[np.int64]
    """How many measurements it has."""
    mean: Floats
    """Mean of its flux densities F, in their unit."""
    weighted_mean: Floats
    """sum(F / s^2) / sum(1 / s^2)."""
    eta: Floats
    """N / (N - 1) (<w F^2> - <w F>^2 / <w>), with w = 1 / s^2 and means <>: chi squared about the weighted mean, over
    its N - 1 degrees of freedom (Swinbank et al. 2015, A&C 11, 25)."""
    v: Floats
    """Standard deviation of the sample (N - 1) over the mean (the same)."""
    vs: Floats
    """The largest of the two-epoch |Fa - Fb| / sqrt(sa^2 + sb^2), with its sign (Mooley et al. 2016, ApJ 818, 105)."""
    m: Floats
    """2 (Fa - Fb) / (Fa + Fb) of the same two epochs, the later one first (the same)."""
    sigma_deviation: Floats
    """max |F - mean| over the sample's standard deviation; it is at most (N - 1) / sqrt(N)."""
    false_alarm: Floats
    """Probability that a steady source with Gaussian errors has such an eta, or a larger one."""


def statistics(flux: Floats, error: Floats) -> Variability:
    """Statistics of light curves; NaN for what takes more than the epochs there are (two)."""
    from scipy.special import chdtrc

    seen = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    count = seen.sum(axis=1)
    values = np.where(seen, flux, 0.0)
    weights = np.where(seen, 1 / np.where(seen, error, 1.0) ** 2, 0.0)
    enough = count >= 2
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = values.sum(axis=1) / count
        weighted = (weights * values).sum(axis=1) / weights.sum(axis=1)
        off = np.where(seen, flux - weighted[:, None], 0.0)  # about the mean: the same, without its loss of digits
        eta = np.where(enough, (weights * off**2).sum(axis=1) / (count - 1), np.nan)
        away = np.where(seen, flux - mean[:, None], 0.0)
        deviation = np.where(enough, np.sqrt((away**2).sum(axis=1) / (count - 1)), np.nan)
        largest = np.abs(away).max(axis=1, initial=0.0)
        chance = np.where(enough, chdtrc(np.maximum(count - 1, 1), np.maximum(eta, 0) * (count - 1)), np.nan)
        vs, m = _widest_pair(np.where(seen, flux, np.nan), error)
        return Variability(
            epochs=count,
            mean=mean,
            weighted_mean=weighted,
            eta=eta,
            v=deviation / mean,
            vs=vs,
            m=m,
            sigma_deviation=largest / deviation,
            false_alarm=chance,
        )


def _widest_pair(flux: Floats, error: Floats) -> tuple[Floats, Floats]:
    """Vs and m of the two epochs whose |Vs| is largest."""
    best = np.full(len(flux), np.nan)
    modulation = best.copy()
    for later in range(1, flux.shape[1]):
        for earlier in range(later):
            step = flux[:, later] - flux[:, earlier]
            vs = step / np.hypot(error[:, later], error[:, earlier])
            more = np.isfinite(vs) & ~(np.abs(vs) <= np.abs(best))
            best[more] = vs[more]
            modulation[more] = (2 * step / (flux[:, later] + flux[:, earlier]))[more]
    return best, modulation


def pairs_false_alarm(vs: Floats, epochs: NDArray[np.int64]) -> Floats:
    """At most how probable it is that any pair of epochs of a steady source has such a |Vs|.

    It is the probability of one pair, times the pairs (Bonferroni's bound), at most 1.
    """
    from scipy.special import erfc

    bound: Floats = np.minimum(1.0, epochs * (epochs - 1) / 2 * erfc(np.abs(vs) / np.sqrt(2)))
    return bound


def scattering_score(found: Variability, preset: Preset = "moderate") -> tuple[Floats, list[str]]:
    """Score from 0 to 10 for extreme scattering events, and its confidence: high from 7, medium from 4, else low.

    Each of sigma deviation, reduced chi squared (about the weighted mean: `eta`) and eta counts by its share of the
    preset's threshold, at most 1, with the weights 0.5, 0.3 and 0.2.  The sigma deviation of N epochs cannot pass
    (N - 1) / sqrt(N): with fewer than 27 epochs 5 cannot be reached, so that the threshold is no more than that.
    """
    sigma, chi_squared, eta = PRESETS[preset]
    reach = np.where(found.epochs > 1, (found.epochs - 1) / np.sqrt(np.maximum(found.epochs, 1)), np.inf)
    parts = (
        found.sigma_deviation / np.minimum(sigma, reach),
        found.eta / chi_squared,
        found.eta / eta,
    )
    score = sum(weight * np.clip(np.nan_to_num(part), 0, 1) for weight, part in zip(_WEIGHTS, parts, strict=True))
    scores: Floats = 10 * np.asarray(score)
    return scores, ["high" if each >= 7 else "medium" if each >= 4 else "low" for each in scores]


def variable(found: Variability, *, false_alarm: float, least_epochs: int, least_v: float) -> Booleans:
    """Which sources change: their false alarm, of eta and of pairs together, is below the rate asked for.

    Each of the two tests has half of it, so that of N steady sources with Gaussian errors no more than `false_alarm` N
    are taken for variable on average.  `least_v` is the least standard deviation over the mean: below it is what
    the calibration of flux densities leaves.
    """
    with np.errstate(invalid="ignore"):
        unlikely = (found.false_alarm < false_alarm / 2) | (pairs_false_alarm(found.vs, found.epochs) < false_alarm / 2)
        made: Booleans = unlikely & (found.epochs >= least_epochs) & ~(np.abs(found.v) < least_v)
    return made


def transient(flux: Floats, error: Floats, *, detection_sigma: float) -> Booleans:
    """Which sources are there for a part of the time: detected in an epoch, and not in most others.

    At the time that most epochs tell of there is no source: the median of its flux over error is below 3.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.where(np.isfinite(flux) & (error > 0), flux / error, np.nan)
    seen = np.isfinite(snr).any(axis=1)
    median = np.full(len(snr), np.nan)
    median[seen] = np.nanmedian(snr[seen], axis=1)
    peak = np.where(np.isfinite(snr), snr, -np.inf).max(axis=1, initial=-np.inf)
    made: Booleans = (peak >= detection_sigma) & (median < 3)
    return made
