"""Closure phases of triangles of antennas: of a point they are 0, of noise they are anything."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.pipeline.plots import style
from absurd.tasks.visibility.visibilities import Visibilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

MOST_TRIANGLES = 400
"""That many are drawn of more, evenly from the list of them."""


def draw_closure(visibilities: Visibilities, title: str) -> Figure:
    """Closure phases of each integration, all channels together: how they are spread, and how they go in time."""
    hands = [at for at, each in enumerate(visibilities.correlations) if each[0] == each[-1] or each == "I"]
    times, triangles, phases = closure_phases(visibilities, hands)
    told = style.counted((triangles, "triangle"), (len(times), "time"), (len(visibilities.frequencies_hz), "channel"))
    made = style.figure(title, told, width=11, height=5.2)
    spread, course = made.subplots(1, 2)
    style.dress(spread, "Closure phase (degrees)", "Share of triangles × times (%)", "How they are spread")
    style.dress(course, "Time (UTC)", "Closure phase (degrees)", "By time: median, and what two thirds are within")
    drawn, shown = [np.empty(0)], [np.empty(0)]
    for number, (hand, colour) in enumerate(zip(hands, style.POLARISATIONS, strict=False)):
        found = phases[number]
        there = found[np.isfinite(found)]
        drawn.append(there)
        if not len(there):
            continue
        name = visibilities.correlations[hand]
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


def closure_phases(visibilities: Visibilities, hands: list[int]) -> tuple[Floats, int, Floats]:
    """Times, the number of triangles that are drawn, and phases (hand, time, triangle) in degrees; NaN where one lacks.

    A phase is that of the sum over channels of the triangles' phasors: not of averaged visibilities, which gains that
    were solved on noise make close; and without amplitudes, which interference has.
    """
    rows = np.flatnonzero(~visibilities.is_auto)
    times, at = np.unique(visibilities.time_s[rows], return_inverse=True)
    there, ends = np.unique(
        np.concatenate([visibilities.antenna1[rows], visibilities.antenna2[rows]]), return_inverse=True
    )
    one, two = ends.reshape(2, -1)
    p, q, r = triangles_of(len(there))
    phases = np.full((len(hands), len(times), len(p)), np.nan)
    for time in range(len(times)):
        now = at == time
        chosen = rows[now]
        data = visibilities.data[chosen][:, :, hands].astype(np.complex128)
        good = (~visibilities.flags[chosen][:, :, hands]) & np.isfinite(data) & (data != 0)
        phasors = np.where(good, data, 0)
        phasors[good] /= np.abs(phasors[good])
        row = np.full((len(there), len(there)), len(chosen))
        row[one[now], two[now]] = np.arange(len(chosen))
        phasors = np.concatenate([phasors, np.zeros((1, *phasors.shape[1:]))])  # for what has no row
        total = (_between(phasors, row, p, q) * _between(phasors, row, q, r) * _between(phasors, row, r, p)).sum(axis=1)
        phases[:, time] = np.where(total == 0, np.nan, np.degrees(np.angle(total))).T
    return times, len(p), phases


def _between(
    phasors: NDArray[np.complex128], row: NDArray[np.intp], one: NDArray[np.intp], two: NDArray[np.intp]
) -> NDArray[np.complex128]:
    """Phasors of antennas `one` with `two`, (pair, channel, hand), whichever of both stands first in the rows."""
    return phasors[row[one, two]] + phasors[row[two, one]].conj()


def triangles_of(antennas: int) -> tuple[NDArray[np.intp], ...]:
    """Numbers of three antennas each, evenly from the list of all triangles, which is long: by their number in it."""
    number = math.comb(antennas, 3)
    chosen = np.unique(np.linspace(0, number - 1, min(number, MOST_TRIANGLES)).round().astype(np.int64))
    found = np.zeros((3, len(chosen)), np.intp)
    left = chosen if number else chosen[:0]
    for place in (3, 2, 1):  # the combinatorial number system
        sizes = np.array([math.comb(each, place) for each in range(antennas + 1)])
        found[3 - place] = np.searchsorted(sizes, left, side="right") - 1
        left = left - sizes[found[3 - place]]
    return tuple(found)
