"""Gains of two recordings as one table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gain_examples import T0, make_gains, make_visibilities

from absurd.tasks.calibration.apply import apply_gains
from absurd.tasks.calibration.gains import Kind
from absurd.tasks.calibration.joining import join, refer
from absurd.tasks.radio.errors import CalibrationError


def test_joined_they_do_to_parallel_hands_what_each_did() -> None:
    """At the times of either, whatever the reference antennas were, and in either order."""
    one, other = make_gains(seed=1, times=2), make_gains(seed=2, times=2, start_s=T0 + 1000)
    other = refer(other, ["pad003"])

    for joined in (join(one, other), join(other, one)):
        assert joined.time_s.tolist() == [T0, T0 + 100, T0 + 1000, T0 + 1100]
        assert len(set(joined.reference)) == 1
        for part in (one, other):
            seen = make_visibilities(times=part.time_s, correlations=("XX", "YY"))
            expected = apply_gains(seen, part).visibilities
            assert np.allclose(apply_gains(seen, joined).visibilities.data, expected.data, atol=1e-5)


def test_between_them_phases_go_from_one_to_the_other() -> None:
    """Half way between two recordings an antenna has half of the change of its phase against the reference."""
    one = make_gains(seed=1, times=1)
    turned = np.exp(1j * np.linspace(0, 1, 5))[None, :, None, None]
    other = replace(one, values=one.values * turned * np.exp(2j), time_s=one.time_s + 7200)

    joined = join(one, other)

    seen = make_visibilities(times=one.time_s + 3600, correlations=("XX", "YY"))
    half = replace(one, values=one.values * np.sqrt(turned))
    expected = apply_gains(seen, half).visibilities.data
    assert np.allclose(apply_gains(seen, joined).visibilities.data, expected, atol=1e-5)


def test_antennas_that_one_does_not_have_are_flagged_there() -> None:
    """And keep their solutions where they have some."""
    one, other = make_gains(seed=1, antennas=4, times=1), make_gains(seed=2, antennas=5, times=1, start_s=T0 + 50)

    joined = join(one, other)

    assert joined.antennas == other.antennas
    assert joined.flags[0, 4].all()
    assert not joined.flags[1].any()
    assert np.allclose(np.abs(joined.values[1]), np.abs(other.values[0]))


def test_the_reference_has_solutions_everywhere() -> None:
    """One that lacks some is not it as long as another has all."""
    one, other = make_gains(seed=1, times=1), make_gains(seed=2, times=1, start_s=T0 + 50)
    other.flags[0, 0, 0, 1] = True

    joined = join(one, other)

    assert joined.reference[0] != "pad000"
    assert joined.warnings == one.warnings
    other.flags[:] = True
    one.flags[:] = True
    with pytest.raises(CalibrationError, match="no antenna has a solution"):
        join(one, other)


@pytest.mark.parametrize("kind", ["gain", "delay"])
def test_where_no_antenna_has_all_solutions_others_stand_in(kind: Kind) -> None:
    """Gains do what they did, and phases go on: each antenna is away once.  It is told."""
    one = make_gains(kind, seed=1, antennas=4, times=4)
    steady = replace(one, values=np.broadcast_to(one.values[:1], one.values.shape).copy())
    for time in range(4):
        steady.flags[time, time] = True
    parts = [
        replace(
            steady,
            **{name: getattr(steady, name)[rows] for name in ("values", "flags", "snr", "time_s", "interval_s")},
            reference=steady.reference[rows],
        )
        for rows in (slice(0, 2), slice(2, 4))
    ]

    joined = join(parts[1], parts[0])

    assert np.array_equal(joined.flags, steady.flags)
    assert any("stand in" in each for each in joined.warnings)
    turned = joined.values * np.conj(steady.values) if kind == "gain" else joined.values - steady.values
    for hand in range(2):
        left = turned[:, :, 0, hand][~steady.flags[:, :, 0, hand]]
        left = left / np.abs(left) if kind == "gain" else left * 1e9
        assert np.allclose(left, left[0])  # the same turn of all antennas at all times


def test_delays_are_joined_by_their_differences() -> None:
    """In seconds, against the reference antenna."""
    one, other = (make_gains("delay", seed=seed, times=1, start_s=T0 + seed) for seed in (1, 2))

    joined = join(one, other)

    expected = np.concatenate([one.values - one.values[:, :1], other.values - other.values[:, :1]])
    assert np.allclose(joined.values, expected)


def test_what_does_not_go_together_is_refused() -> None:
    """Of two kinds or polarisations, and bandpasses, of which the nearest is taken."""
    gain = make_gains()
    for other in (make_gains("delay"), replace(gain, polarisations=("R", "L"))):
        with pytest.raises(CalibrationError, match="cannot be joined"):
            join(gain, other)
    with pytest.raises(CalibrationError, match="cannot be joined"):
        join(make_gains("bandpass"), make_gains("bandpass"))
