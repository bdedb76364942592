"""Recordings of a sky that is known, as a telescope that stands still makes them: in memory, and as UVH5 sub-bands.

What is observed is reckoned by astropy and by where antennas stand, without the coordinates of baselines: tests compare
with these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy import units
from astropy.coordinates import EarthLocation, HADec, SkyCoord
from astropy.time import Time
from numpy.typing import NDArray

LIGHT = 299_792_458.0
CHANNEL_HZ = 244_140.625
LOWEST_HZ = 1311.25e6 + CHANNEL_HZ / 2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Recording:
    """What was recorded: times of integrations, antennas on the ground, and sources on the sky."""

    begin: str = "2025-10-05T12:30:00"
    integrations: int = 3
    integration_s: float = 12.884902
    declination_deg: float = 37.0
    """Apparent, of date."""
    sources: tuple[tuple[float, float, float], ...] = ((0.31, 0.22, 3.0), (-0.12, 0.43, 1.5))
    """To the east and the north of the middle, degrees, and Jy: on one side, so that mirrored ones are told."""
    antennas: tuple[tuple[float, float, float], ...] = (
        (0.0, 0.0, 0.0), (120.0, 10.0, 1.0), (-60.0, 200.0, 0.0), (35.0, -90.0, 4.0), (310.0, 150.0, 2.0),
    )  # fmt: skip
    """East, north and up of the centre, metres."""
    channels: int = 4
    correlations: tuple[int, ...] = (-5, -6)
    seed: int = 1
    """Of the noise; none with 0."""

    @property
    def site(self) -> EarthLocation:
        """Where the centre is."""
        return EarthLocation.from_geodetic(-118.2825, 37.2339, 1222.0)

    @cached_property
    def times(self) -> Time:
        """Middles of the integrations."""
        return Time(self.begin, scale="utc") + np.arange(self.integrations) * self.integration_s * units.s

    @cached_property
    def positions_m(self) -> Floats:
        """Of the antennas, geocentric less the centre."""
        longitude, latitude = self.site.lon.rad, self.site.lat.rad
        east = np.array([-np.sin(longitude), np.cos(longitude), 0])
        up = np.array([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)])
        turned: Floats = np.array(self.antennas) @ np.array([east, np.cross(up, east), up])
        return turned

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Antennas of the baselines, autos too."""
        one, two = np.triu_indices(len(self.antennas))
        return one, two

    @cached_property
    def centre(self) -> SkyCoord:
        """What is on the meridian at each time, ICRS."""
        frame = HADec(obstime=self.times, location=self.site)
        at = np.full(self.integrations, self.declination_deg) * units.deg
        return SkyCoord(np.zeros(self.integrations) * units.deg, at, frame=frame).icrs

    @cached_property
    def sky(self) -> tuple[SkyCoord, ...]:
        """The sources, ICRS."""
        middle = self.centre[self.integrations // 2]
        return tuple(
            SkyCoord(
                middle.ra + east / np.cos(middle.dec.rad) * units.deg, middle.dec + north * units.deg, frame="icrs"
            )
            for east, north, _ in self.sources
        )

    def _towards(self, hour_angle: Floats, declination: Floats) -> Floats:
        angle = self.site.lon.rad - hour_angle
        return np.stack(
            [np.cos(declination) * np.cos(angle), np.cos(declination) * np.sin(angle), np.sin(declination)], axis=-1
        )

    def visibilities(self, frequencies_hz: Floats) -> NDArray[np.complex128]:
        """(time, baseline, channel, correlation): S exp(2 pi i (x1 - x2)(s - s0) / wavelength), s0 on the meridian."""
        one, two = self.pairs
        baselines = self.positions_m[one] - self.positions_m[two]
        frame = HADec(obstime=self.times, location=self.site)
        zero = np.zeros(self.integrations)
        middle = self._towards(zero, zero + np.radians(self.declination_deg))
        found = np.zeros((self.integrations, len(one), len(frequencies_hz), len(self.correlations)), np.complex128)
        for source, (_, _, flux) in zip(self.sky, self.sources, strict=True):
            seen = source.transform_to(frame)
            path = (self._towards(seen.ha.rad, seen.dec.rad) - middle) @ baselines.T
            found += flux * np.exp(2j * np.pi * path[:, :, None, None] * frequencies_hz[:, None] / LIGHT)
        if self.seed:
            random = np.random.default_rng(self.seed + round(frequencies_hz[0]))
            imaginary = random.normal(size=found.shape) * (one != two)[:, None, None]  # that of an auto is none
            found += 0.01 * (random.normal(size=found.shape) + 1j * imaginary)
        return found

    def frequencies_hz(self, subband: int) -> Floats:
        """Of a sub-band, ascending; 0 is the lowest here."""
        return LOWEST_HZ + CHANNEL_HZ * (np.arange(self.channels, dtype=np.float64) + subband * self.channels)

    def with_(self, **changes: Any) -> Recording:
        """Another one like it."""
        return replace(self, **changes)

    def write_subband(
        self,
        path: Path,
        subband: int,
        *,
        antenna_order: list[int] | None = None,
        row_order: NDArray[np.int64] | None = None,
        turned: NDArray[np.bool_] | None = None,
        descending: bool = False,
        old_layout: bool = True,
        header: dict[str, Any] | None = None,
        data: dict[str, NDArray[Any]] | None = None,
    ) -> Path:
        """Write a sub-band as the array does; antennas or rows in another order, or baselines the other way round."""
        frequencies = self.frequencies_hz(subband)
        visibilities = self.visibilities(frequencies).reshape(-1, self.channels, len(self.correlations))
        one, two = (np.tile(each, self.integrations) for each in self.pairs)
        if turned is not None:
            one, two = np.where(turned, two, one), np.where(turned, one, two)
            visibilities = np.where(turned[:, None, None], visibilities.conj(), visibilities)
        rows = np.arange(len(one)) if row_order is None else row_order
        order = list(range(len(self.antennas))) if antenna_order is None else antenna_order
        place = np.argsort(order)
        one, two, visibilities = one[rows], two[rows], visibilities[rows].astype(np.complex64)
        flags = np.zeros(visibilities.shape, np.bool_)
        samples = np.ones(visibilities.shape, np.float32)
        channels = slice(None, None, -1) if descending else slice(None)
        written = {"visdata": visibilities.conj(), "flags": flags, "nsamples": samples} | (data or {})
        times = np.repeat(self.times.jd, len(self.pairs[0]))[rows]
        declination = np.radians(self.declination_deg)
        east, up_north = self._meridian_uvw(one, two, declination)
        told: dict[str, Any] = {
            "latitude": self.site.lat.deg,
            "longitude": self.site.lon.deg,
            "altitude": self.site.height.to_value("m"),
            "telescope_name": np.bytes_("OVRO_MMA"),
            "instrument": np.bytes_("DSA"),
            "object_name": np.bytes_("search"),
            "history": np.bytes_("made for a test"),
            "phase_type": np.bytes_("drift"),
            "Nants_data": len(order),
            "Nants_telescope": len(order),
            "antenna_diameters": np.full(len(order), 4.65),
            "antenna_names": np.array([f"pad{each:03d}" for each in order], "S6"),
            "antenna_numbers": np.arange(len(order)),
            "antenna_positions": self.positions_m[order],
            "ant_1_array": place[one],
            "ant_2_array": place[two],
            "Nbls": len(self.pairs[0]),
            "Nblts": len(rows),
            "Nfreqs": self.channels,
            "Npols": len(self.correlations),
            "Ntimes": len(np.unique(times)),
            "Nspws": 1,
            "spw_array": np.array([1]),
            "uvw_array": np.stack([east, *up_north], axis=-1).astype(np.float32),
            "time_array": times,
            "integration_time": np.full(len(rows), self.integration_s),
            "freq_array": frequencies[channels][None] if old_layout else frequencies[channels],
            "channel_width": CHANNEL_HZ,
            "polarization_array": np.array(self.correlations),
            "extra_keywords/phase_center_dec": declination,
            "extra_keywords/ha_phase_center": 0.0,
            "extra_keywords/phase_center_epoch": np.bytes_("HADEC"),
        } | (header or {})
        with h5py.File(path, "w") as file:
            for name, value in told.items():
                if value is not None:
                    file[f"Header/{name}"] = value
            for name, values in written.items():
                file[f"Data/{name}"] = values[:, None, channels] if old_layout else values[:, channels]
        return path

    def _meridian_uvw(self, one: Any, two: Any, declination: float) -> tuple[Floats, tuple[Floats, Floats]]:
        """As UVH5 has them: from antenna 1 to antenna 2, with the north of date."""
        baselines = self.positions_m[two] - self.positions_m[one]
        longitude = self.site.lon.rad
        south = baselines[:, 0] * np.cos(longitude) + baselines[:, 1] * np.sin(longitude)
        east = baselines[:, 1] * np.cos(longitude) - baselines[:, 0] * np.sin(longitude)
        sine, cosine = np.sin(declination), np.cos(declination)
        return east, (cosine * baselines[:, 2] - sine * south, sine * baselines[:, 2] + cosine * south)
