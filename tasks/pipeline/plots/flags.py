"""What of visibilities is flagged: by time and frequency, by each alone, and by antenna."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.pipeline.plots import style
from absurd.tasks.visibility.visibilities import Visibilities

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def draw_flags(visibilities: Visibilities, title: str) -> Figure:
    """The percentage of baselines and correlations that are flagged or hold no number, antennas with themselves too."""
    lost = ~visibilities.usable
    share = 100 * float(lost.mean()) if lost.size else 0.0
    made = style.figure(title, f"{share:.3g} % of {lost.size:,} visibilities are flagged or no number", height=7.5)
    grid: Any = made.subplots(3, 2, width_ratios=(4, 1), height_ratios=(1, 3, 1.2))
    grid[0, 1].set_axis_off()
    grid[2, 1].set_axis_off()
    top, middle, side, bottom = grid[0, 0], grid[1, 0], grid[1, 1], grid[2, 0]
    style.dress(top, "", "% of channel")
    style.dress(middle, "Frequency (MHz)", "Time (UTC)")
    style.dress(side, "% of time", "")
    style.dress(bottom, "Antenna", "% of antenna")
    if not lost.size:
        for each in (top, middle, side, bottom):
            style.empty(each, "no visibilities")
        return made
    times, frequencies, image = _by_time_and_channel(visibilities, lost)
    x = style.edges(frequencies, float(visibilities.channel_width_hz[0]) / 1e6)
    y = style.edges(style.days(times), float(visibilities.exposure_s[0]) / 86_400)
    shown = middle.pcolormesh(x, y, style.masked(image), cmap=style.with_missing("Blues"), vmin=0, vmax=100)
    style.picture(middle)
    scale = grid[0, 1].inset_axes((0.05, 0.45, 0.9, 0.16))
    made.colorbar(shown, cax=scale, orientation="horizontal", label="% flagged")
    scale.tick_params(labelsize=8, length=3)
    scale.xaxis.label.set_fontsize(9)
    style.time_axis(middle.yaxis, 2 if len(times) > 1 else 1)
    by_time, by_channel = np.nanmean(image, axis=1), np.nanmean(image, axis=0)
    top.stairs(by_channel, x, fill=True, color=style.BLUE)
    side.stairs(by_time, y, fill=True, color=style.BLUE, orientation="horizontal")
    top.set(xlim=(x[0], x[-1]), ylim=(0, _top(by_channel)))
    side.set(ylim=(y[0], y[-1]), xlim=(0, _top(by_time)))
    top.tick_params(labelbottom=False)
    side.tick_params(labelleft=False)
    middle.invert_yaxis()
    side.invert_yaxis()
    _antennas(bottom, visibilities, lost)
    return made


def _by_time_and_channel(visibilities: Visibilities, lost: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Times, frequencies in MHz, and percentages (time, channel); not a number where there is no row."""
    times, number = np.unique(visibilities.time_s, return_inverse=True)
    count = np.zeros((len(times), lost.shape[1]))
    np.add.at(count, number, lost.sum(axis=2))
    rows = np.bincount(number, minlength=len(times))[:, None] * lost.shape[2]
    return times, visibilities.frequencies_hz / 1e6, 100 * count / rows


def _antennas(axes: Axes, visibilities: Visibilities, lost: NDArray[np.bool_]) -> None:
    """Of the baselines between an antenna and others."""
    names = visibilities.array.names
    by_row, is_cross = lost.mean(axis=(1, 2)), ~visibilities.is_auto
    total, rows = np.zeros(len(names)), np.zeros(len(names))
    for ends in (visibilities.antenna1, visibilities.antenna2):
        total += np.bincount(ends[is_cross], by_row[is_cross], minlength=len(names))
        rows += np.bincount(ends[is_cross], minlength=len(names))
    there = np.flatnonzero(rows)
    if not len(there):
        style.empty(axes, "no baselines between antennas")
        return
    share = 100 * total[there] / rows[there]
    place = np.arange(len(there))
    axes.bar(place, share, width=0.85, color=np.where(share > 95, style.RED, style.BLUE).tolist())
    every = max(1, len(there) // 24)
    axes.set_xticks(place[::every], [names[each] for each in there[::every]], rotation=60, ha="right", fontsize=7)
    axes.set(xlim=(-0.7, len(there) - 0.3), ylim=(0, _top(share)))


def _top(share: Floats) -> float:
    """Room above the highest, and never an axis of nothing."""
    return float(min(102, max(1.0, 1.15 * np.nanmax(share))))
