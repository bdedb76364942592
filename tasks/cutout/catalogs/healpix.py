"""Where the pixels of a HATS tree are: nested HEALPix, as far as it takes to leave files unread.

Formulas: Gorski et al. 2005, ApJ 622, 759, section 4 and 5; the largest radius of a pixel as in healpy.max_pixrad.
"""

from __future__ import annotations

import math

_ROWS = (2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4)
"""Of each of the 12 base pixels: the ring of its southern corner, in units of nside."""
_COLUMNS = (1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7)
"""Of each: the longitude of its middle, in units of 45 degrees."""


def centre_of(order: int, pixel: int) -> tuple[float, float]:
    """Right ascension and declination, degrees, of the middle of a nested pixel.  Raises ValueError."""
    nside = 1 << order
    if not 0 <= pixel < 12 * nside * nside:
        raise ValueError(f"order {order} has {12 * nside * nside} pixels, from 0; there is no {pixel}")
    face, within = divmod(pixel, nside * nside)
    x, y = _every_other_bit(within), _every_other_bit(within >> 1)
    ring = _ROWS[face] * nside - x - y - 1
    if ring < nside:
        in_ring, shift, z = ring, 0, 1 - ring * ring / (3 * nside * nside)
    elif ring > 3 * nside:
        in_ring, shift = 4 * nside - ring, 0
        z = in_ring * in_ring / (3 * nside * nside) - 1
    else:
        in_ring, shift, z = nside, (ring - nside) & 1, (2 * nside - ring) * 2 / (3 * nside)
    column = (_COLUMNS[face] * in_ring + x - y + 1 + shift) // 2
    column = (column - 1) % (4 * in_ring) + 1
    ra = (column - (shift + 1) / 2) * 90 / in_ring
    return ra % 360, math.degrees(math.asin(z))


def radius_of(order: int) -> float:
    """Degrees from the middle of a pixel within which all of it is, for each pixel of the order."""
    nside = 1 << order
    height = 1 - (1 - 1 / nside) ** 2 / 3
    longest = math.radians(45 / nside)
    at = (math.sqrt(1 - 4 / 9) * math.cos(longest), math.sqrt(1 - 4 / 9) * math.sin(longest), 2 / 3)
    top = (math.sqrt(1 - height * height), 0.0, height)
    return math.degrees(math.acos(min(1.0, sum(a * b for a, b in zip(at, top, strict=True))))) + 1e-9


def _every_other_bit(number: int) -> int:
    found = 0
    for bit in range(30):
        found |= (number >> 2 * bit & 1) << bit
    return found
