"""A picture of the sky held against a catalogue: flux scale, completeness, and where the sources are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.catalog.cross_match import cross_match, nearest_arcsec
from absurd.tasks.photometry.detect import background_and_noise, detect
from absurd.tasks.photometry.shapes import beam_shape, width_pixels
from absurd.tasks.qa.gates import Gate
from absurd.tasks.qa.report import Measure, measure
from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.robust import robust_rms
from absurd.tasks.radio.sky_image import SkyImage
from absurd.tasks.radio.sky_pixels import frame_of, pixels_to_sky, sky_to_pixels

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
FOUND_SIGMA = 5.0
EXPECTED_SIGMA = 10.0
"""A source that should be so bright is found at 5 whatever the noise does to it."""
SCALE_SIGMA = 20.0
"""A flux density that is known to 5 %."""
FEWEST = 3
"""Sources of which a median is told."""
_CELL_WIDTHS = 16
"""Side of a cell in which the noise is measured, in widths of the beam."""


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """What should be there, arrays (n,)."""

    ra_deg: Floats
    """ICRS."""
    dec_deg: Floats
    flux_jy: Floats
    """At the frequency of the image."""


def check_sky(
    image: SkyImage,
    catalogue: Catalogue | None,
    gates: Mapping[str, Gate],
    *,
    gain: Pixels | None = None,
    least_gain: float = 0.3,
    match_arcsec: float | None = None,
) -> Iterator[Measure]:
    """Measures of the gates flux_scale, completeness and astrometry.

    `gain` (y, x) is the primary beam's power where the image is as the dishes received it.  Positions are measured in
    this image each time: the offset is that of its sources, the nearest pairs within `match_arcsec` (1.5 beams).
    Raises DataError for an image without a beam.
    """
    if image.beam is None:
        raise DataError(f"{image.path} tells no beam (BMAJ, BMIN, BPA), by which sources are found", path=image.path)
    if catalogue is None:
        for name in ("flux_scale", "completeness", "astrometry"):
            yield measure(name, gates[name], None, note="there is no catalogue to hold it against")
        return
    found = _found(image, gain)
    wide = 3600 * image.beam.major_deg
    expected, sigma = _expected(image, catalogue, found, gain, least_gain)
    yield from _compared(catalogue, found, expected, sigma, gates, match_arcsec or 1.5 * wide, wide)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    ra_deg: Floats
    dec_deg: Floats
    flux: Floats
    """As the image has it."""
    noise: Pixels
    """(y, x)."""
    x: Floats
    y: Floats


def _found(image: SkyImage, gain: Pixels | None) -> _Found:
    from astropy.coordinates import SkyCoord

    assert image.beam is not None
    pixels, beam = image.pixels(), beam_shape(image, image.beam)
    if gain is not None:
        pixels[~(gain > 0)] = np.nan
    _, noise = background_and_noise(pixels, max(16, int(_CELL_WIDTHS * width_pixels(beam)[0])))
    made = detect(pixels, beam, detection_sigma=FOUND_SIGMA)
    lon, lat = pixels_to_sky(image.wcs, made.x, made.y)
    places = SkyCoord(lon, lat, unit="deg", frame=frame_of(image.wcs)).icrs
    noise[~np.isfinite(pixels)] = np.nan
    return _Found(np.asarray(places.ra.deg), np.asarray(places.dec.deg), made.flux, noise, made.x, made.y)


def _expected(
    image: SkyImage, catalogue: Catalogue, found: _Found, gain: Pixels | None, least_gain: float
) -> tuple[Floats, Floats]:
    """Flux densities that the image should have, and over its noise there; NaN outside."""
    from astropy.coordinates import ICRS

    x, y = sky_to_pixels(image.wcs, catalogue.ra_deg, catalogue.dec_deg, ICRS())
    ny, nx = image.shape
    inside = (x >= 0.5) & (x < nx - 1.5) & (y >= 0.5) & (y < ny - 1.5)
    column = np.where(inside, np.rint(x), 0).astype(int)
    row = np.where(inside, np.rint(y), 0).astype(int)
    power = np.ones(len(x)) if gain is None else gain[row, column].astype(float)
    power[~(inside & (power >= least_gain))] = np.nan
    expected = catalogue.flux_jy * power
    with np.errstate(invalid="ignore", divide="ignore"):
        return expected, expected / found.noise[row, column]


def _compared(
    catalogue: Catalogue,
    found: _Found,
    expected: Floats,
    sigma: Floats,
    gates: Mapping[str, Gate],
    radius_arcsec: float,
    width_arcsec: float,
) -> Iterator[Measure]:
    # Fainter ones take part, so that none of theirs is taken for a bright one's, nor a pair for one source.
    there = np.flatnonzero(sigma >= 1)
    ra, dec = catalogue.ra_deg[there], catalogue.dec_deg[there]
    match = cross_match(ra, dec, found.ra_deg, found.dec_deg, radius_arcsec)
    own, other = there[match.first], match.second
    single = ~match.crowded

    good = single & (sigma[own] >= SCALE_SIGMA)
    ratios = found.flux[other[good]] / expected[own[good]]
    value = float(np.median(ratios)) if len(ratios) >= FEWEST else None
    note = f"of {len(ratios)} sources" + (_scatter(ratios, "") if value is not None else f", fewer than {FEWEST}")
    yield measure("flux_scale", gates["flux_scale"], value, note=note)

    due = np.flatnonzero(sigma >= EXPECTED_SIGMA)
    count = len(due)
    # Of a pair that the image shows as one both are found.
    far = nearest_arcsec(catalogue.ra_deg[due], catalogue.dec_deg[due], found.ra_deg, found.dec_deg)
    seen = int((far <= radius_arcsec).sum())
    value = seen / count if count >= FEWEST else None
    note = f"{seen} of {count} sources" + ("" if value is not None else f", fewer than {FEWEST}")
    yield measure("completeness", gates["completeness"], value, note=note)

    good = single & (sigma[own] >= EXPECTED_SIGMA)
    one, two = own[good], other[good]
    if len(one) < FEWEST:
        note = f"of {len(one)} sources, fewer than {FEWEST}"
        yield measure("astrometry", gates["astrometry"], None, note=note)
        return
    turn = (found.ra_deg[two] - catalogue.ra_deg[one] + 180) % 360 - 180
    east = 3600 * turn * np.cos(np.radians(catalogue.dec_deg[one]))
    north = 3600 * (found.dec_deg[two] - catalogue.dec_deg[one])
    off_east, off_north = float(np.median(east)), float(np.median(north))
    note = (
        f"{off_east:+.3g} arcsec east{_scatter(east, 'arcsec')}, {off_north:+.3g} arcsec north"
        f"{_scatter(north, 'arcsec')}, of {len(one)} sources, in beams of {width_arcsec:.3g} arcsec"
    )
    yield measure("astrometry", gates["astrometry"], math.hypot(off_east, off_north) / width_arcsec, note=note)


def _scatter(values: Floats, unit: str) -> str:
    """How far the values are apart, in words; nothing for too few."""
    spread = robust_rms(values)
    return f" (scatter {spread:.2g}{' ' + unit if unit else ''})" if math.isfinite(spread) else ""
