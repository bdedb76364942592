"""Visibilities in memory: rows of baselines and times, as a Measurement Set holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from dataclasses import field as made
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError

Floats = NDArray[np.float64]


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of antennas, each once: one without a name, or with that of another before it, has its number behind it.

    Gains go to visibilities by names, and some programs write empty or equal ones.
    """
    found: dict[str, None] = {}
    for number, name in enumerate(names):
        found[name if name and name not in found else f"{name}#{number}"] = None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Array:
    """The antennas of a recording."""

    telescope: str
    names: tuple[str, ...]
    """Each once, see `unique_names`."""
    positions_m: Floats
    """(antenna, 3), geocentric (ITRF), metres."""
    dish_diameter_m: float
    position_m: Floats
    """(3,), of the array, geocentric (ITRF), metres."""


@dataclass(frozen=True, slots=True)
class PhaseCentre:
    """Where phases are zero for a source: a direction on the sky."""

    name: str
    ra_rad: float
    """ICRS, as `dec_rad`."""
    dec_rad: float


@dataclass(frozen=True, slots=True)
class Visibilities:
    """Rows of one spectral window.

    A visibility of a point source of S Jy at direction cosines l, m is S exp(+2 pi i (u l + v m + w (n - 1))) with
    u, v, w the place of antenna 1 less that of antenna 2, in wavelengths: so WSClean and CASA read Measurement Sets.
    """

    data: NDArray[np.complex64]
    """(row, channel, correlation), Jy where the flux scale is known."""
    flags: NDArray[np.bool_]
    """Of the same shape; true where a visibility is not to be used."""
    weights: NDArray[np.float32]
    """Of the same shape (perhaps a broadcast view): 1 / variance of the real part, in data units to the power of -2."""
    uvw_m: Floats
    """(row, 3), metres."""
    time_s: Floats
    """(row,), middle of the integration: seconds of UTC since MJD 0, as CASA counts."""
    exposure_s: Floats
    """(row,)."""
    antenna1: NDArray[np.int32]
    """(row,), number of an antenna of `array`."""
    antenna2: NDArray[np.int32]
    field: NDArray[np.int32]
    """(row,), number of a phase centre."""
    frequencies_hz: Floats
    """(channel,), centres, ascending."""
    channel_width_hz: Floats
    """(channel,)."""
    correlations: tuple[str, ...]
    """Of XX, XY, YX, YY, RR, RL, LR, LL, I, Q, U, V."""
    array: Array
    phase_centres: tuple[PhaseCentre, ...]
    scan: NDArray[np.int32] = made(default_factory=lambda: np.zeros(0, np.int32))
    """(row,)."""
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows, channels, correlations = self.data.shape
        wanted = {
            "flags": self.data.shape,
            "weights": self.data.shape,
            "uvw_m": (rows, 3),
            "frequencies_hz": (channels,),
            "channel_width_hz": (channels,),
            "correlations": (correlations,),
        } | dict.fromkeys(("time_s", "exposure_s", "antenna1", "antenna2", "field"), (rows,))
        for name, shape in wanted.items():
            value = getattr(self, name)
            if np.shape(value) != shape:
                raise DataError(f"{name} has shape {np.shape(value)}, and {shape} goes with the data")
        if not self.scan.size:
            object.__setattr__(self, "scan", np.ones(rows, np.int32))

    @property
    def is_auto(self) -> NDArray[np.bool_]:
        """(row,): whether a row is an antenna with itself."""
        return np.equal(self.antenna1, self.antenna2)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(row, channel, correlation): neither flagged nor without a number."""
        usable: NDArray[np.bool_] = np.logical_and(np.isfinite(self.data), ~self.flags)
        return usable

    def with_(self, **changes: Any) -> Visibilities:
        """The same with other values of some fields."""
        return replace(self, **changes)
