"""``qa.calibration``: what does not pass ends as a failed task, and its gains where nobody looks for them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHARED
from interferometer import gains_of, observed, solved
from memory_port import MemoryPort
from single_run import fail, run, run_to_end

from absurd import SyncAbsurdClient
from absurd.outcome import Failed
from absurd.tasks.calibration.gain_table import GainSet, read_gains, write_gains
from absurd.tasks.pipeline import load_pipeline_config, stage_params
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.simulate import simulate
from absurd.tasks.qa import release_from_quarantine
from absurd.tasks.visibility.convert import convert_group
from absurd.tasks.visibility.measurement_set import write_measurement_set
from absurd.tasks.visibility.visibilities import Visibilities

DATA = SHARED / "data/radio-visibilities"
ATA = DATA / "ata.LoA.C0352.uvh5_60647_62965_9760406_3c286_0001.uvh5"
SEED = 8
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real data are not beside the checkout")


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
    assert fail("qa.calibration", calibrator | {"ms": str(tmp_path / "none.ms")})["code"] == "visibility_data"


@needs_data
def test_real_recordings_that_hold_nothing_usable(tmp_path: Path) -> None:
    """The scan of 3C286 that is noise, a ragged set and one with NaN: failed for quality, each with its reason."""
    scan = {"ms": str(ATA), "reports": str(tmp_path)}
    told = fail("qa.calibration", scan)
    assert told["code"] == "quality_failed"
    assert "closure phases are not to be told from those of noise" in told["message"]
    ragged = fail("qa.calibration", {"ms": str(DATA / "simulated_bda_file.uvh5"), "reports": str(tmp_path)})
    assert ragged["code"] == "quality_failed"
    assert "antennas 4, below 10" in ragged["message"]
    with tarfile.open(DATA / "test_adp4_0_00300673800807520000_58342_05_00_14.ms.tar.gz") as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("*.ms")
    broken = fail("qa.calibration", {"ms": str(unpacked)})
    assert broken["code"] == "quality_failed"
    assert "antennas 4, below 10" in broken["message"]
    assert "3 independent triangles are too few" in broken["message"]


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


def test_gain_sets_of_the_database(
    calibrator: dict[str, Any], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate that passes becomes valid; one that does not is quarantined there before its folder is moved."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
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


def _row(path: Path) -> dict[str, Any]:
    """A gain set as the database is told of it."""
    at = "2026-01-15T08:00:00+00:00"
    return {
        "telescope": "test",
        "path": str(path),
        "checksum": read_gains(path).checksum,
        "bytes": 1,
        "kinds": ["bandpass"],
        "source": "made up",
        "ra": 10.0,
        "declination": 30.0,
        "strip": 1.0,
        "lowest_hz": 1.3e9,
        "highest_hz": 1.4e9,
        "observed_from": at,
        "observed_until": "2026-01-15T08:05:00+00:00",
        "valid_from": "2026-01-14T20:00:00+00:00",
        "valid_until": "2026-01-15T20:00:00+00:00",
        "quality": {},
        "provenance": {},
    }


def test_a_simulated_night_from_sub_bands_to_gains_that_pass(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the configuration for testing: simulated, converted, solved and judged against the sky it was solved with.

    The same antennas with nothing but noise give gains, too, with warnings; these are quarantined.
    """
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    config = load_pipeline_config(
        "testing", overrides={"paths": {"base_dir": str(tmp_path)}, "ms_creation": {"n_frequencies": 16, "n_times": 3}}
    )
    told = stage_params(config, "pipeline simulate")
    judged = stage_params(config, "qa.calibration")
    solve = stage_params(config, "calibration.solve") | {"register_as": "candidate", "flux_jy": 8.0}
    del judged["catalogs"], solve["catalogs"]
    verdicts = {}
    for name, calibrator, sources in (("signal", "0834+555", 3), ("noise", None, 0)):
        folder = Path(told["folder"]) / name
        settings = {key: value for key, value in told.items() if key != "folder"}
        simulate(SimulationSettings(**settings | {"calibrator": calibrator, "sources": sources}), folder)
        ms = {"ms": str(tmp_path / f"{name}.ms")}
        convert_group(sorted(str(each) for each in folder.glob("*.hdf5")), ms["ms"])
        gains, _ = run("calibration.solve", solve | ms)
        outcome = run_to_end("qa.calibration", judged | ms | {"gain_set": gains["gain_set"]}, MemoryPort())
        verdicts[name] = outcome.error if isinstance(outcome, Failed) else json.loads(outcome.result)

    assert "state" in verdicts["signal"], verdicts["signal"]
    assert verdicts["signal"]["state"] == "valid"
    assert "closure phases are not to be told from those of noise" in verdicts["noise"]["message"]
