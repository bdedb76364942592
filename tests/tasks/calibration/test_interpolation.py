"""Gains between the times and channels at which they were solved."""

from __future__ import annotations

import numpy as np
import pytest
from gain_examples import T0, make_gains

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.calibration.interpolation import interpolate


def phasors(*values: complex, step_s: float = 100.0, flags: tuple[int, ...] = ()) -> Gains:
    """Gains of one antenna, alike in both polarisations, at T0 and every `step_s` after."""
    gains = make_gains(antennas=1, times=len(values), step_s=step_s)
    gains.values[:, 0, 0, :] = np.array(values)[:, None]
    gains.flags[list(flags)] = True
    return gains


def at(gains: Gains, *seconds: float, **options: object) -> tuple[list[complex], list[bool]]:
    """Value and flag of the first polarisation at times after T0."""
    found = interpolate(gains, T0 + np.array(seconds), gains.frequencies_hz, **options)  # type: ignore[arg-type]
    return (
        found.values[found.solution, 0, 0, 0].tolist(),
        found.flags[found.solution, 0, 0, 0].tolist(),
    )


def test_amplitude_and_phase_go_linearly_the_short_way_round() -> None:
    """From 2 at +170 degrees to 4 at -170 the middle is 3 at 180, where real and imaginary parts would give less."""
    values, flags = at(phasors(2 * np.exp(1j * np.radians(170)), 4 * np.exp(1j * np.radians(-170))), 50, 25)

    assert np.allclose(values, [-3, 2.5 * np.exp(1j * np.radians(175))], rtol=1e-12)
    assert flags == [False, False]


@pytest.mark.parametrize("seed", range(5))
def test_solutions_themselves_come_out_unchanged(seed: int) -> None:
    """At the time of a solution, and before the first and after the last, to the bit."""
    gains = make_gains(seed=seed, times=4)
    times = np.concatenate([[T0 - 1e4], gains.time_s, [T0 + 1e6]])

    found = interpolate(gains, times, gains.frequencies_hz)

    expected = gains.values[[0, 0, 1, 2, 3, 3]]
    assert np.array_equal(found.values[found.solution], expected)
    assert not found.flags.any()


def test_linear_is_between_its_neighbours_at_every_time() -> None:
    """Amplitudes never leave those of the two solutions, and phases go less than half a turn."""
    gains = make_gains(seed=3, times=2)
    times = T0 + np.linspace(0, 100, 101)

    found = interpolate(gains, times, gains.frequencies_hz).values

    lowest, highest = np.abs(gains.values).min(axis=0), np.abs(gains.values).max(axis=0)
    assert (np.abs(found) >= lowest - 1e-12).all()
    assert (np.abs(found) <= highest + 1e-12).all()
    steps = np.angle(found[1:] / found[:-1])
    assert np.abs(steps).max() <= np.pi / 100 + 1e-9
    assert np.allclose(steps, steps[:1], atol=1e-12)


def test_nearest_takes_the_earlier_of_two_equally_near() -> None:
    """And the nearest otherwise, whatever the phases."""
    values, _ = at(phasors(1, 2j, 3), 49, 50, 51, 149, 1000, time="nearest")

    assert values == [1, 1, 2j, 2j, 3]


def test_a_flagged_solution_is_worth_nothing() -> None:
    """Times nearest to it have none; others are held by their nearest, and not drawn to it."""
    values, flags = at(phasors(1, 9, 3, flags=(1,)), 0, 49, 51, 100, 151, 200)

    assert flags == [False, False, True, True, False, False]
    assert [values[0], values[1], values[4], values[5]] == [1, 1, 3, 3]
    assert at(phasors(1, 9, 3, flags=(1,)), 49, 51, time="nearest")[1] == [False, True]


def test_bridging_passes_over_flagged_solutions() -> None:
    """Between the unflagged ones on both sides, of each antenna its own; where all are flagged there is none."""
    for time, expected in (("linear", [1, 2, 2.5, 3, 3]), ("nearest", [1, 1, 3, 3, 3])):
        values, flags = at(phasors(1, 9, 3, 9, flags=(1, 3)), 0, 100, 150, 200, 300, bridge=True, time=time)
        assert np.allclose(values, expected)
        assert not any(flags)
    assert all(at(phasors(1, 2, flags=(0, 1)), 0, 50, bridge=True)[1])


def test_channels_reach_half_way_to_their_neighbours() -> None:
    """The nearest channel's gain; none beyond the band, in a gap, and where the nearest is flagged."""
    gains = make_gains("bandpass", channels=4, times=1)
    kept = [0, 1, 3]
    gains = Gains(
        **{name: getattr(gains, name) for name in Gains.__slots__}
        | {
            "frequencies_hz": gains.frequencies_hz[kept],
            **{name: getattr(gains, name)[:, :, kept] for name in ("values", "flags", "snr")},
        }
    )
    wide = gains.frequencies_hz[0] + 1e6 * np.array([-0.74, -0.3, 0, 0.4, 1, 2.0, 3, 3.8])

    found = interpolate(gains, gains.time_s, wide)

    # The usual distance is 1.5 MHz here, so each reaches 0.75: the middle of the gap is out of reach.
    assert found.flags[0, 0, :, 0].tolist() == [False] * 5 + [True, False, True]
    assert np.array_equal(found.values[0, :, :5], gains.values[0][:, [0, 0, 0, 0, 1]])
    gains.flags[0, 0, 0] = True
    assert interpolate(gains, gains.time_s, wide).flags[0, 0, :4, 0].all()


def test_channels_may_go_linearly() -> None:
    """Amplitude and phase, as in time: a slope of phase comes out as it is."""
    gains = make_gains("bandpass", channels=5, times=1)
    turns = np.linspace(0, 1.6, 5)
    gains.values[:] = np.exp(2j * np.pi * turns)[:, None]
    between = (gains.frequencies_hz[1:] + gains.frequencies_hz[:-1]) / 2

    found = interpolate(gains, gains.time_s, between, frequency="linear")

    assert np.allclose(found.values[0, 0, :, 0], np.exp(2j * np.pi * (turns[1:] + turns[:-1]) / 2), atol=1e-9)


def test_a_delay_is_a_slope_of_phase() -> None:
    """One turn over the inverse of the delay, none at its own frequency; seconds go linearly in time."""
    gains = make_gains("delay", antennas=1, times=2)
    gains.values[:] = np.array([1e-9, 3e-9])[:, None, None, None]
    frequencies = gains.frequencies_hz[0] + np.array([0, 1e8, 5e8])

    found = interpolate(gains, T0 + np.array([0.0, 50, 90]), frequencies)

    for time, seconds in enumerate((1e-9, 2e-9, 2.8e-9)):
        expected = np.exp(2j * np.pi * seconds * np.array([0, 1e8, 5e8]))
        assert np.allclose(found.values[found.solution[time], 0, :, 0], expected, atol=1e-12)


def test_a_bandpass_is_not_copied_for_each_time() -> None:
    """However many times use one solution."""
    gains = make_gains("bandpass", times=1)

    found = interpolate(gains, T0 + np.arange(1000, dtype=np.float64), gains.frequencies_hz, time="nearest")

    assert found.values.shape == gains.values.shape
    assert found.solution.shape == (1000,)
