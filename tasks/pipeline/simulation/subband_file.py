"""A sub-band's file as DSA-110 writes it: UVH5 of the older layout, phased to the meridian, channels from high to low.

In UVH5 a baseline is antenna 2 less antenna 1, and a visibility of antennas p and q is conj(v_p) v_q: so uvw and data
have the other sign than in a Measurement Set.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from absurd.tasks.artifact import write_aside
from absurd.tasks.pipeline.simulation.recording import Recording
from absurd.tasks.radio.telescope import Telescope

_MJD_0 = 2_400_000.5
_POLARISATIONS = {"XX": -5, "YY": -6, "XY": -7, "YX": -8, "RR": -1, "LL": -2, "RL": -3, "LR": -4}
"""Numbers of AIPS memo 117."""


def file_name(stamp: datetime, subband: int) -> str:
    """``YYYY-MM-DDThh:mm:ss_sbNN.hdf5``."""
    return f"{stamp:%Y-%m-%dT%H:%M:%S}_sb{subband:02d}.hdf5"


def write_subband(
    recording: Recording, group: int, subband: int, path: Path, advance: Callable[[], None] = lambda: None
) -> None:
    """Write the file of a sub-band, whole or not at all; `advance` is called after each integration.

    No more than an integration is in memory.  Raises OSError.
    """
    with write_aside(path) as part, h5py.File(part, "w", locking=False) as file:  # write_aside has it locked
        header, data = file.create_group("Header"), file.create_group("Data")
        for name, value in _header(recording, group, subband).items():
            header[name] = np.bytes_(value) if isinstance(value, str) else value
        extra = header.create_group("extra_keywords")
        extra["phase_center_dec"] = recording.declination_rad
        extra["ha_phase_center"] = 0.0
        extra["phase_center_epoch"] = np.bytes_("HADEC")
        band, times = recording.telescope.band, recording.telescope.integrations
        baselines, kinds = len(recording.baselines[0]), len(recording.telescope.correlations)
        shape = (times * baselines, 1, band.channels, kinds)
        visibilities = data.create_dataset("visdata", shape, np.complex64)
        flags = data.create_dataset("flags", shape, np.bool_)
        samples = data.create_dataset("nsamples", shape, np.float32)
        order = slice(None, None, -1 if band.descending else 1)
        for at, integration in enumerate(recording.integrations(group, subband)):
            rows = slice(at * baselines, (at + 1) * baselines)
            visibilities[rows, 0] = np.conj(integration.data[:, order])
            flags[rows, 0] = np.zeros(shape[2:], np.bool_)
            received = np.where(integration.lost, 0, 1).astype(np.float32)
            samples[rows, 0] = np.broadcast_to(received[:, None, None], integration.data.shape)
            advance()


def _header(recording: Recording, group: int, subband: int) -> dict[str, Any]:
    telescope, times = recording.telescope, recording.telescope.integrations
    one, two = recording.baselines
    numbers = antenna_numbers(telescope)
    frequencies = telescope.band.subband_frequencies_hz(subband)
    return {
        "telescope_name": telescope.casa_name,
        "instrument": telescope.name,
        "object_name": "search",
        "history": f"simulated, seed {recording.settings.seed}",
        "vis_units": "Jy" if _is_calibrated(recording) else "uncalib",
        "phase_type": "drift",
        "latitude": telescope.latitude_deg,
        "longitude": telescope.longitude_deg,
        "altitude": telescope.height_m,
        "Nants_data": recording.antennas,
        "Nants_telescope": recording.antennas,
        "Nbls": len(one),
        "Nblts": times * len(one),
        "Nfreqs": len(frequencies),
        "Npols": len(telescope.correlations),
        "Nspws": 1,
        "Ntimes": times,
        "antenna_names": np.array(telescope.antenna_names, "S"),
        "antenna_numbers": numbers,
        "antenna_positions": telescope.positions_m - telescope.position_m,
        "antenna_diameters": np.full(recording.antennas, telescope.dish_diameter_m),
        "ant_1_array": np.tile(numbers[one], times),
        "ant_2_array": np.tile(numbers[two], times),
        "time_array": np.repeat(_MJD_0 + recording.time_s(group) / 86_400, len(one)),
        "integration_time": np.full(times * len(one), telescope.integration_s),
        "uvw_array": np.tile(-recording.uvw_m.astype(np.float32), (times, 1)),
        "freq_array": (frequencies[::-1] if telescope.band.descending else frequencies)[None],
        "channel_width": telescope.band.channel_width_hz,
        "spw_array": np.array([1]),
        "polarization_array": np.array([_POLARISATIONS[each] for each in telescope.correlations]),
    }


def antenna_numbers(telescope: Telescope) -> NDArray[np.int64]:
    """As the files have them: those of the stations, from 0; or just one after the other, where names have none."""
    found = [re.search(r"(\d+)$", each) for each in telescope.antenna_names]
    numbers = [int(each[1]) - 1 for each in found if each]
    if len(set(numbers)) < len(found) or min(numbers) < 0:
        numbers = list(range(len(found)))
    return np.array(numbers)


def _is_calibrated(recording: Recording) -> bool:
    return recording.settings.gains == "perfect" and not recording.settings.bandpass
