"""Flagging of recordings: what must be flagged is, for its reason, and what must not be is not."""

from __future__ import annotations

import numpy as np
import pytest
from interference import KINDS, Sky, interfered, recording, waterfalls_of
from numpy.typing import NDArray

from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.visibility.flagging.flagger import flag, flag_recording
from absurd.tasks.visibility.flagging.recording import Held, InMemory, take
from absurd.tasks.visibility.flagging.strategy import STRATEGIES, Strategy, strategy_named
from absurd.tasks.visibility.flagging.waterfalls import waterfalls
from absurd.tasks.visibility.flags import MEANING, Reason, Reasons, histogram, names, tally

BASE = recording()


def has(reasons: Reasons, reason: Reason) -> NDArray[np.bool_]:
    """Where a reason is."""
    there: NDArray[np.bool_] = (reasons & int(reason)) != 0
    return there


def test_noise_is_left_alone() -> None:
    """Of noise less than two in a thousand are flagged."""
    _, reasons, report = flag(BASE)

    assert report.after == np.count_nonzero(reasons) and report.before == 0
    assert report.after < 2e-3 * report.visibilities


@pytest.mark.parametrize(
    "sky",
    [
        [Sky(10.0)],
        [Sky(10.0, 0.004, -0.006)],
        [Sky(10.0, 0.01, 0.01), Sky(7.0, -0.006, 0.012)],
        [Sky(1000.0, 0.002, 0.001)],
    ],
    ids=["centre", "beside", "two", "strong"],
)
def test_a_strong_source_is_not_interference(sky: list[Sky]) -> None:
    """Sources of ten times the noise and more, at the centre, drifting, or two that beat, are left alone."""
    _, _, report = flag(recording(sky=sky))

    assert report.after < 3e-3 * report.visibilities


def test_a_source_that_passes_is_not_interference() -> None:
    """Fifty times the noise for the eighth of an hour that it takes through the beam."""
    quiet = recording(times=200, channels=96, antennas=4)
    power = 50 * np.exp(-(((np.arange(200) - 90) / 30) ** 2))
    data = quiet.data + np.repeat(power, 6).astype(np.float32)[:, None, None]
    _, _, report = flag(quiet.with_(data=data))

    assert report.after < 1e-2 * report.visibilities


def test_the_shape_of_the_band_is_not_interference() -> None:
    """Gains that fall off to the edges of the band, and noise with them."""
    at = np.linspace(-1, 1, 192)
    shape = 1 / (1 + (np.abs(at) / 0.9) ** 16) * (1 + 0.3 * np.sin(4 * at))
    for sky in ([], [Sky(5.0)]):
        _, _, report = flag(recording(shape=shape, sky=sky))

        assert report.after < 4e-3 * report.visibilities, sky


def test_values_that_are_none() -> None:
    """NaN, infinities and numbers beyond all measure are INVALID, zeros ZERO, and neighbours are not flagged."""
    data = BASE.data.copy()
    random = np.random.default_rng(7)
    kind = random.integers(0, 400, data.shape)
    data[kind == 0] = np.nan
    data[kind == 1] = complex(np.inf, 0)
    data[kind == 2] = 1e36
    data[kind == 3] = complex(3e38, -3e38)
    data[kind == 4] = 0
    data[kind == 5] = complex(1.0, np.nan)

    _, reasons, report = flag(BASE.with_(data=data), strategy_named("default", {"grow": None}))

    bad = np.isin(kind, [0, 1, 2, 3, 5])
    np.testing.assert_array_equal(has(reasons, Reason.INVALID), bad)
    np.testing.assert_array_equal(has(reasons, Reason.ZERO), kind == 4)
    assert report.first["invalid"] == bad.sum()
    assert np.count_nonzero(reasons[~bad & (kind != 4)]) < 1e-3 * reasons.size


def test_numbers_of_any_size_spoil_nothing() -> None:
    """A hundredth of the values is up to 1e14 times too large, and not INVALID: they are found, no neighbours are."""
    data = BASE.data.copy()
    where = np.random.default_rng(5).random(data.shape) < 0.01
    data[where] *= (10.0 ** np.random.default_rng(6).uniform(2, 14, int(where.sum()))).astype(np.float32)

    _, reasons, _ = flag(BASE.with_(data=data), strategy_named("default", {"grow": None, "together": None}))

    assert np.count_nonzero(reasons[where]) > 0.97 * where.sum()
    assert np.count_nonzero(reasons[~where]) < 2e-3 * reasons.size


def test_flags_only_grow() -> None:
    """What was flagged stays so, with its reason or as INPUT, and does not change what is found elsewhere by much."""
    before = np.random.default_rng(2).random(BASE.flags.shape) < 0.5
    known = np.where(np.random.default_rng(3).random(before.shape) < 0.5, int(Reason.ZERO), 0).astype(np.uint16)
    flagged, reasons, report = flag(BASE.with_(flags=before), earlier=np.where(before, known, 0).astype(np.uint16))

    assert (flagged.flags >= before).all() and report.before == before.sum()
    np.testing.assert_array_equal(has(reasons, Reason.ZERO), before & (known != 0))
    np.testing.assert_array_equal(has(reasons, Reason.INPUT), before & (known == 0))
    assert report.new < 1e-3 * report.visibilities
    again, reasons_again, report_again = flag(flagged, earlier=reasons)
    assert ((reasons_again & reasons) == reasons).all() and (again.flags >= flagged.flags).all()
    assert report_again.before == report.after


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_search_again_changes_nothing(kind: str) -> None:
    """Flags, reasons and numbers of a second pass are those of the first; another strategy adds its own, no more.

    Beside interference there are flags of others, an antenna without signal, and one that others have flagged.
    """
    some, _ = interfered(BASE, KINDS[kind])
    data, flags = some.data.copy(), np.random.default_rng(8).random(some.flags.shape) < 0.02
    data[some.antenna2 == 2] = 0
    flags[(some.antenna1 == 5) | (some.antenna2 == 5)] |= np.random.default_rng(9).random(flags.shape[1:]) < 0.97
    some = some.with_(data=data, flags=flags)
    first, reasons, report = flag(some)

    again, reasons_again, report_again = flag(first, earlier=reasons)

    np.testing.assert_array_equal(reasons_again, reasons)
    np.testing.assert_array_equal(again.flags, first.flags)
    assert (report_again.before, report_again.after) == (report.after, report.after)
    assert (report_again.dead, report_again.parts) == (report.dead, report.parts)

    quick = strategy_named("quick")
    _, both, _ = flag(first, quick, earlier=reasons)
    np.testing.assert_array_equal(both, reasons | flag(some, quick)[1])


def test_flags_of_others_take_part_in_the_search() -> None:
    """What was flagged by hand since an earlier search is not looked at, and what it hid comes out."""
    some, _ = interfered(BASE, KINDS["carriers"])
    first, reasons, _ = flag(some)
    by_hand = first.flags.copy()
    by_hand[:, 20:150] = True

    _, again, _ = flag(first.with_(flags=by_hand), earlier=reasons)

    np.testing.assert_array_equal(has(again, Reason.INPUT), by_hand & (reasons == 0))
    _, alone, _ = flag(some.with_(flags=by_hand & (reasons == 0)))
    np.testing.assert_array_equal(again, reasons | alone)


@pytest.mark.parametrize("case", ["all flagged", "nothing but NaN", "nothing but zeros", "no rows"])
def test_nothing_left_is_no_error(case: str) -> None:
    """A recording of which nothing can be used is flagged to the end, and its antennas are dead."""
    some = take(BASE, np.arange(0 if case == "no rows" else len(BASE.data)))
    if case == "all flagged":
        some = some.with_(flags=np.ones_like(some.flags))
    elif case != "no rows":
        some = some.with_(data=np.full_like(some.data, np.nan if "NaN" in case else 0))

    flagged, _, report = flag(some)

    assert flagged.flags.all() and report.after == report.visibilities == some.data.size
    assert len(report.dead) >= (0 if case == "no rows" else 14)  # the last one has nobody left to be dead with


def test_dead_antennas_take_no_neighbours_along() -> None:
    """Antennas of zeros, of flags, and one of a correlation alone are dead; those that see them are not."""
    data, flags = BASE.data.copy(), BASE.flags.copy()
    of = {each: (BASE.antenna1 == each) | (BASE.antenna2 == each) for each in (1, 4, 6)}
    data[of[1]] = 0
    flags[of[4]] = np.random.default_rng(0).random(flags[of[4]].shape) < 0.97
    data[of[6], :, 1] = np.nan

    flagged, reasons, report = flag(BASE.with_(data=data, flags=flags))

    assert set(report.dead) == {("pad001", 0), ("pad001", 1), ("pad004", 0), ("pad004", 1), ("pad006", 1)}
    assert has(reasons, Reason.DEAD)[of[4]].all() and flagged.flags[of[1]].all()
    alive = ~(of[1] | of[4] | of[6])
    assert flagged.flags[alive].mean() < 4e-3
    assert report.parts["pad001"] == 1 and report.parts["pad000"] == pytest.approx(2.5 / 7, abs=0.01)


def test_two_antennas_of_three_are_dead() -> None:
    """Where most are dead, one that has a living partner lives."""
    some = recording(antennas=4)
    data = some.data.copy()
    data[np.isin(some.antenna1, [0, 1]) | np.isin(some.antenna2, [0, 1])] = 0

    _, _, report = flag(some.with_(data=data))

    assert {name for name, _ in report.dead} == {"pad000", "pad001"}


def test_antennas_with_themselves() -> None:
    """Autos are flagged for that, or left alone when the strategy says so."""
    some = recording(autos=True)

    _, reasons, _ = flag(some)
    np.testing.assert_array_equal(has(reasons, Reason.AUTO).all(axis=(1, 2)), some.is_auto)

    _, reasons, _ = flag(some, strategy_named("default", {"values": {"autos": False}}))
    assert not has(reasons, Reason.AUTO).any() and (reasons[some.is_auto] != 0).mean() < 0.01


def test_nothing_but_autos() -> None:
    """A set of antennas with themselves alone is flagged as a whole, or searched as any other."""
    some = recording(autos=True)
    some = take(some, np.flatnonzero(some.is_auto))

    assert flag(some)[0].flags.all()
    assert flag(some, strategy_named("default", {"values": {"autos": False}}))[0].flags.mean() < 0.01


def test_edges_of_band_and_sub_bands() -> None:
    """The outer channels of the band and of each sub-band are EDGE, and count for no antenna."""
    strategy = strategy_named("structure", {"edges": {"channels": 10, "subband_channels": 48, "subband_edge": 2}})

    _, reasons, report = flag(BASE, strategy)

    edge = has(reasons, Reason.EDGE)[0, :, 0]
    at = np.arange(192)
    np.testing.assert_array_equal(edge, (at < 10) | (at >= 182) | (at % 48 < 2) | (at % 48 >= 46))
    assert set(report.parts.values()) == {0.0}


def test_amplitudes_out_of_limits() -> None:
    """A clip flags what is below and above, and nothing of the zeros and values without number."""
    _, reasons, _ = flag(BASE, strategy_named("structure", {"clip": {"lowest": 0.1, "highest": 3.0}}))

    amplitude = np.abs(BASE.data)
    np.testing.assert_array_equal(has(reasons, Reason.CLIP), (amplitude < 0.1) | (amplitude > 3.0))


def test_ragged_rows() -> None:
    """Baselines with times of their own, in any order, are each searched as they are."""
    some, truth = interfered(BASE, KINDS["sweeps"])
    random = np.random.default_rng(4)
    kept = np.flatnonzero(random.random(len(some.data)) < 0.7)
    random.shuffle(kept)

    ragged = take(some, kept)
    _, reasons, _ = flag(ragged, strategy_named("default", {"grow": None}))

    assert np.count_nonzero(reasons[truth[kept]]) > 0.9 * truth[kept].sum()
    assert np.count_nonzero(reasons[~truth[kept]]) < 2e-3 * reasons.size


@pytest.mark.parametrize("shape", [(1, 192), (24, 1), (1, 1), (2, 3)])
def test_one_time_or_one_channel(shape: tuple[int, int]) -> None:
    """Directions that are not there are not looked along; noise stays, and what is far too strong is found."""
    some = recording(times=shape[0], channels=shape[1])
    _, _, report = flag(some)
    assert report.after < 5e-3 * report.visibilities

    if shape[0] * shape[1] > 16:
        data = some.data.copy()
        data[len(data) // 2, shape[1] // 2] = 100
        _, reasons, _ = flag(some.with_(data=data))
        assert reasons[len(data) // 2, shape[1] // 2].all()


def test_blocks_do_not_matter() -> None:
    """Whether all is in memory at once or a baseline at a time, the same is flagged."""
    some, _ = interfered(recording(antennas=6, channels=96), KINDS["bursts"])
    order = waterfalls(some.antenna1, some.antenna2, some.scan, some.time_s, some.exposure_s)
    stores = []
    for bytes_at_once in (1, 100_000, 1 << 30):
        stores.append(Held(*some.data.shape))
        told: list[int] = []
        flag_recording(
            InMemory(some),
            order,
            Strategy(),
            stores[-1],
            bytes_at_once=bytes_at_once,
            told=lambda done, total, told=told: told.append(total - done),  # type: ignore[misc]
        )
        assert told[-1] == 0 and sorted(told, reverse=True) == told

    assert (stores[0].all == stores[2].all).all() and (stores[1].all == stores[2].all).all()


def test_waterfalls_end_with_scans_and_before_gaps() -> None:
    """Rows are sorted by baseline and time; a new scan and a long gap begin a new waterfall, in BDA too."""
    some = recording(antennas=3, times=30, channels=1)
    late = some.time_s + np.where(some.time_s > some.time_s[0] + 200, 3600, 0)
    scan = np.where(some.time_s > some.time_s[0] + 100, 2, 1).astype(np.int32)

    order = waterfalls(some.antenna1, some.antenna2, scan, late, some.exposure_s)

    assert order.count == 3 * 3 and sorted(order.rows) == list(range(90))
    for first, last in zip(order.starts[:-1], order.starts[1:], strict=True):
        rows = order.rows[first:last]
        assert len({(some.antenna1[row], some.antenna2[row], scan[row]) for row in rows}) == 1
        assert (np.diff(late[rows]) > 0).all() and np.diff(late[rows]).max() < 100
    assert (
        list(order.blocks(10, 10 * 20)) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
        or len(list(order.blocks(10, 10 * 20))) >= 5
    )


def test_correlations_share_their_interference() -> None:
    """What one correlation has the others are flagged for too, as GROWN, if the strategy says so."""
    data = BASE.data.copy()
    data[:, 50, 0] += 30
    _, reasons, _ = flag(BASE.with_(data=data))
    np.testing.assert_array_equal(reasons[:, 50, 1] != 0, True)
    assert has(reasons, Reason.GROWN)[:, 50, 1].mean() > 0.98

    _, reasons, _ = flag(BASE.with_(data=data), strategy_named("default", {"grow": {"correlations": False}}))
    assert (reasons[:, 50, 1] != 0).mean() < 0.02


def test_the_report_counts_what_is_flagged() -> None:
    """Numbers by reason are those of the bits, and first reasons add up to what is flagged."""
    some, _ = interfered(BASE, KINDS["broad"])
    _, reasons, report = flag(some)

    assert sum(report.first.values()) == report.after == np.count_nonzero(reasons)
    assert report.reasons == {
        str(each.name).lower(): count for each in Reason if (count := np.count_nonzero(has(reasons, each)))
    }
    told = report.told(some.correlations)
    assert told["flagged_part"] == report.after / reasons.size and told["dead_antennas"] == []


def test_reasons_are_bits_that_each_mean_something() -> None:
    """Each has a bit of its own within sixteen, and its meaning."""
    assert [int(each) for each in Reason] == [1 << at for at in range(len(Reason))] and len(Reason) <= 16
    assert list(MEANING) == list(Reason)
    assert names(int(Reason.ZERO | Reason.SUM)) == ["zero", "sum"]
    made = np.array([0, 3, 3, 256], np.uint16)
    assert tally(histogram(made)) == {"input": 2, "missing": 2, "sum": 1}
    assert tally(histogram(made), first=True) == {"input": 2, "sum": 1}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("defualt", {}, "did you mean default"),
        ("default", {"sumthreshold": {}}, "did you mean sum_threshold"),
        ("default", {"sum_threshold": {"longst": 3}}, "did you mean longest"),
        ("default", {"sum_threshold": {"longest": 0}}, "between 1 and 4096"),
        ("default", {"sum_threshold": {"longest": 2.5}}, "of type int"),
        ("default", {"values": {"zeros": "no"}}, "of type bool"),
        ("default", {"dead": {"flagged": float("nan")}}, "between 0 and 1"),
        ("default", {"clip": {"lowest": 2.0, "highest": 1.0}}, "no amplitudes"),
        ("default", {"smooth": None}, "can be left out"),
    ],
)
def test_settings_that_cannot_be_meant(name: str, changes: dict[str, dict[str, object] | None], message: str) -> None:
    """Unknown names are refused with the nearest known, values out of bounds with the bounds."""
    with pytest.raises(ValidationError, match=message):
        strategy_named(name, changes)


def test_every_strategy_can_be_told() -> None:
    """Settings are JSON, without infinities, and tell the steps that are made."""
    import json

    for each in STRATEGIES.values():
        assert "inf" not in json.dumps(each.told()).lower()
    assert "sum_threshold" in STRATEGIES["default"].told() and "clip" not in STRATEGIES["default"].told()
    assert strategy_named("default", {"together": None}).together is None
    assert waterfalls_of(BASE, BASE.data).shape == (28, 24, 192, 2)
