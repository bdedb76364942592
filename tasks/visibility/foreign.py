"""Visibilities of other arrays: UVFITS, any UVH5, Measurement Sets and what else pyuvdata reads.

pyuvdata has u, v, w from antenna 1 to antenna 2, and visibilities that go with these; both are turned round here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DataError, UnreadableError, ValidationError
from absurd.tasks.said import first_line
from absurd.tasks.visibility.correlations import AIPS, in_order, named
from absurd.tasks.visibility.directions import to_icrs
from absurd.tasks.visibility.measurement_set import read_measurement_set
from absurd.tasks.visibility.uvw import place_of, uvw_m
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities, unique_names

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float64]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_FITS = b"SIMPLE  ="
_FIXED = "sidereal"
_UNPROJECTED = "unprojected"


def read_visibilities(
    path: str | os.PathLike[str],
    *,
    spectral_window: int | None = None,
    column: str = "DATA",
    fields: Sequence[int | str] | None = None,
) -> Visibilities:
    """Whatever a path holds: a Measurement Set, a sub-band, or what `read_foreign` reads.

    `column` and `fields` go for Measurement Sets alone.  Raises DataError with the reason for what cannot be read.
    """
    from absurd.tasks.visibility.uvh5 import read_subband

    kind = file_type(path)
    if kind == "ms":
        return read_measurement_set(path, spectral_window=spectral_window, column=column, fields=fields)
    if column != "DATA" or fields is not None:
        raise ValidationError(f"{os.fspath(path)} is no Measurement Set: it has neither columns nor fields")
    if kind == "uvh5" and not spectral_window:
        try:
            return read_subband(path)
        except DataError as error:
            if not error.advice:
                raise
    return read_foreign(path, spectral_window=spectral_window)


def file_type(path: str | os.PathLike[str]) -> str:
    """``ms``, ``uvh5``, ``uvfits`` or ``miriad``, by content.  Raises DataError for anything else.

    UnreadableError, which is one, for what is not there or cannot be read now.
    """
    told = Path(path)
    try:
        if told.is_dir():
            if (told / "table.dat").is_file():
                return "ms"
            if (told / "visdata").is_file():
                return "miriad"
            raise DataError(f"{told} is a folder, and no Measurement Set", path=str(told))
        with told.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise UnreadableError(f"{told} is not there", path=str(told)) from error
    except OSError as error:
        raise UnreadableError(f"{told} cannot be read: {error.strerror}", path=str(told)) from error
    if start.startswith(_HDF5):
        return "uvh5"
    if start.startswith(_FITS):
        return "uvfits"
    raise DataError(f"{told} holds no visibilities: it is neither HDF5 nor FITS nor a Measurement Set", path=str(told))


def read_foreign(path: str | os.PathLike[str], *, spectral_window: int | None = None) -> Visibilities:
    """All visibilities of a spectral window, by pyuvdata; its number is its place among those that the file has.

    Rows may have any times and exposures (averaged more on shorter baselines, too).  Those that are not phased to
    anything get the zenith in the middle of the recording as phase centre; those that follow something in the sky
    or stand still over the Earth get one for each time.  Weights are numbers of samples.

    Raises DataError with the reason for what cannot be read.
    """
    told = os.fspath(path)
    kind = file_type(path)
    if kind == "ms":  # of which pyuvdata asks the network where the telescope is
        return read_measurement_set(path, spectral_window=spectral_window)
    with _reading(told):
        data = _loaded(told, kind)
        array, numbers = _array(data, told)
        channels = _channels(data, spectral_window, told)
        correlations = named(data.polarization_array, AIPS, told)
        return _converted(data, array, numbers, channels, correlations, told)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    from absurd.errors import AbsurdError

    try:
        with quiet():
            yield
    except AbsurdError:
        raise
    except Exception as error:  # pyuvdata, astropy and h5py raise whatever they meet
        raise DataError(f"{path} cannot be read: {first_line(error)}", path=path) from error


def _loaded(path: str, kind: str) -> Any:
    from astropy.utils import iers
    from pyuvdata import UVData

    data = UVData()
    unchecked = {"run_check": False, "run_check_acceptability": False, "background_lsts": False}
    with iers.conf.set_temp("auto_download", False):  # sidereal times, which nothing here depends on
        data.read(path, file_type=kind, **unchecked)
        if data.flex_spw_polarization_array is not None:
            data.remove_flex_pol()
    return data


def _array(data: Any, path: str) -> tuple[Array, NDArray[np.int32]]:
    """The antennas, and their places in that list by their numbers."""
    telescope = data.telescope
    location = telescope.location
    if not hasattr(location, "to_geodetic") or type(location).__name__ != "EarthLocation":
        raise DataError(f"{path}: the telescope does not stand on Earth", path=path)
    centre = np.array([getattr(location, axis).to_value("m") for axis in "xyz"], np.float64)
    diameters = telescope.antenna_diameters
    numbers = np.asarray(telescope.antenna_numbers)
    places = np.zeros(int(numbers.max()) + 1, np.int32)
    places[numbers] = np.arange(len(numbers))
    return (
        Array(
            telescope=str(telescope.name),
            names=unique_names(str(each) for each in telescope.antenna_names),
            positions_m=np.asarray(telescope.antenna_positions, np.float64) + centre,
            dish_diameter_m=float(np.median(diameters)) if diameters is not None else 0.0,
            position_m=centre,
        ),
        places,
    )


def _channels(data: Any, spectral_window: int | None, path: str) -> NDArray[np.intp]:
    """Where the channels of a spectral window stand, by ascending frequency."""
    windows = list(np.atleast_1d(data.spw_array))
    if spectral_window is None and len(windows) > 1:
        raise DataError(f"{path} has {len(windows)} spectral windows", advice="name one (spectral_window)", path=path)
    wanted = spectral_window or 0
    if not 0 <= wanted < len(windows):
        raise ValidationError(f"{path} has no spectral window {wanted}; it has {len(windows)}", path=path)
    chosen = np.arange(data.Nfreqs)
    if len(windows) > 1:
        chosen = np.flatnonzero(np.asarray(data.flex_spw_id_array) == windows[wanted])
    ordered: NDArray[np.intp] = chosen[np.argsort(np.asarray(data.freq_array)[chosen], kind="stable")]
    return ordered


def _converted(
    data: Any,
    array: Array,
    places: NDArray[np.int32],
    channels: NDArray[np.intp],
    correlations: tuple[str, ...],
    path: str,
) -> Visibilities:
    from absurd.tasks.radio.earth import utc_s
    from absurd.tasks.visibility.loops import rotate

    order = in_order(correlations)
    time = utc_s(data.time_array)
    antenna1, antenna2 = places[data.ant_1_array], places[data.ant_2_array]
    centres, field, is_unprojected = _centres(data, array, time, path)
    frequencies = np.asarray(data.freq_array, np.float64)[channels]
    turned = np.conjugate(_picked(data.data_array, channels, order)).astype(np.complex64, copy=False)
    uvw = -np.asarray(data.uvw_array, np.float64)
    if is_unprojected.any():
        reckoned = uvw_m(array, antenna1, antenna2, time, field, centres)
        uvw[is_unprojected] = reckoned[is_unprojected]
        rotate(turned, np.where(is_unprojected, reckoned[:, 2], 0.0), frequencies)
    weights = _picked(data.nsample_array, channels, order).astype(np.float32, copy=False)
    scans = data.scan_number_array
    return Visibilities(
        data=turned,
        flags=_picked(data.flag_array, channels, order),
        weights=np.maximum(np.nan_to_num(weights), 0),
        uvw_m=uvw,
        time_s=time,
        exposure_s=np.asarray(data.integration_time, np.float64),
        antenna1=antenna1,
        antenna2=antenna2,
        field=field,
        frequencies_hz=frequencies,
        channel_width_hz=np.abs(np.broadcast_to(data.channel_width, data.Nfreqs)[channels]).astype(np.float64),
        correlations=tuple(correlations[each] for each in order),
        array=array,
        phase_centres=centres,
        scan=np.ones(len(time), np.int32) if scans is None else np.asarray(scans, np.int32),
        history=tuple(line for line in str(data.history).splitlines() if line),
    )


def _picked(values: NDArray[Any], channels: NDArray[np.intp], correlations: list[int]) -> NDArray[Any]:
    chosen = values if len(channels) == values.shape[1] and np.all(np.diff(channels) == 1) else values[:, channels]
    return chosen if correlations == sorted(correlations) else chosen[:, :, correlations]


def _centres(
    data: Any, array: Array, time_s: Floats, path: str
) -> tuple[tuple[PhaseCentre, ...], NDArray[np.int32], NDArray[np.bool_]]:
    """Phase centres, the number of each row's, and which rows are not phased to any."""
    centres: list[PhaseCentre] = []
    field = np.zeros(len(time_s), np.int32)
    is_unprojected = np.zeros(len(time_s), np.bool_)
    for number, entry in data.phase_center_catalog.items():
        rows = np.asarray(data.phase_center_id_array) == number
        if not rows.any():
            continue
        kind, name = entry["cat_type"], str(entry["cat_name"])
        if kind == "near_field":
            raise DataError(f"{path}: {name} is in the near field, where waves are not plane", path=path)
        field[rows] = len(centres)
        if kind == _FIXED:
            longitude, latitude = (float(np.ravel(entry[each])[0]) for each in ("cat_lon", "cat_lat"))
            centres.append(PhaseCentre(name, *to_icrs(longitude, latitude, entry["cat_frame"])))
        elif kind == _UNPROJECTED:
            is_unprojected |= rows
            times = time_s[rows]
            centres.append(_zenith(array, (times.min() + times.max()) / 2))
        else:
            times, number_of = np.unique(time_s[rows], return_inverse=True)
            field[rows] += number_of.astype(np.int32)
            centres += _followed(data, rows, number_of, times, name, array)
    return tuple(centres), field, is_unprojected


def _zenith(array: Array, time_s: float) -> PhaseCentre:
    from absurd.tasks.radio.earth import icrs

    place = place_of(array.position_m)
    ra, dec = icrs(0.0, np.radians(place.latitude_deg), time_s, place)
    return PhaseCentre("zenith", float(ra), float(dec))


def _followed(
    data: Any, rows: NDArray[np.bool_], number_of: NDArray[np.intp], times: Floats, name: str, array: Array
) -> list[PhaseCentre]:
    """Where something that moves was at each time, by its apparent place."""
    from absurd.tasks.radio.earth import icrs, sidereal_rad

    place = place_of(array.position_m)
    first = np.array([np.flatnonzero(number_of == each)[0] for each in range(len(times))])
    ra, dec = (np.asarray(each)[rows][first] for each in (data.phase_center_app_ra, data.phase_center_app_dec))
    hour_angles = sidereal_rad(times, place) - ra
    directions = zip(*icrs(hour_angles, dec, times, place), strict=True)
    return [PhaseCentre(f"{name}_t{number}", float(one), float(two)) for number, (one, two) in enumerate(directions)]
