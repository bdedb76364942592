"""How pictures look: colours that all eyes tell apart, thin frames, units on every axis.

Figures are made without pyplot: nothing of the process is changed, and threads may draw at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from absurd.tasks.artifact import write_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Floats = NDArray[np.float64]

INK, SOFT, GRID = "#222222", "#6b6b6b", "#e3e3e3"
BLUE, ORANGE, GREEN, PURPLE, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"
"""Of Okabe and Ito: told apart by everybody."""
POLARISATIONS = (BLUE, RED, GREEN, PURPLE)
DPI = 130
MOST_LINES = 20
"""Antennas that are still told apart by their lines."""
MARKERS = "osD^v"
_MJD_1970 = 40_587
_REACHES = ((5, 1), (15, 5), (30, 10), (60, 20), (90, 30), (180, 90))
"""Degrees that an axis of phases goes to, and its steps."""


def figure(title: str, subtitle: str = "", *, width: float = 10, height: float = 6) -> Figure:
    """An empty figure of inches, with a title at the left."""
    made = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    made.get_layout_engine().set(w_pad=0.08, h_pad=0.08, rect=(0, 0, 1, 1 - 0.62 / height))  # type: ignore[union-attr,call-arg]
    made.text(0.012, 1 - 0.16 / height, title, ha="left", va="top", fontsize=13, fontweight="bold", color=INK)
    made.text(0.012, 1 - 0.42 / height, subtitle, ha="left", va="top", fontsize=9, color=SOFT)
    return made


def dress(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Labels with units, a light grid behind, and no more frame than is needed."""
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.tick_params(labelsize=8, colors=SOFT, labelcolor=INK, length=3)
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(SOFT)


def picture(axes: Axes) -> None:
    """No grid over an image, and a frame all around."""
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(SOFT)


def bar(figure_: Figure, image: Any, axes: Any, label: str) -> None:
    """A bar that tells what the colours of an image mean."""
    made = figure_.colorbar(image, ax=axes, label=label, pad=0.015, fraction=0.05)
    made.ax.tick_params(labelsize=8, length=3)
    made.ax.yaxis.label.set_fontsize(9)
    made.outline.set_edgecolor(SOFT)


def empty(axes: Axes, text: str) -> None:
    """Say in the middle of a plot why there is nothing in it."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=10, color=SOFT)


def counted(*pairs: tuple[int, str]) -> str:
    """``1 time, 24 antennas``."""
    return ", ".join(f"{count:,} {noun}{'' if count == 1 else 's'}" for count, noun in pairs)


def days(time_s: NDArray[Any]) -> Floats:
    """Seconds of UTC since MJD 0 as matplotlib counts time."""
    value: Floats = np.asarray(time_s, np.float64) / 86_400 - _MJD_1970
    return value


def time_axis(axis: Axis, least: int = 3) -> None:
    """Ticks of UTC along an axis, at least so many."""
    locator = AutoDateLocator(minticks=least, maxticks=7)  # type: ignore[no-untyped-call]
    axis.set_major_locator(locator)
    formatter = ConciseDateFormatter(  # type: ignore[no-untyped-call]
        locator,
        formats=["%Y", "%b", "%d", "%H:%M", "%H:%M", "%H:%M:%S.%f"],
        zero_formats=["", "%Y", "%b", "%b-%d", "%H:%M", "%H:%M:%S"],
        offset_formats=["", "%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%d", "%Y-%m-%d"],
    )
    axis.set_major_formatter(formatter)
    axis.get_offset_text().set_fontsize(8)


def phase_axis(axes: Axes, phase_deg: Floats) -> None:
    """Degrees along y, around 0: so many that these have room, in steps that people know."""
    there = np.abs(phase_deg[np.isfinite(phase_deg)])
    widest = float(np.percentile(there, 99.8)) if there.size else 180.0
    reach, step = next((pair for pair in _REACHES if pair[0] >= widest), _REACHES[-1])
    axes.set_ylim(-reach * 1.02, reach * 1.02)
    axes.yaxis.set_major_locator(MultipleLocator(step))


def antenna_colours(number: int) -> Sequence[Any]:
    """One colour for each, from dark to light in the order of their numbers."""
    return [tuple(each) for each in colormaps["viridis"](np.linspace(0, 0.88, max(number, 1)))]


def masked(value: Floats) -> Any:
    """An image in which what is not a number is not there."""
    return np.ma.masked_array(value, ~np.isfinite(value))  # type: ignore[no-untyped-call,unused-ignore]


def cyclic() -> Colormap:
    """For phases: the same colour at both ends."""
    return with_missing("twilight")


def looks(number: int) -> list[dict[str, Any]]:
    """How lines of so many antennas look: neighbours by their colour and by their markers."""
    return [
        {"color": colour, "marker": MARKERS[at % len(MARKERS)], "linewidth": 1, "markersize": 3}
        for at, colour in enumerate(antenna_colours(number))
    ]


def with_missing(name: str) -> Colormap:
    """A map of colours in which what is not there is light grey."""
    return colormaps[name].with_extremes(bad="#dcdcdc")


def two_step() -> Colormap:
    """For what is there or not."""
    return ListedColormap([GRID, BLUE])


def broken_at_wraps(phase_deg: Floats) -> Floats:
    """Phases along the last axis, with a gap where they go over the end of the circle."""
    jumps = np.abs(np.diff(phase_deg, axis=-1, prepend=phase_deg[..., :1])) > 180
    return np.where(jumps, np.nan, phase_deg)


def edges(middles: Floats, width: float) -> Floats:
    """The borders of cells around ascending middles: half way to the next; around a single one of the width given."""
    middles = np.asarray(middles, np.float64)
    if len(middles) == 1:
        return np.array([middles[0] - width / 2, middles[0] + width / 2])
    inner = (middles[1:] + middles[:-1]) / 2
    return np.concatenate([[2 * middles[0] - inner[0]], inner, [2 * middles[-1] - inner[-1]]])


def save(made: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all; the same figure gives the same bytes.  Raises OSError."""
    with write_aside(path) as part, part.open("wb") as file:
        made.savefig(file, format="png", metadata={"Software": None})
