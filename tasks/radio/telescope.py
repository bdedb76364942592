"""Telescopes as data: where antennas stand, what they receive, and how a recording is cut into files.

Each telescope is a TOML file; those that come with the package lie in ``telescopes/``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import ConfigurationError

SPEED_OF_LIGHT = 299_792_458.0
"""Metres per second."""
_SEMI_MAJOR, _FLATTENING = 6_378_137.0, 1 / 298.257223563
"""The ellipsoid of WGS 84: metres, and none."""


@dataclass(frozen=True, slots=True)
class Band:
    """What is received, and how it is split."""

    lowest_hz: float
    """Lower edge of the lowest channel."""
    channel_width_hz: float
    channels: int
    """Of one sub-band."""
    subbands: int
    descending: bool
    """Whether sub-band 0 is the highest."""

    @property
    def frequencies_hz(self) -> NDArray[np.float64]:
        """Centres of all channels, ascending."""
        channels = np.arange(self.subbands * self.channels, dtype=np.float64)
        return self.lowest_hz + self.channel_width_hz * (channels + 0.5)

    def subband_frequencies_hz(self, number: int) -> NDArray[np.float64]:
        """Centres of the channels of a sub-band, ascending."""
        place = self.subbands - 1 - number if self.descending else number
        return self.frequencies_hz[place * self.channels : (place + 1) * self.channels]


@dataclass(frozen=True)
class Telescope:
    """An array of antennas that are alike."""

    name: str
    casa_name: str
    """The name under which CASA knows the observatory: it refuses others."""
    latitude_deg: float
    longitude_deg: float
    """East."""
    height_m: float
    dish_diameter_m: float
    system_temperature_k: float
    aperture_efficiency: float
    correlations: tuple[str, ...]
    integration_s: float
    integrations: int
    """Of one group of sub-bands."""
    band: Band
    reference_antennas: tuple[str, ...]
    """The best first."""
    stations: tuple[tuple[str, float, float, float], ...]
    """Name, latitude and longitude in degrees, height in metres, of those in use."""

    @property
    def antenna_names(self) -> tuple[str, ...]:
        """In the order of `positions_m`."""
        return tuple(name for name, *_ in self.stations)

    @cached_property
    def positions_m(self) -> NDArray[np.float64]:
        """Of the antennas, (antenna, 3), metres, geocentric (ITRF)."""
        return geocentric_m(*(np.array(column) for column in list(zip(*self.stations, strict=True))[1:]))

    @property
    def position_m(self) -> NDArray[np.float64]:
        """Of the array's centre, (3,), metres, geocentric (ITRF)."""
        return geocentric_m(np.array(self.latitude_deg), np.array(self.longitude_deg), np.array(self.height_m))

    @property
    def sefd_jy(self) -> float:
        """System equivalent flux density of one antenna: 2 k T / (efficiency * area), Jy."""
        area = np.pi * self.dish_diameter_m**2 / 4
        return float(2 * 1380.649 * self.system_temperature_k / (self.aperture_efficiency * area))


def geocentric_m(
    latitude_deg: NDArray[np.float64], longitude_deg: NDArray[np.float64], height_m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Geocentric x, y, z in metres, (..., 3), of places above the ellipsoid of WGS 84 (arrays of one shape)."""
    latitude, longitude = np.radians(latitude_deg), np.radians(longitude_deg)
    eccentricity = _FLATTENING * (2 - _FLATTENING)
    across = _SEMI_MAJOR / np.sqrt(1 - eccentricity * np.sin(latitude) ** 2)
    return np.stack(
        [
            (across + height_m) * np.cos(latitude) * np.cos(longitude),
            (across + height_m) * np.cos(latitude) * np.sin(longitude),
            (across * (1 - eccentricity) + height_m) * np.sin(latitude),
        ],
        axis=-1,
    )


def telescope_names() -> list[str]:
    """Those that come with the package."""
    return sorted(each.name[:-5] for each in _shipped().iterdir() if each.name.endswith(".toml"))


def load_telescope(name: str) -> Telescope:
    """The telescope of that name, or of a TOML file.

    Raises ConfigurationError for one that is not known, for unknown keys and for values that cannot be used.
    """
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"telescope {name} cannot be read: {error.strerror}", telescope=name) from error
    elif name in telescope_names():
        text = (_shipped() / f"{name}.toml").read_text(encoding="utf-8")
    else:
        known = ", ".join(telescope_names())
        raise ConfigurationError(
            f"telescope {name!r} is not known", advice=f"take {known}, or a path that ends in .toml"
        )
    try:
        return _telescope(tomllib.loads(text))
    except ValueError as error:  # that of TOML is one
        raise ConfigurationError(f"telescope {name}: {error}", telescope=name) from error


def _telescope(told: dict[str, Any]) -> Telescope:
    from absurd.tasks.radio.telescope_file import checked

    found = checked(told)
    antennas = found.antennas
    prefix, unused = antennas.prefix, set(antennas.unused)
    return Telescope(
        name=found.name,
        casa_name=found.casa_name,
        latitude_deg=found.site.latitude_deg,
        longitude_deg=found.site.longitude_deg,
        height_m=found.site.height_m,
        dish_diameter_m=found.dish.diameter_m,
        system_temperature_k=found.dish.system_temperature_k,
        aperture_efficiency=found.dish.aperture_efficiency,
        correlations=tuple(found.correlations),
        integration_s=found.recording.integration_s,
        integrations=found.recording.integrations,
        band=Band(**found.band.model_dump()),
        reference_antennas=tuple(f"{prefix}{number:03d}" for number in antennas.reference),
        stations=tuple(
            (f"{prefix}{number:03d}", latitude, longitude, height)
            for number, latitude, longitude, height in antennas.stations
            if number not in unused
        ),
    )


def _shipped() -> Traversable:
    return files(__package__) / "telescopes"
