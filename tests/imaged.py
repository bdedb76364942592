"""Visibilities of a known sky for tests of images: a drift scan of a few antennas of DSA-110, without gains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.sky_model import Component, SkyModel
from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.radio.beam import Beam
from absurd.tasks.radio.telescope import load_telescope
from absurd.tasks.visibility.uvw import meridian_centres, uvw_m
from absurd.tasks.visibility.visibilities import Array, Visibilities

DECLINATION = 54.0
"""Apparent, degrees, where the dishes look."""
FIRST = 61_055.35 * 86_400
_CELL = 12.0


def drift(
    sky: Sequence[tuple[float, float, float] | Component],
    *,
    seed: int = 1,
    noise_jy: float = 0.0,
    antennas: int = 60,
    times: int = 6,
    channels: int = 6,
    beam: Beam | None = None,
    height_m: float = 0.0,
) -> Visibilities:
    """Of components, or of sources (arcminutes to the east and to the north of the middle, Jy).

    Antennas stand on flat ground, but for heights of `height_m`, root mean square.
    """
    random = np.random.default_rng(seed)
    telescope = load_telescope("dsa110")
    chosen = np.sort(random.permutation(len(telescope.antenna_names))[:antennas])
    positions = telescope.positions_m[chosen]
    up = telescope.position_m / np.linalg.norm(telescope.position_m)
    positions = positions + up * height_m * random.standard_normal((antennas, 1))
    array = Array(
        telescope.casa_name, tuple(telescope.antenna_names[each] for each in chosen), positions, 4.65,
        telescope.position_m,
    )  # fmt: skip
    first, second = np.triu_indices(antennas, 1)
    moments = FIRST + telescope.integration_s * np.arange(times)
    centres = meridian_centres(moments, math.radians(DECLINATION), array)
    one, two = (np.tile(each, times).astype(np.int32) for each in (first, second))
    field = np.repeat(np.arange(times, dtype=np.int32), len(first))
    time = np.repeat(moments, len(first))
    frequencies = np.asarray(1.3e9 + 1.5e7 * np.arange(channels), np.float64)
    shape = len(time), channels, 2
    visibilities = Visibilities(
        data=np.zeros(shape, np.complex64),
        flags=np.zeros(shape, np.bool_),
        weights=np.broadcast_to(np.float32((noise_jy or 1.0) ** -2), shape),
        uvw_m=uvw_m(array, one, two, time, field, centres),
        time_s=time,
        exposure_s=np.full(len(time), telescope.integration_s),
        antenna1=one,
        antenna2=two,
        field=field,
        frequencies_hz=frequencies,
        channel_width_hz=np.full(channels, 1.5e7),
        correlations=("XX", "YY"),
        array=array,
        phase_centres=centres,
    )
    middle = centres[times // 2]
    components = [
        each if isinstance(each, Component) else source(middle.ra_rad, middle.dec_rad, each[0], each[1], each[2])
        for each in sky
    ]
    data = predict(visibilities, SkyModel(tuple(components)), beam=beam).copy()
    data += noise_jy * (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(np.complex64)
    return visibilities.with_(data=data)


def source(
    ra: float, dec: float, east: float, north: float, flux_jy: float, *, name: str = "", width_arcmin: float = 0.0
) -> Component:
    """A component at direction cosines of so many arcminutes from a direction, perhaps a round Gaussian."""
    l, m = math.radians(east / 60), math.radians(north / 60)  # noqa: E741 - so they are called
    n = math.sqrt(1 - l * l - m * m)
    declination = math.asin(m * math.cos(dec) + n * math.sin(dec))
    ascension = ra + math.atan2(l, n * math.cos(dec) - m * math.sin(dec))
    width = math.radians(width_arcmin / 60)
    return Component(name, ascension, declination, flux_jy, major_rad=width, minor_rad=width)


def middle_of(visibilities: Visibilities) -> tuple[float, float]:
    """Right ascension and declination of the middle, degrees, from which `drift` counts."""
    middle = visibilities.phase_centres[len(visibilities.phase_centres) // 2]
    return math.degrees(middle.ra_rad), math.degrees(middle.dec_rad)


def pixel_of(geometry: Geometry, component: Component) -> tuple[float, float]:
    """0-based x and y, as astropy has it from the header that the files get."""
    x, y = geometry.wcs.wcs_world2pix([[math.degrees(component.ra_rad), math.degrees(component.dec_rad)]], 0)[0]
    return float(x), float(y)
