"""Gates of a calibration: a good one passes, and each thing that can be wrong is told by its gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import SHARED
from interferometer import gains_of, observed, read_uvh5, solved

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.calibration.settings import GainSettings
from absurd.tasks.calibration.solve import solve_bandpass
from absurd.tasks.qa import QualityReport, check_calibration, gates_with
from absurd.tasks.radio.errors import ConfigurationError, QualityError
from absurd.tasks.visibility.visibilities import Visibilities

DATA = SHARED / "data/radio-visibilities"
SEED = 286


def calibrated(**options: Any) -> tuple[Visibilities, Gains, Visibilities]:
    """A calibrator with noise, gains solved from it, and visibilities corrected by them."""
    made = observed(np.random.default_rng(SEED), **{"snr": 5.0, "antennas": 20, "times": 2, **options})
    return made, *solved(made)


def failed(report: QualityReport) -> set[str]:
    """Gates that do not let it pass."""
    return {each.gate for each in report.measures if each.verdict == "fail"}


def test_a_calibrator_passes_all_gates() -> None:
    """At five times the noise a visibility nothing fails and nothing warns, with all gates measured."""
    made, gains, corrected = calibrated()

    report = check_calibration(made, gains=[gains], corrected=corrected, flux_jy=1.0)

    assert report.verdict == "ok", report.to_json()
    measured = {each.gate for each in report.measures if each.value is not None}
    assert {each.gate for each in report.measures} - measured <= {"phase_scatter_deg", "sensitivity"}
    assert report.value("flux_scale") == pytest.approx(1, abs=0.02)
    report.require()


def test_noise_fails_for_its_closure_though_its_gains_look_fit() -> None:
    """Gains solved on noise: corrected baselines agree in phase and flux with the model, and the scan is refused."""
    random = np.random.default_rng(SEED)
    noise = observed(random, antennas=28, channels=64, correlations=("XX",))
    gains, corrected = solved(noise)

    report = check_calibration(noise, gains=[gains], corrected=corrected, flux_jy=1.0)

    assert "closure_log10_false_alarm" in failed(report)
    assert not failed(report) & {"residual_phase_deg", "model_ratio"}
    assert any("closure phases are not to be told from those of noise" in each for each in report.reasons)
    with pytest.raises(QualityError) as raised:
        report.require(product="night.gains")
    assert raised.value.code == "quality_failed"
    assert raised.value.details["product"] == "night.gains"
    assert {each["gate"] for each in raised.value.details["measures"]} == {each.gate for each in report.measures}


@pytest.mark.parametrize(
    ("change", "gates"),
    [
        (lambda made: {"flags": np.ones(made.data.shape, np.bool_)},
         {"unusable_fraction", "antennas", "closure_log10_false_alarm"}),
        (lambda made: {"data": np.full(made.data.shape, np.nan, np.complex64)},
         {"unusable_fraction", "antennas", "closure_log10_false_alarm"}),
        (lambda made: {"flags": np.broadcast_to(np.arange(16)[None, :, None] < 10, made.data.shape)},
         {"unusable_fraction"}),
        (lambda made: {"data": np.where((made.antenna1 + made.antenna2 > 8)[:, None, None], 0, made.data)},
         {"unusable_fraction", "antennas", "closure_log10_false_alarm"}),
        (lambda made: {"data": np.where(np.arange(made.data.shape[1])[None, :, None] < 3, made.data * 1e36, made.data)},
         {"outlier_fraction"}),
        (lambda made: {"time_s": 5e9 + 10.0 * np.arange(len(made.data))}, {"closure_log10_false_alarm"}),
    ],
    ids=["fully flagged", "no numbers", "mostly flagged", "antennas lost", "huge values", "ragged"],
)  # fmt: skip
def test_what_is_wrong_with_visibilities_is_told(change: Any, gates: set[str]) -> None:
    """Each by the gates that see it, with a reason in words; others do not fail for it."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=20)

    report = check_calibration(made.with_(**change(made)))

    assert gates <= failed(report), report.to_json()
    assert failed(report) <= gates | {"closure_departure_deg"}
    assert len(report.reasons) == len(failed(report))


@pytest.mark.parametrize(
    ("gate", "change"),
    [
        ("solution_snr", lambda gains: {"snr": gains.snr * 0 + 2}),
        ("flagged_solutions", lambda gains: {"flags": (np.arange(16)[:, None] % 3 == 0) | (np.arange(2) == 0)}),
        (
            "amplitude_range",
            lambda gains: {"values": gains.values * np.where(np.arange(20) == 3, 50, 1)[:, None, None]},
        ),
        (
            "phase_scatter_deg",
            lambda gains: {"values": np.exp(1j * np.random.default_rng(1).normal(0, 1, gains.values.shape))},
        ),
    ],
)
def test_what_is_wrong_with_gains_is_told(gate: str, change: Any) -> None:
    """Little signal, solutions that are missing, an antenna far from the others, and phases that jump."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=20, with_gains=False)
    shape = (1, 20, 16, 2)
    good = gains_of(np.ones(shape, np.complex128), "bandpass", made)
    assert not failed(check_calibration(made, gains=[good]))
    fields = {name: getattr(good, name) for name in good.__slots__} | change(good)
    fields["flags"] = np.broadcast_to(fields["flags"], shape)

    report = check_calibration(made, gains=[Gains(**fields)])

    assert failed(report) == {gate}
    assert report.reasons[0].startswith(f"{gate} of the bandpass ")


def test_weak_solutions_count_though_they_are_flagged() -> None:
    """A bandpass of which only the luckiest solutions pass SNR 5 has a median below: the gate sees all of them."""
    noise = observed(np.random.default_rng(SEED), snr=0.0, antennas=14, channels=64)
    lucky = solve_bandpass(noise, np.ones(noise.data.shape, np.complex64), GainSettings(min_snr=4.0, normalise=True))
    assert np.median(lucky.snr[~lucky.flags]) > 4

    report = check_calibration(noise, gains=[lucky])

    assert report.value("solution_snr", "bandpass") == pytest.approx(2.1, abs=0.5)
    assert "solution_snr" in failed(report)


def test_amplitudes_of_recordings_in_janskys() -> None:
    """Limits of the median amplitude are for those who know the unit: by default there are none."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=20, with_gains=False)
    weak = gains_of(np.full((1, 20, 16, 2), 0.01 + 0j), "bandpass", made)
    limits = {"gain_amplitude": {"fail_below": 0.1, "fail_above": 10.0}}

    assert not failed(check_calibration(made, gains=[weak]))
    assert failed(check_calibration(made, gains=[weak], gates=gates_with(limits))) == {"gain_amplitude"}


def test_antennas_without_solutions_are_not_left() -> None:
    """An antenna whose solutions are flagged is lost, whatever its data; too few of them, and the set fails."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=12, with_gains=False)
    flags = np.zeros((1, 12, 16, 2), np.bool_)
    flags[:, 8:] = True

    report = check_calibration(
        made, gains=[gains_of(np.ones(flags.shape, np.complex128), "bandpass", made, flags=flags)]
    )

    assert report.value("antennas") == 8
    assert any("antennas 8, below 10" in each and "a8, a9, a10, a11" in each for each in report.reasons)


@pytest.mark.parametrize(
    ("factor", "gates"),
    [
        (1.02, set()),
        (1.6, {"flux_scale"}),
        (0.06, {"flux_scale", "model_ratio"}),
        (np.exp(1j), {"residual_phase_deg", "flux_scale"}),
    ],
)
def test_what_comes_out_is_compared_with_the_model(factor: complex, gates: set[str]) -> None:
    """The flux of the calibrator, the ratio of amplitudes, and phases; 0.06 is what a wrong strip gave."""
    made, gains, corrected = calibrated()
    scaled = corrected.with_(data=(corrected.data * factor).astype(np.complex64))

    report = check_calibration(made, gains=[gains], corrected=scaled, flux_jy=1.0)

    assert failed(report) == gates, report.to_json()
    assert report.value("flux_scale") == pytest.approx(complex(factor).real, rel=0.05, abs=0.05)


def test_limits_can_be_others() -> None:
    """A gate's limits are changed one by one; what is not known is refused with what was perhaps meant."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=9)

    assert failed(check_calibration(made)) == {"antennas"}
    assert not failed(check_calibration(made, gates=gates_with({"antennas": {"fail_below": 6}})))
    with pytest.raises(ConfigurationError, match=r"gate 'antenas' is not known: did you mean antennas\?"):
        gates_with({"antenas": {}})
    with pytest.raises(ConfigurationError, match="fail_under"):
        gates_with({"antennas": {"fail_under": 6}})
    with pytest.raises(ConfigurationError, match="must warn before it fails"):
        gates_with({"unusable_fraction": {"fail_above": 0.1}})


@pytest.mark.skipif(not DATA.exists(), reason="real data are not beside the checkout")
def test_the_scan_of_3c286_is_refused_for_its_closure_phases() -> None:
    """Whatever is solved from it: with the gains of a solver that converged on its noise too."""
    scan = read_uvh5(DATA / "ata.LoA.C0352.uvh5_60647_62965_9760406_3c286_0001.uvh5")
    hands = [scan.correlations.index(each) for each in ("XX", "YY")]
    clean = np.where(np.abs(scan.data) < 1e6, scan.data, 0)[:, :, hands]  # a solver's flags
    small = scan.with_(data=clean, flags=scan.flags[:, :, hands], weights=scan.weights[:, :, hands],
                       correlations=("XX", "YY"))  # fmt: skip
    gains, corrected = solved(small)
    anything = solve_bandpass(small, np.ones(small.data.shape, np.complex64), GainSettings(min_snr=0.0, normalise=True))

    for report in (
        check_calibration(scan),
        check_calibration(scan, gains=[anything]),
        check_calibration(small, gains=[gains], corrected=corrected, flux_jy=1.0),
    ):
        assert "closure_log10_false_alarm" in failed(report), report.to_json()
        assert any("closure phases are not to be told from those of noise" in each for each in report.reasons)
