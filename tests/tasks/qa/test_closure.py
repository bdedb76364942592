"""Closure phases tell a signal from noise, whatever gains anybody has solved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import SHARED
from interferometer import observed, read_uvh5, solved

from absurd.tasks.qa import closure_of
from absurd.tasks.qa.closure import mean_cosine_of
from absurd.tasks.radio.errors import DataError

ATA = SHARED / "data/radio-visibilities/ata.LoA.C0352.uvh5_60647_62965_9760406_3c286_0001.uvh5"
SEED = 2021


def test_a_point_source_closes_and_noise_does_not() -> None:
    """Behind unknown gains the phases of a bright source add up to nothing; noise has as many cosines of each sign."""
    random = np.random.default_rng(SEED)

    source, noise = closure_of(observed(random, snr=20)), closure_of(observed(random))

    assert source.log10_false_alarm < -80
    assert source.mean_cosine > 0.99
    assert source.departure_deg < 1
    assert source.coherent == source.triangles == 27 * 26 / 2
    assert noise.log10_false_alarm > -3
    assert abs(noise.mean_cosine) < 0.02


def test_noise_is_no_signal_more_often_than_told() -> None:
    """Of two thousand scans of noise the share that reach a probability is at most that probability."""
    random = np.random.default_rng(SEED)
    told = np.array(
        [closure_of(observed(random, antennas=9, channels=2, with_gains=False)).log10_false_alarm for _ in range(2000)]
    )

    for exponent in (-1.0, -2.0, -3.0):
        share = np.mean(told <= exponent)
        assert share <= 10**exponent + 3 * math.sqrt(10**exponent / len(told)), (exponent, share)


def test_noise_that_is_alike_in_channels_times_and_hands_is_no_signal() -> None:
    """The probability holds where a baseline's noise is the same everywhere, as of interference that is switched on."""
    random = np.random.default_rng(SEED)
    told = []
    for _ in range(300):
        made = observed(random, antennas=12, channels=1, correlations=("XX",))
        told.append(
            closure_of(
                made.with_(
                    data=np.broadcast_to(made.data, (len(made.data), 64, 2)).copy(),
                    flags=np.zeros((len(made.data), 64, 2), np.bool_),
                    weights=np.ones((len(made.data), 64, 2), np.float32),
                    frequencies_hz=1e9 + 1e6 * np.arange(64),
                    channel_width_hz=np.full(64, 1e6),
                    correlations=("XX", "YY"),
                )
            ).log10_false_alarm
        )

    assert min(told) > -4
    assert np.mean(np.array(told) <= -1) <= 0.1 + 3 * math.sqrt(0.1 / 300)


@pytest.mark.parametrize("snr", [0.7, 1.25, 3.0])
def test_the_signal_to_noise_of_a_visibility_is_told(snr: float) -> None:
    """The mean cosine is that which the formula says, and the signal to noise that comes of it is the true one."""
    random = np.random.default_rng(SEED)

    told = closure_of(observed(random, snr=snr, times=4, with_gains=False))

    assert told.mean_cosine == pytest.approx(mean_cosine_of(snr), abs=0.015)
    assert told.snr == pytest.approx(snr, rel=0.1)
    assert told.log10_false_alarm < -9


def test_gains_solved_on_noise_make_it_agree_and_closure_phases_do_not_lie() -> None:
    """Noise that is corrected by gains solved on it shows the model, baseline by baseline; its closure stays noise.

    Averages of what was corrected would close as well: that is why visibilities are never averaged before.
    """
    random = np.random.default_rng(SEED)
    noise = observed(random, antennas=28, channels=64, correlations=("XX",))

    _, corrected = solved(noise)

    means = np.average(corrected.data, axis=1, weights=corrected.weights)
    assert np.mean(np.cos(np.angle(means))) > 0.9  # a source at the phase centre, to all appearance
    made = closure_of(corrected)
    assert made.log10_false_alarm > -3
    assert made.mean_cosine == pytest.approx(closure_of(noise).mean_cosine, abs=1e-3)
    averaged = noise.with_(
        data=means[:, None].astype(np.complex64),
        flags=noise.flags[:, :1],
        weights=noise.weights[:, :1],
        frequencies_hz=noise.frequencies_hz[:1],
        channel_width_hz=noise.channel_width_hz[:1],
    )
    assert closure_of(averaged).log10_false_alarm < -30


def test_a_resolved_source_closes_on_its_model_only() -> None:
    """Two points of unlike flux have closure phases of their own, which are nothing but the model's."""
    random = np.random.default_rng(SEED)
    directions, fluxes = np.array([[0.0, 0.0], [4e-4, 7e-4]]), (1.0, 0.6)
    double = observed(random, snr=30, directions=directions, fluxes=fluxes)
    paths = np.einsum("ri,pi,c->prc", double.uvw_m[:, :2], directions, double.frequencies_hz / 299_792_458.0)
    sky = np.einsum("p,prc->rc", np.array(fluxes), np.exp(2j * np.pi * paths))
    model = np.repeat(sky[:, :, None], 2, axis=2)

    as_point, as_double = closure_of(double), closure_of(double, model)

    assert as_point.departure_deg > 15
    assert as_double.departure_deg < 3
    assert as_double.mean_cosine > 0.9 > as_point.mean_cosine


def test_what_is_flagged_zero_or_no_number_is_not_used() -> None:
    """Nor does a single visibility of 1e36 or an antenna without signal, the most used one, decide anything."""
    random = np.random.default_rng(SEED)
    made = observed(random, snr=3)
    data, flags = made.data.copy(), made.flags.copy()
    data[::7] *= 1e30
    data[::11, 3] = 0
    data[::13, 5] = np.nan
    data[5::17, 7] = np.inf
    data[(made.antenna1 == 0) | (made.antenna2 == 0)] = np.exp(
        2j * np.pi * random.uniform(size=data[(made.antenna1 == 0) | (made.antenna2 == 0)].shape)
    )
    flags[1::19] = True

    told = closure_of(made.with_(data=data, flags=flags))

    assert told.log10_false_alarm < -20
    assert told.reference != "a0"


def test_the_order_of_antennas_and_rows_is_nothing() -> None:
    """A row turned round with its conjugate, and rows in another order, tell the same."""
    random = np.random.default_rng(SEED)
    made = observed(random, snr=1, times=3)
    turn = random.uniform(size=len(made.data)) < 0.5
    order = random.permutation(len(made.data))
    one, two = np.where(turn, made.antenna2, made.antenna1), np.where(turn, made.antenna1, made.antenna2)
    data = np.where(turn[:, None, None], np.conj(made.data), made.data)

    mixed = closure_of(
        made.with_(data=data[order], antenna1=one[order], antenna2=two[order], time_s=made.time_s[order])
    )

    expected = closure_of(made)
    assert mixed.reference == expected.reference
    assert mixed.log10_false_alarm == pytest.approx(expected.log10_false_alarm, rel=1e-4)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"correlations": ("XY", "YX")}, "parallel"),
        ({"flags": np.ones((378, 16, 2), np.bool_)}, "no three antennas"),
        ({"time_s": 5e9 + 10.0 * np.arange(378)}, "no three antennas"),
    ],
)
def test_what_has_no_closure_phases_says_so(changed: dict[str, object], reason: str) -> None:
    """Crossed hands alone, nothing usable, and baselines that are never there together."""
    with pytest.raises(DataError, match=reason):
        closure_of(observed(np.random.default_rng(SEED)).with_(**changed))


@pytest.mark.skipif(not ATA.exists(), reason="real data are not beside the checkout")
def test_the_scan_of_3c286_that_holds_noise() -> None:
    """Its closure phases are those of noise; a calibrator of the same shape at the least amplitude of noise is one."""
    scan = read_uvh5(ATA)
    usable = scan.usable & (scan.data != 0) & ~scan.is_auto[:, None, None]
    random = np.random.default_rng(SEED)

    noise = closure_of(scan)
    signal = observed(random, antennas=28, channels=16, snr=1.25)
    lost = random.uniform(size=signal.data.shape) < 1 - usable[~scan.is_auto].mean()
    source = closure_of(signal.with_(data=np.where(lost, 0, signal.data)))

    assert noise.log10_false_alarm > -2
    assert source.log10_false_alarm < -9
