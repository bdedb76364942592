"""Gains of antennas by time, and bandpasses by frequency: amplitude above, phase below, a column a polarisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.pipeline.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def draw_gains(gains: Gains, title: str) -> Figure:
    """Amplitude and phase of each antenna by time: lines, and dots by antenna where there is one time.

    Where there are many antennas: their amplitudes, and maps of how amplitudes and phases change.  Of several channels
    the mean is drawn.
    """
    amplitude, phase = _parts(gains)
    times, antennas = amplitude.shape[:2]
    if gains.kind == "delay":
        return _draw_delays(gains, title)
    if times > 1 and antennas > style.MOST_LINES and np.isfinite(amplitude).any():
        return _draw_maps(gains, amplitude, phase, title)
    made = style.figure(title, _told(gains), height=7)
    grid: Any = made.subplots(2, len(gains.polarisations), sharex=True, sharey="row", squeeze=False)
    for column, polarisation in enumerate(gains.polarisations):
        above, below = grid[:, column]
        style.dress(above, "", "Amplitude" if column == 0 else "", polarisation)
        style.dress(below, "Antenna" if times == 1 else "Time (UTC)", "Phase (degrees)" if column == 0 else "")
        high, turned = amplitude[..., column], phase[..., column]
        if not np.isfinite(high).any():
            for each in (above, below):
                style.empty(each, "no solutions")
        elif times == 1:
            _dots(above, high[0], gains.antennas)
            _dots(below, turned[0], gains.antennas)
        else:
            _lines(above, below, style.days(gains.time_s), high.T, turned.T)
            style.time_axis(below.xaxis)
    if np.isfinite(amplitude).any():
        grid[0, 0].set_ylim(0, _top(amplitude))
        style.phase_axis(grid[1, 0], phase)
        if times > 1:
            _legend(made, gains.antennas)
    return made


def draw_bandpass(gains: Gains, title: str) -> Figure:
    """Amplitude and phase of each antenna by frequency: lines, and where there are many the median and the spread.

    Of several times the first is drawn.
    """
    values = np.where(gains.flags[0], np.nan, gains.values[0])
    amplitude, phase = np.abs(values), np.degrees(np.angle(values))
    antennas = len(gains.antennas)
    frequency = gains.frequencies_hz / 1e6
    made = style.figure(title, _told(gains), height=7)
    grid: Any = made.subplots(2, len(gains.polarisations), sharex=True, sharey="row", squeeze=False)
    for column, polarisation in enumerate(gains.polarisations):
        above, below = grid[0, column], grid[1, column]
        style.dress(above, "", "Amplitude" if column == 0 else "", polarisation)
        style.dress(below, "Frequency (MHz)", "Phase (degrees)" if column == 0 else "")
        if not np.isfinite(values[..., column]).any():
            style.empty(above, "no solutions")
            style.empty(below, "no solutions")
        elif antennas <= style.MOST_LINES:
            _lines(above, below, frequency, amplitude[..., column], phase[..., column])
        else:
            _spread(above, frequency, amplitude[..., column], style.POLARISATIONS[column])
            _spread(below, frequency, phase[..., column], style.POLARISATIONS[column])
    if antennas > style.MOST_LINES:
        labelled = next((each for each in grid[0] if each.get_legend_handles_labels()[0]), None)
        if labelled is not None:
            labelled.legend(fontsize=8, frameon=False, loc="lower left")
    elif np.isfinite(amplitude).any():
        grid[0, 0].set_ylim(0, _top(amplitude))
        style.phase_axis(grid[1, 0], phase)
        _legend(made, gains.antennas)
    return made


def _draw_delays(gains: Gains, title: str) -> Figure:
    """Delays in nanoseconds, by antenna: a dot a time."""
    delay_ns = np.where(gains.flags, np.nan, gains.values.real).mean(axis=2) * 1e9
    made = style.figure(title, _told(gains), height=4.5)
    grid: Any = made.subplots(1, len(gains.polarisations), sharey=True, squeeze=False)
    for column, polarisation in enumerate(gains.polarisations):
        axes = grid[0, column]
        style.dress(axes, "Antenna", "Delay (ns)" if column == 0 else "", polarisation)
        if not np.isfinite(delay_ns[..., column]).any():
            style.empty(axes, "no solutions")
        for each in delay_ns[..., column]:
            _dots(axes, each, gains.antennas)
    return made


def _parts(gains: Gains) -> tuple[Floats, Floats]:
    """Amplitudes and phases in degrees, (time, antenna, polarisation); not a number where all is flagged."""
    there = (~gains.flags).sum(axis=2)
    total = np.where(gains.flags, 0, gains.values).sum(axis=2)
    values = np.where(there > 0, total / np.maximum(there, 1), np.nan)
    return np.abs(values), np.degrees(np.angle(values))


def _lines(above: Axes, below: Axes, x: Floats, amplitude: Floats, phase: Floats) -> None:
    """One line an antenna; a single solution between gaps is its marker."""
    for look, high, turned in zip(style.looks(len(amplitude)), amplitude, style.broken_at_wraps(phase), strict=True):
        every = max(1, len(x) // 24)
        above.plot(x, high, **look, markevery=every)
        below.plot(x, turned, **look, markevery=every)


def _dots(axes: Axes, value: Floats, antennas: tuple[str, ...]) -> None:
    axes.plot(np.arange(len(antennas)), value, "o", color=style.BLUE, markersize=4)
    _name_antennas(axes, antennas)


def _name_antennas(axes: Axes, antennas: tuple[str, ...]) -> None:
    every = max(1, -(-len(antennas) // 20))
    axes.set_xticks(np.arange(len(antennas))[::every], antennas[::every], rotation=60, ha="right", fontsize=7)


def _draw_maps(gains: Gains, amplitude: Floats, phase: Floats, title: str) -> Figure:
    """Antennas along x: medians of amplitudes, and by time how far amplitudes and phases are from the antenna's own."""
    typical, centre = np.full((2, *amplitude.shape[1:]), np.nan)
    there = np.isfinite(amplitude).any(axis=0)
    typical[there] = np.nanmedian(amplitude[:, there], axis=0)
    mean: Any = np.nanmean(np.exp(1j * np.radians(phase[:, there])), axis=0)
    centre[there] = np.degrees(np.angle(mean))
    changes = (
        (100 * (amplitude / np.where(typical > 0, typical, np.nan) - 1), "Amplitude change (%)"),
        ((phase - centre + 180) % 360 - 180, "Phase change (degrees)"),
    )
    made = style.figure(title, _told(gains), height=8.5)
    grid: Any = made.subplots(3, len(gains.polarisations), sharex=True, sharey="row", squeeze=False)
    for column, polarisation in enumerate(gains.polarisations):
        style.dress(grid[0, column], "", "Amplitude, median" if column == 0 else "", polarisation)
        _dots(grid[0, column], typical[:, column], gains.antennas)
    grid[0, 0].set_ylim(0, _top(typical))
    x, y = np.arange(len(gains.antennas) + 1) - 0.5, style.edges(style.days(gains.time_s), 1.0)
    for row, (change, label) in zip(grid[1:], changes, strict=True):
        reach = max(float(np.nanpercentile(np.abs(change), 99)), 1e-3)
        look = {"cmap": style.with_missing("RdBu_r"), "vmin": -reach, "vmax": reach, "rasterized": True}
        for column, axes in enumerate(row):
            shown = axes.pcolormesh(x, y, style.masked(change[..., column]), **look)
            style.dress(axes, "", "Time (UTC)" if column == 0 else "")
            style.picture(axes)
            _name_antennas(axes, gains.antennas)
        style.time_axis(row[0].yaxis)
        row[0].invert_yaxis()
        style.bar(made, shown, list(row), label)
    for axes in grid[-1]:
        axes.set_xlabel("Antenna", fontsize=9)
    return made


def _spread(axes: Axes, x: Floats, value: Floats, colour: str) -> None:
    """Thin lines, what two thirds of the antennas are within, and the median."""
    axes.plot(x, value.T, color=colour, linewidth=0.4, alpha=0.18)
    there = np.isfinite(value).any(axis=0)
    low, middle, high = np.full((3, len(x)), np.nan)
    low[there], middle[there], high[there] = np.nanpercentile(value[:, there], [16, 50, 84], axis=0)
    axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0, label="two thirds of the antennas")
    axes.plot(x, middle, color=style.INK, linewidth=1.3, label="median")
    least, most = np.nanpercentile(value, [0.2, 99.8])
    margin = 0.15 * max(most - least, 1e-3)
    axes.set_ylim(least - margin, most + margin)


def _legend(made: Figure, antennas: tuple[str, ...]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **look | {"linewidth": 2, "markersize": 4}) for look in style.looks(len(antennas))]
    made.legend(
        handles, antennas, loc="outside right upper", fontsize=7, frameon=False, title="Antenna", title_fontsize=8
    )


def _top(amplitude: Floats) -> float:
    """A little above all but the wildest."""
    return 1.12 * max(float(np.nanpercentile(amplitude, 99.5)), 1e-12)


def _told(gains: Gains) -> str:
    flagged = 100 * float(np.mean(gains.flags)) if gains.flags.size else 100.0
    told = style.counted(
        (len(gains.antennas), "antenna"), (len(gains.time_s), "time"), (len(gains.frequencies_hz), "channel")
    )
    return f"{told}; {flagged:.3g} % without solution" + (f"; {gains.source}" if gains.source else "")
