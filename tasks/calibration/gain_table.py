"""Gains in a folder: a Zarr group, format 3, with a group for each table, that appears under its name when it is whole.

Arrays of a table: ``gain`` complex128 (time, antenna, channel, polarisation; of a delay ``delay`` float64, seconds),
``flag`` bool and ``snr`` float32 of the same shape, ``time`` and ``interval`` float64 (time,) in seconds (``time`` with
the units by which xarray reads it as UTC), ``reference`` int64 (time,) the number of an antenna, ``frequency`` float64
(channel,) Hz.  Attributes: ``kind``, ``antennas``, ``polarisations``, ``source``, ``ra_deg``, ``dec_deg`` (ICRS),
``warnings``, ``chi_squared``, ``outliers``.

Nothing in it tells when or by which task it was written: the same gains with the same provenance have the same
checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.folder import fill_aside
from absurd.tasks.radio.errors import CalibrationError
from absurd.tasks.radio.storage import zarr_package

FORMAT = 1
PRODUCT = "gain set"
TIME_UNITS = "seconds since 1858-11-17T00:00:00"
"""Of CF: the day on which MJD 0 begins."""
AXES = ("time", "antenna", "channel", "polarisation")
_MEMBER = re.compile(rf"zarr\.json|(?:{'|'.join(get_args(Kind))})(?:_\d+)?")
"""Names in the folder of a set, see `table_names`."""
CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class GainSet:
    """Tables that are applied together, in this order."""

    tables: tuple[Gains, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """How they were made: JSON, without times of day or names of machines, which would be other ones the next time."""

    def __post_init__(self) -> None:
        if not self.tables:
            raise CalibrationError("a gain set has at least one table")

    @property
    def checksum(self) -> str:
        """SHA-256 of all numbers, names and the provenance, as 64 hexadecimal digits: not of how they are stored."""
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece)
        return digest.hexdigest()

    def _pieces(self) -> Iterator[bytes]:
        yield json.dumps([FORMAT, self.provenance], sort_keys=True).encode()
        for each in self.tables:
            yield json.dumps([_attributes(each), list(each.values.shape)], sort_keys=True).encode()
            for _, array, _ in _arrays(each):
                yield np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a gain set was written."""

    path: str
    bytes: int
    checksum: str


def write_gains(path: str | os.PathLike[str], gains: GainSet, *, replace: bool = False) -> Stored:
    """Store a set in a folder, which is whole or absent under this name.

    If it is there already nothing is written.  Raises CalibrationError where the folder holds something else, but for
    a gain set, damaged or not, that is to be replaced; OSError; DependencyError without zarr.
    """
    final, checksum = Path(path), gains.checksum
    if os.path.lexists(final):
        try:
            there = read_gains(final).checksum
        except CalibrationError:
            there = ""
        if there == checksum:
            return Stored(os.path.abspath(final), _size(final), checksum)
        if not replace and (not final.is_dir() or any(final.iterdir())):
            raise CalibrationError(
                f"{final} holds something else than these gains", advice="write them under another name, or replace it"
            )
    zarr = zarr_package()
    with fill_aside(final, check_older=_check_older) as folder:
        names = table_names(gains.tables)
        root = zarr.open_group(folder, mode="w", zarr_format=3)
        root.attrs.update(
            {
                "product": PRODUCT,
                "format": FORMAT,
                "tables": names,
                "provenance": dict(gains.provenance),
                "checksum": checksum,
            }
        )
        for name, each in zip(names, gains.tables, strict=True):
            _fill(root.create_group(name), each)
        if read_gains(folder).checksum != checksum:  # a disk or a codec that does not give back what it was given
            raise CalibrationError(f"gains written to {folder} are not those that were to be written")
    return Stored(os.path.abspath(final), _size(final), checksum)


def _check_older(folder: Path) -> None:
    if strange := sorted(each for each in os.listdir(folder) if not _MEMBER.fullmatch(each)):
        raise CalibrationError(f"{folder} holds {strange[0]}, which is of no gain set", advice="choose another name")


def read_gains(path: str | os.PathLike[str], *, checksum: str | None = None) -> GainSet:
    """The set in a folder.

    Raises CalibrationError where there is none, where it is not what was written (its checksum tells), or is not the
    one that has this `checksum`; DependencyError without zarr.
    """
    zarr = zarr_package()
    try:
        root = zarr.open_group(Path(path), mode="r")
        told: dict[str, Any] = dict(root.attrs)
        if told.get("product") != PRODUCT or told.get("format") != FORMAT:
            raise CalibrationError(f"{path} is no gain set of format {FORMAT}")
        gains = GainSet(tuple(_table(root[name]) for name in told["tables"]), told["provenance"])
        found = gains.checksum
    except FileNotFoundError as error:
        raise CalibrationError(f"there are no gains in {path}", path=str(path)) from error
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise CalibrationError(f"gains in {path} cannot be read: {error}", path=str(path)) from error
    if found != told.get("checksum"):
        raise CalibrationError(f"gains in {path} are damaged: their checksum is another than when they were written")
    if checksum is not None and found != checksum:
        raise CalibrationError(
            f"gains in {path} are not those that were registered: SHA-256 {found[:12]}, {checksum[:12]} was registered",
            path=str(path),
        )
    return gains


def table_names(tables: Sequence[Gains]) -> list[str]:
    """Of tables of a set: their kinds, with a number where one comes again."""
    names: list[str] = []
    for each in tables:
        before = sum(other.kind == each.kind for other in tables[: len(names)])
        names.append(f"{each.kind}_{before + 1}" if before else each.kind)
    return names


def _attributes(gains: Gains) -> dict[str, Any]:
    return {
        "kind": gains.kind,
        "antennas": list(gains.antennas),
        "polarisations": list(gains.polarisations),
        "source": gains.source,
        "ra_deg": _degrees(gains.ra_rad),
        "dec_deg": _degrees(gains.dec_rad),
        "warnings": list(gains.warnings),
        "chi_squared": _known(gains.chi_squared),
        "outliers": _known(gains.outliers),
    }


def _arrays(gains: Gains) -> Iterator[tuple[str, NDArray[Any], tuple[str, ...]]]:
    """Name, values and axes of each."""
    numbers = {name: number for number, name in enumerate(gains.antennas)}
    if gains.kind == "delay":
        yield "delay", gains.values.real, AXES
    else:
        yield "gain", gains.values, AXES
    yield "flag", gains.flags, AXES
    yield "snr", gains.snr, AXES
    yield "time", gains.time_s, ("time",)
    yield "interval", gains.interval_s, ("time",)
    yield "reference", np.array([numbers.get(each, -1) for each in gains.reference], np.int64), ("time",)
    yield "frequency", gains.frequencies_hz, ("channel",)


_UNITS = {
    "time": {"units": TIME_UNITS, "calendar": "proleptic_gregorian"},
    "interval": {"unit": "s"},
    "frequency": {"unit": "Hz"},
    "delay": {"unit": "s"},
}
"""`units` is what xarray turns into times, so only those have it."""


def _fill(group: Any, gains: Gains) -> None:
    group.attrs.update(_attributes(gains))
    for name, values, axes in _arrays(gains):
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=_chunks(values),
            dtype=values.dtype,
            dimension_names=axes,
            fill_value=values.dtype.type(0),
        )
        array.attrs.update(_UNITS.get(name, {}))
        array[...] = values


def _chunks(values: NDArray[Any]) -> tuple[int, ...]:
    """Whole in all axes but the first, of which as many as make a chunk."""
    one = max(1, values.itemsize * math.prod(values.shape[1:]))
    return (max(1, min(len(values), CHUNK_BYTES // one)), *values.shape[1:])


def _table(group: Any) -> Gains:
    told = dict(group.attrs)
    antennas = tuple(told["antennas"])
    name = "delay" if told["kind"] == "delay" else "gain"
    return Gains(
        kind=told["kind"],
        values=np.asarray(group[name][...], np.complex128),
        flags=np.asarray(group["flag"][...], np.bool_),
        snr=np.asarray(group["snr"][...], np.float32),
        time_s=np.asarray(group["time"][...], np.float64),
        interval_s=np.asarray(group["interval"][...], np.float64),
        frequencies_hz=np.asarray(group["frequency"][...], np.float64),
        polarisations=tuple(told["polarisations"]),
        antennas=antennas,
        reference=tuple(antennas[each] if each >= 0 else "" for each in np.asarray(group["reference"][...]).tolist()),
        source=told["source"],
        ra_rad=_radians(told["ra_deg"]),
        dec_rad=_radians(told["dec_deg"]),
        warnings=tuple(told["warnings"]),
        chi_squared=_number(told["chi_squared"]),
        outliers=_number(told["outliers"]),
    )


def _degrees(angle: float) -> float | None:
    """Of radians, to 1e-9 degrees, so that it comes back as the same number; None for not-a-number."""
    return round(math.degrees(angle), 9) if math.isfinite(angle) else None


def _radians(angle: float | None) -> float:
    return math.nan if angle is None else math.radians(angle)


def _known(value: float) -> float | None:
    """JSON has no not-a-number."""
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _size(folder: Path) -> int:
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)
