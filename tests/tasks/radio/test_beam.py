"""Beams of dishes: the centre, half power, the first null, and what they are between these."""

from __future__ import annotations

import math

import numpy as np
import pytest

from absurd.tasks.radio.beam import AIRY_FWHM, AiryBeam, GaussianBeam, beam_named
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT, load_telescope

DIAMETER, FREQUENCY = 4.65, 1.405e9
WAVE = SPEED_OF_LIGHT / FREQUENCY
BEAMS: list[AiryBeam | GaussianBeam] = [AiryBeam(DIAMETER), GaussianBeam(DIAMETER)]


@pytest.mark.parametrize("beam", BEAMS, ids=["airy", "gaussian"])
def test_all_power_comes_in_at_the_centre(beam: AiryBeam | GaussianBeam) -> None:
    """On the axis it is 1, exactly, and nowhere near it is it more: there is no pole and no jump at 0."""
    near = np.concatenate([[0.0], np.logspace(-12, -2, 300)])

    power = beam.power(near, np.array(FREQUENCY))

    assert power[0] == 1.0
    assert np.all(power <= 1.0)
    assert np.all(np.diff(power) <= 1e-15)


@pytest.mark.parametrize("beam", BEAMS, ids=["airy", "gaussian"])
@pytest.mark.parametrize("frequency", [1.311e9, 1.405e9, 1.499e9])
def test_half_of_it_comes_in_at_half_the_width(beam: AiryBeam | GaussianBeam, frequency: float) -> None:
    """At half of `fwhm_rad` from the axis the power is 1/2, at every frequency."""
    power = beam.power(np.array([beam.fwhm_rad(frequency) / 2]), np.array([frequency]))

    assert power[0] == pytest.approx(0.5, abs=1e-7)


def test_the_width_is_that_of_the_dish() -> None:
    """4.65 m at 1.405 GHz see 2.70 degrees, 1.029 wavelengths per diameter: not the 3.2 of the first null's factor."""
    assert math.degrees(AiryBeam(DIAMETER).fwhm_rad(FREQUENCY)) == pytest.approx(2.705, abs=0.002)
    assert math.degrees(GaussianBeam(DIAMETER).fwhm_rad(FREQUENCY)) == pytest.approx(
        math.degrees(AIRY_FWHM * WAVE / DIAMETER), rel=1e-12
    )


def test_nothing_comes_in_from_behind() -> None:
    """The dish is not as open to what is behind it as to what is before it."""
    power = AiryBeam(DIAMETER).power(np.radians([89.0, 91.0, 135.0, 180.0, -180.0]), np.array(FREQUENCY))

    assert power[0] > 0
    assert not power[1:].any()


def test_the_first_null_is_where_it_is() -> None:
    """The disc receives nothing at sin(distance) = 1.21967 wavelengths per diameter, and something on both sides."""
    null = math.asin(1.2196698912665 * WAVE / DIAMETER)

    before, at, after = AiryBeam(DIAMETER).power(null * np.array([0.95, 1.0, 1.05]), np.array(FREQUENCY))

    assert at < 1e-15
    assert before > 1e-4
    assert after > 1e-4


def test_the_first_ring_has_its_height() -> None:
    """Between the first nulls the disc receives at most 1.75 % (Born and Wolf, table 8.2), at 1.635 wavelengths."""
    place = np.linspace(1.3, 2.1, 4001)

    power = AiryBeam(DIAMETER).power(np.arcsin(place * WAVE / DIAMETER), np.array(FREQUENCY))

    assert power.max() == pytest.approx(0.0175, abs=1e-4)
    assert place[power.argmax()] == pytest.approx(1.635, abs=2e-3)


def test_angles_and_frequencies_broadcast() -> None:
    """(source, 1) and (channel,) give (source, channel), each as alone."""
    angles, frequencies = np.radians([[0.0], [0.7], [3.4]]), np.array([1.3e9, 1.4e9])

    for beam in BEAMS:
        power = beam.power(angles, frequencies)
        assert power.shape == (3, 2)
        assert power[1, 1] == beam.power(angles[1, 0], frequencies[1])


def test_beams_by_name() -> None:
    """`airy` and `gaussian` are known; another name is refused with these."""
    assert isinstance(beam_named("airy", DIAMETER), AiryBeam)
    assert isinstance(beam_named("gaussian", DIAMETER), GaussianBeam)
    with pytest.raises(ValidationError, match="'sinc' is not known: take airy or gaussian"):
        beam_named("sinc", DIAMETER)


def test_dsa110_sees_two_and_a_half_degrees() -> None:
    """The telescope that comes along has the beam that its makers measured to within some per cent: 2.5 to 2.7."""
    telescope = load_telescope("dsa110")

    width = math.degrees(beam_named("airy", telescope.dish_diameter_m).fwhm_rad(1.405e9))

    assert 2.5 < width < 2.75
