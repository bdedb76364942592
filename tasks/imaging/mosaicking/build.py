"""Tiles and grid of a mosaic as params ask for them, and what is told of the mosaic."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from absurd.tasks.imaging.mosaicking.combine import Combined
from absurd.tasks.imaging.mosaicking.grid import Grid, make_grid
from absurd.tasks.imaging.mosaicking.params import MosaicParams, TileParams
from absurd.tasks.imaging.mosaicking.tile import Tile, tile_of
from absurd.tasks.radio.apart import require_apart
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.errors import MosaickingError
from absurd.tasks.radio.telescope import load_telescope

_ARCSEC = 3600.0
_ALIKE = 0.02
"""Share by which beams and frequencies of tiles may differ without a remark."""
_FITTING = (0.9, 1.1)
"""Chi squared of a noise map that fits."""


def name_of_noise(out: str) -> str:
    """The path of the noise map beside a mosaic: ``night.fits`` and ``night-noise.fits``."""
    base, suffix = os.path.splitext(out)
    return f"{base}-noise{suffix}"


def made_before(results: Iterable[Any]) -> list[dict[str, str]]:
    """Paths of the images that tasks tell of in their results, as `imaging.image` does, each once, by their names."""
    found = [each["paths"] for each in results if isinstance(each, Mapping) and isinstance(each.get("paths"), Mapping)]
    by_image = {each["image"]: dict(each) for each in found if "image" in each}
    return [by_image[name] for name in sorted(by_image)]


def tiles_of(made: Sequence[Mapping[str, str]]) -> list[TileParams | str]:
    """Images with the beams that belong to them.  Raises MosaickingError where there is none."""
    if not made:
        raise MosaickingError("no tiles are named, and no task before has made an image", advice="name tiles")
    return [TileParams(image=each["image"], beam=each.get("pb")) for each in made]


def read_tiles(params: MosaicParams) -> tuple[list[Tile], Grid]:
    """The tiles, with their noise, and the grid on which they meet.

    Raises DataError, ValidationError and MosaickingError.
    """
    diameter = params.dish_diameter_m or load_telescope(params.telescope).dish_diameter_m
    model = beam_named(params.beam_model, diameter)
    named = [TileParams(image=each) if isinstance(each, str) else each for each in params.tiles]
    read = [path for each in named for path in (each.image, each.beam, each.noise) if isinstance(path, str)]
    require_apart(read, params.out, name_of_noise(params.out))
    tiles = []
    for one in named:
        pointing = None if one.ra is None or one.dec is None else (one.ra, one.dec)
        tiles.append(
            tile_of(
                one.image,
                one.beam or model,
                noise=one.noise,
                pointing=pointing,
                corrected=one.corrected,
                least_gain=params.pblimit,
                plane=params.plane,
            )
        )
    if params.weighting == "pbweight":
        tiles = alike(tiles)
    grid = make_grid(
        tiles,
        least_gain=params.pblimit,
        centre=None if params.ra is None or params.dec is None else (params.ra, params.dec),
        cell_deg=None if params.cell_arcsec is None else params.cell_arcsec / _ARCSEC,
        shape=None if params.ny is None or params.nx is None else (params.ny, params.nx),
    )
    return tiles, grid


def alike(tiles: Sequence[Tile]) -> list[Tile]:
    """The tiles, as if all had the noise that they have in the mean (of squares): beams alone weigh them then."""
    noise = float(np.sqrt(np.mean([each.noise_jy**2 for each in tiles])))
    return [
        replace(each, precision=np.where(each.precision > 0, np.float32(noise**-2), each.precision), noise_jy=noise)
        for each in tiles
    ]


def told(tiles: Sequence[Tile], combined: Combined) -> dict[str, Any]:
    """The result of a mosaic, as JSON."""
    wcs = combined.grid.wcs
    cell = float(wcs.wcs.cdelt[1])
    return {
        "shape": list(combined.grid.shape),
        "centre": [float(each) for each in wcs.wcs.crval],
        "cell_arcsec": cell * _ARCSEC,
        "area_deg2": combined.pixels * cell**2,
        "lowest_noise_jy": combined.lowest_noise_jy,
        "median_noise_jy": combined.median_noise_jy,
        "chi_squared": combined.chi_squared,
        "tiles": [
            {"path": os.path.abspath(each.image.path), "noise_jy": each.noise_jy, "used": used}
            for each, used in zip(tiles, combined.used, strict=True)
        ],
        "warnings": list(_remarks(tiles, combined)),
    }


def mosaic_record(out: str, tiles: Sequence[Tile], combined: Combined) -> dict[str, Any]:
    """The row of a mosaic: its noise is the median of its noise map."""
    wcs = combined.grid.wcs
    ra, dec = (float(each) for each in wcs.wcs.crval)
    images = [each.image for each in tiles]
    spans = [each.span for each in images if each.span is not None]
    beams = [each.beam for each in images if each.beam is not None]
    frequencies = [each.frequency_hz for each in images if each.frequency_hz is not None]
    telescopes = {each.header.get("TELESCOP") for each in images}
    return {
        "path": out,
        "observed_from": min(spans)[0] if spans else None,
        "observed_until": max(end for _, end in spans) if spans else None,
        "telescope": telescopes.pop() if len(telescopes) == 1 else None,
        "ra": ra % 360,
        "declination": dec,
        "frequency_hz": float(np.median(frequencies)) if frequencies else None,
        "beam_major_arcsec": float(np.median([each.major_deg for each in beams])) * _ARCSEC if beams else None,
        "beam_minor_arcsec": float(np.median([each.minor_deg for each in beams])) * _ARCSEC if beams else None,
        "rms_jy": combined.median_noise_jy,
        "inputs": [{"path": os.path.abspath(each.path), "role": "tile"} for each in images],
        "facts": {
            "paths": {"noise": os.path.abspath(name_of_noise(out))},
            "pixels": combined.pixels,
            "chi_squared": combined.chi_squared,
        },
    }


def _remarks(tiles: Sequence[Tile], combined: Combined) -> list[str]:
    found = [
        f"{each.image.path} has no value on the mosaic where its beam is high enough: it takes no part"
        for each, used in zip(tiles, combined.used, strict=True)
        if not used
    ]
    areas = [each.image.beam.area_deg2 for each in tiles if each.image.beam is not None]
    if len(areas) < len(tiles):
        found.append("not all tiles tell their beam: flux densities of extended sources cannot be summed")
    found += _differing("areas of the tiles' beams", areas)
    found += _differing("frequencies of the tiles", [each.image.frequency_hz or np.nan for each in tiles])
    low, high = _FITTING
    if not low <= combined.chi_squared <= high:
        found.append(
            f"pixels scatter by {np.sqrt(combined.chi_squared):.2f} times what the noise map tells: sidelobes, or "
            f"a noise of tiles that is not theirs"
        )
    return found


def _differing(name: str, values: Sequence[float]) -> list[str]:
    if len(values) < 2 or not np.isfinite(values).all():
        return []
    spread = max(values) / min(values) - 1
    return [f"{name} differ by {spread:.1%}"] if spread > _ALIKE else []
