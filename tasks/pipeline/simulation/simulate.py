"""Simulations as files, and in memory for what has no use for files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.pipeline.simulation.recording import Recording, plan
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.subband_file import file_name, write_subband
from absurd.tasks.pipeline.simulation.truth import truth_of, write_truth
from absurd.tasks.visibility.uvw import meridian_centres, uvw_m
from absurd.tasks.visibility.visibilities import Array, Visibilities


@dataclass(frozen=True, slots=True)
class Simulated:
    """What was written."""

    files: tuple[str, ...]
    """Paths of sub-bands, group by group."""
    truth: str
    """Folder of the truth."""
    recording: Recording


def simulate(
    settings: SimulationSettings, folder: str | Path, progress: Callable[[int, int], None] | None = None
) -> Simulated:
    """Write the sub-bands of all groups into a folder, and what is true of them beside.

    `progress` is told how many integrations of how many are done.  Files of the same names are replaced.  Raises
    ValidationError, ConfigurationError, DataError (see `plan`), OSError.
    """
    recording = plan(settings)
    place = Path(folder)
    wanted = [
        (group, subband)
        for group in range(settings.groups)
        for subband in recording.subbands
        if subband not in settings.missing
    ]
    done, total = 0, len(wanted) * recording.telescope.integrations

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    files = []
    for group, subband in wanted:
        path = place / file_name(recording.stamp(group, subband), subband)
        write_subband(recording, group, subband, path, advance)
        files.append(str(path))
    truth = place / f"{file_name(recording.stamp(0, 0), 0).partition('_')[0]}_truth"
    write_truth(recording, [Path(each).name for each in files], truth)
    return Simulated(tuple(files), str(truth), recording)


def simulate_in_memory(
    settings: SimulationSettings, *, group: int = 0, subbands: Iterable[int] | None = None
) -> tuple[Visibilities, Gains, Gains]:
    """One group without files: visibilities, true gains per integration, and true bandpass.

    Sub-bands have to lie beside one another.  Each integration has a phase centre of its own, on the meridian.
    """
    recording = plan(settings)
    numbers = sorted(recording.subbands if subbands is None else subbands, reverse=recording.telescope.band.descending)
    telescope = recording.telescope
    frequencies = np.concatenate([telescope.band.subband_frequencies_hz(each) for each in numbers])
    one, two = recording.baselines
    times, rows = recording.time_s(group), len(one)
    data = np.empty((len(times) * rows, len(frequencies), len(telescope.correlations)), np.complex64)
    flags = np.zeros(data.shape, np.bool_)
    for at, subband in enumerate(numbers):
        channels = slice(at * telescope.band.channels, (at + 1) * telescope.band.channels)
        for number, integration in enumerate(recording.integrations(group, subband)):
            block = slice(number * rows, (number + 1) * rows)
            data[block, channels] = integration.data
            flags[block, channels] = integration.lost[:, None, None]
    array = Array(
        telescope.casa_name,
        telescope.antenna_names,
        telescope.positions_m,
        telescope.dish_diameter_m,
        telescope.position_m,
    )
    centres = meridian_centres(times, recording.declination_rad, array)
    time, field = np.repeat(times, rows), np.repeat(np.arange(len(times), dtype=np.int32), rows)
    antenna1, antenna2 = (np.tile(each, len(times)).astype(np.int32) for each in (one, two))
    truth = truth_of(recording)
    visibilities = Visibilities(
        data=data,
        flags=flags,
        weights=np.broadcast_to(np.float32(1 / (recording.noise_jy or 1) ** 2), data.shape),
        uvw_m=uvw_m(array, antenna1, antenna2, time, field, centres),
        time_s=time,
        exposure_s=np.full(len(data), telescope.integration_s),
        antenna1=antenna1,
        antenna2=antenna2,
        field=field,
        frequencies_hz=frequencies,
        channel_width_hz=np.full(len(frequencies), telescope.band.channel_width_hz),
        correlations=telescope.correlations,
        array=array,
        phase_centres=centres,
        history=(f"simulated, seed {settings.seed}",),
    )
    return visibilities, truth.as_gains(), truth.as_bandpass()
