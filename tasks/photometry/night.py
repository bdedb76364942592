"""Forced photometry of the sources of a catalogue in images, as one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from absurd.tasks.catalog.positions import Positions, read_positions
from absurd.tasks.photometry.aperture import aperture_sums
from absurd.tasks.photometry.forced import measure
from absurd.tasks.photometry.params import ForcedParams, ImageParams
from absurd.tasks.photometry.rows import photometry_table
from absurd.tasks.photometry.shapes import beam_shape, beam_shapes, source_shapes
from absurd.tasks.radio.apart import require_apart
from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.sky_image import SkyImage, open_sky_image
from absurd.tasks.radio.sky_pixels import sky_to_pixels

Progress = Callable[[int, int, str], None]


def measure_night(params: ForcedParams, progress: Progress) -> tuple[Any, list[dict[str, Any]]]:
    """An Arrow table of all measurements, image by image, and what is to be told of each image.

    Raises DataError: a file cannot be read, an image has no beam, another unit or maps of other pixels; ValidationError
    for a catalogue that would be replaced.
    """
    import pyarrow as pa

    require_apart([params.positions], params.out)
    positions = read_positions(
        params.positions,
        names=params.id_column,
        ra=params.ra_column,
        dec=params.dec_column,
        shapes=params.shape_columns,
    )
    tables, told = [], []
    for number, each in enumerate(params.images):
        one = ImageParams(image=each) if isinstance(each, str) else each
        progress(number, len(params.images), one.image)
        table, scatter = _measured(one, positions, params)
        tables.append(table)
        detected = table.column("detected")
        told.append(
            {
                "image": one.image,
                "measured": table.num_rows - table.column("flux_jy").null_count,
                "detected": sum(detected.to_pylist()),
                "error_over_rms": scatter,
            }
        )
    return pa.concat_tables(tables), told


def _measured(one: ImageParams, positions: Positions, params: ForcedParams) -> tuple[Any, float]:
    from astropy.coordinates import ICRS

    image = open_sky_image(one.image)
    if image.beam is None:
        raise DataError(f"{image.path} tells no beam (BMAJ, BMIN, BPA), by which sources are measured", path=image.path)
    maps = {}
    for name in ("noise", "background"):
        path = getattr(one, name)
        maps[name] = None if path is None else _map(path, image)
    ra, dec = positions.ra_deg, positions.dec_deg
    x, y = sky_to_pixels(image.wcs, ra, dec, ICRS())
    beam = beam_shape(image, image.beam)
    if positions.shapes is None:
        shapes = beam_shapes(image, image.beam, ra, dec)
    else:
        shapes = source_shapes(image, ra, dec, *positions.shapes)
    pixels, cell_arcsec = image.pixels(), 3600 * image.cell_deg
    ring = (
        None
        if params.ring_arcsec is None
        else (params.ring_arcsec[0] / cell_arcsec, params.ring_arcsec[1] / cell_arcsec)
    )
    forced = measure(pixels, x, y, beam, shapes=shapes, ring=ring, **maps)
    summed = None
    if params.aperture_arcsec is not None:
        area = image.beam.area_deg2 / image.cell_deg**2
        summed = aperture_sums(pixels, x, y, params.aperture_arcsec / cell_arcsec, forced.background) / area
    table = photometry_table(
        image,
        positions,
        forced,
        shapes,
        summed,
        detection_sigma=params.detection_sigma,
        limit_sigma=params.limit_sigma,
    )
    return table, forced.scatter


def _map(path: str, image: SkyImage) -> Any:
    opened = open_sky_image(path)
    if opened.shape != image.shape:
        raise DataError(f"{path} has {opened.shape} pixels, and {image.path} {image.shape}: they belong together")
    return opened.pixels()
