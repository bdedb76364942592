"""Measurements as rows of Parquet files: one for each source and image, whether the source was seen or not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from absurd.tasks.artifact import write_aside
from absurd.tasks.catalog.positions import Positions
from absurd.tasks.photometry.forced import Forced
from absurd.tasks.photometry.shapes import areas
from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.sky_image import SkyImage

COLUMNS = {
    "source_id": ("string", "name of the source"),
    "ra": ("double", "right ascension, degrees, ICRS"),
    "dec": ("double", "declination, degrees, ICRS"),
    "image": ("string", "path of the image"),
    "observed": ("timestamp", "middle of what was observed, UTC"),
    "frequency_hz": ("double", "of the image, Hz"),
    "flux_jy": ("double", "height of the Gaussian, Jy/beam: of a point source its flux density in Jy"),
    "error_jy": ("double", "standard deviation of flux_jy, Jy/beam"),
    "integrated_jy": ("double", "integral of the Gaussian, Jy"),
    "aperture_jy": ("double", "sum of the pixels of an aperture above the background over the beam's area, Jy"),
    "rms_jy": ("double", "scatter of pixels around, Jy/beam"),
    "background_jy": ("double", "level that was taken away, Jy/beam"),
    "snr": ("double", "flux_jy over error_jy"),
    "detected": ("bool", "whether snr is not below the detection limit"),
    "upper_limit_jy": ("double", "of a source that was not detected, Jy/beam; else null"),
    "chi_squared": ("double", "mean square of what the fit leaves near the source, over the local noise"),
    "group": ("int64", "number of the sources that were fitted together, in this image"),
    "flags": ("int64", "bits: 1 outside, 2 pixels missing, 4 blended, 8 inseparable, 16 no noise"),
}
"""Type and meaning of each column."""


def photometry_table(
    image: SkyImage,
    positions: Positions,
    forced: Forced,
    forms: Any,
    summed: Any = None,
    *,
    detection_sigma: float,
    limit_sigma: float,
) -> Any:
    """An Arrow table of the measurements in one image.

    `forms` (n, 3) are the Gaussians that were fitted, `summed` (n,) what apertures hold, Jy, if any were summed.

    What is not detected has an upper limit of `limit_sigma` errors above its flux density, or above 0 below it.
    NaN becomes null.
    """
    import pyarrow as pa

    count = len(positions.names)
    with np.errstate(invalid="ignore", divide="ignore"):
        snr = forced.flux / forced.error
    detected = snr >= detection_sigma
    limit = np.where(detected, np.nan, np.maximum(forced.flux, 0) + limit_sigma * forced.error)
    beam_pixels = image.beam.area_deg2 / image.cell_deg**2 if image.beam is not None else np.nan
    values: dict[str, Any] = {
        "source_id": list(positions.names),
        "ra": positions.ra_deg,
        "dec": positions.dec_deg,
        "image": [os.path.abspath(image.path)] * count,
        "observed": [image.observed] * count,
        "frequency_hz": [image.frequency_hz] * count,
        "flux_jy": forced.flux,
        "error_jy": forced.error,
        "integrated_jy": forced.flux * areas(forms) / beam_pixels,
        "aperture_jy": np.full(count, np.nan) if summed is None else summed,
        "rms_jy": forced.rms,
        "background_jy": forced.background,
        "snr": snr,
        "detected": detected,
        "upper_limit_jy": limit,
        "chi_squared": forced.chi_squared,
        "group": forced.group,
        "flags": forced.flags,
    }
    return pa.table([_array(values[name], name) for name in COLUMNS], schema=schema())


def schema() -> Any:
    """The Arrow schema of measurements; each field tells its meaning."""
    import pyarrow as pa

    types = {"timestamp": pa.timestamp("us", tz="UTC"), "bool": pa.bool_(), "double": pa.float64(), "int64": pa.int64()}
    return pa.schema(
        [
            pa.field(name, types.get(kind, pa.string()), metadata={"description": meaning})
            for name, (kind, meaning) in COLUMNS.items()
        ]
    )


def _array(values: Any, name: str) -> Any:
    import pyarrow as pa

    field = schema().field(name)
    return pa.array(values, type=field.type, from_pandas=True)


def write_table(table: Any, path: str | os.PathLike[str], *, private: bool = False) -> None:
    """Write a Parquet file that is whole or absent; a `private` path is written as it is.  Raises OSError."""
    import pyarrow.parquet as pq

    with write_aside(path, private=private) as part:
        pq.write_table(table, part, compression="zstd")


def read_tables(paths: Sequence[str]) -> Any:
    """The measurements of several files, in the order of these; of a folder those of its files, in the order of names.

    Raises DataError: no such file, no Parquet, a folder without any, columns that are missing or of another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for each in _files(paths):
        try:
            tables.append(pq.read_table(each, columns=list(COLUMNS)).cast(schema()))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{each} holds no measurements of photometry.forced ({error})", path=each) from None
    return pa.concat_tables(tables)


def _files(paths: Sequence[str]) -> Iterator[str]:
    for each in paths:
        if not os.path.isdir(each):
            yield each
            continue
        within = sorted(name for name in os.listdir(each) if name.endswith((".parquet", ".pq")) and name[0] != ".")
        if not within:
            raise DataError(f"{each} holds no measurements of photometry.forced (no Parquet file)", path=each)
        yield from (os.path.join(each, name) for name in within)
