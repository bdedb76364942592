"""Gains of two recordings as one table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gain_examples import T0, make_gains, make_visibilities

from absurd.tasks.calibration.apply import apply_gains
from absurd.tasks.calibration.joining import join, refer
from absurd.tasks.radio.errors import CalibrationError


def test_joined_they_do_to_parallel_hands_what_each_did() -> None:
    """At the times of either, whatever the reference antennas were, and in either order."""
    one, other = make_gains(seed=1, times=2), make_gains(seed=2, times=2, start_s=T0 + 1000)
    other = refer(other, "pad003")

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
    """One that lacks some is not it; where none has all, they cannot be joined."""
    one, other = make_gains(seed=1, times=1), make_gains(seed=2, times=1, start_s=T0 + 50)
    other.flags[0, 0, 0, 1] = True

    assert join(one, other).reference[0] != "pad000"
    with pytest.raises(CalibrationError, match="cannot be the reference"):
        refer(other, "pad000")
    other.flags[:] = True
    with pytest.raises(CalibrationError, match="no antenna has solutions at all times"):
        join(one, other)


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
