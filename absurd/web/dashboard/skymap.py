"""The sky as a drawing: all of it, and the part that products lie in (pure; lengths in pixels at full size).

East is left, as it is seen from within.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from absurd.web.dashboard.axis import number_marks

WIDTH, HEIGHT = 720, 360
"""Of the whole sky."""
SIDE, EDGE = 360, 44
"""Of a part of it, and of its border."""
CENTRE = 180.0
"""Right ascension in the middle of the whole sky, degrees."""
WIDEST = 40.0
"""Degrees; what lies further apart is no part of the sky."""


def aitoff(ra: float, declination: float) -> tuple[float, float]:
    """Where a position (degrees) lies on the whole sky in Aitoff's projection, in pixels.

    x = 2 cos b sin(l/2) / sinc a, y = sin b / sinc a with cos a = cos b cos(l/2), sinc a = sin a / a; l from CENTRE.
    """
    longitude = math.radians((ra - CENTRE + 180) % 360 - 180)
    latitude = math.radians(declination)
    angle = math.acos(max(-1.0, min(1.0, math.cos(latitude) * math.cos(longitude / 2))))
    sinc = math.sin(angle) / angle if angle > 1e-9 else 1.0
    x = 2 * math.cos(latitude) * math.sin(longitude / 2) / sinc
    y = math.sin(latitude) / sinc
    return WIDTH / 2 * (1 - 0.98 * x / math.pi), HEIGHT / 2 * (1 - 0.98 * y / (math.pi / 2))


def grid() -> list[str]:
    """Meridians every 3 hours and parallels every 30 degrees of the whole sky, as SVG paths."""
    across = [CENTRE - 179.999 + 359.998 * step / 72 for step in range(73)]
    upwards = [-90 + 180 * step / 36 for step in range(37)]
    parallels = [[aitoff(ra, declination) for ra in across] for declination in range(-60, 90, 30)]
    meridians = [[aitoff(ra, each) for each in upwards] for ra in (across[0], across[-1], *range(45, 360, 45))]
    return [_path(each) for each in (*parallels, *meridians)]


@dataclass(frozen=True)
class Part:
    """A square of the sky on the plane that touches it in its middle."""

    ra: float
    declination: float
    side_deg: float

    def place(self, ra: float, declination: float) -> tuple[float, float]:
        """Where a position lies, in pixels (gnomonic projection)."""
        away = math.radians(ra - self.ra)
        here, there = math.radians(self.declination), math.radians(declination)
        depth = math.sin(here) * math.sin(there) + math.cos(here) * math.cos(there) * math.cos(away)
        east = math.cos(there) * math.sin(away) / depth
        north = (math.cos(here) * math.sin(there) - math.sin(here) * math.cos(there) * math.cos(away)) / depth
        scale = SIDE / 2 / math.tan(math.radians(self.side_deg / 2))
        return EDGE + SIDE / 2 - scale * east, SIDE / 2 - scale * north + 8

    def holds(self, ra: float, declination: float) -> bool:
        """Whether a position (degrees) lies within."""
        there, here = _vector(ra, declination), _vector(self.ra, self.declination)
        if sum(a * c for a, c in zip(there, here, strict=True)) < 0.5:
            return False
        x, y = self.place(ra, declination)
        return EDGE <= x <= EDGE + SIDE and 8 <= y <= SIDE + 8

    def marks(self) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
        """Right ascensions along the lower edge and declinations along the left one, with their places."""
        half = self.side_deg / 2
        stretch = max(math.cos(math.radians(self.declination)), 0.05)
        ras = number_marks(self.ra - half / stretch, self.ra + half / stretch, 4)
        declinations = number_marks(self.declination - half, self.declination + half, 5)
        return (
            [(self.place(each, self.declination)[0], f"{each % 360:g}°") for each in ras],
            [(self.place(self.ra, each)[1], f"{each:+g}°") for each in declinations if abs(each) <= 90],
        )


def part_of(positions: Sequence[tuple[float, float]]) -> Part | None:
    """The part of the sky that holds all positions (degrees); None for none, and for those that lie far apart."""
    if not positions:
        return None
    vectors = [_vector(*each) for each in positions]
    x, y, z = (sum(each[axis] for each in vectors) for axis in range(3))
    length = math.sqrt(x * x + y * y + z * z)
    if length < 1e-9:
        return None
    x, y, z = x / length, y / length, z / length
    cosines = (each[0] * x + each[1] * y + each[2] * z for each in vectors)
    reach = math.degrees(max(math.acos(max(-1.0, min(1.0, each))) for each in cosines))
    side = max(2.3 * reach, 0.1)
    if side > WIDEST:
        return None
    return Part(math.degrees(math.atan2(y, x)) % 360, math.degrees(math.asin(max(-1.0, min(1.0, z)))), side)


def _vector(ra: float, declination: float) -> tuple[float, float, float]:
    a, d = math.radians(ra), math.radians(declination)
    return math.cos(d) * math.cos(a), math.cos(d) * math.sin(a), math.sin(d)


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
