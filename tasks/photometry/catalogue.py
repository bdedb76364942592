"""Catalogues of the sources that were found in an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from absurd.tasks.catalog.positions import position_name
from absurd.tasks.photometry.detect import detect
from absurd.tasks.photometry.params import DetectParams
from absurd.tasks.photometry.shapes import beam_shape, round_shape
from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.sky_image import SkyImage, open_sky_image
from absurd.tasks.radio.sky_pixels import frame_of, pixels_to_sky


def make_catalogue(params: DetectParams, scratch: Callable[[], Path]) -> tuple[Any, dict[str, Any]]:
    """An Arrow table of the sources, the brightest first, and what is to be told of it.

    `scratch` gives a folder for the files of engines that are programs.  Raises DataError for an image without a beam.
    """
    image = open_sky_image(params.image)
    if image.beam is None:
        raise DataError(f"{image.path} tells no beam (BMAJ, BMIN, BPA), by which sources are found", path=image.path)
    if params.engine == "pybdsf":
        from absurd.tasks.photometry.pybdsf import find

        columns = find(params, scratch())
    else:
        columns = _found(params, image)
    names = _names(columns["ra"], columns["dec"])
    rms = columns["rms_jy"]
    told = {"median_rms_jy": float(np.median(rms)) if len(rms) else None}
    return _table({"source_id": names, **columns}), told


COLUMNS = {
    "source_id": "name by position",
    "ra": "right ascension, degrees, ICRS",
    "dec": "declination, degrees, ICRS",
    "flux_jy": "height of the beam's Gaussian, Jy/beam",
    "error_jy": "standard deviation of flux_jy",
    "rms_jy": "local scatter of pixels, Jy/beam",
    "island": "number of the pixels that touch one another",
    "island_jy": "their sum over the beam's area, Jy",
    "island_pixels": "how many they are",
    "flags": "bits: 1 outside, 2 pixels missing, 4 blended, 8 inseparable, 16 no noise",
}


def _found(params: DetectParams, image: SkyImage) -> dict[str, Any]:
    assert image.beam is not None
    pixels = image.pixels()
    noise = None
    if params.noise is not None:
        opened = open_sky_image(params.noise)
        if opened.shape != image.shape:
            raise DataError(f"{params.noise} has {opened.shape} pixels, and {image.path} {image.shape}")
        noise = opened.pixels()
    found = detect(
        pixels,
        beam_shape(image, image.beam) if params.fwhm_pixels is None else round_shape(params.fwhm_pixels),
        detection_sigma=params.detection_sigma,
        island_sigma=params.island_sigma,
        noise=noise,
    )
    ra, dec = _icrs(image, found.x, found.y)
    return {
        "ra": ra,
        "dec": dec,
        "flux_jy": found.flux,
        "error_jy": found.error,
        "rms_jy": found.rms,
        "island": found.island,
        "island_jy": found.island_flux,
        "island_pixels": found.island_pixels,
        "flags": found.flags,
    }


def _icrs(image: SkyImage, x: Any, y: Any) -> tuple[Any, Any]:
    from astropy.coordinates import SkyCoord

    lon, lat = pixels_to_sky(image.wcs, x, y)
    places = SkyCoord(lon, lat, unit="deg", frame=frame_of(image.wcs)).icrs
    return places.ra.deg, places.dec.deg


def _names(ra: Any, dec: Any) -> list[str]:
    """By position; a second one of the same tenth of an arcsecond has a letter behind."""
    made: list[str] = []
    for each in zip(ra, dec, strict=True):
        name = base = position_name(*each)
        letter = ord("a")
        while name in made:
            letter += 1
            name = base + chr(letter)
        made.append(name)
    return made


def _table(columns: dict[str, Any]) -> Any:
    import pyarrow as pa

    arrays = [pa.array(columns[name], from_pandas=True) for name in COLUMNS]
    fields = [
        pa.field(name, array.type, metadata={"description": COLUMNS[name]})
        for name, array in zip(COLUMNS, arrays, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(fields))
