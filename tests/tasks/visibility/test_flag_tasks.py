"""``visibility.flag`` and ``visibility.restore_flags`` as tasks, on simulated and on real recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from house import unpack
from interference import KINDS, interfered, recording
from single_run import fail, run

from absurd.tasks.visibility import read_visibilities
from absurd.tasks.visibility.flag_record import FlagRecord
from absurd.tasks.visibility.flagging import flag
from absurd.tasks.visibility.flags import Reason
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set

REAL = SHARED / "data" / "radio-visibilities"
real = pytest.mark.skipif(not REAL.is_dir(), reason="no real visibilities beside the checkout")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A Measurement Set with interference."""
    made = tmp_path / "some.ms"
    write_measurement_set(interfered(recording(antennas=5, channels=96), KINDS["bursts"])[0], made)
    return made


def unpacked(name: str, folder: Path) -> Path:
    """A real Measurement Set, ready to be changed."""
    [archive] = REAL.glob(f"{name}*.tar.gz")
    unpack(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def test_a_task_flags_and_another_restores(path: Path) -> None:
    """The result counts what is flagged, by reason; the flags before come back by their version."""
    told, _ = run(
        "visibility.flag", {"ms": str(path), "steps": {"sum_threshold": {"first_threshold": 7}, "clip": None}}
    )

    assert told["version"] == 1 and told["flagged_before"] == 0 and told["dead_antennas"] == []
    assert told["flagged"] == read_measurement_set(path).flags.sum() == sum(told["by_first_reason"].values())
    assert FlagRecord(path).versions()[1].settings["sum_threshold"]["first_threshold"] == 7

    told, _ = run("visibility.restore_flags", {"ms": str(path), "version": 0})
    assert told["flagged"] == 0 and told["version"] == 2 and not read_measurement_set(path).flags.any()


def test_nothing_left_fails_with_the_reason(path: Path) -> None:
    """A set of which all is flagged fails the task, tells why, and keeps flags and record."""
    some = read_measurement_set(path)
    write_measurement_set(some.with_(flags=np.ones_like(some.flags)), path)

    error = fail("visibility.flag", {"ms": str(path)})

    assert error["code"] == "visibility_data" and "100.0% of the visibilities" in error["message"]
    assert "input" in error["message"] and len(FlagRecord(path).versions()) == 2


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        ({"ms": "none.ms"}, "visibility_data", "none.ms"),
        ({"strategy": "defalt"}, "pipeline_validation", "did you mean default"),
        ({"steps": {"grow": {"eta": 1}}}, "pipeline_validation", "grow has no setting 'eta'"),
        ({"spectral_window": 3}, "pipeline_validation", "spectral window 3"),
    ],
)
def test_what_cannot_be_done_is_told(path: Path, params: dict[str, object], code: str, message: str) -> None:
    """Sets that are not there and settings that cannot be meant fail with their codes."""
    error = fail("visibility.flag", {"ms": str(path), **params})

    assert error["code"] == code and message in error["message"]


@real
def test_noise_with_numbers_beyond_measure() -> None:
    """The scan of 3C286 by the ATA: zeros are ZERO, values up to 1e36 are flagged, and what is left is plausible."""
    [file] = REAL.glob("ata*.uvh5")
    some = read_visibilities(file)

    flagged, reasons, report = flag(some)

    assert ((reasons & int(Reason.ZERO)) != 0).mean() == pytest.approx(0.29, abs=0.02)
    left = np.abs(some.data[~flagged.flags])
    assert left.max() < 1e3 * np.median(left)
    assert report.after < 0.6 * report.visibilities


@real
def test_values_without_number(tmp_path: Path) -> None:
    """The set of the LWA holds NaN that nobody has flagged: each is INVALID."""
    path = unpacked("test_adp4", tmp_path)
    data = read_measurement_set(path).data

    error = fail("visibility.flag", {"ms": str(path), "max_flagged": 0.01})

    assert "invalid" in error["message"]
    invalid = (FlagRecord(path).reasons(1) & int(Reason.INVALID)) != 0
    np.testing.assert_array_equal(invalid, ~(np.abs(data) <= 1e15))
    assert (~np.isfinite(data)).any()


@real
def test_a_bright_calibrator_is_kept(tmp_path: Path) -> None:
    """J1008+0730 by the VLA, in four correlations: a set without interference keeps nearly all it has."""
    path = unpacked("day2_TDEM0003", tmp_path)

    told, _ = run("visibility.flag", {"ms": str(path)})

    assert told["flagged_part"] < 0.05 and told["dead_antennas"] == []


@real
def test_rows_of_uneven_length() -> None:
    """Baselines of the simulated HERA have times of their own number: none is noise, and none is flagged for it."""
    [file] = REAL.glob("simulated_bda*")

    _, _, report = flag(read_visibilities(file))

    assert report.reasons.get("sum", 0) == 0
