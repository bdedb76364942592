"""A real calibrator: J1008+0730, seen by the VLA at 36.3 GHz, of which half the antennas give data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from house import unpack
from numpy.typing import NDArray

from absurd.tasks.calibration.calibrator import solve_calibrator
from absurd.tasks.calibration.rows import intervals
from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

ARCHIVE = SHARED / "data" / "radio-visibilities" / "day2_TDEM0003_10s_norx_1src_1spw.ms.tar.gz"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Visibilities:
    """The main table, read by casacore itself."""
    if not ARCHIVE.exists():
        pytest.skip(f"{ARCHIVE} is not there")
    from casacore.tables import table

    folder = tmp_path_factory.mktemp("vla")
    unpack(ARCHIVE, folder)
    path = folder / "day2_TDEM0003_10s_norx_1src_1spw.ms"

    def column(name: str, of: Path = path) -> NDArray[np.float64]:
        with table(str(of), ack=False) as opened:
            return np.asarray(opened.getcol(name))

    with table(str(path / "ANTENNA"), ack=False) as antennas:
        names = tuple(name or f"unnamed{number}" for number, name in enumerate(antennas.getcol("NAME")))
    data = column("DATA")
    window = path / "SPECTRAL_WINDOW"
    ra, dec = column("PHASE_DIR", path / "FIELD")[0, 0]
    return Visibilities(
        data=np.asarray(data, np.complex64),
        flags=np.asarray(column("FLAG"), bool),
        weights=np.broadcast_to(np.asarray(column("WEIGHT"), np.float32)[:, None, :], data.shape),
        uvw_m=column("UVW"),
        time_s=column("TIME"),
        exposure_s=np.full(len(data), 10.0),  # EXPOSURE says 0.04, which no interval of that set is
        antenna1=np.asarray(column("ANTENNA1"), np.int32),
        antenna2=np.asarray(column("ANTENNA2"), np.int32),
        field=np.zeros(len(data), np.int32),
        frequencies_hz=column("CHAN_FREQ", window)[0],
        channel_width_hz=column("CHAN_WIDTH", window)[0],
        correlations=("RR", "RL", "LR", "LL"),
        array=Array("EVLA", names, column("POSITION", path / "ANTENNA"), 25.0, np.zeros(3)),
        phase_centres=(PhaseCentre("J1008+0730", float(ra), float(dec)),),
    )


def test_it_is_a_point_source(seen: Visibilities) -> None:
    """Corrected visibilities lie around the model, and their phases scatter as noise makes them.

    A channel differs from the next by noise alone, so that scatter needs no model; weights of this set are off by
    four orders of magnitude, which does no harm.
    """
    model = np.ones((1, 1, 1), np.complex64)
    settings = CalibratorSettings(
        phase=GainSettings(mode="p", interval_s=30),
        bandpass=GainSettings(min_snr=3, normalise=True),
        gain=GainSettings(interval_s=30),
    )

    found = solve_calibrator(seen, model, settings)

    total = found.bandpass.values * found.gain.values  # (time, antenna, channel, polarisation)
    flags = found.bandpass.flags | found.gain.flags
    number = intervals(seen, 30, ("scan", "field")).number
    first, second, cross = seen.antenna1, seen.antenna2, seen.antenna1 != seen.antenna2
    gain = total[number, first] * np.conj(total[number, second])
    corrected = seen.data[..., [0, 3]] / gain
    good = ~(flags[number, first] | flags[number, second] | seen.flags[..., [0, 3]]) & cross[:, None, None]
    assert good.sum() > 0.6 * cross.sum() * 128
    weight = np.abs(gain) ** 2 * good
    mean = (corrected * weight).sum() / weight.sum()
    assert abs(mean - 1) < 0.01
    # Of each baseline and polarisation: the mean of all its visibilities, and how far noise can have taken it.
    power = (np.abs(gain) ** 2 * good).sum(axis=1)
    steps = np.abs(np.diff(seen.data[..., [0, 3]], axis=1)) ** 2 * good[:, 1:] * good[:, :-1]
    residual = np.abs(seen.data[..., [0, 3]] - gain) ** 2 * good
    phases, shares, scatters = [], [], []
    for pair in {(p, q) for p, q in zip(first.tolist(), second.tolist(), strict=True) if p != q}:
        rows = (first == pair[0]) & (second == pair[1])
        for hand in range(2):
            whole = power[rows, hand].sum()
            if good[rows, :, hand].sum() < 300:
                continue
            noise = np.sqrt(steps[rows, :, hand].sum() / (good[rows, 1:, hand] & good[rows, :-1, hand]).sum() / 2)
            scatters.append(np.sqrt(residual[rows, :, hand].sum() / good[rows, :, hand].sum()) / noise)
            mean = (corrected[rows, :, hand] * np.abs(gain[rows, :, hand]) ** 2)[good[rows, :, hand]].sum() / whole
            phases.append(float(np.angle(mean)))
            shares.append(phases[-1] / (noise / np.sqrt(2 * whole)))
    assert len(phases) > 100
    assert np.median(scatters) == pytest.approx(1, abs=0.05)
    assert np.sqrt(np.mean(np.square(shares))) == pytest.approx(1, abs=0.25)
    assert np.degrees(np.sqrt(np.mean(np.square(phases)))) < 8
    assert any("have no data" in each for each in found.warnings)
    print(np.median(scatters), np.sqrt(np.mean(np.square(shares))), np.degrees(np.std(phases)))
