"""Phases alone and amplitudes alone: right in whatever unit the data are, and no less robust for it."""

from __future__ import annotations

import known_gains
import numpy as np
import pytest

from absurd.tasks.calibration.calibrator import solve_calibrator
from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings, Mode
from absurd.tasks.calibration.solve import solve_gains

SEED = 21
UNITS = (1e-3, 1.0, 1e4)


def scene(*, drift: float = 0.0, unit: float = 1.0) -> known_gains.Scene:
    """A point of 10 Jy, 14 antennas, 8 channels, 4 times, in a unit of its own."""
    empty = known_gains.empty(14, 8, 4)
    model = np.full(empty.data.shape, 10, np.complex64)
    made = known_gains.observe(empty, model, seed=SEED, noise=0.05, drift=drift)
    seen = made.visibilities
    weights = (seen.weights / np.float32(unit) ** 2).astype(np.float32)
    return made.with_data(data=(seen.data * np.float32(unit)).astype(np.complex64), weights=weights)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("mode", ["p", "a"])
def test_the_bandpass_has_what_gains_have_not(mode: Mode, unit: float) -> None:
    """With gains of one mode the product is the truth all the same, for phases that stand still."""
    made = scene(drift=0.02 if mode == "p" else 0.0, unit=unit)
    settings = CalibratorSettings(
        phase=GainSettings(mode="p", interval_s=0), gain=GainSettings(mode=mode, interval_s=0)
    )

    found = solve_calibrator(made.visibilities, made.model, settings)

    product = found.bandpass.values * found.gain.values
    assert not (found.bandpass.flags.any() or found.gain.flags.any())
    assert known_gains.error(product, made.truth * np.sqrt(unit)) < 0.01
    if mode == "p":
        assert np.allclose(np.abs(found.gain.values), 1)
    else:
        assert np.abs(np.angle(found.gain.values)).max() < 1e-9


@pytest.mark.parametrize("mode", ["p", "a", "ap"])
def test_what_is_an_outlier_does_not_depend_on_the_unit(mode: Mode) -> None:
    """The same visibilities have less weight, and gains are right with a tenth of interference, in any unit."""
    shares, errors = [], []
    for unit in UNITS:
        made = scene(unit=unit)
        random = np.random.default_rng(SEED)
        hit = random.random(made.visibilities.data.shape) < 0.1
        burst = 100 * unit * np.exp(2j * np.pi * random.random(hit.shape))
        data = np.where(hit, burst, made.visibilities.data).astype(np.complex64)
        flat = made.truth[:, :, 4:5]

        found = solve_gains(
            made.visibilities.with_(
                data=data[:, 4:5],
                flags=made.visibilities.flags[:, 4:5],
                weights=made.visibilities.weights[:, 4:5],
                frequencies_hz=made.visibilities.frequencies_hz[4:5],
                channel_width_hz=made.visibilities.channel_width_hz[4:5],
            ),
            made.model[:, 4:5],
            GainSettings(mode=mode),
        )

        truth = flat.mean(axis=0, keepdims=True) * np.sqrt(unit)
        wanted = {"p": truth / np.abs(truth), "a": np.abs(truth) + 0j, "ap": truth}[mode]
        errors.append(known_gains.error(found.values, wanted))
        shares.append(found.outliers)

    assert max(errors) < 0.01, errors
    assert shares == pytest.approx([0.1] * len(UNITS), rel=0.2)
