"""Small sub-band files as the array writes them: whole, half written, of other recordings."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

NIGHT = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)
TILE_S = 309.24
"""From one recording to the next."""
INTEGRATION_S = 12.884902
LONGITUDE_DEG = -118.2834
ANTENNAS_M = np.array([(0.0, 0, 0), (20.0, 5, 1), (-7.0, 40, 3)])
"""Geocentric, less the place of the array."""
_UNIX_JD = 2440587.5


def name_of(number: int, tile: int = 0, jitter_s: float = 0.0) -> str:
    """The name of a sub-band of a recording, with its stamp so much off."""
    stamp = NIGHT + timedelta(seconds=tile * TILE_S + jitter_s)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}_sb{number:02d}.hdf5"


def write_subband(
    folder: Path, number: int, tile: int = 0, *, jitter_s: float = 0.0, declination_deg: float = 16.1, times: int = 2
) -> Path:
    """Write a file of three antennas and two channels aside, and give it its name."""
    path = folder / name_of(number, tile, jitter_s)
    aside = path.with_name(f".{path.name}.part")
    begins = (NIGHT + timedelta(seconds=tile * TILE_S)).timestamp() / 86400 + _UNIX_JD
    pairs = np.array([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)])
    rows = times * len(pairs)
    with h5py.File(aside, "w") as file:
        header = file.create_group("Header")
        header["latitude"], header["longitude"], header["altitude"] = 37.2334, LONGITUDE_DEG, 1188.0
        header["telescope_name"], header["instrument"], header["object_name"] = b"OVRO_MMA", b"DSA", b"drift"
        header["antenna_names"] = np.array([b"pad1", b"pad2", b"pad3"])
        header["antenna_numbers"] = np.arange(3)
        header["antenna_positions"] = ANTENNAS_M
        header["antenna_diameters"] = np.full(3, 4.65)
        header["Nants_telescope"], header["Nants_data"], header["Nblts"] = 3, 3, rows
        header["Nbls"], header["Ntimes"], header["Nfreqs"], header["Npols"], header["Nspws"] = 6, times, 2, 2, 1
        header["ant_1_array"], header["ant_2_array"] = np.tile(pairs, (times, 1)).T
        header["time_array"] = np.repeat(begins + np.arange(times) * INTEGRATION_S / 86400, len(pairs))
        header["integration_time"] = np.full(rows, INTEGRATION_S)
        header["uvw_array"] = np.tile(_uvw_m(pairs, np.radians(declination_deg)), (times, 1)).astype(np.float32)
        top = 1498.75e6 - number * 11.71875e6
        header["freq_array"] = np.array([[top - 5.859375e6 / 2, top - 5.859375e6 * 1.5]])
        header["channel_width"] = 5.859375e6
        header["spw_array"], header["polarization_array"] = np.array([1]), np.array([-5, -6])
        header["phase_type"], header["history"], header["vis_units"] = b"drift", b"made for a test", b"uncalib"
        header["extra_keywords/phase_center_dec"] = np.radians(declination_deg)
        header["extra_keywords/ha_phase_center"] = 0.0
        header["extra_keywords/phase_center_epoch"] = b"HADEC"
        shape = (rows, 1, 2, 2)
        noise = np.random.default_rng([tile, number])
        data = noise.normal(size=shape) + 1j * noise.normal(size=shape)
        file.create_dataset("Data/visdata", data=data.astype(np.complex64))
        file.create_dataset("Data/flags", data=np.zeros(shape, bool))
        file.create_dataset("Data/nsamples", data=np.ones(shape, np.float32))
    os.replace(aside, path)
    return path


def _uvw_m(pairs: NDArray[np.int64], declination: float) -> NDArray[np.float64]:
    """(baseline, 3) towards the meridian, from antenna 1 to antenna 2, as UVH5 counts."""
    longitude = np.radians(LONGITUDE_DEG)
    x, y, z = (ANTENNAS_M[pairs[:, 1]] - ANTENNAS_M[pairs[:, 0]]).T
    meridian, east = x * np.cos(longitude) + y * np.sin(longitude), y * np.cos(longitude) - x * np.sin(longitude)
    north = z * np.cos(declination) - meridian * np.sin(declination)
    return np.stack([east, north, meridian * np.cos(declination) + z * np.sin(declination)], axis=1)
