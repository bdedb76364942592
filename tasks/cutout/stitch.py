"""A cut-out from several images on the grid of one: across patches exactly, across tracts by resampling.

All patches of a tract are cut from one pixel grid, so that their pixels are copied.  Where a box reaches beyond its
tract, pixels of the neighbours are put onto its grid: copied where the two grids coincide by whole pixels, else
resampled.  Resampled pixels are flux per pixel: what is read from the neighbour is multiplied by the ratio of the two
pixels' areas on the sky (variances by its square).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.coverage import touched_by_box
from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError, PlaneNotFoundError
from absurd.tasks.cutout.grid import ALIGNED, Grid
from absurd.tasks.cutout.patches import PixelBox
from absurd.tasks.cutout.request import IMAGE, MASK, PSF, VARIANCE
from absurd.tasks.cutout.resample import ORDER, nearest, resample
from absurd.tasks.cutout.sphere import Booleans, Floats, Integers
from absurd.tasks.cutout.tract import Tract

Plane = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Part:
    """What to read for a cut-out: a box, on its tract's grid, of one patch's image."""

    tract: Tract
    patch: int
    box: PixelBox


@dataclass(frozen=True, slots=True)
class Piece:
    """Pixels that were read: planes (ny, nx) of one `box` on a grid.

    Those of `inner`, as the inner box of a patch, come before those of other pieces; without it, all do.
    """

    planes: Mapping[str, Plane]
    box: PixelBox
    grid: Grid
    inner: PixelBox | None = None


@dataclass(frozen=True, slots=True)
class Stitched:
    """A cut-out and where each pixel of it is from."""

    planes: dict[str, Plane]
    """(ny, nx) each; NaN where no piece has a pixel, 0 in masks."""
    origin: NDArray[np.int16]
    """(ny, nx) index of the piece, -1 for none; of a resampled pixel, the piece that has the nearest one."""
    fractions: tuple[float, ...]
    """Of the cut-out's pixels, per piece."""

    @property
    def outside(self) -> float:
        """Fraction of pixels that no piece has."""
        return float(np.count_nonzero(self.origin < 0)) / max(1, self.origin.size)


def parts_of(tract: Tract, box: PixelBox, missing: Collection[int] = ()) -> list[Part]:
    """What to read for a box on a tract's grid, in the order in which `stitch` wants the pieces.

    First of each patch what is its own; then, for what is beyond the tract or of `missing` patches, which have no
    image, the overlaps of other patches of the tract; for what is still left the neighbouring tracts: of a position
    the one it belongs to, else all that have it, with the pixels around that resampling needs.
    """
    own = [int(patch) for patch in tract.patches_in(box.grown(tract.sky_map.patches.border))]
    own = [patch for patch in own if patch not in missing]
    parts = [Part(tract, patch, tract.inner_box(patch).common(box)) for patch in own]
    parts = [part for part in parts if not part.box.empty]
    left = np.ones(box.shape, bool)
    for part in parts:
        left[part.box.slices(box)] = False
    for patch in own:
        outer = tract.outer_box(patch).common(box)
        if not outer.empty and left[outer.slices(box)].any():
            part = Part(tract, patch, _around(_centres(left[outer.slices(box)], outer)))
            parts.append(part)
            left[part.box.slices(box)] = False
    return parts + _parts_of_neighbours(tract, box, left) if left.any() else parts


def _parts_of_neighbours(tract: Tract, box: PixelBox, left: Booleans) -> list[Part]:
    sky_map = tract.sky_map
    positions = tract.to_sky(_centres(left, box))
    owners = sky_map.tract_of(positions)
    owned = (owners != tract.number) & (sky_map.patch_at(sky_map.to_pixel(positions, owners)) >= 0)
    parts = []
    for number in np.unique(touched_by_box(sky_map, tract.number, box).tracts):
        neighbour = sky_map.tract(int(number))
        pixels = neighbour.to_pixel(positions)
        wanted = (sky_map.patch_at(pixels) >= 0) & (~owned | (owners == number))
        if number == tract.number or not wanted.any():
            continue
        needed = _around(pixels[wanted]).grown(ORDER)
        patches = neighbour.patches_in(needed).tolist()
        parts += [Part(neighbour, patch, neighbour.inner_box(patch).common(needed)) for patch in patches]
    return parts


def _around(pixels: NDArray[Any]) -> PixelBox:
    """The smallest box of whole pixels around positions (n, 2)."""
    low, high = np.floor(pixels.min(axis=0)).astype(int), np.ceil(pixels.max(axis=0)).astype(int)
    return PixelBox(int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1)


def stitch(pieces: Sequence[Piece], box: PixelBox, grid: Grid) -> Stitched:
    """The cut-out of `box` on `grid`, from pieces on it, as patches of a tract are, and on others, as other tracts.

    A pixel is taken from the piece on the grid whose inner box holds it, else from the first that has it.  One that no
    piece on the grid has is taken from the other grids: first from the tract that the sky map says its
    position belongs to, then from the others in the order of the pieces.  Images and variances there are resampled by
    Lanczos-3, other planes take the nearest pixel.  Bits of masks must mean the same in all pieces.

    Raises
    ------
    PlaneNotFoundError
        A piece lacks a plane that another has.
    DataIdValidationError
        A plane is not of its box's shape, or the plane is one of point-spread functions, which have no common grid.
    CutoutExtractionError
        There is no piece.
    """
    _check(pieces)
    planes = {name: np.full(box.shape, _fill(kind), kind) for name, kind in _kinds(pieces).items()}
    origin = np.full(box.shape, -1, np.int16)
    _copy(pieces, [index for index, piece in enumerate(pieces) if piece.grid == grid], box, planes, origin)
    if (origin < 0).any():
        _fill_from_neighbours(pieces, box, grid, planes, origin)
    counts = np.bincount(origin[origin >= 0].astype(np.int64), minlength=len(pieces))
    return Stitched(planes, origin, tuple(float(count) / max(1, origin.size) for count in counts))


def _check(pieces: Sequence[Piece]) -> None:
    if not pieces:
        raise CutoutExtractionError("there is no piece to make a cut-out of")
    for index, piece in enumerate(pieces):
        for name, plane in piece.planes.items():
            if plane.shape != piece.box.shape:
                raise DataIdValidationError(
                    f"piece {index}: plane {name!r} has the shape {plane.shape}, its box {piece.box.shape}", index=index
                )
        if PSF in piece.planes:
            raise DataIdValidationError(
                f"piece {index} has the plane {PSF!r}, which cannot be stitched: take that of the position's patch",
                index=index,
            )
        missing = sorted(pieces[0].planes.keys() ^ piece.planes.keys())
        if missing:
            raise PlaneNotFoundError(
                f"pieces 0 and {index} do not both have {', '.join(map(repr, missing))}", index=index
            )


def _kinds(pieces: Sequence[Piece]) -> dict[str, np.dtype[np.generic]]:
    """The type of each plane of the cut-out: floating unless it is a mask, so that what is missing can be NaN."""
    kinds = {}
    for name in pieces[0].planes:
        kind = np.result_type(*(piece.planes[name].dtype for piece in pieces))
        masks = name == MASK or (kind.kind in "iub" and name not in (IMAGE, VARIANCE))
        kinds[name] = kind if masks or kind.kind == "f" else np.result_type(kind, np.float32)
    return kinds


def _fill(kind: np.dtype[np.generic]) -> float | int:
    return np.nan if kind.kind == "f" else 0


def _copy(
    pieces: Sequence[Piece],
    indices: Sequence[int],
    box: PixelBox,
    planes: Mapping[str, Plane],
    origin: NDArray[np.int16],
) -> None:
    """Put pixels of the pieces, all on the grid of `box`, where there are none yet: of inner boxes first."""
    for index, part in [*_inner(pieces, indices), *((index, pieces[index].box) for index in indices)]:
        common = part.common(box)
        if common.empty:
            continue
        here, there = common.slices(box), common.slices(pieces[index].box)
        free = origin[here] < 0
        for name, plane in planes.items():
            np.copyto(plane[here], pieces[index].planes[name][there], where=free, casting="unsafe")
        origin[here][free] = index


def _inner(pieces: Sequence[Piece], indices: Sequence[int]) -> Iterator[tuple[int, PixelBox]]:
    for index in indices:
        piece = pieces[index]
        yield index, piece.box if piece.inner is None else piece.box.common(piece.inner)


def _fill_from_neighbours(
    pieces: Sequence[Piece], box: PixelBox, grid: Grid, planes: Mapping[str, Plane], origin: NDArray[np.int16]
) -> None:
    neighbours = list(dict.fromkeys(piece.grid for piece in pieces if piece.grid != grid))
    if not neighbours:
        return
    open_pixels = origin < 0
    where = np.argwhere(open_pixels)
    own = _centres(open_pixels, box)
    positions = grid.to_sky(own)
    left = np.ones(len(where), bool)
    for owned in (True, False):
        for neighbour in neighbours:
            wanted = np.flatnonzero(left & neighbour.owns(positions) if owned else left)
            if not wanted.size:
                continue
            source = _mosaic(pieces, [index for index, piece in enumerate(pieces) if piece.grid == neighbour])
            values, found, from_piece = source.at(own[wanted], positions[wanted], grid)
            y, x = where[wanted[found]].T
            for name, plane in planes.items():
                plane[y, x] = values[name][found]
            origin[y, x] = from_piece[found]
            left[wanted[found]] = False


@dataclass(frozen=True, slots=True)
class _Mosaic:
    """All pieces of one neighbouring grid."""

    grid: Grid
    box: PixelBox
    planes: Mapping[str, Plane]
    origin: NDArray[np.int16]

    def at(self, own: Floats, positions: Floats, grid: Grid) -> tuple[dict[str, Plane], Booleans, NDArray[np.int16]]:
        """Values of each plane at (n, 2) positions, pixels `own` of `grid`; whether there are any; whose they are."""
        pixels = self.grid.to_pixel(positions)
        local = pixels - (self.box.x0, self.box.y0)
        if self._aligned(pixels - own):
            local = np.floor(local + 0.5)
        known = self.origin >= 0
        origins, found = nearest(self.origin, known, local)
        from_piece = origins.astype(np.int16)
        if self._aligned(pixels - own):
            return {name: nearest(plane, known, local)[0] for name, plane in self.planes.items()}, found, from_piece
        area = grid.areas(positions) / self.grid.areas(positions)
        values: dict[str, Plane] = {}
        for name, plane in self.planes.items():
            if plane.dtype.kind != "f" or name == MASK:
                values[name] = nearest(plane, known, local)[0]
                continue
            of_image = name == IMAGE or (name == VARIANCE and IMAGE not in self.planes)
            if name == VARIANCE and not of_image:
                continue  # comes with the image, by the same weights
            sampled, variances = resample(plane, known, local, self.planes.get(VARIANCE) if of_image else None)
            if name != VARIANCE:
                values[name] = sampled * area
            if variances is not None:
                values[VARIANCE] = variances * area**2
        return values, found, from_piece

    def _aligned(self, shifts: Floats) -> bool:
        whole = np.round(shifts[0])
        return bool(np.abs(shifts - whole).max() <= ALIGNED)


def _mosaic(pieces: Sequence[Piece], indices: Sequence[int]) -> _Mosaic:
    boxes = [pieces[index].box for index in indices]
    box = PixelBox(
        min(each.x0 for each in boxes),
        min(each.y0 for each in boxes),
        max(each.x1 for each in boxes),
        max(each.y1 for each in boxes),
    )
    planes = {name: np.full(box.shape, _fill(kind), kind) for name, kind in _kinds(pieces).items()}
    origin = np.full(box.shape, -1, np.int16)
    _copy(pieces, indices, box, planes, origin)
    return _Mosaic(pieces[indices[0]].grid, box, planes, origin)


def _centres(chosen: Booleans, box: PixelBox) -> Floats:
    """(n, 2) pixels (x, y) of the chosen pixels (ny, nx) of a box."""
    y, x = np.nonzero(chosen)
    pixels: Integers = np.column_stack([x + box.x0, y + box.y0])
    return pixels.astype(np.float64)
