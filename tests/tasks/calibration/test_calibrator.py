"""Bandpass and gains in turns, on a tile of a drift scan."""

from __future__ import annotations

import known_gains
import numpy as np
import pytest
from known_gains import Scene

from absurd.tasks.calibration.calibrator import CalibratorSolution, solve_calibrator
from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings
from absurd.tasks.calibration.sky_model import Component, SkyModel
from absurd.tasks.radio.beam import beam_named

EACH = CalibratorSettings(
    phase=GainSettings(mode="p", interval_s=0),
    gain=GainSettings(interval_s=0),
)


def tile(antennas: int, channels: int, times: int, *, noise: float, drift: float = 0.3) -> Scene:
    """A 10 Jy calibrator and 30 sources of 10 to 500 mJy, through a beam that stands on the meridian."""
    empty = known_gains.empty(antennas, channels, times)
    rng = np.random.default_rng(5)
    centre = empty.phase_centres[times // 2]
    sky = [Component("calibrator", centre.ra_rad, centre.dec_rad, 10.0)]
    for each in range(30):
        ra, dec = centre.ra_rad + rng.uniform(-0.02, 0.02), centre.dec_rad + rng.uniform(-0.015, 0.015)
        sky.append(Component(f"{each}", ra, dec, float(10 ** rng.uniform(-2, -0.3)), 1.4e9, (-0.7,)))
    model = predict(empty, SkyModel(tuple(sky)), beam=beam_named("airy", 4.65))
    return known_gains.observe(empty, model, seed=1, noise=noise, drift=drift)


def product(found: CalibratorSolution) -> known_gains.Complex:
    """Bandpass times gain, NaN where one is flagged."""
    lost = found.bandpass.flags | found.gain.flags
    return np.asarray(np.where(lost, np.nan, found.bandpass.values * found.gain.values))


def test_bandpass_and_gains_are_exact_without_noise() -> None:
    """Their product is the truth to a part in 100,000, with phases that drift by radians during the scan."""
    scene = tile(10, 6, 5, noise=0.0)

    found = solve_calibrator(scene.visibilities, scene.model, EACH)

    assert known_gains.error(product(found), scene.truth) < 1e-5
    assert np.allclose(np.mean(np.abs(found.bandpass.values) ** 2, axis=2), 1)
    assert np.abs(np.angle(found.bandpass.values.sum(axis=2))).max() < 1e-6


def test_the_tile_is_solved_at_the_noise() -> None:
    """110 antennas, 48 channels, 24 times, 0.5 Jy of noise on 10 Jy: gains to 0.2 % (0.17 % is what noise leaves)."""
    scene = tile(110, 48, 24, noise=0.5)

    found = solve_calibrator(scene.visibilities, scene.model, EACH)

    assert known_gains.error(product(found), scene.truth) < 0.002
    assert found.converged
    assert found.warnings == ()
    assert found.gain.chi_squared == pytest.approx(1, abs=0.01)


def test_interference_dead_antennas_and_a_dead_reference() -> None:
    """A tenth of the data is interference, two antennas are dead, one of them the reference: right, and told."""
    scene = tile(40, 16, 8, noise=0.5)
    rng = np.random.default_rng(11)
    shape = scene.visibilities.data.shape
    hit = np.broadcast_to(rng.random((shape[0], shape[1], 1)) < 0.1, shape)
    data = scene.visibilities.data + np.where(hit, 300 * np.exp(2j * np.pi * rng.random(shape)), 0)
    dead = np.isin(scene.visibilities.antenna1, (3, 20)) | np.isin(scene.visibilities.antenna2, (3, 20))
    data[dead] = 0
    flags = scene.visibilities.flags | dead[:, None, None]
    seen = scene.visibilities.with_(data=data.astype(np.complex64), flags=flags)
    chain = ("pad004", "pad010")
    settings = CalibratorSettings(
        phase=GainSettings(mode="p", interval_s=0, reference=chain),
        bandpass=GainSettings(min_snr=5, normalise=True, reference=chain),
        gain=GainSettings(interval_s=0, reference=chain),
    )

    found = solve_calibrator(seen, scene.model, settings)

    clean = solve_calibrator(scene.visibilities, scene.model, settings)
    worse = known_gains.error(product(found), scene.truth) / known_gains.error(product(clean), scene.truth)
    assert worse < 1.2
    assert set(found.gain.reference) == {"pad010"}
    assert found.gain.flags[:, [3, 20]].all()
    told = " / ".join(found.warnings)
    assert "2 of 40 antennas have no data: pad004, pad021" in told
    assert "reference antenna pad004 has no solutions; pad010 is it" in told
    assert "10.0% of the visibilities lie more than 6 standard deviations" in told


def test_an_antenna_that_gives_noise_alone_is_flagged() -> None:
    """In the gains too: a bandpass fitted to its noise would have them look strong, and fail the gates for all."""
    scene = tile(20, 96, 6, noise=3.0)
    rng = np.random.default_rng(12)
    dead = np.logical_or(scene.visibilities.antenna1 == 7, scene.visibilities.antenna2 == 7)
    data = scene.visibilities.data.copy()
    data[dead] = 3 / np.sqrt(2) * (rng.standard_normal((dead.sum(), *data.shape[1:], 2)) @ [1, 1j])
    seen = scene.visibilities.with_(data=data)

    found = solve_calibrator(seen, scene.model, CalibratorSettings(gain=GainSettings(interval_s=np.inf)))

    assert found.gain.flags[:, 7].all()
    assert found.bandpass.flags[:, 7].all()
    assert not np.delete(found.gain.flags, 7, axis=1).any()


@pytest.mark.parametrize("settings", ["robust", "plain", "recipe"])
def test_channels_full_of_interference_are_flagged(settings: str | CalibratorSettings) -> None:
    """What all baselines see alike looks like gains: it is known by its bad fit, and the other channels are right.

    The usual recipe fills gaps, and not these.
    """
    scene = tile(30, 16, 6, noise=0.5, drift=0.01 if settings == "recipe" else 0.3)
    data = scene.visibilities.data.copy()
    data[:, 5:7] += np.float32(50)
    robust = settings == "robust"
    settings = (
        CalibratorSettings()
        if settings == "recipe"
        else CalibratorSettings(
            phase=GainSettings(mode="p", interval_s=0, robust=robust),
            bandpass=GainSettings(min_snr=5, normalise=True, robust=robust),
            gain=GainSettings(interval_s=0, robust=robust),
        )
    )

    found = solve_calibrator(scene.visibilities.with_(data=data), scene.model, settings)

    clean = solve_calibrator(scene.visibilities, scene.model, settings)
    assert found.bandpass.flags[:, :, 5:7].all()
    assert found.bandpass.flags.sum() == found.bandpass.flags[:, :, 5:7].size
    assert known_gains.error(product(found), scene.truth) < 1.2 * known_gains.error(product(clean), scene.truth)
    assert any("4 of 32 solutions fit more than 5 times worse" in each for each in found.warnings)


def test_phases_that_no_average_over_channels_holds() -> None:
    """With delays of several turns over the band the scan begins with one interval, and is solved all the same."""
    scene = tile(20, 32, 4, noise=0.2, drift=0.1)
    turns = np.random.default_rng(3).uniform(-6, 6, 20)
    slope = np.exp(2j * np.pi * turns[:, None] * np.linspace(-0.5, 0.5, 32))
    seen = scene.visibilities
    data = seen.data * (slope[seen.antenna1] * np.conj(slope[seen.antenna2]))[:, :, None]
    truth = Scene(seen, scene.model, scene.bandpass * slope[:, :, None], scene.gain)

    found = solve_calibrator(seen.with_(data=data.astype(np.complex64)), scene.model, EACH)

    assert known_gains.error(product(found), truth.truth) < 0.01


def test_gains_of_the_whole_scan() -> None:
    """With one interval the gain has one time, in the middle, as long as the scan."""
    scene = tile(12, 4, 5, noise=0.1, drift=0.0)

    found = solve_calibrator(scene.visibilities, scene.model)

    assert found.gain.values.shape == (1, 12, 1, 2)
    assert found.gain.interval_s[0] == pytest.approx(5 * 12.884902)
    assert found.gain.time_s[0] == pytest.approx(scene.visibilities.time_s.mean())
