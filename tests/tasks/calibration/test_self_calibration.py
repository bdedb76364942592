"""Self-calibration goes on for as long as it helps, and gives up what does not."""

from __future__ import annotations

import known_gains
import numpy as np
import pytest
from known_gains import Scene

from absurd.tasks.calibration.apply import apply_gains
from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.self_calibration import (
    Model,
    SelfCalibrationSettings,
    self_calibrate,
)
from absurd.tasks.calibration.settings import GainSettings
from absurd.tasks.calibration.sky_model import Component, SkyModel
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

SHORT = (
    GainSettings(mode="p", interval_s=60.0),
    GainSettings(mode="p", interval_s=0.0),
    GainSettings(mode="ap", interval_s=0.0, min_snr=5.0),
    GainSettings(mode="ap", interval_s=0.0, min_snr=5.0),
)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A point of 3 Jy seen with phases that drift, after a first calibration: amplitudes are right to a tenth."""
    empty = known_gains.empty(20, 2, 12)
    sky = SkyModel((Component("a", empty.phase_centres[0].ra_rad, empty.phase_centres[0].dec_rad, 3.0),))
    one = empty.with_(field=np.zeros_like(empty.field))
    seen = known_gains.observe(one, predict(one, sky), seed=3, noise=0.4, drift=0.15)
    start = seen.truth[:1]
    number = np.unique(one.time_s, return_inverse=True)[1]
    gain = (start[0])[one.antenna1] * np.conj(start[0][one.antenna2])
    moved = Scene(
        seen.visibilities.with_(data=(seen.visibilities.data / gain).astype(np.complex64)),
        seen.model,
        np.ones_like(seen.bandpass),
        seen.gain / seen.gain[:1],
    )
    assert len(number) == len(one.time_s)
    return moved


def picture(scene: Scene, broken_from: int = 99) -> list[object]:
    """A remodel that knows the place of the point: its mean is the peak, and what is left the noise."""
    calls: list[object] = []

    def remodel(seen: Visibilities, number: int) -> Model:
        calls.append(number)
        good = seen.usable
        peak = float(np.mean(seen.data[good].real))
        noise = float(np.std(seen.data[good] - peak)) / np.sqrt(good.sum())
        snr = peak / noise * (0.3 if number >= broken_from else 1)
        return Model(scene.model, snr)

    return [remodel, calls]


def test_rounds_make_it_better(scene: Scene) -> None:
    """SNR rises from round to round, the gains are those that the antennas had, and it tells why it stopped."""
    remodel, _ = picture(scene)

    found = self_calibrate(scene.visibilities, remodel, SelfCalibrationSettings(rounds=SHORT))  # type: ignore[arg-type]

    snr = [each.snr for each in found.rounds if each.kept]
    assert snr == sorted(snr)
    assert snr[-1] > 1.3 * snr[0]
    assert found.gains is not None
    assert known_gains.error(found.gains.values, scene.truth) < 0.1
    assert found.stopped_by.startswith(("all rounds are done", "round"))


def test_a_round_that_brings_nothing_is_the_last(scene: Scene) -> None:
    """The same phases once more bring nothing: it stops there, and keeps them."""
    remodel, calls = picture(scene)
    same = SelfCalibrationSettings(rounds=(SHORT[1],) * 5)

    found = self_calibrate(scene.visibilities, remodel, same)  # type: ignore[arg-type]

    assert calls == [0, 1, 2]
    assert found.stopped_by.startswith("round 2 brought")


def test_a_round_that_makes_it_worse_is_given_up(scene: Scene) -> None:
    """The gains and the visibilities are those of the round before."""
    remodel, _ = picture(scene, broken_from=2)

    found = self_calibrate(scene.visibilities, remodel, SelfCalibrationSettings(rounds=SHORT))  # type: ignore[arg-type]

    assert [each.kept for each in found.rounds] == [True, True, False]
    assert found.gains is not None
    assert found.gains.interval_s[0] == pytest.approx(5 * 12.884902)
    assert found.stopped_by.startswith("round 2 made it worse")


def test_without_gains_it_stops(scene: Scene) -> None:
    """Noise has no gains at SNR 50: the visibilities stay as they came, and the reason is told."""
    remodel, _ = picture(scene)
    rng = np.random.default_rng(1)
    noise = (rng.standard_normal(scene.visibilities.data.shape) + 0j).astype(np.complex64)
    strict = SelfCalibrationSettings(rounds=(GainSettings(min_snr=50.0),))

    found = self_calibrate(scene.visibilities.with_(data=noise), remodel, strict)  # type: ignore[arg-type]

    assert found.gains is None
    assert found.visibilities.data is noise
    assert "round 1 found no gains" in found.stopped_by


def test_amplitudes_only_where_the_beam_is_known(scene: Scene) -> None:
    """For a source beyond half power phases are solved, and amplitudes are not."""
    remodel, _ = picture(scene)
    outside = SelfCalibrationSettings(rounds=(SHORT[1], SHORT[2]), beam_power=0.4)

    found = self_calibrate(scene.visibilities, remodel, outside)  # type: ignore[arg-type]

    assert [each.mode for each in found.rounds] == ["", "p"]
    assert "no amplitudes are solved" in found.stopped_by


def test_visibilities_are_corrected_as_by_apply(scene: Scene) -> None:
    """What it gives is to the bit what `apply_gains` makes of its gains; of Stokes I as of any polarisation."""
    settings = SelfCalibrationSettings(rounds=SHORT[:2])
    first = {name: getattr(scene.visibilities, name)[..., :1] for name in ("data", "flags", "weights")}
    of_i = scene.visibilities.with_(correlations=("I",), **first)
    for visibilities in (scene.visibilities, of_i):
        model = Scene(visibilities, scene.model[..., :1], scene.bandpass, scene.gain)
        found = self_calibrate(visibilities, picture(model)[0], settings)  # type: ignore[arg-type]

        assert found.gains is not None
        expected = apply_gains(visibilities, found.gains).visibilities
        assert found.visibilities.data.tobytes() == expected.data.tobytes()
        assert found.visibilities.weights.tobytes() == expected.weights.tobytes()
        assert not np.array_equal(expected.data, visibilities.data)


@pytest.mark.parametrize(
    "wrong", [{"rounds": ()}, {"rounds": SHORT * 2}, {"least_snr_gain": -1}, {"beam_power": 2}, {"most_flagged": -1}]
)
def test_settings_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    """They are refused."""
    with pytest.raises(ValidationError):
        SelfCalibrationSettings(**wrong)  # type: ignore[arg-type]
