"""Closure phases of triangles of antennas: of a point they are 0, of noise they are anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.pipeline.plots import style
from absurd.tasks.qa.closure import PARALLEL, closure_phases
from absurd.tasks.visibility.visibilities import Visibilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def draw_closure(visibilities: Visibilities, title: str) -> Figure:
    """Closure phases of each integration, all channels together: how they are spread, and how they go in time."""
    hands = [each for each in visibilities.correlations if each in PARALLEL]
    times, triangles, phases = closure_phases(visibilities)
    told = style.counted((triangles, "triangle"), (len(times), "time"), (len(visibilities.frequencies_hz), "channel"))
    made = style.figure(title, told, width=11, height=5.2)
    spread, course = made.subplots(1, 2)
    style.dress(spread, "Closure phase (degrees)", "Share of triangles × times (%)", "How they are spread")
    style.dress(course, "Time (UTC)", "Closure phase (degrees)", "By time: median, and what two thirds are within")
    drawn, shown = [np.empty(0)], [np.empty(0)]
    for number, (name, colour) in enumerate(zip(hands, style.POLARISATIONS, strict=False)):
        found = phases[number]
        there = found[np.isfinite(found)]
        drawn.append(there)
        if not len(there):
            continue
        turned = np.radians(there)
        agreement = float(np.abs(np.exp(1j * turned).mean()))
        weights = np.full(len(there), 100 / len(there))
        bins = np.linspace(-180, 180, 73)
        spread.hist(there, bins, weights=weights, histtype="stepfilled", color=colour, alpha=0.3)
        spread.hist(
            there, bins, weights=weights, histtype="step", color=colour, label=f"{name}: |mean| {agreement:.3f}"
        )
        shown.append(_course(course, times, found, colour, name))
    if not sum(map(len, drawn)):
        for each in (spread, course):
            style.empty(each, "no triangle has three baselines with data")
        return made
    spread.axhline(100 / 72, color=style.INK, linewidth=1, linestyle="--", label="noise: all alike")
    spread.set_xlim(-180, 180)
    spread.set_xticks(np.arange(-180, 181, 90))
    spread.legend(fontsize=8, frameon=False)
    style.phase_axis(course, np.concatenate(shown))
    if len(times) == 1:
        middle, minute = style.days(times)[0], 1 / 1440
        course.set_xlim(middle - minute, middle + minute)
    style.time_axis(course.xaxis)
    course.legend(fontsize=8, frameon=False)
    return made


def _course(axes: Any, times: Floats, phases: Floats, colour: str, name: str) -> Floats:
    """Phases are (time, triangle), around their mean on the circle; returns what is drawn."""
    there = np.isfinite(phases).any(axis=1)
    mean: Any = np.nanmean(np.exp(1j * np.radians(phases[there])), axis=1)
    centre = np.degrees(np.angle(mean))[:, None]
    around = (phases[there] - centre + 180) % 360 - 180 + centre
    low, middle, high = np.nanpercentile(around, [16, 50, 84], axis=1)
    x = style.days(times[there])
    if len(x) == 1:
        axes.errorbar(x, middle, np.stack([middle - low, high - middle]), fmt="o", color=colour, capsize=4, label=name)
        return np.concatenate([low, high])
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, middle, ".-", color=colour, linewidth=1.2, markersize=4, label=name)
    return np.concatenate([low, high])
