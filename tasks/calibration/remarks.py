"""What is to be said of solutions, in sentences: nothing degrades in silence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.settings import GainSettings
from absurd.tasks.calibration.stefcal import (
    APART,
    BAD_FIT,
    FEW_BASELINES,
    LOW_SNR,
    NO_DATA,
    NOISE_SNR,
    NOT_CONVERGED,
    SOLVED,
)

_MANY_OUTLIERS = 1e-3
_SHOWN = 8


def remarks(
    state: NDArray[np.int8], snr: NDArray[np.float64], names: Sequence[str], settings: GainSettings, outliers: float
) -> list[str]:
    """Of all solutions (interval, antenna, channel, polarisation), the gravest first.  `snr` before flagging by it."""
    found = []
    alive = (state == SOLVED) | (state == LOW_SNR)
    signal = float(np.sqrt(np.mean(snr[alive] ** 2))) if alive.any() else 0.0
    if alive.any() and signal < 1.3 * NOISE_SNR:
        found.append(f"SNR {signal:.1f} is what noise without a signal gives ({NOISE_SNR:.1f})")
    for code, told in (
        (NO_DATA, "have no data"),
        (FEW_BASELINES, f"have fewer than {settings.min_baselines} baselines"),
        (APART, "share no baseline with the others"),
        (LOW_SNR, f"have an SNR below {settings.min_snr:g}"),
    ):
        antennas = np.flatnonzero((state == code).all(axis=(0, 2, 3)))
        if len(antennas):
            found.append(f"{len(antennas)} of {len(names)} antennas {told}: {_names(antennas, names)}")
        partly = (state == code).any(axis=(0, 2, 3))
        partly[antennas] = False
        if partly.any():
            share = (state[:, partly] == code).sum() / state.size
            found.append(
                f"{share:.1%} of all solutions, of {int(partly.sum())} other antennas, {told}: "
                f"{_names(np.flatnonzero(partly), names)}"
            )
    stuck = (state == NOT_CONVERGED).any(axis=1)
    if stuck.any():
        found.append(
            f"{int(stuck.sum())} of {stuck.size} solutions have not converged in {settings.max_iterations} iterations "
            "and are flagged"
        )
    unfit = (state == BAD_FIT).any(axis=1)
    if unfit.any():
        found.append(
            f"{int(unfit.sum())} of {unfit.size} solutions fit more than {settings.max_chi_squared:g} times worse than "
            "most, and are flagged: look for interference there"
        )
    if outliers > _MANY_OUTLIERS:
        done = "they have less weight" if settings.robust else "they have their full weight: consider robust"
        found.append(
            f"{outliers:.1%} of the visibilities lie more than {settings.outlier_sigma:g} standard deviations from the "
            f"fit, by interference that is not flagged or by sources that are not in the model; {done}"
        )
    return found


def _names(antennas: NDArray[np.int64], names: Sequence[str]) -> str:
    shown = ", ".join(names[each] for each in antennas[:_SHOWN])
    return shown + (f" and {len(antennas) - _SHOWN} more" if len(antennas) > _SHOWN else "")
