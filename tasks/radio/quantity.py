"""Numbers with units as radio astronomers write them: ``30min``, ``1mJy``, ``3arcsec``, ``>1klambda``, ``inf``.

A bare number is in the unit that the function's name tells.  Capitals count: ``mJy`` is not ``MJy``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from absurd.tasks.radio.errors import ValidationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*([A-Za-zµμ]*)\s*")

_SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hr": 3600.0, "d": 86400.0, "ms": 1e-3}
_JANSKYS = {"Jy": 1.0, "jy": 1.0, "mJy": 1e-3, "mjy": 1e-3, "uJy": 1e-6, "µJy": 1e-6, "μJy": 1e-6, "kJy": 1e3}
_DEGREES = {"deg": 1.0, "arcmin": 1 / 60, "arcsec": 1 / 3600, "mas": 1 / 3.6e6, "rad": 180 / math.pi}
_HERTZ = {"Hz": 1.0, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9}
_WAVELENGTHS = {"lambda": 1.0, "klambda": 1e3, "Mlambda": 1e6}
_METRES = {"m": 1.0, "km": 1e3}


def duration_s(value: str | float) -> float:
    """Seconds: ``30min``, ``60s``, ``1.5h`` or a number; ``inf`` is infinity, ``int`` 0, which is each integration.

    Raises ValidationError for anything else, and for less than 0.
    """
    if isinstance(value, str) and value.strip() in ("inf", "int"):
        return math.inf if value.strip() == "inf" else 0.0
    return _read(value, _SECONDS, 1.0, "a duration: write 60s, 30min, 1.5h, inf or int", least=0.0)


def flux_jy(value: str | float) -> float:
    """Janskys: ``1mJy``, ``0.5Jy``, ``30uJy`` or a number.  Raises ValidationError."""
    plain = value.removesuffix("/beam") if isinstance(value, str) else value
    return _read(plain, _JANSKYS, 1.0, "a flux density: write 1mJy, 0.5Jy or 30uJy")


def angle_deg(value: str | float) -> float:
    """Degrees: ``3arcsec``, ``1.5arcmin``, ``0.2deg``, ``0.01rad`` or a number.  Raises ValidationError."""
    return _read(value, _DEGREES, 1.0, "an angle: write 3arcsec, 1.5arcmin, 0.2deg or 0.01rad")


def frequency_hz(value: str | float) -> float:
    """Hertz: ``1.4GHz``, ``1405MHz`` or a number.  Raises ValidationError, also for 0 and less."""
    return _read(value, _HERTZ, 1.0, "a frequency: write 1.4GHz or 1405MHz", least=0.0, open_=True)


def _read(
    value: Any, units: Mapping[str, float], bare: float, wanted: str, *, least: float = -math.inf, open_: bool = False
) -> float:
    """A finite number in units; without one in `bare`."""
    number = math.nan
    if isinstance(value, str):
        found = _QUANTITY.fullmatch(value)
        if found and (not found[2] or found[2] in units):
            number = float(found[1]) * (units[found[2]] if found[2] else bare)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value * bare
    if not math.isfinite(number) or number < least or (open_ and number == least):
        raise ValidationError(f"{value!r} is not {wanted}", value=value)
    return number


@dataclass(frozen=True, slots=True)
class UvRange:
    """Lengths of projected baselines: both ends count as within."""

    shortest: float = 0.0
    longest: float = math.inf
    in_wavelengths: bool = True
    """Else in metres."""

    def contains(self, uvw_m: NDArray[np.float64], frequencies_hz: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(row, channel): whether sqrt(u^2 + v^2) is within.

        `uvw_m` is (row, 3) in metres, `frequencies_hz` (channel,).
        """
        import numpy as np

        from absurd.tasks.radio.telescope import SPEED_OF_LIGHT

        length = np.hypot(uvw_m[:, 0], uvw_m[:, 1])[:, None]
        if self.in_wavelengths:
            length = length * (frequencies_hz[None, :] / SPEED_OF_LIGHT)
        within = (length >= self.shortest) & (length <= self.longest)
        return np.broadcast_to(within, (uvw_m.shape[0], frequencies_hz.size))


_UV = re.compile(rf"\s*(?:([<>])\s*({_NUMBER})|({_NUMBER})\s*~\s*({_NUMBER}))\s*([A-Za-z]*)\s*")


def uv_range(text: str) -> UvRange:
    """``>1klambda``, ``<500m``, ``1~10klambda``; an empty text is all.  Without a unit metres, as CASA has it.

    Raises ValidationError for anything else, and for ranges with nothing in them.
    """
    if not text.strip():
        return UvRange()
    found = _UV.fullmatch(text)
    unit = (found[5] or "m") if found else ""
    factor = {**_WAVELENGTHS, **_METRES}.get(unit, math.nan)
    if found is None:
        ends = (math.nan, math.nan)
    elif found[1]:
        ends = (float(found[2]), math.inf) if found[1] == ">" else (0.0, float(found[2]))
    else:
        ends = (float(found[3]), float(found[4]))
    shortest, longest = ends[0] * factor, ends[1] * factor
    if not 0 <= shortest < longest:
        raise ValidationError(
            f"{text!r} is not a range of baselines: write >1klambda, <500m or 1~10klambda", value=text
        )
    return UvRange(shortest, longest, unit in _WAVELENGTHS)
