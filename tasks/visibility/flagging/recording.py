"""Where visibilities come from and reasons go to while a recording is flagged: a block of whole baselines at a time."""

from __future__ import annotations

from dataclasses import fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.visibility.flags import Reason, Reasons
from absurd.tasks.visibility.visibilities import Visibilities

PER_ROW = ("data", "flags", "weights", "uvw_m", "time_s", "exposure_s", "antenna1", "antenna2", "field", "scan")


class Recording(Protocol):
    """Rows of one spectral window; what is small is in memory."""

    antenna1: NDArray[np.int32]
    antenna2: NDArray[np.int32]
    scan: NDArray[np.int32]
    time_s: NDArray[np.float64]
    exposure_s: NDArray[np.float64]
    antennas: tuple[str, ...]
    channels: int
    correlations: int

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        """Data and flags of some rows, in that order."""

    def visibilities(self, rows: NDArray[np.int64]) -> Visibilities:
        """All that there is of some rows, in that order."""

    def known(self, rows: NDArray[np.int64]) -> Reasons:
        """Why these rows were flagged before, as far as that is known."""


class Store(Protocol):
    """Reasons, by places of rows sorted by baseline."""

    def read(self, first: int, last: int) -> Reasons: ...

    def write(self, first: int, reasons: Reasons) -> None: ...


class InMemory:
    """Visibilities that are there as a whole, with reasons for their flags if these are known."""

    def __init__(self, visibilities: Visibilities, reasons: Reasons | None = None) -> None:
        self._all = visibilities
        self._known = np.zeros(visibilities.data.shape, np.uint16) if reasons is None else reasons
        self.antenna1, self.antenna2 = visibilities.antenna1, visibilities.antenna2
        self.scan, self.time_s, self.exposure_s = visibilities.scan, visibilities.time_s, visibilities.exposure_s
        self.antennas = visibilities.array.names
        _, self.channels, self.correlations = visibilities.data.shape

    def read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.complex64], NDArray[np.bool_]]:
        return self._all.data[rows], self._all.flags[rows]

    def visibilities(self, rows: NDArray[np.int64]) -> Visibilities:
        return take(self._all, rows)

    def known(self, rows: NDArray[np.int64]) -> Reasons:
        return self._known[rows]


class Held:
    """A store in memory."""

    def __init__(self, rows: int, channels: int, correlations: int) -> None:
        self.all = np.zeros((rows, channels, correlations), np.uint16)

    def read(self, first: int, last: int) -> Reasons:
        return self.all[first:last]

    def write(self, first: int, reasons: Reasons) -> None:
        self.all[first : first + len(reasons)] = reasons


def take(visibilities: Visibilities, rows: NDArray[np.int64]) -> Visibilities:
    """The visibilities of some rows, in that order."""
    assert set(PER_ROW) <= {each.name for each in fields(visibilities)}
    return visibilities.with_(**{name: getattr(visibilities, name)[rows] for name in PER_ROW})


def with_input(earlier: Reasons, flags: NDArray[np.bool_]) -> Reasons:
    """Reasons with `INPUT` for what is flagged without one."""
    reasons: Reasons = np.where(flags & (earlier == 0), np.uint16(Reason.INPUT), earlier)
    return reasons
