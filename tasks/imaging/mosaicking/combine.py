"""Tiles combined to one image, each pixel weighted by beam^2 / noise^2, a block of the mosaic at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.mosaicking.file import MosaicFile, mosaic_header, tiles_table
from absurd.tasks.imaging.mosaicking.grid import Box, Grid, box_of, make_grid
from absurd.tasks.imaging.mosaicking.resample import REACH, PixelMap, gather, interpolation_weights, pixel_map
from absurd.tasks.imaging.mosaicking.tile import Tile
from absurd.tasks.radio.errors import MosaickingError
from absurd.tasks.radio.robust import robust_rms

Pixels = NDArray[np.float32]
Progress = Callable[[int, int], None]
_BLOCK = 1024
"""Pixels along the side of a block: about 60 MB with what is read of a tile for it."""
_SAMPLE = 7
"""Every so many pixels, along either axis, the mosaic is held against its noise map."""


@dataclass(frozen=True, slots=True)
class Combined:
    """What became of the tiles."""

    grid: Grid
    pixels: int
    """Of the mosaic that have a value."""
    lowest_noise_jy: float
    median_noise_jy: float
    chi_squared: float
    """Robust variance of pixels over their noise (see `robust_rms`): 1 where the noise map tells the scatter."""
    used: tuple[bool, ...]
    """By tile: whether it added to a pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    tile: Tile
    box: Box
    map: PixelMap
    beam_cut: float


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    pixels: int
    """That have a value."""
    noises: Pixels
    """Of every `_SAMPLE`-th pixel along either axis that has one."""
    ratios: Pixels
    """The same pixels over their noise."""
    used: NDArray[np.bool_]
    """By tile."""


def combine(
    tiles: Sequence[Tile],
    image: str | os.PathLike[str],
    noise: str | os.PathLike[str],
    *,
    grid: Grid | None = None,
    least_gain: float = 0.1,
    threads: int | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Combined:
    """Write a mosaic and its noise map, both Jy/beam, to two files.

    With tiles D as the beam B attenuates them, of noise s, it is sum(B D / s^2) / sum(B^2 / s^2): the best linear
    estimate of the sky, whose noise is 1 / sqrt(sum(B^2 / s^2)) (Sault, Staveley-Smith and Brouw 1996, A&AS 120, 375).
    Each tile is interpolated once, where its beam is not below `least_gain`; a pixel that needs one without a value
    gets nothing of that tile.  Memory does not grow with the mosaic or the number of tiles.  The same tiles in the same
    order give the same bits, whatever the number of threads.  Paths are written as they are: they are private ones, as
    ``ctx.artifact`` and `write_aside` give.

    Raises MosaickingError where no tile has a value on the grid, OSError.
    """
    grid = make_grid(tiles, least_gain=least_gain) if grid is None else grid
    placed = []
    for each in tiles:
        box = box_of(each, grid, least_gain)
        widest = int(2 * each.every * each.image.cell_deg / grid.wcs.wcs.cdelt[1])  # as the beam is known
        where = pixel_map(grid.wcs, each.image.wcs, box.rows, box.columns, widest)
        placed.append(_Placed(each, box, where, least_gain))
    blocks = list(_blocks(grid.shape))
    header = mosaic_header(tiles, grid)
    table = interpolation_weights(_narrowest(tiles))
    used = np.zeros(len(tiles), bool)
    noises, ratios, count = [], [], 0
    workers = threads or min(4, len(os.sched_getaffinity(0)))
    with (
        MosaicFile(image, header, grid.shape, after=tiles_table(tiles)) as mosaic,
        MosaicFile(noise, header, grid.shape) as noise_map,
        ThreadPoolExecutor(workers) as pool,
    ):
        done = 0

        def made(block: Box) -> _Block:
            value, scatter, added = _block(block, placed, table)
            mosaic.write(block.rows, block.columns, value)
            noise_map.write(block.rows, block.columns, scatter)
            seen = np.isfinite(value)
            few = seen[::_SAMPLE, ::_SAMPLE]
            noise = scatter[::_SAMPLE, ::_SAMPLE][few]
            return _Block(int(seen.sum()), noise, value[::_SAMPLE, ::_SAMPLE][few] / noise, added)

        for start in range(0, len(blocks), 2 * workers):  # results come in the order of the blocks
            some = blocks[start : start + 2 * workers]
            for block in pool.map(made, some):
                noises.append(block.noises)
                ratios.append(block.ratios)
                used |= block.used
                count += block.pixels
            done += len(some)
            progress(done, len(blocks))
        if not count:
            raise MosaickingError("no tile has a value where its beam is high enough: nothing can be combined")
    all_noise = np.concatenate(noises)
    return Combined(
        grid=grid,
        pixels=count,
        lowest_noise_jy=float(all_noise.min()),
        median_noise_jy=float(np.median(all_noise)),
        chi_squared=robust_rms(np.concatenate(ratios)) ** 2,
        used=tuple(bool(each) for each in used),
    )


def _narrowest(tiles: Sequence[Tile]) -> float:
    """Pixels along the narrowest of the beams; 3 where none is told."""
    widths = [each.image.beam.minor_deg / each.image.cell_deg for each in tiles if each.image.beam is not None]
    return min(widths, default=3.0)


def _blocks(shape: tuple[int, int]) -> Iterator[Box]:
    for y, x in product(range(0, shape[0], _BLOCK), range(0, shape[1], _BLOCK)):
        yield Box(range(y, min(y + _BLOCK, shape[0])), range(x, min(x + _BLOCK, shape[1])))


def _block(block: Box, placed: Sequence[_Placed], table: Pixels) -> tuple[Pixels, Pixels, NDArray[np.bool_]]:
    """Mosaic and noise of a block, and which tiles added to it."""
    weighted = np.zeros((len(block.rows), len(block.columns)), np.float32)
    weights = np.zeros_like(weighted)
    used = np.zeros(len(placed), bool)
    for number, each in enumerate(placed):
        rows, columns = _overlap(block.rows, each.box.rows), _overlap(block.columns, each.box.columns)
        if not rows or not columns:
            continue
        node_x, node_y = each.map.nodes(rows, columns)
        window = _window(node_x, node_y, each.tile.image.shape)
        if window is None:
            continue
        part = np.s_[
            rows.start - block.rows.start : rows.stop - block.rows.start,
            columns.start - block.columns.start : columns.stop - block.columns.start,
        ]
        used[number] = gather(
            weighted[part], weights[part], node_x, node_y, each.map.step,
            each.tile.image.window(*window), window[1].start, window[0].start,
            each.tile.gain, each.tile.precision, each.tile.every, each.beam_cut, each.tile.power, table,
        )  # fmt: skip
    seen = weights > 0
    weights[~seen] = np.nan
    value: Pixels = weighted / weights
    noise: Pixels = np.reciprocal(np.sqrt(weights))
    return value, noise, used


def _overlap(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _window(x: Any, y: Any, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """The box of a tile (rows, columns) that positions need, with what interpolation reaches; None if there is none."""
    if not np.isfinite(x).any():
        return None
    margin = REACH + 1
    left, right = max(int(np.nanmin(x)) - margin, 0), min(int(np.nanmax(x)) + margin + 2, shape[1])
    bottom, top = max(int(np.nanmin(y)) - margin, 0), min(int(np.nanmax(y)) + margin + 2, shape[0])
    return (slice(bottom, top), slice(left, right)) if left < right and bottom < top else None
