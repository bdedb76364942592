"""Numbers with units: what is written is what is meant, or it is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.radio.quantity import angle_deg, duration_s, flux_jy, frequency_hz, uv_range


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (duration_s, "30min", 1800.0),
        (duration_s, "60s", 60.0),
        (duration_s, " 1.5 h ", 5400.0),
        (duration_s, "inf", math.inf),
        (duration_s, "int", 0.0),
        (duration_s, 12, 12.0),
        (flux_jy, "1mJy", 1e-3),
        (flux_jy, "0.5Jy", 0.5),
        (flux_jy, "30uJy", 3e-5),
        (flux_jy, "30µJy", 3e-5),
        (flux_jy, "2mJy/beam", 2e-3),
        (flux_jy, 0.01, 0.01),
        (angle_deg, "3arcsec", 3 / 3600),
        (angle_deg, "1.5arcmin", 0.025),
        (angle_deg, "0.2deg", 0.2),
        (angle_deg, "1rad", math.degrees(1)),
        (frequency_hz, "1.4GHz", 1.4e9),
        (frequency_hz, "1405MHz", 1.405e9),
    ],
)
def test_quantities_are_read(read: Callable[[str | float], float], text: str | float, expected: float) -> None:
    """Units with their prefixes; a bare number is in the unit of the name."""
    assert read(text) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (duration_s, "30parsec"),
        (duration_s, "-1s"),
        (duration_s, "nan"),
        (duration_s, ""),
        (duration_s, "1min30"),
        (flux_jy, "1MJy"),
        (flux_jy, "mJy"),
        (flux_jy, "1 Jy m"),
        (flux_jy, True),
        (flux_jy, math.nan),
        (flux_jy, "1e999Jy"),
        (angle_deg, "3 seconds"),
        (frequency_hz, "0Hz"),
        (uv_range, ">1klambd"),
        (uv_range, "10~1klambda"),
        (uv_range, "1000"),
        (uv_range, "<0m"),
        (uv_range, ">-1km"),
    ],
)
def test_what_is_no_quantity_is_refused_with_its_text(read: Callable[[object], object], text: object) -> None:
    """Other units, other capitals, signs that cannot be, and what is no finite number."""
    with pytest.raises(ValidationError) as raised:
        read(text)
    assert repr(text) in raised.value.message
    assert "write" in raised.value.message


def test_ranges_of_baselines() -> None:
    """In wavelengths a range depends on the channel, in metres it does not; both ends are within; empty is all."""
    uvw = np.array([[100.0, 0.0, 999.0], [0.0, 400.0, 0.0]])
    frequencies = np.array([2.99792458e8, 2.99792458e9])  # 1 m and 0.1 m

    assert uv_range(">1klambda").contains(uvw, frequencies).tolist() == [[False, True], [False, True]]
    assert uv_range("<400m").contains(uvw, frequencies).all()
    assert uv_range("0.1~0.2km").contains(uvw, frequencies).tolist() == [[True, True], [False, False]]
    assert uv_range("").contains(uvw, frequencies).all()
    assert (uv_range(">500").in_wavelengths, uv_range(">500").shortest) == (False, 500.0)
