"""The record of what was flagged, in the Measurement Set that it is about: versions, none of which is changed.

``FLAG_RECORD`` is a folder in the Measurement Set, and goes where that goes; casacore leaves it alone.  In it each
spectral window has a folder, and in that each version: ``00000`` holds the flags as they were before, each later one
what a step has made of the one before.  A version has ``version.json`` and the Zarr array ``reasons`` (row, channel,
correlation), whose rows are sorted by baseline; ``row`` tells their numbers among those of the window, and channels
ascend in frequency.  A version is never changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.folder import fill_aside
from absurd.tasks.radio.errors import DataError, StateManagementError
from absurd.tasks.radio.storage import zarr_package
from absurd.tasks.visibility.flags import Reasons

FOLDER = "FLAG_RECORD"
FORM = 1
"""Of the files; readers refuse others."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a version tells of itself."""

    number: int
    at: str
    """When it was made, ISO 8601, UTC."""
    step: str
    """What made it: ``input``, ``visibility.flag``, ``restore`` …"""
    settings: dict[str, Any]
    report: dict[str, Any]
    key: str | None = None
    """Of the task that made it: the same task makes no second one."""
    form: int = FORM


class FlagRecord:
    """The record of a Measurement Set; its methods hold no more than a chunk in memory."""

    def __init__(self, measurement_set: str | os.PathLike[str]) -> None:
        self.measurement_set = Path(measurement_set)
        self.folder = self.measurement_set / FOLDER

    def versions(self, window: int = 0) -> list[Version]:
        """All there are of a spectral window, the oldest first; none of one that nobody has flagged here."""
        folder = self.folder / f"window-{window}"
        if not folder.is_dir():
            return []
        numbers = sorted(int(each.name) for each in folder.iterdir() if each.name.isdecimal())
        return [self._version(window, number) for number in numbers]

    @contextmanager
    def new_version(
        self, window: int, number: int, rows: NDArray[np.int64], shape: tuple[int, int], chunk_rows: int
    ) -> Iterator[NewVersion]:
        """A version to fill, of so many channels and correlations; it is there when the block ends, or not at all."""
        with fill_aside(self._place(window, number)) as aside:
            made = NewVersion(aside, number, rows, shape, chunk_rows)
            yield made
            if made.told is None:
                raise StateManagementError(f"version {number} was filled and not described")
            (aside / "version.json").write_text(json.dumps(asdict(made.told), indent=1) + "\n", encoding="utf-8")

    def rows(self, window: int, number: int) -> NDArray[np.int64]:
        """(place,), the row at each place of a version."""
        found: NDArray[np.int64] = self._group(window, number)["row"][:]
        return found

    def shape(self, window: int, number: int) -> tuple[int, ...]:
        """Rows, channels and correlations of a version."""
        shape: tuple[int, ...] = self._group(window, number)["reasons"].shape
        return shape

    def places(self, window: int, number: int, first: int, last: int) -> Reasons:
        """Reasons at places from and to, as a version holds them."""
        found: Reasons = self._group(window, number)["reasons"][first:last]
        return found

    def reasons(self, number: int, window: int = 0) -> Reasons:
        """(row, channel, correlation) of a version, in the order of the Measurement Set."""
        group = self._group(window, number)
        reasons: Reasons = np.empty(group["reasons"].shape, np.uint16)
        reasons[group["row"][:]] = group["reasons"][:]
        return reasons

    def _place(self, window: int, number: int) -> Path:
        return self.folder / f"window-{window}" / f"{number:05d}"

    def _group(self, window: int, number: int) -> Any:
        if not self._place(window, number).is_dir():
            known = ", ".join(str(each.number) for each in self.versions(window)) or "none"
            raise DataError(f"{self.measurement_set} has no version {number} of its flags", advice=f"it has {known}")
        return zarr_package().open_group(self._place(window, number), mode="r")

    def _version(self, window: int, number: int) -> Version:
        told = self._read(f"window-{window}/{number:05d}/version.json")
        if told is None or told.get("form") != FORM:
            raise DataError(f"version {number} of the flags of {self.measurement_set} cannot be read")
        return Version(**told)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder / name} cannot be read: {error}") from error
        return told


class NewVersion:
    """A version that is being filled, by places; it is a store for `flag_recording`."""

    def __init__(
        self, folder: Path, number: int, rows: NDArray[np.int64], shape: tuple[int, int], chunk_rows: int
    ) -> None:
        self.number = number
        self.told: Version | None = None
        group = zarr_package().open_group(folder, mode="w", zarr_format=3)
        group.attrs.update({"axes": ["row", "channel", "correlation"], "form": FORM})
        several = max(1, min(chunk_rows, len(rows)))
        made = group.create_array(
            "row", shape=rows.shape, chunks=(max(1, len(rows)),), dtype="int64", dimension_names=["row"], fill_value=0
        )
        made[:] = rows
        self._reasons = group.create_array(
            "reasons",
            shape=(len(rows), *shape),
            chunks=(several, *shape),
            dtype="uint16",
            dimension_names=["row", "channel", "correlation"],
            fill_value=0,
        )

    def read(self, first: int, last: int) -> Reasons:
        reasons: Reasons = self._reasons[first:last]
        return reasons

    def write(self, first: int, reasons: Reasons) -> None:
        self._reasons[first : first + len(reasons)] = reasons

    def describe(self, step: str, settings: dict[str, Any], report: dict[str, Any], key: str | None) -> Version:
        """Tell what the version is."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.told = Version(self.number, at, step, settings, report, key)
        return self.told
