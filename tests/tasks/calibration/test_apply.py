"""Gains applied to visibilities: the definition, and that it is taken away again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gain_examples import T0, make_gains, make_visibilities
from numpy.typing import NDArray

from absurd.tasks.calibration.apply import apply_gains, unapply_gains
from absurd.tasks.radio.errors import CalibrationError

EPS = float(np.finfo(np.float32).eps)


def test_corrected_is_the_model_again() -> None:
    """Of visibilities that are g_p model conj(g_q), with weights 1 / variance, in all four hands."""
    model = make_visibilities(times=T0 + np.array([0.0, 100, 200]))
    bandpass, gain = make_gains("bandpass", times=1), make_gains("gain", seed=5)
    hands = {"X": 0, "Y": 1}
    data, power = model.data.copy(), np.ones(model.data.shape)
    for row in range(len(data)):
        time = int((model.time_s[row] - T0) / 100)
        for k, (one, other) in enumerate(map(tuple, model.correlations)):
            for antenna, hand, conjugate in (
                (model.antenna1[row], hands[one], False),
                (model.antenna2[row], hands[other], True),
            ):
                g = bandpass.values[0, antenna, :, hand] * gain.values[time, antenna, 0, hand]
                data[row, :, k] *= np.conj(g) if conjugate else g
                power[row, :, k] *= np.abs(g) ** 2
    seen = model.with_(data=data, weights=(model.weights / power).astype(np.float32))

    done = apply_gains(seen, bandpass, gain)

    assert np.allclose(done.visibilities.data, model.data, rtol=0, atol=20 * EPS)
    assert np.allclose(done.visibilities.weights, model.weights, rtol=8 * EPS)
    assert (done.missing, done.outside, done.antennas_missing) == (0, 0, ())
    assert np.array_equal(apply_gains(seen, bandpass, gain, calwt=False).visibilities.weights, seen.weights)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("correlations", [("XX", "YY"), ("XX", "XY", "YX", "YY"), ("YY",)])
def test_applied_and_taken_away_the_data_are_back(seed: int, correlations: tuple[str, ...]) -> None:
    """To the rounding of float32 in each direction, weights too, at times between solutions and beside flagged ones."""
    before = make_visibilities(seed=seed, correlations=correlations, flagged=0.1)
    gains = [
        make_gains("delay", seed=seed, times=1),
        make_gains("bandpass", seed=seed + 10, times=2, flagged=0.1),
        make_gains("gain", seed=seed + 20, flagged=0.2),
    ]

    applied = apply_gains(before, *gains).visibilities
    after = unapply_gains(applied, *gains).visibilities

    assert not np.array_equal(applied.data, before.data)
    assert np.abs(after.data - before.data).max() <= 2 * EPS * np.abs(before.data).max()
    assert np.allclose(after.weights, before.weights, rtol=2 * EPS)
    assert np.array_equal(after.flags, applied.flags), "flags only grow"


def test_inputs_are_not_changed() -> None:
    """Neither data, flags and weights, nor gains."""
    before, gains = make_visibilities(), make_gains(flagged=0.3)
    inputs: list[NDArray[Any]] = [before.data, before.flags, before.weights, gains.values]
    kept = [each.copy() for each in inputs]

    apply_gains(before, gains)

    for now, then in zip(inputs, kept, strict=True):
        assert np.array_equal(now, then)


def test_flagged_gains_flag_data_or_leave_them() -> None:
    """All of an antenna's baselines in the polarisation; with `leave` they stay as they were, unflagged."""
    before = make_visibilities()
    gains = make_gains()
    gains.flags[:, 2, 0, 1] = True
    of_it = [
        ((before.antenna1 == 2) if one == "Y" else False) | ((before.antenna2 == 2) if other == "Y" else False)
        for one, other in map(tuple, before.correlations)
    ]
    expected = np.stack([np.broadcast_to(each, len(before.data)) for each in of_it], axis=-1)[:, None, :]

    flagged = apply_gains(before, gains)
    left = apply_gains(before, gains, missing="leave")

    assert np.array_equal(flagged.visibilities.flags, np.broadcast_to(expected, before.data.shape))
    assert not left.visibilities.flags.any()
    assert flagged.missing == left.missing == int(expected.sum()) * before.data.shape[1]
    for done in (flagged, left):
        same = done.visibilities.data == before.data
        assert same[np.broadcast_to(expected, same.shape)].all()
        assert not same[~np.broadcast_to(expected, same.shape)].any()


def test_antennas_without_gains_are_told() -> None:
    """An antenna that the gains do not know, or that is flagged throughout, is named, and its data are flagged."""
    before = make_visibilities(antennas=5)
    gains = make_gains(antennas=4)
    gains.flags[:, 1] = True

    done = apply_gains(before, gains)

    assert done.antennas_missing == ("pad001", "pad004")
    lost = np.isin(before.antenna1, [1, 4]) | np.isin(before.antenna2, [1, 4])
    assert np.array_equal(done.visibilities.flags.all(axis=(1, 2)), lost)


def test_gains_of_antennas_in_another_order() -> None:
    """Antennas are known by their names."""
    before, gains = make_visibilities(), make_gains()
    turned = [3, 1, 4, 0, 2]
    other = make_gains()
    object.__setattr__(other, "antennas", tuple(gains.antennas[each] for each in turned))
    object.__setattr__(other, "values", gains.values[:, turned])

    assert np.array_equal(apply_gains(before, other).visibilities.data, apply_gains(before, gains).visibilities.data)


def test_nothing_is_extrapolated_beyond_the_validity() -> None:
    """Rows at times outside are flagged and not changed, and counted apart."""
    before = make_visibilities(times=T0 + np.array([-200.0, -100, 0, 300, 301]))
    rows = len(before.data) // 5

    done = apply_gains(before, make_gains(), valid_s=(T0 - 100, T0 + 300))

    outside = np.isin(before.time_s, [T0 - 200, T0 + 301])
    assert np.array_equal(done.visibilities.flags.all(axis=(1, 2)), outside)
    assert np.array_equal(done.visibilities.data[outside], before.data[outside])
    assert done.outside == 2 * rows * before.data[0].size


def test_gains_of_zero_and_no_number_are_none() -> None:
    """They would give infinities: their data are flagged, and stay finite."""
    before, gains = make_visibilities(), make_gains()
    gains.values[:, 0], gains.values[:, 1] = 0, np.nan

    done = apply_gains(before, gains)

    assert np.isfinite(done.visibilities.data).all()
    assert np.isfinite(done.visibilities.weights).all()
    assert done.antennas_missing == ("pad000", "pad001")


def test_broadcast_weights_and_missing_numbers() -> None:
    """A weight a row is spread by bandpass gains; data without a number stay without, and count as not usable."""
    before = make_visibilities()
    before.data[0] = np.nan
    one = np.broadcast_to(before.weights[:, :1, :1], before.data.shape)

    done = apply_gains(before.with_(weights=one), make_gains("bandpass"))

    assert done.visibilities.weights.shape == before.data.shape
    assert np.isnan(done.visibilities.data[0]).all()
    assert done.usable == before.data.size - before.data[0].size


def test_other_polarisations_are_refused() -> None:
    """X and Y go with no circular hands and no Stokes parameters; and there has to be a gain."""
    for correlations in (("RR", "LL"), ("I",)):
        with pytest.raises(CalibrationError, match="do not go with"):
            apply_gains(make_visibilities(correlations=correlations), make_gains())
    with pytest.raises(CalibrationError, match="no gains"):
        apply_gains(make_visibilities())


def test_the_same_bits_every_time() -> None:
    """Of the same input."""
    before, gains = make_visibilities(), make_gains()

    one, other = (apply_gains(before, gains).visibilities for _ in range(2))

    assert one.data.tobytes() == other.data.tobytes()
    assert one.weights.tobytes() == other.weights.tobytes()
