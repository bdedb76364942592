"""The truth beside a simulation: what its sky, its antennas and its interference were.

A folder: ``simulation.json`` (settings and facts), ``sources.csv``, and ``truth.zarr`` with gains (time, antenna,
polarisation), bandpass (antenna, channel, polarisation), interference (time, channel) and lost (subband, time,
antenna), which xarray opens.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.calibration.sky_model import SkyModel
from absurd.tasks.folder import fill_aside
from absurd.tasks.pipeline.simulation import sky
from absurd.tasks.pipeline.simulation.recording import EPOCH, Recording
from absurd.tasks.radio import earth
from absurd.tasks.radio.errors import DataError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float64]
_FACTS, _SOURCES, _ARRAYS = "simulation.json", "sources.csv", "truth.zarr"


@dataclass(frozen=True, slots=True)
class Truth:
    """What was simulated."""

    facts: dict[str, Any]
    """As ``simulation.json`` holds them."""
    sources: tuple[sky.Source, ...]
    gains: NDArray[np.complex128]
    """(time, antenna, polarisation); 0 where an antenna is dead."""
    bandpass: NDArray[np.complex128]
    """(antenna, channel, polarisation)."""
    interference: NDArray[np.bool_]
    """(time, channel): where somebody else transmitted."""
    lost: NDArray[np.bool_]
    """(subband, time, antenna): whose packets did not come."""
    time_s: Floats
    """(time,), of all groups: middles of integrations, seconds of UTC since MJD 0."""
    frequencies_hz: Floats
    """(channel,), of all sub-bands, ascending."""
    antennas: tuple[str, ...]
    polarisations: tuple[str, ...]

    def as_sky_model(self) -> SkyModel:
        """The sources, before any beam."""
        return SkyModel(tuple(each.as_component() for each in self.sources))

    def as_gains(self) -> Gains:
        """The gains as a solver would give them, per integration; flagged where an antenna is dead."""
        values = self.gains[:, :, None, :]
        interval = np.full(len(self.time_s), self.facts["integration_s"])
        return self._table("gain", values, self.time_s, interval, np.array([self.frequencies_hz.mean()]))

    def as_bandpass(self) -> Gains:
        """The bandpass as a solver would give it, one for all times."""
        start, end = (edge * self.facts["integration_s"] / 2 for edge in (-1, 1))
        start, end = self.time_s[0] + start, self.time_s[-1] + end
        middle, length = np.array([(start + end) / 2]), np.array([end - start])
        return self._table("bandpass", self.bandpass[None], middle, length, self.frequencies_hz)

    def _table(
        self, kind: Any, values: NDArray[np.complex128], time: Floats, interval: Floats, channels: Floats
    ) -> Gains:
        flags = values == 0
        return Gains(
            kind=kind,
            values=np.where(flags, 1, values),
            flags=flags,
            snr=np.where(flags, 0, np.inf).astype(np.float32),
            time_s=time,
            interval_s=interval,
            frequencies_hz=channels,
            polarisations=self.polarisations,
            antennas=self.antennas,
            reference=("",) * len(time),
            source="simulation",
        )


def truth_of(recording: Recording) -> Truth:
    """What is known of a recording beforehand: it is drawn, not measured."""
    groups = range(recording.settings.groups)
    time = np.concatenate([recording.time_s(each) for each in groups])
    lost = [[recording.lost(group, subband) for group in groups] for subband in recording.subbands]
    return Truth(
        _facts(recording),
        recording.sources,
        recording.instrument.gains(time),
        recording.instrument.bandpass(recording.frequencies_hz),
        np.concatenate([recording.interference(each)[1] for each in groups]),
        np.array([np.concatenate(each) for each in lost]),
        time,
        recording.frequencies_hz,
        recording.telescope.antenna_names,
        recording.polarisations,
    )


def write_truth(recording: Recording, files: Sequence[str], folder: Path) -> None:
    """Write the truth of a recording, and the names of its files, into a folder that is whole or absent.

    An older truth goes.  Raises ValidationError where the folder holds anything else, OSError.
    """
    import zarr

    truth = truth_of(recording)
    with fill_aside(folder, check_older=_check_older) as aside:
        facts = truth.facts | {"files": list(files)}
        (aside / _FACTS).write_text(json.dumps(facts, indent=2, default=str) + "\n", encoding="utf-8")
        sky.write_sky(truth.sources, aside / _SOURCES)
        store = zarr.open_group(aside / _ARRAYS, mode="w")
        store.attrs.update(antennas=list(truth.antennas), polarisations=list(truth.polarisations))
        for name, dimensions in _DIMENSIONS.items():
            value = getattr(truth, name)
            made = store.create_array(
                name, shape=value.shape, dtype=value.dtype, chunks=value.shape, dimension_names=dimensions
            )
            made[...] = value


def _check_older(folder: Path) -> None:
    if strange := sorted({*os.listdir(folder)} - {_FACTS, _SOURCES, _ARRAYS}):
        raise ValidationError(f"{folder} holds {strange[0]}, which is of no simulation", advice="choose another folder")


_DIMENSIONS = {
    "gains": ("time_s", "antenna", "polarisation"),
    "bandpass": ("antenna", "frequencies_hz", "polarisation"),
    "interference": ("time_s", "frequencies_hz"),
    "lost": ("subband", "time_s", "antenna"),
    "time_s": ("time_s",),
    "frequencies_hz": ("frequencies_hz",),
}


def read_truth(folder: str | Path) -> Truth:
    """The truth that was written beside a simulation.  Raises DataError for a folder that holds none."""
    import zarr

    place = Path(folder)
    try:
        facts = json.loads((place / _FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no truth of a simulation: {error}", path=str(folder)) from error
    store = zarr.open_group(place / _ARRAYS, mode="r")
    told: dict[str, Any] = {name: np.asarray(store[name]) for name in _DIMENSIONS}
    attributes: dict[str, Any] = dict(store.attrs)
    told |= {name: tuple(attributes[name]) for name in ("antennas", "polarisations")}
    return Truth(facts=facts, sources=tuple(sky.read_sky(place / _SOURCES)), **told)


def _facts(recording: Recording) -> dict[str, Any]:
    telescope = recording.telescope
    groups = range(recording.settings.groups)
    middle = [recording.group_start_s(each) + telescope.integrations * telescope.integration_s / 2 for each in groups]
    ra, dec = (np.degrees(each) for each in earth.icrs(0.0, recording.declination_rad, np.array(middle), telescope))
    return {
        "settings": asdict(recording.settings),
        "telescope": telescope.name,
        "start": (EPOCH + timedelta(seconds=recording.start_s)).isoformat(),
        "integration_s": telescope.integration_s,
        "declination_deg": float(np.degrees(recording.declination_rad)),
        "phase_centres_deg": [[float(a), float(d)] for a, d in zip(ra, dec, strict=True)],
        "noise_jy": recording.noise_jy,
        "dead": [telescope.antenna_names[each] for each in recording.instrument.dead],
    }
