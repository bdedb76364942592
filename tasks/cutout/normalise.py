"""Pixels for learning: each cut-out's values brought to one range, with what has no value filled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.request import Normalisation

NORMALISATIONS: tuple[Normalisation, ...] = ("none", "asinh", "min-max", "z-score")

Hook = Callable[[NDArray[np.float32], NDArray[np.bool_]], NDArray[np.float32]]
"""Own preprocessing: takes (bands, ny, nx) of one cut-out and where it has values, and gives the same shape."""

_HOOKS: dict[str, Hook] = {}


def register_preprocessing(name: str, hook: Hook) -> None:
    """Have `name` stand for a function that is applied before the normalisation.

    A worker knows it once it has imported the module that registers it (``absurd-worker --import``): params hold names
    only, never code.
    """
    _HOOKS[name] = hook


def preprocessing(name: str) -> Hook:
    """The function that was registered.  Raises DataIdValidationError."""
    if name not in _HOOKS:
        known = ", ".join(sorted(_HOOKS)) or "none"
        raise DataIdValidationError(
            f"there is no preprocessing {name!r}",
            advice=f"register_preprocessing() it in a module that the worker imports; known are: {known}",
            name=name,
        )
    return _HOOKS[name]


def normalise(pixels: NDArray[Any], valid: NDArray[np.bool_], how: Normalisation = "asinh") -> NDArray[np.float32]:
    """One cut-out, shape (bands, ny, nx), each band for itself; what is not `valid` becomes 0.

    ``asinh`` asinh((v - median) / (3 s)) with s from the median absolute deviation (Lupton, Gunn & Szalay 1999);
    ``min-max`` from the 1st to the 99th percentile to 0 to 1, clipped; ``z-score`` (v - mean) / standard deviation;
    ``none`` the values.  A band of one value becomes 0 (min-max: 0.5), one without valid pixels 0.
    """
    if how not in NORMALISATIONS:
        raise DataIdValidationError(f"normalisation is {how!r}; it must be one of {', '.join(NORMALISATIONS)}")
    values = np.asarray(pixels, dtype=np.float64)
    usable = valid & np.isfinite(values)
    result = np.zeros(values.shape, dtype=np.float32)
    for band in range(len(values)):
        known = usable[band]
        if known.any():
            result[band][known] = _scaled(values[band][known], how)
    return result


def _scaled(values: NDArray[np.float64], how: Normalisation) -> NDArray[np.float64]:
    if how == "none":
        return values
    if how == "min-max":
        low, high = np.percentile(values, (1, 99))
        if high <= low:
            return np.full(values.shape, 0.5)
        return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0), dtype=np.float64)
    if how == "z-score":
        middle, width = float(values.mean()), float(values.std())
        return (values - middle) / width if width > 0 else np.zeros(values.shape)
    middle = float(np.median(values))
    width = 3 * 1.4826 * float(np.median(np.abs(values - middle)))
    if width <= 0:  # more than half of the pixels are equal
        width = 3 * float(values.std())
    return np.arcsinh((values - middle) / width) if width > 0 else np.zeros(values.shape)
