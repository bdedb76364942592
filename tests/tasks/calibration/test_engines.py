"""Solvers behind one interface."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import known_gains
import numpy as np
import pytest

from absurd.tasks.calibration.engines import Engine, engine_named
from absurd.tasks.calibration.engines.casa import casa_gains, casa_steps
from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings
from absurd.tasks.radio.errors import CalibrationError, DependencyError, ValidationError

SETTINGS = CalibratorSettings(
    phase=GainSettings(mode="p", interval_s=60, reference=("pad004", "pad002"), uv_range_wavelengths=(1000, math.inf)),
    bandpass=GainSettings(min_snr=5, fill_gaps=3, normalise=True, combine=("scan",)),
    gain=GainSettings(interval_s=0, uv_range_wavelengths=(10, 500)),
)


@pytest.fixture
def scene() -> known_gains.Scene:
    """A point of 5 Jy."""
    empty = known_gains.empty(6, 3, 2)
    return known_gains.observe(empty, np.full(empty.data.shape, 5, np.complex64), seed=1, noise=0.01, drift=0.0)


def test_the_embedded_engine_solves(scene: known_gains.Scene) -> None:
    """It is `solve_calibrator`, of what is in memory."""
    engine: Engine = engine_named("embedded")

    found = engine.solve(scene.visibilities, scene.model, CalibratorSettings(gain=GainSettings(interval_s=0)))

    assert known_gains.error(found.bandpass.values * found.gain.values, scene.truth) < 0.01


def test_an_engine_that_is_not_known() -> None:
    """It is refused with those that are."""
    with pytest.raises(ValidationError, match="'quartical' is not known: take embedded or casa"):
        engine_named("quartical")


def test_what_casa_is_told() -> None:
    """Each setting is a parameter of CASA's task, and the tables go from step to step."""
    phase, bandpass, gain = casa_steps(SETTINGS)

    assert (phase["task"], phase["apply"]) == ("gaincal", [])
    assert phase["with"] == {
        "solint": "60s", "combine": "scan,field", "refant": "pad004,pad002", "minsnr": 3.0, "minblperant": 4,
        "uvrange": ">1000lambda", "calmode": "p",
    }  # fmt: skip
    assert (bandpass["task"], bandpass["apply"]) == ("bandpass", ["phase"])
    assert bandpass["with"]["solint"] == "inf"
    assert (bandpass["with"]["fillgaps"], bandpass["with"]["solnorm"], bandpass["with"]["combine"]) == (3, True, "scan")
    assert (gain["apply"], gain["with"]["solint"], gain["with"]["uvrange"]) == (["bandpass"], "int", "10~500lambda")


def test_tables_of_casa_are_gains(scene: known_gains.Scene) -> None:
    """Rows of times and antennas find their places; antennas without a row are flagged and told."""
    rng = np.random.default_rng(2)
    present = [(time, antenna) for time in (20.0, 10.0) for antenna in (0, 1, 2, 4, 5)]
    table = {
        "TIME": np.array([time for time, _ in present]),
        "INTERVAL": np.full(10, 10.0),
        "ANTENNA1": np.array([antenna for _, antenna in present]),
        "ANTENNA2": np.full(10, 1),
        "CPARAM": rng.standard_normal((10, 1, 2)) + 1j,
        "FLAG": np.arange(20).reshape(10, 1, 2) == 4,
        "SNR": np.full((10, 1, 2), 7.0),
    }

    gains = casa_gains("gain", table, scene.visibilities)

    assert gains.time_s.tolist() == [10.0, 20.0]
    assert gains.values[1, 4, 0, 1] == table["CPARAM"][3, 0, 1]
    assert gains.values[0, 0, 0, 0] == table["CPARAM"][5, 0, 0]
    assert gains.flags[1, 2, 0].tolist() == [True, False]
    assert gains.flags[:, 3].all()
    assert (gains.values[gains.flags] == 1).all()
    assert gains.reference == ("pad002", "pad002")
    assert gains.warnings == ("1 of 6 antennas have no solution: pad004",)
    with pytest.raises(CalibrationError, match="CASA's bandpass has 1 channels"):
        casa_gains("bandpass", table, scene.visibilities)


@pytest.mark.skipif(importlib.util.find_spec("casatasks") is not None, reason="this Python has casatasks")
def test_a_python_without_casa(scene: known_gains.Scene, tmp_path: Path) -> None:
    """The error says that CASA is not there and what to install; nothing is left behind."""
    engine = engine_named("casatasks", python=sys.executable)

    with pytest.raises(DependencyError, match="has no casatasks: install casatasks and casadata"):
        engine.solve(scene.visibilities, scene.model, SETTINGS, measurement_set=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_casa_needs_a_measurement_set(scene: known_gains.Scene, tmp_path: Path) -> None:
    """It reads the visibilities itself: without their place it is not begun."""
    for place in (None, tmp_path / "away.ms"):
        with pytest.raises(ValidationError, match="measurement_set"):
            engine_named("casatasks").solve(scene.visibilities, scene.model, SETTINGS, measurement_set=place)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; print('no such table'); sys.exit(1)", "exit code 1: no such table"),
        ("import os; os.kill(os.getpid(), 11)", "signal SIGSEGV: it said nothing"),
        ("import signal; signal.pause()", "had not ended after 0.5 s"),
    ],
)
def test_a_process_that_fails(script: str, said: str, scene: known_gains.Scene, tmp_path: Path) -> None:
    """Its exit code, signal or time, and what it said last, are the error's; it does not outlive the call."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{script}"\n', encoding="ascii")
    program.chmod(0o755)

    with pytest.raises(CalibrationError, match=said):
        engine_named("casatasks", python=str(program), timeout_s=0.5 if "pause" in script else 60.0).solve(
            scene.visibilities, scene.model, SETTINGS, measurement_set=tmp_path
        )
