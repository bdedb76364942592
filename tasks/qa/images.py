"""From the files of an image or mosaic to a report."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.catalog.positions import read_numbers
from absurd.tasks.qa.gates import Gate, gates_with
from absurd.tasks.qa.image_params import ImageParams, MosaicParams, SkyParams
from absurd.tasks.qa.report import Measure, QualityReport, measure, report_on
from absurd.tasks.qa.sky import Catalogue, check_sky
from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.robust import robust_rms
from absurd.tasks.radio.sky_image import SkyImage, open_sky_image, planes_of

Pixels = NDArray[np.float32]
_CELLS = 8
"""Along either axis, at most, of those in which a noise map is held against the scatter."""
_CELL_BEAMS = 400
"""Areas of the beam in a cell, at least: its variance is known to a tenth then."""


def check_image(
    params: ImageParams, paths: Mapping[str, str], told: Callable[[str], object] = lambda _: None
) -> QualityReport:
    """Measure an image at all gates, each plane by itself; `paths` are files beside it, by what they are.

    Raises DataError for files that cannot be read, or do not belong together.
    """
    gates = gates_with(params.limits, params.gates)
    told("reading")
    count = planes_of(params.image)
    measures: list[Measure] = []
    for number in range(count) if count > 1 else [None]:
        image = open_sky_image(params.image, plane=number)
        residual = _beside(params.residual, "residual", paths, image)
        power = _beside(params.primary_beam, "pb", paths, image)
        if number in (None, 0):
            told("measuring")
        found = [*_of_noise(image, residual or image, params, gates), *_of_sky(image, params, gates, power)]
        measures += found if number is None else (replace(each, of=f"plane {number}") for each in found)
    return report_on(Path(params.image).name, measures)


def check_mosaic(
    params: MosaicParams, paths: Mapping[str, str], told: Callable[[str], object] = lambda _: None
) -> QualityReport:
    """Measure a mosaic at all gates; raises as `check_image`, and DataError where there is no noise map."""
    gates = gates_with(params.limits, params.gates)
    told("reading")
    image = open_sky_image(params.image)
    noise = _beside(params.noise, "noise", paths, image)
    if noise is None:
        raise DataError(f"there is no noise map of {params.image}: name it in noise", path=params.image)
    told("measuring")
    beam = 1.0 if image.beam is None else image.beam.area_deg2 / image.cell_deg**2
    measures = [*_of_noise_map(image.pixels(), noise.pixels(), beam, gates), *_of_sky(image, params, gates, None)]
    return report_on(Path(params.image).name, measures)


def _beside(named: str | None, kind: str, paths: Mapping[str, str], image: SkyImage) -> SkyImage | None:
    """The file that is named, or else that kind of file beside the image, which has the same pixels and planes."""
    path = named or paths.get(kind)
    if path is None:
        return None
    if (own := planes_of(path)) != (whole := planes_of(image.path)):
        raise DataError(f"{path} has {own} planes, and {image.path} {whole}: they belong together")
    opened = open_sky_image(path, plane=image.plane)
    if opened.shape != image.shape:
        raise DataError(f"{path} has {opened.shape} pixels, and {image.path} {image.shape}: they belong together")
    return opened


def files_beside(path: str) -> dict[str, str]:
    """Files of an image or mosaic by the names that the imager and the mosaicker give them, of those that are there."""
    stem, suffix = os.path.splitext(path)
    base = stem.removesuffix("-image")
    kinds = {kind: f"{base}-{kind}{suffix}" for kind in ("residual", "pb", "pbcor", "noise")}
    return {kind: each for kind, each in kinds.items() if os.path.exists(each)}


def _of_noise(image: SkyImage, residual: SkyImage, params: ImageParams, gates: Mapping[str, Gate]) -> Iterator[Measure]:
    rms = robust_rms(residual.pixels())
    known = math.isfinite(rms) and rms > 0
    note = "of the image: there is no residual" if residual is image else ""
    yield measure("noise_mjy", gates["noise_mjy"], 1e3 * rms if known else None, note=note)
    thermal = params.thermal_mjy
    if thermal is None and image.thermal_jy is not None:
        thermal = 1e3 * image.thermal_jy
    is_told = known and thermal is not None
    note = f"{thermal:.4g} mJy/beam are promised" if thermal is not None else "the header promises no noise (THERMAL)"
    ratio = 1e3 * rms / thermal if is_told and thermal else None
    yield measure("thermal_ratio", gates["thermal_ratio"], ratio, note=note)
    pixels = image.pixels()
    seen = pixels[np.isfinite(pixels)]
    value = float(seen.max()) / rms if known and seen.size else None
    yield measure("dynamic_range", gates["dynamic_range"], value, may_lack=False)


def _of_noise_map(pixels: Pixels, noise: Pixels, beam: float, gates: Mapping[str, Gate]) -> Iterator[Measure]:
    """`beam` is its area in pixels: of neighbouring ones each tells much the same."""
    with np.errstate(invalid="ignore", divide="ignore"):
        over = np.where(noise > 0, pixels / noise, np.nan)
    whole = robust_rms(over) ** 2
    yield measure("noise_map", gates["noise_map"], whole if math.isfinite(whole) else None)
    worst, where = 1.0, ""
    ny, nx = over.shape
    least = _CELL_BEAMS * beam
    cells = int(np.clip(math.sqrt(ny * nx / least), 1, _CELLS))
    rows, columns = (np.linspace(0, size, cells + 1).astype(int) for size in (ny, nx))
    for row, column in np.ndindex(cells, cells):
        cell = over[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        if np.isfinite(cell).sum() < least / 2:
            continue
        own = robust_rms(cell) ** 2
        if math.isfinite(own) and own > 0 and max(own, 1 / own) > worst:
            worst = max(own, 1 / own)
            where = (
                f"{own:.3g} in rows {rows[row]} to {rows[row + 1]}, columns {columns[column]} to {columns[column + 1]}"
            )
    yield measure("noise_map_worst", gates["noise_map_worst"], worst if where else None, note=where)


def _of_sky(image: SkyImage, params: SkyParams, gates: Mapping[str, Gate], power: SkyImage | None) -> Iterator[Measure]:
    return check_sky(
        image,
        _catalogue(params, image),
        gates,
        gain=None if power is None else power.pixels(),
        least_gain=params.least_gain if isinstance(params, ImageParams) else 1.0,
        match_arcsec=params.match_arcsec,
    )


def _catalogue(params: SkyParams, image: SkyImage) -> Catalogue | None:
    if params.catalogue is None:
        return None
    ra, dec, flux = read_numbers(params.catalogue, (params.ra_column, params.dec_column, params.flux_column))
    flux = flux * (1e-3 if params.flux_unit == "mJy" else 1.0)
    if params.catalogue_hz is not None:
        if image.frequency_hz is None:
            raise DataError(f"{image.path} tells no frequency, to which the catalogue could be brought")
        flux = flux * (image.frequency_hz / params.catalogue_hz) ** params.spectral_index
    return Catalogue(ra, dec, flux)
