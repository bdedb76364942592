"""Sub-bands of one recording as a Measurement Set: all of them in one spectral window, by ascending frequency.

One sub-band is in memory at a time, and of that some rows, unless they have to be put into another order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.folder import clear_aside
from absurd.tasks.radio.errors import DataError, StageError, UnreadableError
from absurd.tasks.radio.telescope import Band
from absurd.tasks.visibility.group import Group, Part, put_together
from absurd.tasks.visibility.measurement_set_blocks import Writer, blocks
from absurd.tasks.visibility.measurement_set_files import new_measurement_set
from absurd.tasks.visibility.measurement_set_rows import open_table
from absurd.tasks.visibility.measurement_set_tables import create, put_row_weights, size
from absurd.tasks.visibility.subband_groups import DECLINATION_TOLERANCE_DEG
from absurd.tasks.visibility.uvh5 import Blocks, Subband, open_subband, read_subband_header

T = TypeVar("T", bound=np.generic)
Block = tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]
"""Visibilities, flags and weights, (row, channel, correlation)."""

_COLUMNS = ("DATA", "FLAG", "WEIGHT_SPECTRUM")
"""Where the three lie."""
_KEYWORD = "ABSURD_CONVERSION"
"""In the Measurement Set: what it was made from, and what came of it."""
_SWAPPED = {"XY": "YX", "YX": "XY", "RL": "LR", "LR": "RL"}


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of converting a group."""

    subbands: int
    rows: int
    channels: int
    correlations: int
    missing_channels: int
    """Of which there was no sub-band: flagged."""
    missing_rows: int
    """Rows that a sub-band lacks and others have, over all sub-bands: flagged there."""
    invalid: int
    """Visibilities that were no numbers: they are 0 and flagged."""
    flagged: float
    """Part of the visibilities that is flagged."""
    is_new: bool = True
    """False where the Measurement Set was there already, made from the same files."""


def convert_group(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    band: Band | None = None,
    declination_tolerance_deg: float = DECLINATION_TOLERANCE_DEG,
    on_subband: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Convert files of one recording, in any order, into a Measurement Set with a field for each phase centre.

    With the `band` of the telescope the Measurement Set has all of its channels; without it, those from the lowest to
    the highest that there are.  What is missing between them is flagged, as is what is no number.  Times that are a
    little off, and declinations by as much as the tolerance from that of the group, are turned to those of the file
    with most rows, see `put_together`.  `on_subband` is called with the number of sub-bands that are done, and of all;
    what it raises stops the conversion.

    The Measurement Set is whole or absent, see `write_measurement_set`; one that is there and was made from the same
    files stays, and one that was made from some of them is replaced.  The same files give the same values.

    Raises DataError with the reason for files that do not belong together or are not what they should be, and
    UnreadableError, which is one, for those that cannot be read now or change meanwhile; StageError where it cannot be
    written, what is read back is not what was written, or what is there was made from other files; OSError.
    """
    headers = [read_subband_header(path) for path in paths]
    group = put_together(headers, band, declination_tolerance_deg=declination_tolerance_deg)
    record = _record(group)
    if (done := _done(out, record)) is not None:
        clear_aside(out)
        return done
    with new_measurement_set(out, size(group.description.shape)) as folder:
        widest = max(len(part.subband.frequencies_hz) for part in group.parts)
        create(folder, group.description, tile_channels=widest)
        with open_table(folder, readonly=False) as main:
            writer = Writer(main)
            written = _Written(group, writer)
            for number, part in enumerate(group.parts, 1):
                _put_part(part, written)
                if on_subband is not None:
                    on_subband(number, len(group.parts))
            for channels in group.missing:
                written.flag(channels)
            put_row_weights(main, written.mean_weights(), written.is_flagged)
            conversion = written.conversion()
            result = {"conversion": asdict(conversion), "missing": [[each.start, each.stop] for each in group.missing]}
            main.putkeyword(_KEYWORD, json.dumps(record | result, sort_keys=True))
            main.flush(recursive=True)
        writer.compare(folder)
    return conversion


def missing_channels(main: Any) -> list[slice]:
    """Channels of an open Measurement Set of which no sub-band came; none where `convert_group` did not make it."""
    return [slice(*each) for each in _told(main).get("missing", [])]


def _put_part(part: Part, written: _Written) -> None:
    before = part.subband
    with open_subband(before.path) as (subband, source):
        is_same = _digest(subband) == _digest(before)
        turn = subband.points_to_antenna_2()
        for rows, block in _blocks(part, source, written.rows, conjugate=turn):
            written.put(rows, part.channels, block)
    now = before.path.stat()
    if not is_same or {(before.bytes, before.modified_ns)} != {
        (subband.bytes, subband.modified_ns),
        (now.st_size, now.st_mtime_ns),
    }:
        raise UnreadableError(f"{before.path} was changed while it was converted", path=str(before.path))


def _blocks(part: Part, source: Blocks, rows: int, *, conjugate: bool) -> Iterator[tuple[slice, Block]]:
    """The visibilities of a sub-band by rows of the group; flagged where it has none."""
    from absurd.tasks.visibility.loops import rotate

    told, channels, correlations = shape = source.shape

    def read(some: slice) -> Block:
        block = source.read(some, conjugate=conjugate)
        if part.path_m is not None:
            rotate(block[0], part.path_m[some], part.subband.frequencies_hz)
        return block

    if part.rows is None and part.is_reversed is None:
        for some in blocks(shape):
            yield some, read(some)
        return
    data, flags, weights = read(slice(0, told))
    if part.is_reversed is not None:
        names = part.subband.correlations
        swapped = [names.index(_SWAPPED.get(name, name)) for name in names]
        _swap(data, part.is_reversed, swapped)
        _swap(flags, part.is_reversed, swapped)
        _swap(weights, part.is_reversed, swapped)
        data[part.is_reversed] = data[part.is_reversed].conj()
    if part.rows is not None:
        shape = rows, channels, correlations
        data = _scattered(data, part.rows, np.zeros(shape, np.complex64))
        flags = _scattered(flags, part.rows, np.ones(shape, np.bool_))
        weights = _scattered(weights, part.rows, np.zeros(shape, np.float32))
    for some in blocks(shape):
        yield some, (data[some], flags[some], weights[some])


def _swap(values: NDArray[T], rows: NDArray[np.bool_], correlations: list[int]) -> None:
    values[rows] = values[rows][:, :, correlations]


def _scattered(values: NDArray[T], rows: NDArray[np.int64], into: NDArray[T]) -> NDArray[T]:
    into[rows] = values
    return into


class _Written:
    """What is written of a Measurement Set, and what it comes to."""

    def __init__(self, group: Group, writer: Writer) -> None:
        self._group, self._writer = group, writer
        self.rows, self._channels, self._correlations = group.description.shape
        self._weights = np.zeros((self.rows, self._correlations), np.float64)
        self._counted = np.zeros((self.rows, self._correlations), np.int64)
        self._invalid = 0
        self._flagged = 0

    def put(self, rows: slice, channels: slice, block: Block) -> None:
        """Write some rows and channels; what is no number becomes 0, and flagged."""
        from absurd.tasks.visibility.loops import flag_invalid

        invalid, flagged = flag_invalid(*block, self._weights[rows], self._counted[rows])
        self._invalid += invalid
        self._flagged += flagged
        for column, values in zip(_COLUMNS, block, strict=True):
            self._writer.put(column, rows, values, channels)

    def flag(self, channels: slice) -> None:
        """Flag channels of which there is nothing."""
        width = channels.stop - channels.start
        for rows in blocks((self.rows, width, self._correlations)):
            flags = np.ones((rows.stop - rows.start, width, self._correlations), np.bool_)
            self._writer.put("FLAG", rows, flags, channels)
            self._flagged += flags.size

    @property
    def is_flagged(self) -> NDArray[np.bool_]:
        """(row,): all of it."""
        flagged: NDArray[np.bool_] = np.all(self._counted == 0, axis=1)
        return flagged

    def mean_weights(self) -> NDArray[np.float32]:
        """(row, correlation), over what is not flagged; 0 where all is."""
        mean: NDArray[np.float32] = (self._weights / np.maximum(self._counted, 1)).astype(np.float32)
        return mean

    def conversion(self) -> Conversion:
        """What came of it."""
        parts = self._group.parts
        return Conversion(
            subbands=len(parts),
            rows=self.rows,
            channels=self._channels,
            correlations=self._correlations,
            missing_channels=sum(each.stop - each.start for each in self._group.missing),
            missing_rows=sum(self.rows - len(each.subband.time_s) for each in parts),
            invalid=self._invalid,
            flagged=self._flagged / max(1, self.rows * self._channels * self._correlations),
        )


def _record(group: Group) -> dict[str, Any]:
    """What tells a Measurement Set that was made from these files from others."""
    frequencies = group.description.frequencies_hz
    return {
        "files": [
            [each.path.name, each.bytes, each.modified_ns, _digest(each)]  # data alone may be other ones
            for each in (part.subband for part in group.parts)
        ],
        "channels": [float(frequencies[0]), float(frequencies[-1]), len(frequencies)],
        "version": 3,
    }


def _digest(subband: Subband) -> str:
    """SHA-256 of the times, antennas and frequencies of a file."""
    digest = hashlib.sha256()
    for each in (subband.time_s, subband.antenna1, subband.antenna2, subband.told_uvw_m, subband.frequencies_hz):
        digest.update(np.ascontiguousarray(each).data)
    return digest.hexdigest()


def _done(out: str | os.PathLike[str], record: dict[str, Any]) -> Conversion | None:
    """What came of an earlier conversion of the same files that is in its place.

    Raises StageError where what is there was made from none of these files: that of another group is not replaced.
    """
    if not (Path(out) / "table.dat").is_file():
        return None
    try:
        with open_table(out) as main:
            told = _told(main)
    except (DataError, ValueError):
        return None  # to be replaced
    conversion, _ = told.pop("conversion", None), told.pop("missing", None)
    if told == record:
        return Conversion(**conversion | {"is_new": False})
    before, now = ({(each[0], each[-1]) for each in which.get("files", [])} for which in (told, record))
    if before and before.isdisjoint(now):
        raise StageError(
            f"{os.fspath(out)} was made from other files ({min(before)[0]} and its like)",
            advice="name another folder (out), or remove it",
            path=os.fspath(out),
        )
    return None


def _told(main: Any) -> dict[str, Any]:
    """What a Measurement Set tells of how it was made."""
    told: dict[str, Any] = json.loads(main.getkeyword(_KEYWORD)) if _KEYWORD in main.keywordnames() else {}
    return told
