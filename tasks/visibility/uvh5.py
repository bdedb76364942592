"""Sub-bands as the array writes them: UVH5 files, read by h5py.

Files of other arrays are read where they say as much as this needs; `read_foreign` reads all that pyuvdata does, in
seconds instead of milliseconds.

UVH5 has u, v, w from antenna 1 to antenna 2, and visibilities that go with these; both are turned round here.  Files
whose coordinates point the other way are told by the positions of their antennas and taken as they are: what has
to hold is the phase that goes with u, v, w, see `Visibilities`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.earth import utc_s
from absurd.tasks.radio.errors import DataError, UnreadableError
from absurd.tasks.radio.telescope import geocentric_m
from absurd.tasks.said import first_line
from absurd.tasks.visibility.correlations import AIPS, in_order, named
from absurd.tasks.visibility.directions import to_icrs
from absurd.tasks.visibility.uvw import meridian_centres, uvw_m
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities, unique_names

Floats = NDArray[np.float64]

_FIXED = (0.0, math.nan)
"""Hour angle and declination where phase centres are fixed on the sky."""
_SOME = 5000
"""Rows by which the sense of coordinates is told."""
_OTHER_READER = "read_foreign (pyuvdata) may read it"


@dataclass(frozen=True, slots=True)
class Subband:
    """What a file of a sub-band tells, but for the visibilities themselves."""

    path: Path
    array: Array
    antenna1: NDArray[np.int32]
    """(row,), number of an antenna of `array`."""
    antenna2: NDArray[np.int32]
    time_s: Floats
    """(row,), see `Visibilities`."""
    exposure_s: Floats
    told_uvw_m: Floats
    """(row, 3), as the file has them: of lesser precision, towards antenna 2."""
    frequencies_hz: Floats
    """(channel,), ascending."""
    channel_width_hz: Floats
    channel_order: NDArray[np.intp]
    """(channel,), where in the file a channel stands."""
    correlations: tuple[str, ...]
    """In the order of Measurement Sets."""
    correlation_order: list[int]
    phase_centres: tuple[PhaseCentre, ...]
    """Of a telescope that stands still one for each time: where its meridian was."""
    field: NDArray[np.int32]
    """(row,)."""
    declination_rad: float
    """Apparent declination that the telescope is set to; NaN where phase centres are fixed on the sky."""
    hour_angle_rad: float
    """Where it points beside the meridian, to the west; 0 where phase centres are fixed on the sky."""
    history: tuple[str, ...]
    bytes: int
    """Of the file."""
    modified_ns: int
    """When the file was changed last, nanoseconds since 1970."""

    def uvw_m(self, rows: slice = slice(None)) -> Floats:
        """Coordinates of rows from the positions of antennas, (row, 3), metres."""
        one, two = self.antenna1[rows], self.antenna2[rows]
        return uvw_m(self.array, one, two, self.time_s[rows], self.field[rows], self.phase_centres)

    def points_to_antenna_2(self) -> bool:
        """Whether coordinates of the file do, as UVH5 has them: then visibilities have to be conjugated.

        Raises DataError if they are nothing like what positions of antennas give.
        """
        some = slice(None, None, 1 + len(self.time_s) // _SOME)
        return _points_to_antenna_2(self.told_uvw_m[some], self.uvw_m(some), self.path)


def read_subband(path: str | os.PathLike[str]) -> Visibilities:
    """The visibilities of one file; weights are its `nsamples`, and so tell no noise before they are calibrated.

    Raises DataError for what cannot be read, with the reason.
    """
    with open_subband(path) as (subband, blocks):
        turn = subband.points_to_antenna_2()
        data, flags, weights = blocks.read(slice(0, len(subband.time_s)), conjugate=turn)
    return Visibilities(
        data=data,
        flags=flags,
        weights=weights,
        uvw_m=subband.uvw_m(),
        time_s=subband.time_s,
        exposure_s=subband.exposure_s,
        antenna1=subband.antenna1,
        antenna2=subband.antenna2,
        field=subband.field,
        frequencies_hz=subband.frequencies_hz,
        channel_width_hz=subband.channel_width_hz,
        correlations=subband.correlations,
        array=subband.array,
        phase_centres=subband.phase_centres,
        history=subband.history,
    )


def read_subband_header(path: str | os.PathLike[str]) -> Subband:
    """What a file tells of itself.  Raises DataError for what cannot be read."""
    with open_subband(path) as (subband, _):
        return subband


@contextmanager
def open_subband(path: str | os.PathLike[str]) -> Iterator[tuple[Subband, Blocks]]:
    """A file's header, and its visibilities to be read by rows while the block runs.

    Nothing is locked: a program that writes the file is not disturbed.  Raises DataError for what is not as it should
    be, also while it is read, and UnreadableError, which is one, for what cannot be read now.
    """
    import h5py

    told = Path(path)
    with suppress(ImportError):  # more ways of compression, if it is installed
        import_module("hdf5plugin")
    try:
        status = told.stat()  # before anything is read: what changes later is told by it
        with h5py.File(told, "r", locking=False) as file:
            subband = _header(told, file, status)
            yield subband, Blocks(subband, file)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise UnreadableError(f"{told} is not there", path=str(told)) from error
    except KeyError as error:
        raise DataError(f"{told} cannot be read: {first_line(error)}", advice=_OTHER_READER, path=str(told)) from error
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, OSError) and (error.errno is not None or "errno = " in str(error)):  # not of HDF5 itself
            raise UnreadableError(f"{told} cannot be read: {first_line(error)}", path=str(told)) from error
        advice = "install hdf5plugin, which has more ways of compression" if "filter" in str(error) else ""
        raise DataError(f"{told} cannot be read: {first_line(error)}", advice=advice, path=str(told)) from error


class Blocks:
    """The visibilities of an open file."""

    def __init__(self, subband: Subband, file: Any) -> None:
        self._subband = subband
        self._data, self._flags, self._weights = (file["Data"][name] for name in ("visdata", "flags", "nsamples"))
        self.shape = len(subband.time_s), len(subband.frequencies_hz), len(subband.correlations)
        """Rows, channels and correlations."""
        rows, wanted = self.shape[0], self.shape
        for each in (self._data, self._flags, self._weights):
            if each.shape not in (wanted, (rows, 1, *wanted[1:])):
                raise DataError(
                    f"{subband.path}: {each.name} has shape {each.shape}, and {wanted} goes with the header",
                    advice="perhaps it was not written to its end",
                    path=str(subband.path),
                )

    def read(
        self, rows: slice, *, conjugate: bool
    ) -> tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]]:
        """Visibilities, flags and weights of some rows, (row, channel, correlation), by ascending frequency."""
        from absurd.tasks.visibility.loops import put_in_order

        shape = rows.stop - rows.start, *self.shape[1:]
        data, flags, weights = (each[rows].reshape(shape) for each in (self._data, self._flags, self._weights))
        if data.dtype.names:  # integers, as correlators have them
            data = data["r"] + np.complex64(1j) * data["i"]
        stored = data.astype(np.complex64, copy=False), flags.astype(np.bool_), weights.astype(np.float32, copy=False)
        ordered = np.empty(shape, np.complex64), np.empty(shape, np.bool_), np.empty(shape, np.float32)
        places = np.array(self._subband.correlation_order, np.intp)
        put_in_order(stored, self._subband.channel_order, places, conjugate, ordered)
        return ordered


def _header(path: Path, file: Any, status: os.stat_result) -> Subband:
    header = file["Header"]
    if _told(header, "Nspws", 1) != 1:
        raise DataError(f"{path} has several spectral windows", advice=_OTHER_READER, path=str(path))
    frequencies = np.atleast_1d(np.squeeze(np.asarray(header["freq_array"], np.float64)))
    order = np.argsort(frequencies, kind="stable")
    widths = np.broadcast_to(np.squeeze(np.abs(np.asarray(header["channel_width"], np.float64))), frequencies.shape)
    correlations = named(np.asarray(header["polarization_array"]), AIPS, path)
    places = in_order(correlations)
    time = utc_s(header["time_array"])
    array, antennas = _array(path, header)
    if not len(time):
        raise DataError(f"{path} holds no rows", path=str(path))
    rows = {name: np.asarray(header[name]) for name in ("ant_1_array", "ant_2_array")}
    unknown = {int(each) for name in rows for each in np.unique(rows[name])} - antennas.keys()
    if unknown:
        raise DataError(f"{path}: there is no antenna {min(unknown)}", path=str(path))
    lookup = np.zeros(max(antennas) + 1, np.int32)
    lookup[list(antennas)] = list(antennas.values())
    centres, field, pointing = _centres(path, header, array, time)
    return Subband(
        path=path,
        array=array,
        antenna1=lookup[rows["ant_1_array"]],
        antenna2=lookup[rows["ant_2_array"]],
        time_s=time,
        exposure_s=np.broadcast_to(np.asarray(header["integration_time"], np.float64), time.shape).copy(),
        told_uvw_m=np.asarray(header["uvw_array"], np.float64),
        frequencies_hz=frequencies[order],
        channel_width_hz=widths[order].copy(),
        channel_order=order,
        correlations=tuple(correlations[place] for place in places),
        correlation_order=places,
        phase_centres=centres,
        field=field,
        declination_rad=pointing[1],
        hour_angle_rad=pointing[0],
        history=tuple(_told(header, "history", "").splitlines()),
        bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
    )


def _array(path: Path, header: Any) -> tuple[Array, dict[int, int]]:
    """The antennas, and their places in that list by their numbers."""
    if (frame := _told(header, "telescope_frame", "itrs").lower()) not in {"itrs", "itrf"}:
        raise DataError(f"{path}: the telescope stands in frame {frame}, not on Earth", path=str(path))
    latitude, longitude, height = (np.float64(header[name][()]) for name in ("latitude", "longitude", "altitude"))
    centre = geocentric_m(*(np.array(each) for each in (latitude, longitude, height)))
    names = unique_names(_text(each) for each in header["antenna_names"][()])
    diameters = np.asarray(header["antenna_diameters"], np.float64) if "antenna_diameters" in header else np.zeros(1)
    array = Array(
        telescope=_told(header, "telescope_name", ""),
        names=names,
        positions_m=np.asarray(header["antenna_positions"], np.float64) + centre,
        dish_diameter_m=float(np.median(diameters)),
        position_m=centre,
    )
    return array, {int(number): place for place, number in enumerate(header["antenna_numbers"][()])}


def _centres(
    path: Path, header: Any, array: Array, time_s: Floats
) -> tuple[tuple[PhaseCentre, ...], NDArray[np.int32], tuple[float, float]]:
    """Phase centres, the number of each row's, and hour angle and declination of a telescope that stands still."""
    if "phase_center_catalog" in header:
        catalog = header["phase_center_catalog"]
        kinds = {number: _told(entry, "cat_type", "sidereal") for number, entry in catalog.items()}
        used = {str(each) for each in np.unique(header["phase_center_id_array"])}
        if all(kinds[each] == "sidereal" for each in used):
            places = {number: place for place, number in enumerate(catalog)}
            centres = tuple(
                _sidereal(
                    _told(entry, "cat_name", number),
                    np.ravel(entry["cat_lon"][()])[0],
                    np.ravel(entry["cat_lat"][()])[0],
                    _told(entry, "cat_frame", "icrs"),
                )
                if kinds[number] == "sidereal"
                else PhaseCentre(number, 0.0, 0.0)
                for number, entry in catalog.items()
            )
            field = np.array([places[str(each)] for each in header["phase_center_id_array"][()]], np.int32)
            return centres, field, _FIXED
        stands_still = len(used) == 1 and {kinds[each] for each in used} <= {"unprojected", "driftscan"}
    else:
        stands_still = _told(header, "phase_type", "drift") == "drift"
        if not stands_still:
            centre = _sidereal(
                _told(header, "object_name", ""),
                header["phase_center_ra"][()],
                header["phase_center_dec"][()],
                _told(header, "phase_center_frame", "icrs"),
            )
            return (centre,), np.zeros(len(time_s), np.int32), _FIXED
    extra = header.get("extra_keywords", {})
    if not stands_still or "phase_center_dec" not in extra:
        raise DataError(
            f"{path} does not tell what its visibilities are phased to (extra_keywords/phase_center_dec)",
            advice=_OTHER_READER,
            path=str(path),
        )
    declination = float(extra["phase_center_dec"][()])
    hour_angle = float(extra["ha_phase_center"][()]) if "ha_phase_center" in extra else 0.0
    if not abs(declination) <= math.pi / 2:
        raise DataError(f"{path}: phase_center_dec is {declination:g} radians", path=str(path))
    times, number_of_row = np.unique(time_s, return_inverse=True)
    centres = meridian_centres(times, declination, array, hour_angle_rad=hour_angle)
    return centres, number_of_row.astype(np.int32), (hour_angle, declination)


def _sidereal(name: str, longitude: float, latitude: float, frame: str) -> PhaseCentre:
    return PhaseCentre(name, *to_icrs(float(longitude), float(latitude), frame))


def _points_to_antenna_2(told: Floats, reckoned: Floats, path: Path) -> bool:
    """Whether coordinates of a file go from antenna 1 to antenna 2, as UVH5 has them, or the other way."""
    crosses = np.any(reckoned != 0, axis=1)
    if not crosses.any():
        return True
    told, reckoned = told[crosses], reckoned[crosses]
    length = float(np.median(np.linalg.norm(reckoned, axis=1)))
    # Theirs may have the north of date: only far from what is right are they taken for wrong.
    opposite, same = (float(np.median(np.linalg.norm(told + sign * reckoned, axis=1))) for sign in (1, -1))
    if min(opposite, same) > length / 2:
        raise DataError(
            f"{path}: coordinates of baselines are {min(opposite, same):.3g} m from what positions of antennas give, "
            f"with baselines of {length:.3g} m",
            advice="positions, times or the declination are wrong",
            path=str(path),
        )
    return opposite <= same


def _told(group: Any, name: str, default: Any) -> Any:
    if name not in group:
        return default
    value = group[name][()]
    return _text(value) if isinstance(default, str) else value


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
