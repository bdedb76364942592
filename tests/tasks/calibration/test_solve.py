"""Gains against known ones: exact without noise, at the noise with it, and what is said where data are not good."""

from __future__ import annotations

import math

import known_gains
import numpy as np
import pytest
from known_gains import Scene

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.calibration.settings import GainSettings
from absurd.tasks.calibration.solve import solve_bandpass, solve_gains
from absurd.tasks.calibration.stefcal import NOISE_SNR
from absurd.tasks.radio.errors import CalibrationError, ValidationError

EACH = GainSettings(interval_s=0, robust=False)


@pytest.fixture
def seed() -> int:
    """Drawn anew in each run; a failure is repeated by writing it here."""
    drawn = int(np.random.default_rng().integers(1 << 31))
    print(f"seed {drawn}")
    return drawn


def point(
    antennas: int = 12, channels: int = 1, times: int = 3, *, flux: float = 2.0, seed: int, **how: float
) -> Scene:
    """A point of `flux` Jy in the phase centre."""
    empty = known_gains.empty(antennas, channels, times)
    model = np.full(empty.data.shape, flux, np.complex64)
    return known_gains.observe(empty, model, seed=seed, noise=how.pop("noise", 0.0), **how)


def found(gains: Gains) -> known_gains.Complex:
    """Values with NaN where flagged."""
    return np.asarray(np.where(gains.flags, np.nan, gains.values))


@pytest.mark.parametrize("antennas", [3, 4, 5, 12, 40])
def test_gains_without_noise_are_exact(antennas: int, seed: int) -> None:
    """With data of single precision and no noise gains are right to a part in a million, whatever their phases."""
    scene = point(antennas, seed=seed)

    gains = solve_gains(scene.visibilities, scene.model, GainSettings(interval_s=0, robust=False, min_baselines=2))

    assert known_gains.error(found(gains), scene.truth) < 1e-6
    assert not gains.flags.any()


def test_phases_only(seed: int) -> None:
    """Mode p gives amplitudes of 1 and the right phases, in whatever unit the data are."""
    scene = point(seed=seed)
    scaled = scene.with_data(data=scene.visibilities.data * np.float32(1e-3))

    gains = solve_gains(scaled.visibilities, scene.model, GainSettings(mode="p", interval_s=0))

    assert np.allclose(np.abs(gains.values), 1, atol=1e-12)
    truth = scene.truth / np.abs(scene.truth)
    assert known_gains.error(gains.values, truth) < 1e-6


def test_amplitudes_only(seed: int) -> None:
    """Mode a gives phases of 0 and the right amplitudes, whatever the phases of the data."""
    scene = point(seed=seed)

    gains = solve_gains(scene.visibilities, scene.model, GainSettings(mode="a", interval_s=0))

    assert np.abs(gains.values.imag).max() == 0
    assert np.allclose(gains.values.real, np.abs(scene.truth), rtol=1e-6)


def test_a_bandpass_is_one_gain_a_channel(seed: int) -> None:
    """Each channel has its own gains, right to a part in a million, and its mean square is 1 if normalised."""
    scene = point(channels=9, times=2, drift=0.0, seed=seed)

    plain = solve_bandpass(scene.visibilities, scene.model, GainSettings(robust=False))
    normal = solve_bandpass(scene.visibilities, scene.model, GainSettings(normalise=True))

    assert known_gains.error(plain.values, scene.truth[:1]) < 1e-6
    assert np.allclose(np.mean(np.abs(normal.values) ** 2, axis=2), 1)
    assert plain.frequencies_hz.tolist() == scene.visibilities.frequencies_hz.tolist()


def test_noise_is_what_theory_says(seed: int) -> None:
    """Error and SNR are those of least squares: the noise over the flux and the root of the other antennas."""
    scene = point(60, channels=4, times=6, flux=5.0, noise=0.5, seed=seed)
    truth = scene.truth
    power = np.mean(np.abs(truth) ** 2, axis=1, keepdims=True)
    snr = np.abs(truth) * 5.0 * np.sqrt(59 * power) / 0.5

    gains = solve_bandpass(scene.visibilities, scene.model, GainSettings(interval_s=0, robust=False))

    off = known_gains.differences(gains.values, truth)
    assert np.sqrt(np.mean(np.abs(off * snr) ** 2) / 2) == pytest.approx(1, abs=0.06)
    assert np.median(gains.snr / snr) == pytest.approx(1, abs=0.03)
    assert gains.chi_squared == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("antennas", [8, 30, 100])
def test_noise_alone_has_an_snr_that_is_known(antennas: int, seed: int) -> None:
    """Noise without any signal gives the root of 8, whatever the number of antennas is, and is told as such."""
    scene = point(antennas, times=40 if antennas < 50 else 6, flux=0.0, noise=1.0, seed=seed)
    model = np.ones_like(scene.model)

    gains = solve_gains(scene.visibilities, model, GainSettings(interval_s=0, min_snr=0.0))

    assert np.sqrt(np.mean(gains.snr[~gains.flags] ** 2)) == pytest.approx(NOISE_SNR, rel=0.15)
    assert "what noise without a signal gives" in gains.warnings[0]


def test_weak_solutions_are_flagged(seed: int) -> None:
    """Below `min_snr` there is no solution: the value is 1, and it is told of whom; the SNR is that for which it is."""
    scene = point(20, flux=1.0, noise=0.3, seed=seed)
    data = scene.visibilities.data.copy()
    quiet = (scene.visibilities.antenna1 == 7) | (scene.visibilities.antenna2 == 7)
    rng = np.random.default_rng(seed)
    noise = 0.3 * (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape))
    data[quiet] = noise[quiet]

    gains = solve_gains(scene.visibilities.with_(data=data), scene.model, GainSettings(min_snr=6.0, interval_s=0))

    assert gains.flags[:, 7].all()
    assert (gains.values[:, 7] == 1).all()
    assert (gains.snr[:, 7] < 6).all()
    assert (gains.snr[:, 7] > 0).all()
    assert any("pad008" in each and "SNR below 6" in each for each in gains.warnings), gains.warnings


def test_dead_antennas_are_flagged_and_told(seed: int) -> None:
    """Antennas without data have no solution, the others have theirs as if those had never been."""
    scene = point(15, seed=seed)
    dead = np.isin(scene.visibilities.antenna1, (2, 9)) | np.isin(scene.visibilities.antenna2, (2, 9))
    flags = scene.visibilities.flags.copy()
    flags[dead] = True

    gains = solve_gains(scene.visibilities.with_(flags=flags), scene.model, EACH)

    assert gains.flags[:, [2, 9]].all()
    assert gains.flags.sum() == gains.flags[:, [2, 9]].size
    assert known_gains.error(found(gains), scene.truth) < 1e-6
    assert "2 of 15 antennas have no data: pad003, pad010" in gains.warnings


def test_too_few_baselines(seed: int) -> None:
    """An antenna with fewer baselines than asked for has no solution, and one that thereby has too few neither."""
    scene = point(8, seed=seed)
    first, second = scene.visibilities.antenna1, scene.visibilities.antenna2
    weak = ((first == 7) | (second == 7)) & ~np.isin(first, (0, 1))
    flags = scene.visibilities.flags.copy()
    flags[weak] = True

    gains = solve_gains(scene.visibilities.with_(flags=flags), scene.model, EACH)

    assert gains.flags[:, 7].all()
    assert not gains.flags[:, :7].any()
    assert any("fewer than 4 baselines: pad008" in each for each in gains.warnings)


def test_two_networks(seed: int) -> None:
    """Where two groups of antennas share no baseline, only the larger is solved: phases between them are unknown."""
    scene = point(12, seed=seed)
    across = (scene.visibilities.antenna1 < 5) & (scene.visibilities.antenna2 >= 5)
    flags = scene.visibilities.flags.copy()
    flags[across] = True

    gains = solve_gains(scene.visibilities.with_(flags=flags), scene.model, EACH)

    assert gains.flags[:, :5].all()
    assert not gains.flags[:, 5:].any()
    assert any("share no baseline with the others" in each for each in gains.warnings)


@pytest.mark.parametrize(
    ("chain", "reference", "said"),
    [
        (("pad003", "pad005"), "pad003", None),
        (("pad002", "pad005"), "pad005", "reference antenna pad002 has no solutions; pad005 is it"),
        (("pad999", "pad005"), "pad005", "reference antenna pad999 is no antenna here; pad005 is it"),
        (("pad002",), None, "no reference antenna of pad002 has solutions"),
    ],
)
def test_the_reference_is_the_first_usable_of_the_chain(
    chain: tuple[str, ...], reference: str | None, said: str | None, seed: int
) -> None:
    """Its phase is 0 at all times; that another one had to stand in is told."""
    scene = point(10, noise=0.01, seed=seed)
    flags = scene.visibilities.flags.copy()
    flags[(scene.visibilities.antenna1 == 1) | (scene.visibilities.antenna2 == 1)] = True

    gains = solve_gains(scene.visibilities.with_(flags=flags), scene.model, GainSettings(interval_s=0, reference=chain))

    assert len(set(gains.reference)) == 1
    if reference:
        assert gains.reference[0] == reference
    assert gains.reference[0] != "pad002"
    at = gains.antennas.index(gains.reference[0])
    assert np.abs(np.angle(gains.values[:, at])).max() < 1e-9
    told = [each for each in gains.warnings if "reference" in each]
    assert [said] == [each[: len(said)] for each in told] if said else not told


def test_phases_go_on_where_the_reference_is_away(seed: int) -> None:
    """In a time without the reference another one holds the phase that it had: no antenna's phase jumps."""
    scene = point(10, times=4, drift=0.0, noise=0.001, seed=seed)
    away = ((scene.visibilities.antenna1 == 0) | (scene.visibilities.antenna2 == 0)) & (scene.visibilities.field == 2)
    flags = scene.visibilities.flags.copy()
    flags[away] = True

    gains = solve_gains(
        scene.visibilities.with_(flags=flags), scene.model, GainSettings(interval_s=0, reference=("pad001", "pad004"))
    )

    assert gains.reference[:2] == ("pad001", "pad001")
    assert gains.reference[2] == "pad004"
    steady = np.angle(gains.values[:, 1:] * np.conj(gains.values[:1, 1:]))
    assert np.abs(steady).max() < 0.01
    assert any("stand in" in each for each in gains.warnings)


def test_interference_is_told_and_held_down(seed: int) -> None:
    """With a tenth of the visibilities a hundred times too strong gains are right to the noise, and it is told."""
    clean = point(30, times=64, drift=0.0, noise=0.2, seed=seed)
    rng = np.random.default_rng(seed)
    hit = rng.random(clean.visibilities.data.shape) < 0.1
    burst = 200 * np.exp(2j * np.pi * rng.random(hit.shape))
    data = np.where(hit, burst, clean.visibilities.data).astype(np.complex64)

    robust = solve_gains(clean.visibilities.with_(data=data), clean.model)
    reference = solve_gains(clean.visibilities, clean.model)
    try:
        plain = solve_gains(clean.visibilities.with_(data=data), clean.model, GainSettings(robust=False))
        harm = known_gains.error(found(plain), reference.values)
        assert any("of the visibilities lie more than" in each for each in plain.warnings)
    except CalibrationError:
        harm = math.inf

    assert known_gains.error(robust.values, reference.values) < 0.01 < harm
    assert robust.outliers == pytest.approx(0.1, rel=0.05)
    assert any(each.startswith(("10.", "9.")) for each in robust.warnings), robust.warnings
    assert not reference.warnings


def test_the_same_input_gives_the_same_bits(seed: int) -> None:
    """Nothing depends on chance, on threads or on what was solved before."""
    scene = point(20, channels=8, noise=0.5, seed=seed)

    first = solve_gains(scene.visibilities, scene.model)
    solve_gains(scene.visibilities, scene.model * 2)
    second = solve_gains(scene.visibilities, scene.model)

    assert first.values.tobytes() == second.values.tobytes()
    assert first.snr.tobytes() == second.snr.tobytes()


def test_rows_of_either_orientation(seed: int) -> None:
    """A row of antennas q and p tells what one of p and q does, conjugated."""
    scene = point(9, seed=seed)
    seen = scene.visibilities
    turn = np.random.default_rng(seed).random(len(seen.time_s)) < 0.5
    turned = seen.with_(
        antenna1=np.where(turn, seen.antenna2, seen.antenna1),
        antenna2=np.where(turn, seen.antenna1, seen.antenna2),
        uvw_m=np.where(turn[:, None], -seen.uvw_m, seen.uvw_m),
        data=np.where(turn[:, None, None], np.conj(seen.data), seen.data),
    )

    expected = solve_gains(seen, scene.model, EACH)
    actual = solve_gains(turned, scene.model, EACH)

    assert np.allclose(actual.values, expected.values, atol=1e-7)


def test_what_is_no_number_is_not_used(seed: int) -> None:
    """Values, weights and models that are NaN or infinite leave no trace, nor do autocorrelations."""
    scene = point(9, channels=4, seed=seed)
    data, model = scene.visibilities.data.copy(), scene.model.copy()
    weights = scene.visibilities.weights.copy()
    data[::7, 1], data[::11, 2], model[::13, 0], weights[::5, 3] = np.nan, np.inf, np.nan, np.nan
    weights[::9, 1] = -1

    gains = solve_bandpass(
        scene.visibilities.with_(data=data, weights=weights), model, GainSettings(interval_s=0, robust=True)
    )

    assert known_gains.error(found(gains), scene.truth) < 1e-5


def test_only_baselines_of_the_range(seed: int) -> None:
    """Baselines outside of it, at each channel's wavelength, do not count."""
    scene = point(14, channels=3, seed=seed)
    seen = scene.visibilities
    length = np.hypot(*seen.uvw_m.T[:2])[:, None] * seen.frequencies_hz / 299_792_458.0
    middle = float(np.median(length))
    data = seen.data.copy()
    data[length < middle] = 1e5

    gains = solve_bandpass(
        seen.with_(data=data), scene.model, GainSettings(interval_s=0, uv_range_wavelengths=(middle, math.inf))
    )

    assert known_gains.error(found(gains), scene.truth) < 1e-5


def test_a_prior_is_taken_out(seed: int) -> None:
    """With the bandpass as prior what is left are the gains in time; their product is the truth."""
    scene = point(10, channels=5, times=3, seed=seed)
    bandpass = solve_bandpass(scene.visibilities, scene.model, GainSettings(interval_s=0, robust=False))
    first = Gains(
        **{
            name: getattr(bandpass, name)[:1]
            for name in ("values", "flags", "snr", "time_s", "interval_s", "reference")
        },
        kind="bandpass",
        frequencies_hz=bandpass.frequencies_hz,
        polarisations=bandpass.polarisations,
        antennas=bandpass.antennas,
    )

    gains = solve_gains(scene.visibilities, scene.model, EACH, prior=[first])

    assert known_gains.error(gains.values * first.values, scene.truth) < 1e-6


def test_gaps_of_a_bandpass_are_filled(seed: int) -> None:
    """Up to so many channels in a row are interpolated, amplitude and phase; wider gaps stay flagged."""
    scene = point(8, channels=20, times=1, drift=0.0, seed=seed)
    flags = scene.visibilities.flags.copy()
    flags[:, 5:7] = flags[:, 12:17] = True

    gains = solve_bandpass(scene.visibilities.with_(flags=flags), scene.model, GainSettings(fill_gaps=3))

    assert not gains.flags[:, :, 5:7].any()
    assert gains.flags[:, :, 12:17].all()
    assert np.abs(np.abs(gains.values[0, :, 5:7]) / np.abs(scene.truth[0, :, 5:7]) - 1).max() < 0.02


@pytest.mark.parametrize(
    ("what", "bad", "reason"),
    [
        ("flags", True, "are flagged"),
        ("weights", 0, "have no weight"),
        ("data", np.nan, "are no number"),
        ("model", 0, "have a model of 0 or no number"),
    ],
)
def test_nothing_to_solve_from(what: str, bad: float, reason: str, seed: int) -> None:
    """Where all is flagged, without weight or number, or has a model of 0, that is what the error tells."""
    scene = point(5, seed=seed)
    seen, model = scene.visibilities, scene.model
    if what == "model":
        model = np.zeros_like(model)
    else:
        seen = seen.with_(**{what: np.full(seen.data.shape, bad, getattr(seen, what).dtype)})

    with pytest.raises(CalibrationError, match=f"no visibility can be used: of [0-9,]+ 100.0% {reason}$"):
        solve_gains(seen, model)


def test_what_becomes_of_visibilities_is_counted_once(seed: int) -> None:
    """Shares of what cannot be used make the whole, whatever else is wrong with the same ones."""
    scene = point(5, seed=seed)
    shape = scene.visibilities.data.shape
    flags, data = np.zeros(shape, np.bool_), scene.visibilities.data.copy()
    flags[: len(flags) // 2], data[:, :, :] = True, np.nan
    short = GainSettings(uv_range_wavelengths=(0, 0.5))

    with pytest.raises(CalibrationError, match=r"50\.0% are flagged, 50\.0% are no number$"):
        solve_gains(scene.visibilities.with_(flags=flags, data=data), scene.model)
    with pytest.raises(CalibrationError, match=r"100\.0% are outside of the range of baselines$"):
        solve_gains(scene.visibilities, scene.model, short)


def test_no_solution_passes(seed: int) -> None:
    """If no solution reaches the SNR that is asked for there are no gains, and the error says why."""
    scene = point(10, flux=1.0, noise=0.3, seed=seed)

    with pytest.raises(CalibrationError, match="no gain passes: 10 of 10 antennas have an SNR below 500"):
        solve_gains(scene.visibilities, scene.model, GainSettings(min_snr=500))


def test_correlations_without_a_gain(seed: int) -> None:
    """Cross-hand correlations alone are refused; beside the others they are left out."""
    scene = point(6, seed=seed)
    seen = scene.visibilities.with_(correlations=("XY", "YX"))

    with pytest.raises(CalibrationError, match="XX, YY, RR or LL"):
        solve_gains(seen, scene.model)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "x"}, {"interval_s": -1}, {"interval_s": math.nan}, {"combine": "scan"}, {"combine": ("day",)},
        {"reference": "pad001"}, {"uv_range_wavelengths": (5, 1)}, {"min_baselines": 0}, {"tolerance": 0},
        {"min_snr": math.nan}, {"max_chi_squared": 1}, {"outlier_sigma": 1}, {"max_iterations": 0}, {"fill_gaps": -1},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    """Each is refused by name."""
    name = next(iter(wrong))

    with pytest.raises(ValidationError, match=f"gains cannot be solved with {name} "):
        GainSettings(**wrong)  # type: ignore[arg-type]


def test_a_model_of_another_shape(seed: int) -> None:
    """A model that does not go with the data is refused with both shapes."""
    scene = point(5, seed=seed)

    with pytest.raises(CalibrationError, match=r"\(3, 4\)"):
        solve_gains(scene.visibilities, np.ones((3, 4), np.complex64))
