"""Rows of measurements as light curves: for each source what it was in each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.photometry.flags import Flag
from absurd.tasks.radio.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LightCurves:
    """Flux densities of sources (source, epoch), NaN where there are none."""

    sources: tuple[str, ...]
    """In the order in which they first come."""
    ra_deg: Floats
    dec_deg: Floats
    epochs: tuple[str, ...]
    """Paths of the images, in the order of time."""
    observed: tuple[datetime, ...]
    flux: Floats
    """Jy/beam."""
    error: Floats
    limit: Floats
    """Jy/beam, where a source was not detected."""
    detected: NDArray[np.bool_]
    blended: NDArray[np.bool_]
    """(source,): fitted with a neighbour in any epoch."""


def light_curves(table: Any) -> LightCurves:
    """Light curves of a table of measurements; images are epochs, ordered by time.

    Raises DataError: an image without a time, a source twice in one image, nothing measured.
    """
    images = table.column("image").to_pylist()
    times = dict(zip(images, table.column("observed").to_pylist(), strict=True))
    if not times:
        raise DataError("there are no measurements: nothing can be told of changes")
    without = [each for each, time in times.items() if time is None]
    if without:
        raise DataError(f"{without[0]} tells no time (DATE-OBS), without which there is no light curve")
    epochs = sorted(times, key=lambda each: (times[each], each))
    names = table.column("source_id").to_pylist()
    sources = tuple(dict.fromkeys(names))
    row = _places(names, sources)
    column = _places(images, epochs)
    shape = len(sources), len(epochs)
    if len(set(zip(row.tolist(), column.tolist(), strict=True))) < len(row):
        raise DataError("a source was measured twice in one image: give each image's measurements once")

    def spread(name: str, fill: Any, kind: Any = float) -> NDArray[Any]:
        made = np.full(shape, fill, dtype=kind)
        made[row, column] = table.column(name).to_numpy()
        return made

    return LightCurves(
        sources=sources,
        ra_deg=np.nanmax(spread("ra", np.nan), axis=1),
        dec_deg=np.nanmax(spread("dec", np.nan), axis=1),
        epochs=tuple(epochs),
        observed=tuple(times[each] for each in epochs),
        flux=spread("flux_jy", np.nan),
        error=spread("error_jy", np.nan),
        limit=spread("upper_limit_jy", np.nan),
        detected=spread("detected", False, bool),
        blended=np.any(spread("flags", 0, int) & int(Flag.BLENDED), axis=1),
    )


def _places(values: list[str], order: Any) -> NDArray[np.int64]:
    number = {each: n for n, each in enumerate(order)}
    return np.array([number[each] for each in values], dtype=np.int64)
