"""Cut-outs that straddle images: what is beyond the image of their position is taken from those beside it.

The grid is that of the image that the position is on.  Images on the same grid, as those of one tract are, give their
pixels as they are; those of other tracts are resampled (`stitch`).  An image that is on another grid and of no tract
gives none: nothing says that its pixels mean the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.batch import Batch
from absurd.tasks.cutout.boxes import Boxes
from absurd.tasks.cutout.errors import CutoutExtractionError, RippleError
from absurd.tasks.cutout.gather import Failures, Pixels
from absurd.tasks.cutout.grid import ImageGrid, shift_between
from absurd.tasks.cutout.images import ImageRef
from absurd.tasks.cutout.parsed import ParsedFile, parse
from absurd.tasks.cutout.patches import PixelBox
from absurd.tasks.cutout.request import MASK, PSF
from absurd.tasks.cutout.resample import ORDER
from absurd.tasks.cutout.retry import ONCE, Deadline, RetryPolicy
from absurd.tasks.cutout.sphere import Booleans, Floats
from absurd.tasks.cutout.stitch import Piece, stitch

Find = Callable[[NDArray[np.float64], Sequence[str]], list[list[ImageRef]]]
"""As `Source.find`."""
Slot = tuple[int, int]
"""Place in the batch, and in its bands."""


@dataclass(frozen=True, slots=True, eq=False)
class Stitching:
    """What was put beside the pixels of a cut-out's own image."""

    images: tuple[ImageRef, ...]
    """Those that pixels are from, the own one not among them."""
    outside: Booleans
    """(ny, nx), where still no image has a pixel."""


def complete(
    find: Find, batch: Batch, refs: Mapping[Slot, ImageRef], *, retry: RetryPolicy = ONCE
) -> dict[Slot, Stitching]:
    """Fill what of the boxes is beyond their images, in place, from other images of the same band.

    `refs` are the images that were cut, those of cut-outs to be completed.  Pixels, `n_outside` and types of the batch
    change; a plane of point-spread functions stays as it is.  An image that cannot be read is the error of the
    cut-outs on it.  Raises as `find`.
    """
    open_ = [slot for slot in refs if batch.n_outside[slot] and slot not in batch.errors]
    beyond = [probes(batch, slot) for slot in open_]
    if not sum(map(len, beyond)):
        return {}
    bands = sorted({str(refs[slot].band) for slot in open_ if refs[slot].band is not None})
    unnamed = any(refs[slot].band is None for slot in open_)
    found = iter(find(np.concatenate(beyond), () if unnamed else bands))
    done: dict[Slot, Stitching] = {}
    for slot, those in zip(open_, beyond, strict=True):
        beside = [ref for _ in those for ref in next(found) if ref.band == refs[slot].band]
        try:
            stitching = _Straddling(batch, slot, refs[slot], retry).with_pixels_of(_unique(beside, refs[slot]))
        except RippleError as error:
            batch.errors[slot] = error
        else:
            if stitching is not None:
                done[slot] = stitching
    return done


def _unique(refs: Sequence[ImageRef], own: ImageRef) -> list[ImageRef]:
    known = {(each, tuple(sorted(each.hdus.items()))): each for each in refs}
    known.pop((own, tuple(sorted(own.hdus.items()))), None)
    return list(known.values())


def probes(batch: Batch, slot: Slot) -> Floats:
    """(n, 2) positions of the box beyond its image, so close that no image as large as a quarter of it lies between."""
    file, (x0, y0), (ny, nx) = batch.files[slot[0]][slot[1]], batch.origins[slot].tolist(), batch.shape
    assert file is not None
    step = max(1, min(file.shape) // 4)
    x, y = (np.linspace(first, first + n - 1, 2 + (n - 1) // step) for first, n in ((x0, nx), (y0, ny)))
    pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    height, width = file.shape
    beyond = (pixels < -0.5).any(axis=1) | (pixels > np.array([width, height]) - 0.5).any(axis=1)
    positions = ImageGrid(file.wcs).to_sky(pixels[beyond])
    return positions[np.isfinite(positions).all(axis=1)]


class _Straddling:
    """One cut-out of a batch whose box reaches beyond its image."""

    def __init__(self, batch: Batch, slot: Slot, ref: ImageRef, retry: RetryPolicy) -> None:
        file = batch.files[slot[0]][slot[1]]
        assert file is not None
        self.batch, self.slot, self.ref, self.file, self.retry = batch, slot, ref, file, retry
        (x, y), (ny, nx) = batch.origins[slot].tolist(), batch.shape
        self.box = PixelBox(x, y, x + nx, y + ny)
        self.planes = tuple(name for name in batch.pixels if name != PSF)
        self.grid = ImageGrid(file.wcs)

    def with_pixels_of(self, refs: Sequence[ImageRef]) -> Stitching | None:
        """Put pixels of other images, the first that has one, where the own image has none; None if none has any."""
        height, width = self.file.shape
        own = self.box.common(PixelBox(0, 0, width, height))
        here = own.slices(self.box)
        first = {name: self.batch.pixels[name][(*self.slot, *here)].copy() for name in self.planes}
        pieces, sources = [Piece(first, own, self.grid)], [self.ref]
        left = np.ones(self.box.shape, bool)
        left[here] = False
        elsewhere: list[tuple[ImageRef, ParsedFile]] = []
        for ref in refs:
            other = parse(ref, tuple(self.batch.pixels), retry=self.retry)
            shift = shift_between(self.grid, ImageGrid(other.wcs), self.box)
            if shift is not None:
                there = _moved(_whole(other), (-shift[0], -shift[1])).common(self.box)
                if not there.empty and left[there.slices(self.box)].any():
                    pieces.append(Piece(self._read(other, _moved(there, shift)), there, self.grid))
                    sources.append(ref)
                    left[there.slices(self.box)] = False
            elif None not in (ref.tract, self.ref.tract) and ref.tract != self.ref.tract:
                elsewhere.append((ref, other))
        if left.any() and elsewhere:
            self._add_tracts(elsewhere, left, pieces, sources)
        if len(pieces) == 1:
            return None
        return self._stitched(pieces, sources)

    def _add_tracts(
        self,
        elsewhere: Sequence[tuple[ImageRef, ParsedFile]],
        left: Booleans,
        pieces: list[Piece],
        sources: list[ImageRef],
    ) -> None:
        """Pieces of images of other tracts around what is left; those of one tract are on one grid."""
        y, x = np.nonzero(left)
        positions = self.grid.to_sky(np.column_stack([x + self.box.x0, y + self.box.y0]).astype(np.float64))
        grids: dict[int, ImageGrid] = {}
        for ref, other in elsewhere:
            assert ref.tract is not None
            grid = grids.setdefault(ref.tract, ImageGrid(other.wcs))
            pixels = grid.to_pixel(positions)
            pixels = pixels[np.isfinite(pixels).all(axis=1)]
            if not len(pixels):
                continue
            low, high = np.floor(pixels.min(axis=0)).astype(int), np.ceil(pixels.max(axis=0)).astype(int)
            wanted = PixelBox(*low.tolist(), *(high + 1).tolist()).grown(ORDER)
            shift = shift_between(grid, ImageGrid(other.wcs), wanted)
            if shift is None:
                raise CutoutExtractionError(
                    f"{other.name} is not on the grid of its tract {ref.tract}", source=other.name, tract=ref.tract
                )
            there = _moved(_whole(other), (-shift[0], -shift[1])).common(wanted)
            if not there.empty:
                pieces.append(Piece(self._read(other, _moved(there, shift)), there, grid))
                sources.append(ref)

    def _read(self, file: ParsedFile, box: PixelBox) -> dict[str, NDArray[Any]]:
        """Planes of a box on an image, of the types of the batch or wider."""
        planes: dict[str, NDArray[Any]] = {}
        boxes = Boxes(box.shape, file.shape, np.array([[box.x0, box.y0]]))
        for name in self.planes:
            pixels = file.planes[name]
            if isinstance(pixels, RippleError):
                raise pixels
            dtype = np.result_type(self.batch.pixels[name].dtype, pixels.dtype)
            held = np.zeros((1, *box.shape), dtype)
            failures = self.retry.call(partial(_cut, pixels, boxes, held))
            if failures:
                raise failures[0]
            planes[name] = held[0]
        if MASK in planes:
            planes[MASK] = _with_bits_of(self.file, file, planes[MASK])
        return planes

    def _stitched(self, pieces: Sequence[Piece], sources: Sequence[ImageRef]) -> Stitching | None:
        made = stitch(pieces, self.box, self.grid)
        for name, plane in made.planes.items():
            pixels = self.batch.pixels[name]
            if pixels.dtype != np.result_type(pixels.dtype, plane.dtype):
                pixels = self.batch.pixels[name] = pixels.astype(np.result_type(pixels.dtype, plane.dtype))
            pixels[self.slot] = plane
        outside = made.origin < 0
        self.batch.n_outside[self.slot] = np.count_nonzero(outside)
        used = [ref for ref, share in zip(sources[1:], made.fractions[1:], strict=True) if share > 0]
        return Stitching(tuple(used), outside) if used else None


def _cut(pixels: Pixels, boxes: Boxes, held: NDArray[Any], _: Deadline) -> Failures:
    return pixels.cut(boxes, held, np.zeros(1, np.int64))


def _whole(file: ParsedFile) -> PixelBox:
    height, width = file.shape
    return PixelBox(0, 0, width, height)


def _moved(box: PixelBox, shift: tuple[int, int]) -> PixelBox:
    x, y = shift
    return PixelBox(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y)


def _with_bits_of(own: ParsedFile, other: ParsedFile, mask: NDArray[Any]) -> NDArray[Any]:
    """A mask of another image with the bits that its planes have in the own image's mask, by their names (MP_)."""
    if own.mask_bits == other.mask_bits or not own.mask_bits or not other.mask_bits:
        return mask
    bits = mask.view(f"u{mask.itemsize}")  # the highest bit is the sign of an int, and 1 << 31 no int32
    made = np.zeros_like(bits)
    for name, bit in other.mask_bits.items():
        chosen = (bits >> bit) & 1 != 0
        if not chosen.any():
            continue
        if not 0 <= own.mask_bits.get(name, -1) < 8 * mask.itemsize:
            raise CutoutExtractionError(
                f"pixels of {other.name} are {name} in its mask, for which the mask of {own.name} has no bit",
                advice="ask for a smaller size, or without the mask",
                source=other.name,
            )
        made[chosen] |= bits.dtype.type(1 << own.mask_bits[name])
    return made.view(mask.dtype)
