"""Flux scales of epochs made one, by sources that should not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import PhotometryError

Floats = NDArray[np.float64]
MOST = 20
LEAST = 3
LEAST_SNR = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """By what each epoch's flux densities are too high."""

    factor: Floats
    """(epoch,): 1 is right; NaN where fewer than 3 references were measured."""
    error: Floats
    """Standard deviation of it, from the scatter of the references."""
    references: tuple[int, ...]
    """Sources that it was taken from, by their place."""
    used: NDArray[np.int64]
    """(epoch,): how many of them counted."""

    def apply(self, flux: Floats, error: Floats) -> tuple[Floats, Floats]:
        """Flux densities (source, epoch) on one scale, with what the scale is uncertain by in their errors."""
        made = flux / self.factor
        return made, np.hypot(error / self.factor, made * self.error / self.factor)


def pick_references(
    flux: Floats, error: Floats, *, usable: NDArray[np.bool_], least_snr: float = LEAST_SNR, most: int = MOST
) -> tuple[int, ...]:
    """The brightest sources (by median signal to noise) that were measured in every epoch, of those `usable`."""
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.where(error > 0, flux / error, np.nan)
    always = np.isfinite(snr).all(axis=1) & usable
    median = np.full(len(flux), -np.inf)
    median[always] = np.median(snr[always], axis=1)
    order = np.argsort(-median, kind="stable")[:most]
    return tuple(int(each) for each in order if median[each] >= least_snr)


def scale_of(
    flux: Floats, error: Floats, references: Sequence[int], *, baseline_epochs: int = 10, rounds: int = 3
) -> Scale:
    """The scale of each epoch against the first ones.

    A reference's baseline is the median of its first `baseline_epochs` flux densities.  An epoch's factor is the mean
    of the ratios of flux density to baseline, weighted by their errors, without those further than 3 times 1.4826 times
    the median deviation from their median: a reference that changes takes no part then.  Baselines are then taken again
    from flux densities on the scale, so that an odd epoch among the first ones does no harm.

    Raises PhotometryError for fewer than 3 references.
    """
    if len(references) < LEAST:
        raise PhotometryError(
            f"{len(references)} sources can be references, and a flux scale takes {LEAST}",
            advice="name references, or lower their least signal to noise",
        )
    chosen = np.array(references, dtype=int)
    factor = np.ones(flux.shape[1])
    for _ in range(rounds):
        scaled = flux[chosen] / factor
        baseline = np.nanmedian(scaled[:, :baseline_epochs], axis=1)[:, None]
        ratio, spread = flux[chosen] / baseline, error[chosen] / baseline
        made = [_mean(ratio[:, epoch], spread[:, epoch]) for epoch in range(flux.shape[1])]
        factor = np.array([each[0] for each in made])
        first = factor[:baseline_epochs]
        factor = factor / np.nanmedian(first) if np.isfinite(first).any() else factor
    return Scale(
        factor, np.array([each[1] for each in made]), tuple(int(each) for each in chosen),
        np.array([each[2] for each in made]),
    )  # fmt: skip


def _mean(ratio: Floats, spread: Floats) -> tuple[float, float, int]:
    """Mean of ratios without outliers, its standard deviation, and how many took part."""
    good = np.isfinite(ratio) & (spread > 0)
    if good.sum() < LEAST:
        return np.nan, np.nan, int(good.sum())
    ratio, spread = ratio[good], spread[good]
    middle = np.median(ratio)
    scatter = 1.4826 * np.median(np.abs(ratio - middle))
    kept = np.abs(ratio - middle) <= 3 * np.maximum(scatter, spread)
    if kept.sum() < LEAST:
        return np.nan, np.nan, int(kept.sum())
    weights = spread[kept] ** -2.0
    mean = float(np.sum(weights * ratio[kept]) / weights.sum())
    chi_squared = float(np.sum(weights * (ratio[kept] - mean) ** 2) / (kept.sum() - 1))
    return mean, float(np.sqrt(max(chi_squared, 1.0) / weights.sum())), int(kept.sum())
