"""calibration.self_calibrate: gains of a recording by its own sky, stored, and applied by their folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import known_gains
import numpy as np
import pytest
from known_gains import Scene
from single_run import fail, run

from absurd.tasks.calibration.gain_table import read_gains
from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.self_calibration import signal_to_noise
from absurd.tasks.calibration.sky_model import Component, SkyModel
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set

FLUX = 3.0
ROUNDS: list[dict[str, Any]] = [
    {"mode": "p", "solint": "60s"},
    {"mode": "p", "solint": "int"},
    {"mode": "ap", "solint": "int", "minsnr": 5},
]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Path]:
    """A point and a weaker one, after a first calibration: amplitudes are right to a tenth, and phases drift."""
    empty = known_gains.empty(16, 2, 10)
    one = empty.with_(field=np.zeros_like(empty.field))
    centre = one.phase_centres[0]
    sky = SkyModel(
        (
            Component("a", centre.ra_rad, centre.dec_rad, FLUX),
            Component("b", centre.ra_rad + 0.003, centre.dec_rad - 0.002, FLUX / 4),
        )
    )
    seen = known_gains.observe(one, predict(one, sky), seed=3, noise=0.3, drift=0.15)
    start = seen.truth[0]
    first = start[one.antenna1] * np.conj(start[one.antenna2])
    folder = tmp_path_factory.mktemp("scene")
    data = (seen.visibilities.data / first).astype(np.complex64)
    write_measurement_set(seen.visibilities.with_(data=data), folder / "a.ms")
    (folder / "sky.json").write_text(sky.to_json())
    return Scene(seen.visibilities.with_(data=data), seen.model, seen.bandpass, seen.gain / seen.gain[:1]), folder


def params(folder: Path, out: Path, **others: Any) -> dict[str, Any]:
    told = {"ms": str(folder / "a.ms"), "sky_model": str(folder / "sky.json"), "beam": "none", "rounds": ROUNDS}
    return told | {"out": str(out)} | others


def test_rounds_make_it_better_and_the_gains_are_applied(scene: tuple[Scene, Path], tmp_path: Path) -> None:
    """Signal to noise rises while what is left falls; the gains are the antennas', and take their drift away."""
    seen, folder = scene

    done, _ = run("calibration.self_calibrate", params(folder, tmp_path / "cal"))

    assert [(each["round"], each["mode"]) for each in done["rounds"]] == [(0, ""), (1, "p"), (2, "p"), (3, "ap")]
    kept = [each for each in done["rounds"] if each["kept"]]
    assert [each["snr"] for each in kept] == sorted(each["snr"] for each in kept)
    assert kept[-1]["snr"] > 1.3 * kept[0]["snr"]
    assert kept[-1]["chi_squared"] < 0.7 * kept[0]["chi_squared"]
    assert done["stopped_by"]
    assert done["source"] == "a"
    gain_set = read_gains(done["path"], checksum=done["checksum"])
    (gains,) = gain_set.tables
    assert known_gains.error(gains.values, np.broadcast_to(seen.gain[:, :, None], gains.values.shape)) < 0.1
    assert gain_set.provenance["rounds"] == done["rounds"]
    assert str(folder) not in str(gain_set.provenance)

    applied, _ = run(
        "calibration.apply",
        {"ms": str(folder / "a.ms"), "out": str(tmp_path / "b.ms"), "sets": [done["path"]]},
    )
    corrected = read_measurement_set(applied["path"])
    assert signal_to_noise(corrected, seen.model) == pytest.approx(kept[-1]["snr"], rel=1e-5)


def test_it_runs_again_to_the_same_name_and_bits(scene: tuple[Scene, Path], tmp_path: Path) -> None:
    """Of the same recording and params, also from another place."""
    first, again, elsewhere = (
        run("calibration.self_calibrate", params(scene[1], tmp_path / name))[0] for name in ("cal", "cal", "other")
    )

    assert again == first
    assert elsewhere["checksum"] == first["checksum"]
    assert [each.name for each in (tmp_path / "cal").iterdir()] == [Path(first["path"]).name]


def test_a_column_that_was_corrected_before(scene: tuple[Scene, Path], tmp_path: Path) -> None:
    """The gains are what is left to do: of a set that is corrected by its own gains already no round helps."""
    ms = tmp_path / "a.ms"
    write_measurement_set(scene[0].visibilities, ms)
    of = params(scene[1], tmp_path, ms=str(ms), rounds=ROUNDS[1:2])
    first, _ = run("calibration.self_calibrate", of)
    run("calibration.apply", {"ms": str(ms), "sets": [first["path"]]})

    second, _ = run("calibration.self_calibrate", of | {"column": "CORRECTED_DATA"})

    assert np.abs(read_gains(second["path"]).tables[0].values - 1).max() < 1e-3
    assert "round 1 brought" in second["stopped_by"]


def test_what_does_not_help_fails_with_its_rounds(scene: tuple[Scene, Path], tmp_path: Path) -> None:
    """Noise has no gains; amplitudes need the beam; five rounds are the most. Nothing is stored."""
    seen, folder = scene
    rng, shape = np.random.default_rng(1), seen.visibilities.data.shape
    noise = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    write_measurement_set(seen.visibilities.with_(data=noise), tmp_path / "noise.ms")
    (tmp_path / "far.json").write_text(SkyModel((Component("far", 2.05, 0.65, 9.0),)).to_json())

    told = fail(
        "calibration.self_calibrate", params(folder, tmp_path / "cal", ms=str(tmp_path / "noise.ms"), rounds=ROUNDS[1:])
    )
    assert told["code"] == "calibration_failed"
    assert "made noise.ms better: round 1 leaves" in told["message"]
    assert re.search(r"\(signal to noise [0-9.]+, then [0-9.]+\)", told["message"])
    far = params(folder, tmp_path / "cal", sky_model=str(tmp_path / "far.json"), beam="airy", rounds=ROUNDS[2:])
    assert "no amplitudes are solved" in fail("calibration.self_calibrate", far)["message"]
    assert (
        "5 items" in fail("calibration.self_calibrate", params(folder, tmp_path / "cal", rounds=ROUNDS * 2))["message"]
    )
    assert not (tmp_path / "cal").exists()


def test_signal_to_noise_of_a_model(scene: tuple[Scene, Path]) -> None:
    """That of a weighted mean: amplitude over noise by the root of their number; no matter which scale weights have."""
    empty = known_gains.empty(10, 4, 20)
    rng = np.random.default_rng(7)
    sigma, flux = 2.0, 1.0
    noise = sigma * (rng.standard_normal(empty.data.shape) + 1j * rng.standard_normal(empty.data.shape))
    model = np.ones((1, 1, 1), np.complex64)
    seen = empty.with_(data=(flux + noise).astype(np.complex64))

    found = signal_to_noise(seen, model)

    assert found == pytest.approx(flux / sigma * np.sqrt(noise.size), abs=4)
    assert signal_to_noise(seen.with_(weights=seen.weights * np.float32(9)), model * 5) == pytest.approx(found)
    assert signal_to_noise(seen.with_(data=seen.data * np.complex64(1j)), model) == pytest.approx(found)
    assert signal_to_noise(seen.with_(flags=np.ones_like(seen.flags)), model) == 0
