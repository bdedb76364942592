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
    """Amplitude and phase of each antenna by time: lines, a map where there are many, dots where there is one time.

    Of several channels the mean is drawn.
    """
    values, amplitude, phase = _parts(gains)
    times, antennas = amplitude.shape[:2]
    made = style.figure(title, _told(gains), height=7)
    grid: Any = made.subplots(2, len(gains.polarisations), sharex=True, sharey="row", squeeze=False)
    for column, polarisation in enumerate(gains.polarisations):
        above, below = grid[0, column], grid[1, column]
        style.dress(above, "", "Amplitude" if column == 0 else "", polarisation)
        style.dress(below, "Antenna" if times == 1 else "Time (UTC)", "Phase (degrees)" if column == 0 else "")
        if not np.isfinite(values[..., column]).any():
            style.empty(above, "no solutions")
            style.empty(below, "no solutions")
        elif times == 1:
            _dots(above, below, amplitude[0, :, column], phase[0, :, column], gains.antennas)
        elif antennas <= style.MOST_LINES:
            _lines(above, below, style.days(gains.time_s), amplitude[..., column].T, phase[..., column].T)
        else:
            _maps(
                made, grid[:, column], style.days(gains.time_s), amplitude[..., column].T, phase[..., column].T, column
            )
        if times > 1:
            style.time_axis(below.xaxis)
    if times > 1 and antennas <= style.MOST_LINES:
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
    if antennas <= style.MOST_LINES:
        _legend(made, gains.antennas)
    else:
        grid[0, 0].legend(fontsize=8, frameon=False, loc="lower left")
    return made


def _parts(gains: Gains) -> tuple[NDArray[np.complex128], Floats, Floats]:
    """Values (time, antenna, polarisation) without those flagged, their amplitudes, and phases in degrees."""
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = (~gains.flags).sum(axis=2)
        total = np.where(gains.flags, 0, gains.values).sum(axis=2)
        values = np.where(weight > 0, total / weight, np.nan)
    return values, np.abs(values), np.degrees(np.angle(values))


def _lines(above: Axes, below: Axes, x: Floats, amplitude: Floats, phase: Floats) -> None:
    """One line an antenna; a single solution between gaps is a dot."""
    marker = "." if len(x) <= 120 else ""
    for colour, high, turned in zip(
        style.antenna_colours(len(amplitude)), amplitude, style.broken_at_wraps(phase), strict=True
    ):
        above.plot(x, high, marker, linestyle="-", color=colour, linewidth=1, markersize=3)
        below.plot(x, turned, marker, linestyle="-", color=colour, linewidth=1, markersize=3)
    above.set_ylim(bottom=0, top=_top(amplitude))
    style.phase_axis(below)


def _dots(above: Axes, below: Axes, amplitude: Floats, phase: Floats, antennas: tuple[str, ...]) -> None:
    place = np.arange(len(antennas))
    above.plot(place, amplitude, "o", color=style.BLUE, markersize=4)
    below.plot(place, phase, "o", color=style.BLUE, markersize=4)
    every = max(1, len(antennas) // 16)
    below.set_xticks(place[::every], antennas[::every], rotation=60, ha="right", fontsize=7)
    above.set_ylim(bottom=0, top=_top(amplitude))
    style.phase_axis(below)


def _maps(made: Figure, axes: Any, x: Floats, amplitude: Floats, phase: Floats, column: int) -> None:
    """Antennas along y, time along x."""
    y = np.arange(len(amplitude) + 1) - 0.5
    low, high = np.nanpercentile(amplitude, [1, 99])
    looks = (
        (amplitude, style.with_missing("viridis"), low, max(high, low + 1e-9), "Amplitude"),
        (phase, style.cyclic(), -180, 180, "Phase (degrees)"),
    )
    for each, (value, colours, least, most, label) in zip(axes, looks, strict=True):
        shown = each.pcolormesh(
            style.edges(x), y, style.masked(value), cmap=colours, vmin=least, vmax=most, rasterized=True
        )
        style.picture(each)
        each.set_ylabel("Antenna (number)" if column == 0 else "", fontsize=9)
        style.bar(made, shown, each, label)


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

    handles = [Line2D([], [], color=each, linewidth=2) for each in style.antenna_colours(len(antennas))]
    made.legend(
        handles, antennas, loc="outside right upper", fontsize=7, frameon=False, title="Antenna", title_fontsize=8
    )


def _top(amplitude: Floats) -> float:
    """A little above all but the wildest."""
    return 1.12 * max(float(np.nanpercentile(amplitude, 99.5)), 1e-12)


def _told(gains: Gains) -> str:
    flagged = 100 * float(np.mean(gains.flags)) if gains.flags.size else 100.0
    told = f"{len(gains.antennas)} antennas, {len(gains.time_s)} times, {len(gains.frequencies_hz)} channels"
    told += f", {flagged:.3g} % without solution"
    return told + (f", {gains.source}" if gains.source else "")
