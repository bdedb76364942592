"""Where baselines sample the plane of u and v, and how many there are of each length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from absurd.tasks.pipeline.plots import style
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT
from absurd.tasks.visibility.visibilities import Visibilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DRAWN = 40_000
"""Rows: more of them are drawn one in so many."""


def draw_coverage(visibilities: Visibilities, title: str) -> Figure:
    """U and v in thousands of wavelengths: each row from the lowest to the highest frequency, and its mirror image.

    Rows that are wholly flagged and antennas with themselves are left out.
    """
    rows = np.flatnonzero(~visibilities.is_auto & visibilities.usable.any(axis=(1, 2)))
    told = f"{len(rows):,} of {len(visibilities.time_s):,} rows are baselines with data"
    drawn = rows[:: max(1, -(-len(rows) // MOST_DRAWN))]
    if len(drawn) < len(rows):
        told += f"; one in {-(-len(rows) // MOST_DRAWN)} is drawn"
    made = style.figure(title, told, width=11, height=6)
    plane, lengths = made.subplots(1, 2, width_ratios=(1.25, 1))
    style.dress(plane, "u (kλ)", "v (kλ)", "uv coverage")
    style.dress(lengths, "Projected length of the baseline (m)", "Rows", "Baselines")
    if not len(rows) or not len(visibilities.frequencies_hz):
        style.empty(plane, "no baselines with data")
        style.empty(lengths, "no baselines with data")
        return made
    _plane(plane, visibilities, drawn)
    length = np.hypot(*visibilities.uvw_m[rows, :2].T)
    lengths.hist(length, bins=60, color=style.BLUE, edgecolor="white", linewidth=0.3)
    if (longest := float(length.max())) > 0:
        finest = _angle(np.degrees(SPEED_OF_LIGHT / float(visibilities.frequencies_hz.max()) / longest) * 3600)
        lengths.set_title(f"Baselines: up to {longest:,.0f} m, which is {finest} of the sky", fontsize=10, loc="left")
    return made


def _plane(axes: Any, visibilities: Visibilities, rows: NDArray[np.intp]) -> None:
    uv = visibilities.uvw_m[rows, :2] / SPEED_OF_LIGHT
    frequencies = visibilities.frequencies_hz
    ends = np.array([frequencies.min(), frequencies.max()])
    reach = float(np.abs(uv).max()) * float(ends[1]) * 1.06 or 1.0
    scale, unit = (1e3, "kλ") if reach > 3e3 else (1.0, "λ")
    segments = uv[:, None, :] * ends[None, :, None] / scale  # (row, end, 2)
    few = len(rows) < 2_000
    for sign, colour in ((1, style.BLUE), (-1, style.ORANGE)):
        if ends[1] > ends[0] * 1.01:
            look = {"linewidths": 1.2, "alpha": 0.8} if few else {"linewidths": 0.6, "alpha": 0.25}
            axes.add_collection(LineCollection(list(sign * segments), colors=colour, rasterized=True, **look))
        if few or ends[1] <= ends[0] * 1.01:
            look = {"markersize": 4 if few else 1.5, "alpha": 0.7, "markeredgewidth": 0}
            axes.plot(*(sign * segments.mean(axis=1)).T, ".", color=colour, **look)
    reach /= scale
    axes.set(xlim=(reach, -reach), ylim=(-reach, reach), aspect="equal")  # east is to the left, as on the sky
    axes.set(xlabel=f"u ({unit})", ylabel=f"v ({unit})")
    handles = [axes.plot([], [], "s", color=each)[0] for each in (style.BLUE, style.ORANGE)]
    axes.legend(handles, ["as recorded", "conjugate"], fontsize=8, frameon=False, loc="upper right", handletextpad=0.3)


def _angle(arcsec: float) -> str:
    if arcsec < 90:
        return f"{arcsec:.3g}″"
    return f"{arcsec / 60:.3g}′" if arcsec < 5400 else f"{arcsec / 3600:.3g}°"
