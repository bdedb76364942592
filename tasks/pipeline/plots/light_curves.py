"""Light curves: flux densities with their errors by time, and limits where nothing was seen."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.photometry.variability import statistics
from absurd.tasks.pipeline.plots import style
from absurd.tasks.radio.errors import DataError, ValidationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MOST_SOURCES = 12
"""That are drawn, where none is named: those that change most."""


@dataclass(frozen=True, slots=True, eq=False)
class LightCurve:
    """Of one source, by time."""

    name: str
    days: Floats
    """Since 1970, UTC, as matplotlib counts time."""
    flux: Floats
    """Jy; NaN where nothing was measured."""
    error: Floats
    detected: NDArray[np.bool_]
    limit: Floats
    """Jy; NaN where the source was detected."""
    eta: float
    v: float


@dataclass(frozen=True, slots=True)
class LightCurves:
    """Of some sources of a file."""

    curves: tuple[LightCurve, ...]
    sources: int
    """In the file."""


def open_light_curves(path: str | os.PathLike[str], sources: Sequence[str] = ()) -> LightCurves:
    """Light curves of a Parquet file of photometry.forced, photometry.variability or photometry.export_night.

    Of the named sources, or of those that change most.  Raises DataError for another file, ValidationError for a source
    that it has not.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        is_of_database = "observed_at" in table.column_names
        name, time = ("source", "observed_at") if is_of_database else ("source_id", "observed")
        names, times = table.column(name).to_pylist(), table.column(time).to_pylist()
        flux, error, limit = (
            table.column(each).to_numpy(zero_copy_only=False).astype(np.float64)
            for each in ("flux_jy", "error_jy", "upper_limit_jy")
        )
        detected = np.array(table.column("detected").to_pylist(), np.bool_)
    except (OSError, KeyError, pa.ArrowInvalid) as reason:
        raise DataError(f"{path} holds no light curves: {reason}", path=str(path)) from reason
    if missing := [each for each in sources if each not in names]:
        raise ValidationError(f"{path} has no source {missing[0]!r}", advice="name one of its column with names")
    when = np.array([math.nan if each is None else each.timestamp() / 86_400 for each in times])
    rows: dict[str, list[int]] = {}
    for number, each in enumerate(names):
        rows.setdefault(each, []).append(number)
    curves = []
    for each, found in rows.items():
        if sources and each not in sources:
            continue
        at = np.array(found)[np.argsort(when[found], kind="stable")]
        told = statistics(flux[at][None], error[at][None])
        curves.append(
            LightCurve(
                each, when[at], flux[at], error[at], detected[at], limit[at], float(told.eta[0]), float(told.v[0])
            )
        )
    curves.sort(key=lambda each: -each.eta if math.isfinite(each.eta) else math.inf)
    return LightCurves(tuple(curves if sources else curves[:MOST_SOURCES]), len(rows))


def draw_light_curves(data: LightCurves, title: str) -> Figure:
    """Each source in a panel of its own: what was detected with its error, limits as arrows, and the weighted mean."""
    curves = data.curves
    told = style.counted((data.sources, "source"))
    if len(curves) < data.sources:
        told += f"; drawn are {len(curves)}, those that change most first"
    columns = min(3, max(1, len(curves)))
    lines = max(1, math.ceil(len(curves) / columns))
    made = style.figure(title, told, width=4 * columns + 1, height=2.4 * lines + 1.2)
    panels: Any = made.subplots(lines, columns, squeeze=False, sharex=True)
    for axes in panels.flat[len(curves) :]:
        axes.set_axis_off()
    if not curves:
        style.empty(panels[0, 0], "no measurements")
    for axes, curve in zip(panels.flat, curves, strict=False):
        _draw(axes, curve)
    for column in range(columns):
        lowest = [axes for axes, _ in zip(panels[:, column], range(lines), strict=True) if axes.axison]
        if lowest and curves:
            lowest[-1].tick_params(labelbottom=True)
            lowest[-1].set_xlabel("Time (UTC)", fontsize=9)
            style.time_axis(lowest[-1].xaxis)
    return made


def _draw(axes: Axes, curve: LightCurve) -> None:
    told = ", ".join(
        f"{name} {value:.3g}" for name, value in (("η", curve.eta), ("V", curve.v)) if math.isfinite(value)
    )
    style.dress(axes, "", "Flux density (mJy)", f"{curve.name}   {told}")
    axes.title.set_fontsize(8)
    seen = curve.detected & np.isfinite(curve.flux)
    limits = ~seen & np.isfinite(curve.limit)
    if seen.any():
        axes.errorbar(
            curve.days[seen], 1e3 * curve.flux[seen], 1e3 * curve.error[seen], fmt="o", color=style.BLUE, markersize=3,
            linewidth=1, capsize=2,
        )  # fmt: skip
    if limits.any():
        axes.plot(curve.days[limits], 1e3 * curve.limit[limits], "v", color=style.RED, markersize=5, fillstyle="none")
        # Beside a limit lies what was measured all the same, as it is.
        axes.plot(curve.days[limits], 1e3 * curve.flux[limits], ".", color=style.SOFT, markersize=3)
    good = np.isfinite(curve.flux) & (curve.error > 0)
    if good.any():
        mean = float(np.average(curve.flux[good], weights=curve.error[good] ** -2.0))
        axes.axhline(1e3 * mean, color=style.SOFT, linewidth=0.8, linestyle="--")
    elif not limits.any():
        style.empty(axes, "nothing was measured")
    if np.unique(curve.days[np.isfinite(curve.days)]).size == 1:
        axes.set_xlim(curve.days[0] - 1 / 1440, curve.days[0] + 1 / 1440)
