"""A small simulated sky: FITS tiles in three bands, and the catalogue of what is in them (seeded).

For the demo and for tests: inputs that look real, made in seconds, with known answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from absurd.tasks.artifact import write_aside

CENTRE_DEG = (150.1163, 2.2058)
"""Right ascension and declination of the field, degrees, ICRS."""
PIXEL_ARCSEC = 0.5
TILE_PIXELS = 512
BANDS = {"g": 1.5, "r": 1.3, "i": 1.15}
"""Seeing in each band: full width at half maximum, arcseconds."""
SLOPES = {"g": 1.0, "r": 0.0, "i": -0.8}
"""How strongly a source's colour acts on each band: exp(slope * colour) times its flux in r."""
NOISE = 9.0
"""Standard deviation of the sky, counts a pixel."""
GAIN = 4.0
"""Electrons per count: the noise of the light itself is sqrt(counts / GAIN)."""
SATURATION = 60_000.0
"""Counts at which a pixel is full."""
MOFFAT_BETA = 2.8
BRIGHT = 60_000.0
"""Flux in counts from which a star shows the spikes of the telescope's spider."""
LARGEST_STAMP = 220
"""Half width, in pixels, of the largest square that one source lights up."""

SATURATED, AT_EDGE = 1, 2
"""Bits of the catalogue's flags: a full pixel in some band; closer than 10 arcseconds to the edge of its tile."""

Pixels = NDArray[np.float32]
Light = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Source:
    """One object of the simulated catalogue."""

    id: int
    ra: float
    """Degrees, ICRS, as `dec`."""
    dec: float
    flux: float
    """Counts in the r band, over the whole object."""
    colour: float
    """Natural logarithm of the flux in g over that in r; 0 is white."""
    kind: str
    """star, spiral or elliptical."""
    flags: int = 0
    radius: float = 0.0
    """Scale length of a galaxy, pixels."""

    def flux_in(self, band: str) -> float:
        """Counts in a band."""
        return float(self.flux * np.exp(SLOPES[band] * self.colour))


@dataclass(frozen=True, slots=True)
class Sky:
    """What was made: the folder of images, their paths, and the sources in them, by falling flux."""

    folder: Path
    images: tuple[Path, ...]
    sources: tuple[Source, ...]


def simulate_sky(folder: Path, *, seed: int = 12, stars: int = 500) -> Sky:
    """Write two neighbouring tiles in three bands to `folder`, replacing those of an earlier run.

    Star counts follow a power law (a tenth of the flux: 16 times as many); positions are uniform.  Each tile has a
    spiral galaxy and some faint ellipticals.  The tiles are rotated against north, so that no axis is special.  The
    same seed gives the same sky.
    """
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tiles = {"a": _tile_wcs(-0.5, 4.0), "b": _tile_wcs(0.5, -7.0)}
    sources = _sources(chance, list(tiles.values()), stars)
    images = []
    for name, wcs in tiles.items():
        for band, seeing in BANDS.items():
            header = wcs.to_header()
            header["FILTER"] = (band, "band")
            header["OBJECT"] = (f"tile {name}", "simulated")
            header["BUNIT"] = "count"
            header["GAIN"] = (GAIN, "electrons per count")
            header["SATURATE"] = (SATURATION, "[count] a full pixel")
            header["SEEING"] = (seeing, "[arcsec] full width at half maximum")
            path = folder / f"tile-{name}-{band}.fits"
            with write_aside(path) as part:
                fits.PrimaryHDU(_render(chance, wcs, sources, band), header).writeto(part)
            images.append(path)
    return Sky(folder, tuple(images), tuple(sources))


def load_catalogue_sql(sky: Sky, table: str) -> list[tuple[str, tuple[Any, ...]]]:
    """Statements, with their arguments, that make `table` (an SQL identifier) anew and fill it with the sources.

    One column for each of the types an export must keep: NULLs, NaN, exact decimals, arrays, times.
    """
    night = datetime(2026, 3, 1, 4, 30, tzinfo=UTC)
    sources = sky.sources
    columns: tuple[list[Any], ...] = (
        [each.id for each in sources],
        [f"SIM J{each.ra:09.5f}{each.dec:+09.5f}" for each in sources],
        [each.ra for each in sources],
        [each.dec for each in sources],
        [each.flux for each in sources],
        [_flux_error(each) for each in sources],
        [str(round(27.0 - 2.5 * np.log10(each.flux), 4)) for each in sources],
        *([each.flux_in(band) for each in sources] for band in BANDS),
        [each.flags for each in sources],
        [each.kind for each in sources],
        [night + timedelta(seconds=7.5 * each.id) for each in sources],
        [None if each.id % 17 else "" if each.id % 2 else "seen before: “NULL”" for each in sources],
    )
    return [
        (f"drop table if exists {table}", ()),
        (
            f"create table {table} (id bigint primary key, name text not null, ra double precision not null,"
            " dec double precision not null, flux double precision not null, flux_error real,"
            " magnitude numeric(8, 4), band_fluxes double precision[], flags integer not null, kind text,"
            " observed_at timestamptz, note text)",
            (),
        ),
        (
            f"insert into {table} select id, name, ra, dec, flux, flux_error, magnitude, array[g, r, i], flags, kind,"
            " observed_at, note from unnest($1::bigint[], $2::text[], $3::double precision[],"
            " $4::double precision[], $5::double precision[], $6::real[], $7::text[]::numeric[],"
            " $8::double precision[], $9::double precision[], $10::double precision[], $11::integer[], $12::text[],"
            " $13::timestamptz[], $14::text[]) as made"
            " (id, name, ra, dec, flux, flux_error, magnitude, g, r, i, flags, kind, observed_at, note)",
            columns,
        ),
    ]


def _flux_error(source: Source) -> float | None:
    """That of photometry in 12 pixels; the faintest have none, saturated ones one that is no number."""
    if source.flags & SATURATED:
        return float("nan")
    return None if source.flux < 500 else float(np.sqrt(source.flux / GAIN + 12 * NOISE**2))


# Geometry and light ------------------------------------------------------------------------------


def _tile_wcs(offset: float, angle_deg: float) -> WCS:
    """TAN projection of a tile whose centre lies `offset` tile widths east of the field's centre."""
    wcs = WCS(naxis=2)
    wcs.pixel_shape = (TILE_PIXELS, TILE_PIXELS)
    scale, angle = PIXEL_ARCSEC / 3600, np.radians(angle_deg)
    width = TILE_PIXELS * scale / np.cos(np.radians(CENTRE_DEG[1]))
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [CENTRE_DEG[0] + offset * width, CENTRE_DEG[1]]
    wcs.wcs.crpix = [(TILE_PIXELS + 1) / 2, (TILE_PIXELS + 1) / 2]
    wcs.wcs.cd = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.wcs.radesys = "ICRS"
    return wcs


def _sources(chance: np.random.Generator, tiles: list[WCS], stars: int) -> list[Source]:
    """What the tiles hold, numbered by falling flux."""
    found = []
    core = _moffat_core(BANDS["i"])
    for wcs in tiles:
        middle = chance.uniform(150, TILE_PIXELS - 150, 2)
        light = [("spiral", *middle, 1.8e6, 0.1, 13.0)]
        light += [
            ("elliptical", *_anywhere(chance), chance.uniform(2e3, 3e4), -0.7, chance.uniform(1.5, 4))
            for _ in range(12)
        ]
        for number in range(stars // len(tiles)):
            # A few bright ones in any case: they are what saturates.
            flux = 10 ** chance.uniform(5.4, 6.3) if number < 3 else 400.0 * (1 - chance.uniform()) ** (-1 / 1.2)
            light.append(("star", *_anywhere(chance), flux, float(np.clip(chance.normal(-0.15, 0.5), -1.6, 0.9)), 0.0))
        for kind, x, y, flux, colour, radius in light:
            ra, dec = (float(value) for value in wcs.all_pix2world(x, y, 0))
            peak = flux * np.exp(max(slope * colour for slope in SLOPES.values())) * _moffat_peak(core)
            flags = SATURATED if kind == "star" and peak > SATURATION else 0
            edge = min(x, y, TILE_PIXELS - 1 - x, TILE_PIXELS - 1 - y) * PIXEL_ARCSEC
            found.append((flux, ra, dec, colour, kind, flags | (AT_EDGE if edge < 10 else 0), radius))
    found.sort(reverse=True)
    return [
        Source(number, ra, dec, float(flux), colour, kind, flags, radius)
        for number, (flux, ra, dec, colour, kind, flags, radius) in enumerate(found, start=1)
    ]


def _anywhere(chance: np.random.Generator) -> tuple[float, float]:
    x, y = chance.uniform(4, TILE_PIXELS - 5, 2)
    return float(x), float(y)


def _render(chance: np.random.Generator, wcs: WCS, sources: list[Source], band: str) -> Pixels:
    """The image of one tile in one band, indexed (y, x), counts."""
    image = np.zeros((TILE_PIXELS, TILE_PIXELS))
    core = _moffat_core(BANDS[band])
    xs, ys = wcs.all_world2pix([each.ra for each in sources], [each.dec for each in sources], 0)
    for source, x, y in zip(sources, xs, ys, strict=True):
        flux = source.flux_in(band)
        half = _reach(flux, core) if source.kind == "star" else int(8 * source.radius) + 12
        if not (-half < x < TILE_PIXELS + half and -half < y < TILE_PIXELS + half):
            continue
        left, right = max(0, int(x) - half), min(TILE_PIXELS, int(x) + half + 1)
        low, high = max(0, int(y) - half), min(TILE_PIXELS, int(y) + half + 1)
        dy, dx = np.mgrid[low:high, left:right].astype(float)
        image[low:high, left:right] += flux * _profile(source, dx - x, dy - y, band, core)
    electrons = chance.poisson(np.maximum(image, 0) * GAIN)
    noisy = electrons / GAIN + chance.normal(0.0, NOISE, image.shape)
    return np.minimum(noisy, SATURATION).astype(np.float32)


def _profile(source: Source, dx: Light, dy: Light, band: str, core: float) -> Light:
    """Light of a source of unit flux at offsets from its centre, pixels."""
    if source.kind == "spiral":
        return _spiral(dx, dy, source.radius, 1.1 * source.id, band)
    if source.kind == "elliptical":
        turned = source.id * 0.9
        across = dx * np.cos(turned) + dy * np.sin(turned)
        along = (dy * np.cos(turned) - dx * np.sin(turned)) / 0.7
        scale = np.hypot(source.radius, 0.5 * core)
        round_light: Light = np.exp(-np.hypot(across, along) / scale) / (2 * np.pi * scale**2 * 0.7)
        return round_light
    light = _moffat(dx, dy, core)
    if source.flux > BRIGHT:  # spikes along the diagonals
        length = 6 * np.log10(source.flux / BRIGHT) + 5
        for along, across in ((dx + dy, dx - dy), (dx - dy, dx + dy)):
            light = light + 8e-5 * np.exp(-np.abs(along) / (1.4 * length) - (across / (0.8 * core)) ** 2)
    return light


def _moffat_core(seeing_arcsec: float) -> float:
    """The core radius, in pixels, of a Moffat profile with that full width at half maximum."""
    return float(seeing_arcsec / PIXEL_ARCSEC / (2 * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1)))


def _moffat_peak(core: float) -> float:
    return float((MOFFAT_BETA - 1) / (np.pi * core**2))


def _moffat(dx: Light, dy: Light, core: float) -> Light:
    """A Moffat profile of unit flux: peak * (1 + r^2 / core^2)^-beta."""
    profile: Light = _moffat_peak(core) * (1 + (dx**2 + dy**2) / core**2) ** -MOFFAT_BETA
    return profile


def _reach(flux: float, core: float) -> int:
    """Pixels from a star's centre at which its light is a tenth of the noise."""
    radius = core * (flux * _moffat_peak(core) / (0.1 * NOISE)) ** (0.5 / MOFFAT_BETA)
    return int(np.clip(radius, 6, LARGEST_STAMP))


def _spiral(dx: Light, dy: Light, scale: float, angle: float, band: str) -> Light:
    """A red bulge, an inclined exponential disc and two blue arms with knots; about unit flux."""
    across = dx * np.cos(angle) + dy * np.sin(angle)
    along = (dy * np.cos(angle) - dx * np.sin(angle)) / 0.62
    radius = np.hypot(across, along) + 1e-6
    turn = np.arctan2(along, across)
    wave = np.cos(2 * (turn - 2.1 * np.log(radius / 3 + 0.4)))
    knots = 1 + 0.25 * np.cos(9 * turn + 1.7 * radius / scale * 3) * np.cos(radius / 2.3)
    strength = {"g": 1.5, "r": 0.9, "i": 0.6}[band]
    arms = 1 + strength * np.clip(wave, -0.45, 1) ** 3 * knots * np.clip(radius / scale, 0, 1)
    disc = np.exp(-radius / scale) / (2 * np.pi * scale**2 * 0.62)
    bulge = np.exp(-radius / (0.2 * scale)) / (2 * np.pi * (0.2 * scale) ** 2 * 0.62)
    light: Light = 0.8 * disc * arms + {"g": 0.05, "r": 0.11, "i": 0.17}[band] * bulge
    return light
