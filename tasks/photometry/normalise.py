"""Flux scales of epochs made one, by sources that should not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.quiet import quiet
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
    """The brightest sources (by median signal to noise) that were measured in every epoch, of those `usable`.

    Where these are fewer than 3, as of a night in which the sky drifts through the beam, they are the brightest of each
    epoch that were measured in 3 epochs or more: `most` of each.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = np.where(error > 0, flux / error, np.nan)
    seen = np.isfinite(snr)
    median = np.full(len(flux), -np.inf)
    often = usable & (seen.sum(axis=1) >= min(LEAST, flux.shape[1]))
    median[often] = np.nanmedian(snr[often], axis=1)
    order = np.argsort(-median, kind="stable")
    order = order[median[order] >= least_snr]
    always = order[seen[order].all(axis=1)]
    if len(always) >= LEAST:
        return tuple(int(each) for each in always[:most])
    chosen = seen[order] & (seen[order].cumsum(axis=0) <= most)
    return tuple(int(each) for each in order[chosen.any(axis=1)])


def scale_of(
    flux: Floats, error: Floats, references: Sequence[int], *, baseline_epochs: int = 10, rounds: int = 3
) -> Scale:
    """The scale of each epoch against the first ones.

    Scales to begin with are those of `linked_scales`, so that no reference has to be seen in all epochs.  A reference's
    baseline is the median of its first `baseline_epochs` flux densities on the scale.  An epoch's factor is the mean
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
    factor = linked_scales(flux[chosen], error[chosen])
    # Of a source that comes later the first epochs are others.
    among_first = np.isfinite(flux[chosen]).cumsum(axis=1) <= baseline_epochs
    for _ in range(rounds):
        scaled = flux[chosen] / factor
        with quiet():  # one without an epoch of a known scale has no baseline
            baseline = np.nanmedian(np.where(among_first, scaled, np.nan), axis=1)[:, None]
        ratio, spread = flux[chosen] / baseline, error[chosen] / baseline
        made = [_mean(ratio[:, epoch], spread[:, epoch]) for epoch in range(flux.shape[1])]
        factor = np.array([each[0] for each in made])
        first = factor[:baseline_epochs]
        factor = factor / np.nanmedian(first) if np.isfinite(first).any() else factor
    return Scale(
        factor, np.array([each[1] for each in made]), tuple(int(each) for each in chosen),
        np.array([each[2] for each in made]),
    )  # fmt: skip


def linked_scales(flux: Floats, error: Floats, *, rounds: int = 5) -> Floats:
    """(epoch,) factors of flux densities (source, epoch), by least squares of log F = log factor + log level.

    Epochs that share no source, even by way of others, are each brought to a median of 1 by themselves; NaN where
    nothing is positive.  What departs by more than 3 deviations counts less and less (weights 1 / (1 + (r / 3)^2)).
    """
    good = np.isfinite(flux) & np.isfinite(error) & (flux > 0) & (error > 0)
    value = np.log(np.where(good, flux, 1.0))
    variance = np.where(good, error / np.where(good, flux, 1.0), 1.0) ** 2
    weights = good / variance
    logs = np.zeros(flux.shape[1])
    for _ in range(rounds):
        logs, left = _solved(value, weights)
        spread = (1.4826 * np.median(np.abs(left[good]))) ** 2 + variance if good.any() else variance
        weights = good / spread / (1 + left**2 / (9 * spread))
    factor = np.exp(logs)
    factor[~good.any(axis=0)] = np.nan
    for part in _parts(good):
        factor[part] /= np.median(factor[part])
    return factor


def _solved(value: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """(epoch,) a with the least sum of w r^2, and r = value - a - b (source, epoch).  The fewer are solved."""
    if len(value) > value.shape[1]:
        levels, left = _solved(value.T, weights.T)
        return _average(value - levels[:, None], weights, 0), left.T
    share = weights / np.maximum(weights.sum(axis=0), 1e-300)
    normal = np.diag(weights.sum(axis=1)) - weights @ share.T
    right = (weights * (value - _average(value, weights, 0))).sum(axis=1)
    levels, *_ = np.linalg.lstsq(normal, right, rcond=1e-12)
    a = _average(value - levels[:, None], weights, 0)
    return a, value - a - levels[:, None]


def _average(values: Floats, weights: Floats, axis: int) -> Floats:
    mean: Floats = (weights * values).sum(axis=axis) / np.maximum(weights.sum(axis=axis), 1e-300)
    return mean


def _parts(good: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Epochs that are linked by sources, those of each part."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    source, epoch = np.nonzero(good)
    total = sum(good.shape)
    links = coo_array((np.ones(len(source)), (source, len(good) + epoch)), shape=(total, total))
    labels = connected_components(links, directed=False)[1][len(good) :]
    seen = good.any(axis=0)
    return [np.flatnonzero((labels == each) & seen) for each in np.unique(labels[seen])]


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
