"""The kernels that find interference, against what their definitions say, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from absurd.tasks.visibility.flagging.detect import by_sigma_clip, by_sum_threshold, of_amplitudes
from absurd.tasks.visibility.flagging.deviations import deviations
from absurd.tasks.visibility.flagging.grow import grow, rank_operator
from absurd.tasks.visibility.flagging.low_pass import PASSES, half_width, surface
from absurd.tasks.visibility.flagging.strategy import SigmaClip, Smooth, SumThreshold
from absurd.tasks.visibility.flagging.sum_threshold import lengths, limits, scatter, sum_threshold
from absurd.tasks.visibility.flagging.trend import line, prepare
from absurd.tasks.visibility.flags import Reason

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


def noise(shape: tuple[int, int], seed: int) -> Floats:
    """Amplitudes of noise 1 in real and imaginary parts."""
    random = np.random.default_rng(seed)
    print(f"seed {seed}")
    made: Floats = np.hypot(*random.standard_normal((2, *shape))).astype(np.float32)
    return made


def by_definition(values: Floats, usable: Bools, longest: int, both: bool) -> Bools:
    """SumThreshold as one would write it down."""
    chi = limits(4.0, 1.5, longest)
    found: Bools = usable & ((values > chi[1]) | (both & (-values > chi[1])))
    in_time, in_channel = lengths(longest, values.shape[0]), lengths(longest, values.shape[1])
    factors = [1.0, 1.0]
    for step in range(1, max(len(in_time), len(in_channel))):
        new = found.copy()
        for axis, several in ((1, in_channel), (0, in_time)):
            if step >= len(several):
                continue
            length = int(several[step])
            lines = (values, usable, found) if axis else (values.T, usable.T, found.T)
            factors[axis] = scatter(*lines, length, factors[axis])
            for at in range(values.shape[1 - axis]):
                for start in range(values.shape[axis] - length + 1):
                    stretch = np.s_[at, start : start + length] if axis else np.s_[start : start + length, at]
                    good = usable[stretch] & ~found[stretch]
                    if not good.any():
                        continue
                    mean = values[stretch][good].astype(np.float64).mean()
                    limit = chi[good.sum()] * factors[axis]
                    if mean > limit or (both and -mean > limit):
                        new[stretch] |= usable[stretch]
        found = new
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (24, 30), (7, 64)])
def test_sums_are_those_of_the_definition(shape: tuple[int, int], seed: int) -> None:
    """In both directions, with samples that may not be used, every stretch of each length is judged by its mean."""
    random = np.random.default_rng(seed)
    print(f"seed {seed}")
    values = random.standard_normal(shape).astype(np.float32)
    values[: shape[0] // 8 + 1, shape[1] // 3 : shape[1] // 3 + shape[1] // 8 + 1] += 3.5
    values[shape[0] // 2 : shape[0] // 2 + shape[0] // 8 + 1, : shape[1] // 8 + 1] -= 3.5
    usable = random.random(shape) > 0.2
    found = np.zeros(shape, np.bool_)
    for both in (False, True):
        sum_threshold(values, usable, lengths(16, shape[0]), lengths(16, shape[1]), limits(4.0, 1.5, 16), both, found)

        expected = by_definition(values, usable, 16, both)
        assert expected.any()
        np.testing.assert_array_equal(found, expected)


def test_lengths_are_powers_of_two_and_the_whole() -> None:
    """What is there all the time is looked for by all of the time, unless that is too long."""
    assert lengths(64, 24).tolist() == [1, 2, 4, 8, 16, 24]
    assert lengths(64, 768).tolist() == [1, 2, 4, 8, 16, 32, 64]
    assert lengths(64, 1).tolist() == [1]


def test_limits_follow_the_paper() -> None:
    """chi_M = chi_1 / rho^log2(M)."""
    chi = limits(6.0, 1.5, 8)

    assert chi[[1, 2, 4, 8]].tolist() == pytest.approx([6, 4, 6 / 1.5**2, 6 / 1.5**3])


@pytest.mark.parametrize("eta", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_stretches_grow_as_the_rank_operator_says(eta: float, seed: int) -> None:
    """A sample is flagged if any stretch around it has at least 1 - eta of its samples flagged."""
    random = np.random.default_rng(seed)
    print(f"seed {seed}")
    flags = random.random(60) < 0.4
    expected = np.zeros(60, np.bool_)
    for start in range(60):
        for end in range(start + 1, 61):
            if flags[start:end].sum() * 1000 >= round((1 - eta) * 1000) * (end - start):
                expected[start:end] = True

    np.testing.assert_array_equal(rank_operator(flags, eta), expected)
    if eta == 0:
        np.testing.assert_array_equal(rank_operator(flags, eta), flags)


def test_growing_keeps_to_interference() -> None:
    """Edges and zeros do not grow, and are no part of stretches; another correlation's interference is one's own."""
    reasons = np.zeros((1, 20, 2), np.uint16)
    reasons[0, :8] = int(Reason.EDGE)
    reasons[0, [10, 11, 12, 13, 15, 16, 17, 18], 0] = int(Reason.SUM)
    alone = reasons.copy()

    grow(reasons, 0.2, 0.2, 1.0, 1.0, True)
    grow(alone, 0.2, 0.2, 1.0, 1.0, False)

    assert (reasons[0, 10:19] != 0).all() and reasons[0, 14].tolist() == [int(Reason.GROWN)] * 2
    assert reasons[0, 8].tolist() == [0, 0] or (reasons[0, 8] == int(Reason.GROWN)).all()
    assert (reasons[0, :8] == int(Reason.EDGE)).all()
    assert (alone[0, 8:, 1] == 0).all() and alone[0, 14, 0] == int(Reason.GROWN)


def test_whole_times_and_channels() -> None:
    """A time and a channel of which more than the part is interference are flagged as a whole."""
    reasons = np.zeros((10, 10, 1), np.uint16)
    reasons[3, :9] = int(Reason.SUM)
    reasons[:9, 7] = int(Reason.SUM)

    grow(reasons, 0.0, 0.0, 0.8, 1.0, False)
    assert (reasons[3] != 0).all() and reasons[9, 7] == 0

    grow(reasons, 0.0, 0.0, 1.0, 0.8, False)
    assert (reasons[:, 7] != 0).all() and reasons[9, 6] == 0


@pytest.mark.parametrize("shape", [(24, 50), (1, 30), (30, 1), (3, 4)])
def test_surface_is_a_mean_of_neighbours_by_weight(shape: tuple[int, int]) -> None:
    """Three running means, normalised by what may be used, as a convolution gives them."""
    random = np.random.default_rng(3)
    values = random.random(shape).astype(np.float32)
    usable = random.random(shape) > 0.3
    half_time, half_channel = 2, 3

    def smoothed(array: NDArray[np.float64]) -> NDArray[np.float64]:
        for axis, half in ((0, half_time), (1, half_channel)):
            for _ in range(PASSES if shape[axis] > 1 else 0):
                array = np.apply_along_axis(_running, axis, array, half)
        return array

    weight = smoothed(usable.astype(np.float64))
    expected = smoothed(np.where(usable, values, 0).astype(np.float64)) / np.maximum(weight, 1)
    out = np.empty(shape)
    surface(values, usable, half_time, half_channel, 1, out)

    np.testing.assert_allclose(out[weight > 0.5], expected[weight > 0.5], rtol=1e-9)


def _running(line: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    return np.array([line[max(0, at - half) : at + half + 1].sum() for at in range(len(line))])


def test_width_of_running_means() -> None:
    """They smooth as a Gaussian of that standard deviation, to half a sample."""
    for sigma in (1.0, 2.5, 5.0, 7.5, 20.0):
        half = half_width(sigma)
        assert np.sqrt(PASSES * ((2 * half + 1) ** 2 - 1) / 12) == pytest.approx(sigma, abs=0.6)
    assert half_width(0) == 0


def test_deviations_have_noise_one_in_each_channel() -> None:
    """Where channels have other noise than their neighbours far away, deviations have that of none."""
    gains = np.linspace(1, 5, 400)
    values = (10 + gains * np.random.default_rng(0).standard_normal((50, 400))).astype(np.float32)
    out = np.empty(values.shape, np.float32)
    all_ = np.ones(values.shape, np.bool_)

    deviations(values, all_, np.full(values.shape, 10.0), out)

    assert out[:, :50].std() == pytest.approx(1, abs=0.05) and out[:, -50:].std() == pytest.approx(1, abs=0.05)


def test_without_noise_nothing_is_found() -> None:
    """Digits of a smooth signal are not interference."""
    smooth = (5 + np.sin(np.arange(300) / 90)[None, :] + np.zeros((20, 1))).astype(np.float32)
    flat = np.full((20, 300), 3.3, np.float32)
    zero = np.zeros((20, 300), np.float32)
    all_ = np.ones(smooth.shape, np.bool_)

    for values in (flat, zero):
        assert not by_sum_threshold(of_amplitudes(values, all_, Smooth()), Smooth(), SumThreshold()).any()
        assert not by_sigma_clip(of_amplitudes(values, all_, Smooth()), Smooth(), SigmaClip()).any()


def test_what_is_far_too_tall_spoils_no_neighbour() -> None:
    """Numbers up to 1e36 among noise are found, each by itself, and nothing else is."""
    values = noise((24, 200), 11)
    where = np.random.default_rng(1).random(values.shape) < 0.007
    values[where] *= 10.0 ** np.random.default_rng(2).uniform(2, 36, int(where.sum()))
    all_ = np.ones(values.shape, np.bool_)

    for found in (
        by_sum_threshold(of_amplitudes(values, all_, Smooth()), Smooth(), SumThreshold()),
        by_sigma_clip(of_amplitudes(values, all_, Smooth()), Smooth(), SigmaClip()),
    ):
        assert (found & where).sum() >= 0.98 * where.sum()
        assert (found & ~where).sum() <= 3


def test_steps_of_the_band_are_no_interference() -> None:
    """Channels that are lower at all times, as at the edges of sub-bands, are flagged no more than others, nor are
    their neighbours; a carrier beside them is found.
    """
    shape = np.ones(192)
    shape[np.arange(192) % 48 == 0] = shape[np.arange(192) % 48 == 47] = 0.6
    values = (100 * shape + np.random.default_rng(3).standard_normal((24, 192))).astype(np.float32)
    values[:, 50] += 3
    all_ = np.ones(values.shape, np.bool_)

    found = by_sum_threshold(of_amplitudes(values, all_, Smooth()), Smooth(), SumThreshold())

    assert found[:, 50].mean() > 0.9 and np.delete(found, 50, axis=1).mean() < 2e-3


def test_interference_in_antiphase_spoils_no_neighbour() -> None:
    """What takes from the amplitude of a source is found, and what is beside it is not."""
    values = (40 + np.random.default_rng(4).standard_normal((24, 192))).astype(np.float32)
    values[8:11, 60:120] -= 30
    all_ = np.ones(values.shape, np.bool_)

    found = by_sum_threshold(of_amplitudes(values, all_, Smooth()), Smooth(), SumThreshold())

    assert found[8:11, 60:120].all() and found.sum() < 1.05 * 180


def test_a_passing_source_is_not_cut_down() -> None:
    """What is tall for all channels of its time stays as it is in the surface; single samples do not."""
    values = noise((50, 100), 5)
    values[20:30] += 100
    values[40, 50] = 1e6
    prepared, shown = values.copy(), np.empty_like(values)

    prepare(prepared, np.ones(values.shape, np.bool_), 7.5, 5.0, shown)

    assert (shown[20:30] == prepared[20:30]).all()
    assert prepared[40, 50] > 9e5 and shown[40, 50] < 200


def test_a_course_is_followed_to_its_ends() -> None:
    """The line through medians has the slope at both ends, leaves bursts out, and bends with a peak."""
    at = np.arange(24.0)
    course = 100 * np.exp(-(((at - 8) / 36) ** 2)) + 0.01 * np.random.default_rng(2).standard_normal(24)
    values = course.copy()
    values[[3, 15]] += 40
    known = np.ones(24, np.bool_)
    known[20] = False
    values[20] = -1000
    out = np.empty(24)

    line(values, known, 7.5, out)

    np.testing.assert_allclose(out, course, atol=0.2)


def test_too_few_samples_say_little() -> None:
    """Of fewer than sixteen only what is thirty times the median is found; of fewer than three nothing."""
    values = noise((3, 5), 0)
    usable = np.ones(values.shape, np.bool_)
    assert not by_sum_threshold(of_amplitudes(values, usable, Smooth()), Smooth(), SumThreshold()).any()

    values[1, 2] = 1e4
    found = by_sum_threshold(of_amplitudes(values, usable, Smooth()), Smooth(), SumThreshold())
    assert np.argwhere(found).tolist() == [[1, 2]]

    usable[:] = False
    usable[1, 2:4] = True
    assert not by_sum_threshold(of_amplitudes(values, usable, Smooth()), Smooth(), SumThreshold()).any()


@pytest.mark.parametrize("length", [2, 8, 32])
def test_scatter_of_sums_is_measured(length: int) -> None:
    """Of noise sums scatter as those of noise; where neighbours are alike, as much more as they are."""
    values = np.random.default_rng(1).standard_normal((60, 256)).astype(np.float32)
    alike = np.repeat(values, 4, axis=1)
    usable, found = np.ones(alike.shape, np.bool_), np.zeros(alike.shape, np.bool_)

    assert scatter(values, usable[:, :256], found[:, :256], length, 1.0) == pytest.approx(1, abs=0.1)
    assert scatter(alike, usable, found, length, 1.0) == pytest.approx(min(length, 4) ** 0.5, rel=0.15)
    assert scatter(values[:1, :64], usable[:1, :64], found[:1, :64], 32, 1.7) == 1.7
