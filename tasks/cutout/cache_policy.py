"""What is cached of each kind of value, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from absurd.tasks.cutout.cache_value import arrays_of
from absurd.tasks.cutout.errors import ButlerConfigError

MIB = 1 << 20
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept of one kind, and for how long."""

    ttl: float | None
    """Seconds; None: until it is evicted or invalidated."""
    most_bytes: int
    """A larger value is not kept."""
    most_pixels: int | None = None
    """A value with an array of this many pixels (y times x) or more is not kept."""
    on_disk: bool = True

    def __post_init__(self) -> None:
        if self.ttl is not None and not self.ttl > 0:
            raise ButlerConfigError(f"a time to live is {self.ttl}; it must be a number of seconds above 0, or None")

    def admits(self, value: Any, size: int) -> bool:
        """Whether a value of `size` bytes is kept."""
        if size > self.most_bytes:
            return False
        return self.most_pixels is None or all(
            array.ndim < 2 or array.shape[-1] * array.shape[-2] < self.most_pixels for array in arrays_of(value)
        )

    def is_fresh(self, stored: float, now: float) -> bool:
        """Whether what was stored then counts now; a time in the future means that a clock was set."""
        return self.ttl is None or abs(now - stored) < self.ttl


POLICIES: Mapping[str, Policy] = MappingProxyType(
    {
        "cutout": Policy(ttl=DAY, most_bytes=8 * MIB, most_pixels=128 * 128),
        "wcs": Policy(ttl=7 * DAY, most_bytes=4 * MIB),
        "psf": Policy(ttl=7 * DAY, most_bytes=4 * MIB),
        "coordinates": Policy(ttl=None, most_bytes=MIB, on_disk=False),  # computed sooner than a file is opened
        "availability": Policy(ttl=300.0, most_bytes=8 * MIB),  # collections grow
    }
)
"""What is kept of each kind."""
