"""``qa.calibration``: what does not pass ends as a failed task, and its gains where nobody looks for them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHARED
from house import unpack
from interferometer import gains_of, observed, solved, visibilities_of
from memory_port import MemoryPort
from single_run import fail, run, run_to_end

from absurd import SyncAbsurdClient
from absurd.outcome import Failed
from absurd.tasks.calibration.flux_scale import flux_calibrator
from absurd.tasks.calibration.gain_table import GainSet, read_gains, write_gains
from absurd.tasks.pipeline import load_pipeline_config, stage_params
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.simulate import simulate
from absurd.tasks.qa import release_from_quarantine
from absurd.tasks.radio.telescope import load_telescope
from absurd.tasks.visibility.convert import convert_group
from absurd.tasks.visibility.foreign import read_visibilities
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.visibilities import PhaseCentre, Visibilities

DATA = SHARED / "data/radio-visibilities"
ATA = DATA / "ata.LoA.C0352.uvh5_60647_62965_9760406_3c286_0001.uvh5"
SEED = 8
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real data are not beside the checkout")


@pytest.fixture(autouse=True)
def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That in which tasks look for the gain sets that they judge."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)


def stored(folder: Path, visibilities: Visibilities) -> dict[str, Any]:
    """A Measurement Set with gains that were solved from it: params of the executor."""
    gains, _ = solved(visibilities)
    folder.mkdir()
    write_measurement_set(visibilities, folder / "night.ms")
    write_gains(folder / "night.gains", GainSet((gains,)))
    return {
        "ms": str(folder / "night.ms"),
        "sets": [str(folder / "night.gains")],
        "flux_jy": 1.0,
        "reports": str(folder / "logs"),
    }


@pytest.fixture
def calibrator(tmp_path: Path) -> dict[str, Any]:
    """Of a source at five times the noise."""
    return stored(tmp_path / "signal", observed(np.random.default_rng(SEED), snr=5, antennas=14, channels=8))


@pytest.fixture
def noise(tmp_path: Path) -> dict[str, Any]:
    """Of nothing."""
    return stored(tmp_path / "noise", observed(np.random.default_rng(SEED), snr=0, antennas=14, channels=64))


def test_a_calibration_that_passes(calibrator: dict[str, Any], tmp_path: Path) -> None:
    """The result tells all measures, and the report has the same; the gains stay where they are."""
    result, _ = run("qa.calibration", calibrator)

    assert result["verdict"] in {"ok", "warn"}
    report = json.loads((tmp_path / "signal" / "logs" / "night.gains.quality.json").read_text())
    assert report["measures"] == result["measures"]
    assert result["report"] == str(tmp_path / "signal" / "logs" / "night.gains.quality.json")
    measured = {each["gate"] for each in result["measures"] if each["value"] is not None}
    assert {"closure_log10_false_alarm", "flux_scale", "solution_snr", "antennas"} <= measured
    assert (tmp_path / "signal" / "night.gains").is_dir()


def test_one_that_does_not_ends_as_failed_and_in_quarantine(noise: dict[str, Any], tmp_path: Path) -> None:
    """It is not tried again; the error tells reasons and places; nothing is deleted, and it can be released."""
    before = sorted(each.name for each in (tmp_path / "noise" / "night.gains").rglob("*"))

    outcome = run_to_end("qa.calibration", noise, MemoryPort())

    assert isinstance(outcome, Failed)
    assert outcome.delay is None
    assert outcome.error["code"] == "quality_failed"
    assert "closure phases are not to be told from those of noise" in outcome.error["message"]
    place = tmp_path / "noise" / "quarantine" / "night.gains"
    assert str(place) in outcome.error["message"]
    assert not (tmp_path / "noise" / "night.gains").exists()
    assert sorted(each.name for each in place.rglob("*")) == before
    told = json.loads(place.with_name("night.gains.reasons.json").read_text())
    assert told["verdict"] == "fail"
    assert any("closure" in each for each in told["reasons"])
    assert len(told["measures"]) > 10
    again = fail("qa.calibration", noise)
    assert again["code"] == "quality_failed"
    assert "is in quarantine since" in again["message"]
    release_from_quarantine(place)
    assert fail("qa.calibration", noise | {"quarantine": False})["code"] == "quality_failed"
    assert (tmp_path / "noise" / "night.gains").is_dir()


def test_limits_decide(noise: dict[str, Any], calibrator: dict[str, Any]) -> None:
    """A gate can be closed for what passes with the usual limits; unknown ones are no params."""
    assert (
        "antennas 14, below 20"
        in fail("qa.calibration", calibrator | {"limits": {"antennas": {"fail_below": 20}}})["message"]
    )
    assert fail("qa.calibration", noise | {"limits": {"antenas": {}}})["code"] == "invalid_params"
    assert fail("qa.calibration", noise | {"gain_set": 1})["code"] == "invalid_params"


def test_what_is_not_there_is_told(calibrator: dict[str, Any], tmp_path: Path) -> None:
    """A set or recording that does not exist is an error of its own, not one of quality."""
    assert fail("qa.calibration", calibrator | {"sets": [str(tmp_path / "none")]})["code"] == "visibility_data"
    assert fail("qa.calibration", calibrator | {"ms": str(tmp_path / "none.ms")})["code"] == "visibility_unreadable"


ANY = {"antennas": {"fail_below": None}}
"""However few antennas there are: it is not for these that a set is to fail."""


@needs_data
def test_real_recordings_that_hold_nothing_usable(tmp_path: Path) -> None:
    """The scan of 3C286 that is noise, a ragged set, and one of noise with NaN: each fails for its own reason."""
    ms = unpacked("test_adp4_0_00300673800807520000_58342_05_00_14.ms.tar.gz", tmp_path)
    for recording, reason in (
        (ATA, "closure phases are not to be told from those of noise"),
        (DATA / "simulated_bda_file.uvh5", "rows are averaged over 2 to 16 s, and few baselines share times"),
        (ms, "3 independent triangles are too few to tell noise from anything: mean cosine -0.03"),
    ):
        told = fail("qa.calibration", {"ms": str(recording), "reports": str(tmp_path), "limits": ANY})
        assert told["code"] == "quality_failed"
        assert reason in told["message"]
        assert "antennas" not in told["message"].split("does not pass")[1].split(";")[0]


@needs_data
def test_a_real_recording_without_flags_or_numbers(tmp_path: Path) -> None:
    """A good one of HERA, of which all is flagged, or no number: that is the reason, and closure cannot be measured."""
    good = read_visibilities(DATA / "zen.2458043.40141.xx.HH.XRAA.uvh5")
    for name, changed, reason in (
        ("flagged", {"flags": np.ones(good.data.shape, np.bool_)}, "unusable_fraction 1, above 0.5 (flagged 100 %"),
        ("none", {"data": np.full(good.data.shape, np.nan, np.complex64)}, "not finite 93"),
    ):
        write_measurement_set(good.with_(**changed), tmp_path / f"{name}.ms")
        told = fail("qa.calibration", {"ms": str(tmp_path / f"{name}.ms"), "limits": ANY})
        assert told["code"] == "quality_failed"
        assert reason in told["message"]
        assert "unusable_fraction 1, above 0.5" in told["message"]
        assert "closure_log10_false_alarm cannot be measured" in told["message"]


@needs_data
def test_a_real_calibrator_from_its_recording_to_corrected_data(tmp_path: Path) -> None:
    """J1008+0730, seen by the VLA: solved, judged, applied; phases of baselines scatter as noise has them.

    A channel differs from the next by noise alone, which tells how far the mean of a baseline may be off.
    """
    ms = str(unpacked("day2_TDEM0003_10s_norx_1src_1spw.ms.tar.gz", tmp_path))
    solution = {"solint": "30s", "minsnr": 3}
    solve = {
        "ms": ms, "out": str(tmp_path / "cal"), "flux_jy": 1.0, "beam": "none", "prebp": solution,
        "bcal": {"minsnr": 3, "fillgaps": 0}, "gcal": solution,
    }  # fmt: skip

    solved, _ = run("calibration.solve", solve)
    judged, _ = run("qa.calibration", {"ms": ms, "gain_set": solved["gain_set"], "limits": WEAK})
    done, _ = run("calibration.apply", {"ms": ms, "out": str(tmp_path / "corrected.ms")})

    assert (solved["state"], judged["state"]) == ("candidate", "valid")
    assert [each["gain_set"] for each in done["gains"]] == [solved["gain_set"]]
    seen = read_measurement_set(done["path"])
    hands = [seen.correlations.index(each) for each in ("RR", "LL")]
    data, good = seen.data[..., hands], seen.usable[..., hands] & ~seen.is_auto[:, None, None]
    mean = complex(np.average(data[good], weights=seen.weights[..., hands][good]))
    assert abs(mean - 1) < 0.02
    shares = []
    for pair in {(p, q) for p, q in zip(seen.antenna1.tolist(), seen.antenna2.tolist(), strict=True) if p != q}:
        rows = (seen.antenna1 == pair[0]) & (seen.antenna2 == pair[1])
        for hand in range(2):
            own, used = data[rows, :, hand], good[rows, :, hand]
            if used.sum() < 300:
                continue
            steps = np.abs(np.diff(own, axis=1)[used[:, 1:] & used[:, :-1]]) ** 2
            mean, noise = own[used].mean(), np.sqrt(steps.mean() / 4 / used.sum())
            shares.append(np.angle(mean) * abs(mean) / noise)
    assert len(shares) > 100
    assert np.sqrt(np.mean(np.square(shares))) == pytest.approx(1, abs=0.3)


WEAK = {"antennas": {"fail_below": 8}, "flagged_solutions": {"fail_above": 0.9}, "solution_snr": {"fail_below": 2.9}}
"""Half of the antennas give data, and of a visibility the signal is as strong as the noise."""


def unpacked(name: str, folder: Path) -> Path:
    """The Measurement Set of an archive of real data."""
    unpack(DATA / name, folder)
    return folder / name.removesuffix(".tar.gz")


def test_a_set_that_is_fully_flagged_or_has_no_numbers(tmp_path: Path) -> None:
    """Each fails for what it lacks."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=12, channels=4)
    for name, changed, reason in (
        ("flagged", {"flags": np.ones(made.data.shape, np.bool_)}, "flagged 100 %"),
        ("none", {"data": np.full(made.data.shape, np.nan, np.complex64)}, "not finite 100 %"),
    ):
        write_measurement_set(made.with_(**changed), tmp_path / f"{name}.ms")
        told = fail("qa.calibration", {"ms": str(tmp_path / f"{name}.ms")})
        assert told["code"] == "quality_failed"
        assert reason in told["message"]
        assert "antennas 0, below 10" in told["message"]


def test_gain_sets_of_the_database(calibrator: dict[str, Any], database_url: str, tmp_path: Path) -> None:
    """A candidate that passes becomes valid; one that does not is quarantined there before its folder is moved."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=14, channels=8)
    jumping = np.exp(1j * np.random.default_rng(SEED).normal(0, 2, (1, 14, 8, 2)))
    write_gains(tmp_path / "signal" / "bad.gains", GainSet((gains_of(jumping, "bandpass", made),)))
    with SyncAbsurdClient(database_url) as client:
        rows = [_row(tmp_path / "signal" / name) for name in ("night.gains", "bad.gains")]
        numbers = [client.register_gain_set(row, "candidate")["id"] for row in rows]
        params = {name: value for name, value in calibrator.items() if name != "sets"}

        result, _ = run("qa.calibration", params | {"gain_set": numbers[0]})
        told = fail("qa.calibration", params | {"gain_set": numbers[1]})

        assert result["state"] == "valid"
        assert told["code"] == "quality_failed"
        valid, quarantined = (client.get_gain_set(number) for number in numbers)
    assert valid is not None
    assert quarantined is not None
    assert (valid["state"], quarantined["state"]) == ("valid", "quarantined")
    assert valid["quality"]["values"]["antennas"] == 14
    assert (tmp_path / "signal" / "quarantine" / "bad.gains").is_dir()


def test_a_folder_that_is_moved_is_quarantined_in_the_database_too(
    noise: dict[str, Any], database_url: str, tmp_path: Path
) -> None:
    """By its path and content, whatever its state is; not where it is judged as it lies, nor the row of another."""
    path = Path(noise["sets"][0])
    with SyncAbsurdClient(database_url) as client:
        rows = [_row(path), _row(path) | {"checksum": "0" * 64}, _row(path) | {"path": str(tmp_path / "other.gains")}]
        numbers = [client.register_gain_set(row, "candidate")["id"] for row in rows]

        def states() -> list[str]:
            return [(client.get_gain_set(number) or {})["state"] for number in numbers]

        fail("qa.calibration", noise | {"quarantine": False})
        assert states() == ["candidate"] * 3
        client.accept_gain_set(numbers[0])
        fail("qa.calibration", noise)

        assert states() == ["quarantined", "candidate", "candidate"]
        row = client.get_gain_set(numbers[0])
        assert row is not None
        assert "closure phases are not to be told from those of noise" in row["reason"]
        assert row["quality"]["verdict"] == "fail"
        client.accept_gain_set(numbers[0], again=True)
        assert "is in quarantine since" in fail("qa.calibration", noise)["message"]
        assert states()[0] == "quarantined"


def test_a_set_is_judged_on_a_recording_that_it_holds_for(
    calibrator: dict[str, Any], database_url: str, tmp_path: Path
) -> None:
    """A recording of another night or strip says nothing of it: it stays the candidate that it was."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=14, channels=8)
    write_measurement_set(made.with_(time_s=made.time_s + 86_400), tmp_path / "other.ms")
    south = made.with_(phase_centres=(PhaseCentre("south", 1.0, -0.5),))
    write_measurement_set(south, tmp_path / "south.ms")
    params = {name: value for name, value in calibrator.items() if name != "sets"}
    with SyncAbsurdClient(database_url) as client:
        number = client.register_gain_set(_row(tmp_path / "signal" / "night.gains"), "candidate")["id"]
        for name, said in (("other", "24.0 h old"), ("south", "degrees from -28.65")):
            told = fail("qa.calibration", params | {"gain_set": number, "ms": str(tmp_path / f"{name}.ms")})
            assert told["code"] == "calibration_failed"
            assert f"gain set {number} is not judged on {name}.ms" in told["message"]
            assert said in told["message"]
        assert (client.get_gain_set(number) or {})["state"] == "candidate"


def test_a_wrong_flux_does_not_pass_by_agreeing_with_itself(tmp_path: Path) -> None:
    """Gains solved against a hundred times the flux agree with it; the noise that they leave is not the telescope's."""
    sefd_jy = load_telescope("dsa110").sefd_jy
    noise_jy = sefd_jy / np.sqrt(2 * 1e6 * 10.0)
    verdicts = {}
    for name, flux_jy in (("right", 5 * noise_jy), ("wrong", 500 * noise_jy)):
        params = stored(tmp_path / name, observed(np.random.default_rng(SEED), snr=5, antennas=14, channels=8))
        gains = read_gains(params["sets"][0]).tables[0]  # of a point of 1 Jy
        scaled = replace(gains, values=gains.values / np.sqrt(flux_jy))
        write_gains(tmp_path / name / "scaled.gains", GainSet((scaled,)))
        params |= {"sets": [str(tmp_path / name / "scaled.gains")], "flux_jy": flux_jy, "telescope": "dsa110"}
        outcome = run_to_end("qa.calibration", params, MemoryPort())
        verdicts[name] = outcome.error if isinstance(outcome, Failed) else json.loads(outcome.result)

    right = {each["gate"]: each["value"] for each in verdicts["right"]["measures"]}
    assert right["sensitivity"] == pytest.approx(1, abs=0.1)
    assert right["flux_scale"] == pytest.approx(1, abs=0.05)
    assert "sensitivity 9" in verdicts["wrong"]["message"] or "sensitivity 10" in verdicts["wrong"]["message"]
    assert verdicts["wrong"]["message"].count(";") == 2  # one reason, the place of quarantine, the report


def test_the_sky_is_the_one_that_gains_were_solved_against(tmp_path: Path) -> None:
    """Other lists beside the gates than beside the solver are told, and not taken for the sky."""
    made = observed(np.random.default_rng(SEED), snr=5, antennas=12, channels=4)
    source = flux_calibrator("3C286")
    made = made.with_(phase_centres=(PhaseCentre("3C286", source.ra_rad, source.dec_rad),), uvw_m=0.1 * made.uvw_m)
    write_measurement_set(made, tmp_path / "a.ms")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "a.txt").write_text("1331+300   J2000  A 13h31m40.0s  30d20'00.0\"  Aug01\n 20cm L  P P P P       9.00\n")
    given = {"ms": str(tmp_path / "a.ms"), "out": str(tmp_path / "cal"), "catalogs": str(lists), "register_as": "none"}
    solved, _ = run("calibration.solve", given | {"beam": "none"})

    told = fail("qa.calibration", {"ms": given["ms"], "sets": [solved["path"]]})

    assert told["code"] == "pipeline_validation"
    assert "solved against a sky of 2 sources, and the catalogs here give 1 (1331+300: 9" in told["message"]
    same = run_to_end(
        "qa.calibration", {"ms": given["ms"], "sets": [solved["path"]], "catalogs": str(lists)}, MemoryPort()
    )
    assert not isinstance(same, Failed) or same.error["code"] == "quality_failed"


def test_a_calibrator_counts_where_it_is_a_point(tmp_path: Path) -> None:
    """Two sources a list has as one up to 400 wavelengths, seen by a row of antennas 1,650 long: as the solver does.

    As a point on all baselines they have half the flux; where no baseline is short enough there is no sky to judge by.
    """
    random = np.random.default_rng(SEED)
    antennas, channels, apart_rad = 20, 8, 5e-4
    positions = np.stack([20.0 * np.arange(antennas), *np.zeros((2, antennas))], axis=-1)
    first, second = np.triu_indices(antennas, 1)
    uvw, frequencies = positions[first] - positions[second], np.linspace(1.3e9, 1.307e9, channels)
    sky = 10 * np.cos(np.pi * apart_rad * uvw[:, :1] * frequencies / 299_792_458.0)
    gains = random.uniform(0.7, 1.3, antennas) * np.exp(2j * np.pi * random.uniform(size=antennas))
    noise = random.normal(0, 0.5, (2, len(first), channels, 2))
    data = (sky * (gains[first] * gains[second].conj())[:, None])[..., None] + noise[0] + 1j * noise[1]
    made = visibilities_of(
        data, uvw, np.full(len(first), 5e9), first, second, frequencies, ("XX", "YY"), positions
    ).with_(phase_centres=(PhaseCentre("0640+400", math.radians(100.0), math.radians(40.0)),))
    params = {"ms": str(tmp_path / "a.ms"), "catalogs": str(tmp_path)}
    write_measurement_set(made, params["ms"])

    def list_up_to(kilowavelengths: str) -> None:
        band = f" 20cm L  P P P P {10.0:10.2f} {'':>12} {kilowavelengths:>12}\n"
        (tmp_path / "list.txt").write_text(f"0640+400   J2000  A 06h40m00.0s  40d00'00.0\"  Aug01\n{band}")

    list_up_to("0.4")
    solved, _ = run("calibration.solve", params | {"out": str(tmp_path), "beam": "none", "register_as": "none"})
    judged = params | {"sets": [solved["path"]], "reports": str(tmp_path), "quarantine": False}

    result, _ = run("qa.calibration", judged)
    list_up_to("40")
    everywhere = fail("qa.calibration", judged)
    list_up_to("0.01")
    nowhere = fail("qa.calibration", judged)

    values = {each["gate"]: each["value"] for each in result["measures"]}
    assert values["flux_scale"] == pytest.approx(1, abs=0.1)
    assert values["model_ratio"] < 1.1
    assert "flux_scale 0." in everywhere["message"]
    assert nowhere["code"] == "pipeline_validation"
    assert "0640+400 is a point on baselines from 0 to 10 wavelengths, and none is here" in nowhere["message"]


def _row(path: Path) -> dict[str, Any]:
    """A gain set as the database is told of it, of the recording that `observed` makes."""
    at = "2017-04-27T08:53:15+00:00"
    return {
        "telescope": "test",
        "path": str(path),
        "checksum": read_gains(path).checksum,
        "bytes": 1,
        "kinds": ["bandpass"],
        "source": "made up",
        "ra": 10.0,
        "declination": 28.65,
        "strip": 1.0,
        "lowest_hz": 1.3e9,
        "highest_hz": 1.4e9,
        "observed_from": at,
        "observed_until": "2017-04-27T08:53:25+00:00",
        "valid_from": "2017-04-26T21:00:00+00:00",
        "valid_until": "2017-04-27T21:00:00+00:00",
        "quality": {},
        "provenance": {},
    }


def test_a_simulated_night_from_sub_bands_to_gains_that_pass(tmp_path: Path) -> None:
    """By the configuration for testing: simulated, converted, solved and judged against the sky it was solved with.

    The same antennas with nothing but noise give gains, too, with warnings; these are quarantined.
    """
    config = load_pipeline_config(
        "testing", overrides={"paths": {"base_dir": str(tmp_path)}, "ms_creation": {"n_frequencies": 16, "n_times": 3}}
    )
    told = stage_params(config, "pipeline simulate")
    judged = stage_params(config, "qa.calibration")
    solve = stage_params(config, "calibration.solve")
    verdicts = {}
    for name, calibrator, sources in (("signal", "0834+555", 3), ("noise", None, 0)):
        folder = Path(told["folder"]) / name
        settings = told["settings"] | {"calibrator": calibrator, "sources": sources, "seed": 1}
        simulate(SimulationSettings(**settings), folder)
        ms = {"ms": str(tmp_path / f"{name}.ms")}
        convert_group(sorted(str(each) for each in folder.glob("*.hdf5")), ms["ms"])
        sky = {"flux_jy": 8.8} if calibrator is None else {}
        gains, _ = run("calibration.solve", solve | ms | sky)
        outcome = run_to_end("qa.calibration", judged | ms | {"gain_set": gains["gain_set"]}, MemoryPort())
        verdicts[name] = outcome.error if isinstance(outcome, Failed) else json.loads(outcome.result)

    assert "state" in verdicts["signal"], verdicts["signal"]
    assert verdicts["signal"]["state"] == "valid"
    measured = {each["gate"]: each["value"] for each in verdicts["signal"]["measures"]}
    assert 0.8 < measured["sensitivity"] < 1.25
    assert "closure phases are not to be told from those of noise" in verdicts["noise"]["message"]
