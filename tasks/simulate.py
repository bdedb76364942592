"""A small simulated sky: FITS tiles in three bands, and the catalogue of what is in them (pure, seeded).

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

CENTRE_DEG = (150.1163, 2.2058)
"""Right ascension and declination (ICRS, degrees) of the field."""
PIXEL_ARCSEC = 0.5
TILE_PIXELS = 512
BANDS = {"g": 1.5, "r": 1.3, "i": 1.15}
"""Seeing in each band: full width at half maximum, in arcseconds."""
COLOURS = {"g": 0.55, "r": 1.0, "i": 1.25}
"""Brightness of an average source relative to the r band."""
NOISE = 9.0
"""Standard deviation of the sky in counts a pixel."""
SATURATION = 60_000.0
MOFFAT_BETA = 2.8
STAMP = 28
"""Half width in pixels of what a star lights up."""

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Source:
    """One object of the simulated catalogue; flux in counts in the r band."""

    id: int
    ra: float
    dec: float
    flux: float
    colour: float
    kind: str


@dataclass(frozen=True, slots=True)
class Sky:
    """What was made: the folder of images, their paths, and the sources in them."""

    folder: Path
    images: tuple[Path, ...]
    sources: tuple[Source, ...]


def simulate_sky(folder: Path, *, seed: int = 12, stars: int = 400) -> Sky:
    """Write two neighbouring tiles in three bands to `folder`, replacing those of an earlier run.

    Star counts follow a power law (twice as faint: 2.3 times as many); positions are uniform; two
    spiral galaxies lie among them.  One tile is rotated, so that no axis is special.
    """
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tiles = {"a": _tile_wcs(-0.5, 4.0), "b": _tile_wcs(0.5, -7.0)}
    sources = _sources(chance, tiles, stars)
    images = []
    for name, wcs in tiles.items():
        for band, seeing in BANDS.items():
            pixels = _render(chance, wcs, sources, band, seeing / PIXEL_ARCSEC)
            header = wcs.to_header()
            header["FILTER"] = (band, "band")
            header["OBJECT"] = (f"tile {name}", "simulated")
            header["BUNIT"] = "count"
            header["SATURATE"] = SATURATION
            header["SEEING"] = (seeing, "[arcsec] full width at half maximum")
            path = folder / f"tile-{name}-{band}.fits"
            fits.PrimaryHDU(pixels, header).writeto(path, overwrite=True)
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
        # The faintest have no error estimate; the saturated ones have one that is no number.
        [None if each.flux < 500 else float("nan") if each.flux > 5e5 else each.flux**0.5 + NOISE for each in sources],
        [str(round(27.0 - 2.5 * np.log10(each.flux), 4)) for each in sources],
        [each.kind for each in sources],
        [night + timedelta(seconds=7.5 * each.id) for each in sources],
        [None if each.id % 17 else "near the edge of a chip" for each in sources],
    )
    return [
        (f"drop table if exists {table}", ()),
        (
            (
                f"create table {table} (id bigint primary key, name text not null, ra double precision not null,"
                " dec double precision not null, flux double precision, flux_error real, magnitude numeric(8, 4),"
                " kind text, observed_at timestamptz, note text)"
            ),
            (),
        ),
        (
            (
                f"insert into {table} select * from unnest($1::bigint[], $2::text[], $3::double precision[],"
                " $4::double precision[], $5::double precision[], $6::real[], $7::text[]::numeric[], $8::text[],"
                " $9::timestamptz[], $10::text[])"
            ),
            columns,
        ),
    ]


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


def _sources(chance: np.random.Generator, tiles: dict[str, WCS], stars: int) -> list[Source]:
    found = []
    per_tile = stars // len(tiles)
    for wcs in tiles.values():
        x, y = chance.uniform(8, TILE_PIXELS - 8, (2, per_tile))
        ra, dec = wcs.all_pix2world(x, y, 0)
        flux = 400.0 * (1 - chance.uniform(0, 0.99998, per_tile)) ** (-1 / 1.2)
        colour = chance.normal(0.0, 0.35, per_tile)
        found += [("star", *values) for values in zip(ra, dec, np.minimum(flux, 3e6), colour, strict=True)]
        ra, dec = wcs.all_pix2world(chance.uniform(140, 370), chance.uniform(140, 370), 0)
        found.append(("galaxy", float(ra), float(dec), 1.8e6, 0.1))
    return [
        Source(number, float(ra), float(dec), float(flux), float(colour), kind)
        for number, (kind, ra, dec, flux, colour) in enumerate(found, start=1)
    ]


def _render(chance: np.random.Generator, wcs: WCS, sources: list[Source], band: str, seeing: float) -> Pixels:
    """The image of one tile in one band, indexed (y, x), in counts."""
    image = chance.normal(0.0, NOISE, (TILE_PIXELS, TILE_PIXELS))
    xs, ys = wcs.all_world2pix([each.ra for each in sources], [each.dec for each in sources], 0)
    for source, x, y in zip(sources, xs, ys, strict=True):
        half = 90 if source.kind == "galaxy" else STAMP
        if not (-half < x < TILE_PIXELS + half and -half < y < TILE_PIXELS + half):
            continue
        tint = COLOURS[band] * np.exp(source.colour * (1 - COLOURS[band]))
        left, right = max(0, int(x) - half), min(TILE_PIXELS, int(x) + half + 1)
        low, high = max(0, int(y) - half), min(TILE_PIXELS, int(y) + half + 1)
        dy, dx = np.mgrid[low:high, left:right].astype(float)
        light = _spiral(dx - x, dy - y, band) if source.kind == "galaxy" else _moffat(dx - x, dy - y, seeing)
        image[low:high, left:right] += source.flux * tint * light
    return np.minimum(image, SATURATION).astype(np.float32)


def _moffat(dx: NDArray[Any], dy: NDArray[Any], seeing: float) -> NDArray[Any]:
    """A Moffat profile of unit flux; `seeing` is its full width at half maximum in pixels."""
    core = seeing / (2 * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1))
    norm = (MOFFAT_BETA - 1) / (np.pi * core**2)
    profile: NDArray[Any] = norm * (1 + (dx**2 + dy**2) / core**2) ** -MOFFAT_BETA
    return profile


def _spiral(dx: NDArray[Any], dy: NDArray[Any], band: str) -> NDArray[Any]:
    """Bulge, inclined exponential disc and two arms that are bluer than the rest; about unit flux."""
    across, along = 0.92 * dx + 0.39 * dy, (0.92 * dy - 0.39 * dx) / 0.62
    radius = np.hypot(across, along) + 1e-6
    swirl = np.cos(2 * (np.arctan2(along, across) - 1.9 * np.log(radius / 3)))
    arms = 1 + {"g": 0.9, "r": 0.65, "i": 0.5}[band] * swirl * np.clip(radius / 8, 0, 1)
    disc = np.exp(-radius / 13) / (2 * np.pi * 13**2 * 0.62)
    bulge = np.exp(-radius / 2.2) / (2 * np.pi * 2.2**2 * 0.62)
    bulge *= {"g": 0.08, "r": 0.12, "i": 0.16}[band]
    light: NDArray[Any] = 0.85 * disc * arms + bulge
    return light
