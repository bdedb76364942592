"""Between sky positions, tracts, patches and pixels of a sky map: for single numbers and for millions.

Every method takes single numbers or arrays, checks them, and works on whole arrays.  Positions are degrees ICRS,
right ascension from 0 to 360; pixels 0-based, (x, y); patches are the integers that a Butler's data ids have, and may
be given as "x,y".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from absurd.tasks.cutout.cache import CacheManager
from absurd.tasks.cutout.cache_key import CacheKey
from absurd.tasks.cutout.coverage import Touched, touched_by_circles
from absurd.tasks.cutout.errors import CoordinateConversionError, DataIdValidationError
from absurd.tasks.cutout.patches import PixelBox
from absurd.tasks.cutout.sky_map import RingsSkyMap
from absurd.tasks.cutout.sphere import Booleans, Floats, Integers, as_positions

T = TypeVar("T")
BLOCK = 1 << 15
"""Positions that are worked on together: their intermediate arrays stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where each of n positions is, in the tract that it belongs to."""

    tracts: Integers
    patches: Integers
    pixels: Floats
    """(n, 2), on the grid of the tract."""


class CoordinateConverter:
    """Conversions on one sky map.

    `cache` is asked for single positions (kind "coordinates"); arrays are faster converted than looked up.
    """

    def __init__(self, sky_map: RingsSkyMap, *, cache: CacheManager | None = None) -> None:
        self.sky_map = sky_map
        self._cache = cache

    # From the sky --------------------------------------------------------------------------------

    def locate(self, ra: ArrayLike, dec: ArrayLike) -> Located:
        """Tract, patch and pixel of each position.

        Raises
        ------
        InvalidPositionError
            A position is none; `details["index"]` says which.
        CoordinateConversionError
            A position is in no patch of its tract, where tracts overlap too little: in DC2 near the poles.
        """
        positions = as_positions(ra, dec)
        located = self._located(positions)
        if len(positions) and located.patches.min() < 0:
            index = int(np.argmin(located.patches))
            self._off_the_map(index, positions[index], int(located.tracts[index]))
        return located

    def owning(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Integers, Integers]:
        """As `radec_to_tract_patch` for arrays, with a patch below 0 for a position that is in none.

        Raises InvalidPositionError.
        """
        located = self._located(as_positions(ra, dec))
        return located.tracts, located.patches

    def _located(self, positions: Floats) -> Located:
        count = len(positions)
        tracts, patches, pixels = np.empty(count, np.int64), np.empty(count, np.int64), np.empty((count, 2))
        for start in range(0, count, BLOCK):
            part = slice(start, start + BLOCK)
            tracts[part] = self.sky_map.tract_of(positions[part])
            pixels[part] = self.sky_map.to_pixel(positions[part], tracts[part])
            patches[part] = self.sky_map.patch_at(pixels[part])
        return Located(tracts, patches, pixels)

    @overload
    def radec_to_tract_patch(self, ra: float, dec: float) -> tuple[int, int]: ...
    @overload
    def radec_to_tract_patch(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Integers, Integers]: ...
    def radec_to_tract_patch(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Any, Any]:
        """The tract that each position belongs to, and the patch of it whose inner box holds the position.

        Raises as `locate`.
        """
        if not _single(ra, dec):
            located = self.locate(ra, dec)
            return located.tracts, located.patches

        place = as_positions(ra, dec)[0].tolist()

        def make() -> tuple[int, int]:
            located = self.locate(*place)
            return int(located.tracts[0]), int(located.patches[0])

        return self._remembered(("radec_to_tract_patch", *place), make)

    @overload
    def radec_to_tract_patch_radius(self, ra: float, dec: float, radius: float) -> list[tuple[int, list[int]]]: ...
    @overload
    def radec_to_tract_patch_radius(self, ra: ArrayLike, dec: ArrayLike, radius: float) -> Touched: ...
    def radec_to_tract_patch_radius(self, ra: ArrayLike, dec: ArrayLike, radius: float) -> Any:
        """Every tract, with its patches, that a circle of `radius` degrees about each position touches.

        A patch counts with its overlaps: its images have pixels of the circle.  For one position a list of tracts
        with their patches; for arrays the pairs, see `Touched`.  Raises as `locate`, and DataIdValidationError for a
        radius that is not from 0 to 180.
        """
        positions = as_positions(ra, dec)
        if not _single(ra, dec):
            return touched_by_circles(self.sky_map, positions, radius)
        key = ("radec_to_tract_patch_radius", *positions[0].tolist(), float(radius))
        return self._remembered(key, lambda: touched_by_circles(self.sky_map, positions, radius).of(0))

    def overlapping(self, ra: ArrayLike, dec: ArrayLike) -> tuple[Integers, Integers, Integers]:
        """All patches whose images hold positions: index of the position, tract and patch, three arrays (m,).

        Raises InvalidPositionError.
        """
        touched = touched_by_circles(self.sky_map, as_positions(ra, dec), 0.0)
        return touched.positions, touched.tracts, touched.patches

    @overload
    def sky_to_pixel(
        self, ra: float, dec: float, tract: int, patch: int | str | None = None
    ) -> tuple[float, float]: ...
    @overload
    def sky_to_pixel(
        self, ra: ArrayLike, dec: ArrayLike, tract: ArrayLike, patch: ArrayLike | None = None
    ) -> tuple[Floats, Floats]: ...
    def sky_to_pixel(
        self, ra: ArrayLike, dec: ArrayLike, tract: ArrayLike, patch: ArrayLike | None = None
    ) -> tuple[Any, Any]:
        """(x, y) of positions on the grid of a tract each, or, with `patch`, counted from the first pixel of its image.

        The position need not be on the tract.  Raises InvalidPositionError, DataIdValidationError, and
        CoordinateConversionError where a position is 90 degrees from the tract's centre or more.
        """
        positions = as_positions(ra, dec)
        tracts = self._tracts(tract, len(positions))
        positions = np.broadcast_to(positions, (len(tracts), 2))
        pixels = self.sky_map.to_pixel(positions, tracts) - self._origins(tracts, patch)
        bad = ~np.isfinite(pixels).all(axis=1)
        if bad.any():
            index = int(np.argmax(bad))
            raise CoordinateConversionError(
                f"position {index}: ra {positions[index, 0]:.6f}, dec {positions[index, 1]:+.6f} is 90 degrees or more "
                f"from the centre of tract {tracts[index]}, whose projection ends there",
                index=index,
                tract=int(tracts[index]),
            )
        return _pair(pixels, single=_single(ra, dec, tract))

    # To the sky ----------------------------------------------------------------------------------

    @overload
    def pixel_to_sky(self, x: float, y: float, tract: int, patch: int | str | None = None) -> tuple[float, float]: ...
    @overload
    def pixel_to_sky(
        self, x: ArrayLike, y: ArrayLike, tract: ArrayLike, patch: ArrayLike | None = None
    ) -> tuple[Floats, Floats]: ...
    def pixel_to_sky(
        self, x: ArrayLike, y: ArrayLike, tract: ArrayLike, patch: ArrayLike | None = None
    ) -> tuple[Any, Any]:
        """(ra, dec) of pixels on the grid of a tract each, or, with `patch`, counted from the first pixel of its image.

        Raises DataIdValidationError, and CoordinateConversionError where a pixel is no number.
        """
        try:
            pixels = np.column_stack(np.broadcast_arrays(np.asarray(x, float).ravel(), np.asarray(y, float).ravel()))
        except (TypeError, ValueError) as error:
            raise DataIdValidationError(f"x {np.shape(x)} and y {np.shape(y)} make no pixels: {error}") from error
        bad = ~np.isfinite(pixels).all(axis=1)
        if bad.any():
            index = int(np.argmax(bad))
            raise CoordinateConversionError(
                f"pixel {index} is ({pixels[index, 0]:g}, {pixels[index, 1]:g}); both must be finite", index=index
            )
        tracts = self._tracts(tract, len(pixels))
        return _pair(self.sky_map.to_sky(pixels + self._origins(tracts, patch), tracts), single=_single(x, y, tract))

    @overload
    def tract_patch_to_radec(self, tract: int, patch: int | str | None = None) -> tuple[float, float]: ...
    @overload
    def tract_patch_to_radec(self, tract: ArrayLike, patch: ArrayLike | None = None) -> tuple[Floats, Floats]: ...
    def tract_patch_to_radec(self, tract: ArrayLike, patch: ArrayLike | None = None) -> tuple[Any, Any]:
        """(ra, dec) of the middles of patches' inner boxes; without `patch` of the tracts' centres.

        Raises DataIdValidationError.
        """
        single = _single(tract) and (patch is None or np.ndim(patch) == 0)
        tracts = self._tracts(tract, 1)
        if patch is None:
            return _pair(self.sky_map.centres[tracts], single=single)
        patches = self.patch_numbers(patch)
        tracts, patches = np.broadcast_arrays(tracts, patches)
        inner = np.array(self.sky_map.patches.inner)
        pixels = self._patch_index(patches) * inner + (inner - 1) / 2
        return _pair(self.sky_map.to_sky(pixels, tracts), single=single)

    # At the edges of patches ---------------------------------------------------------------------

    def boxes(self, ra: ArrayLike, dec: ArrayLike, shape: tuple[int, int]) -> tuple[Located, list[PixelBox]]:
        """The boxes of `shape` (ny, nx) pixels around positions on the grids of their tracts, placed as cut-outs are.

        Raises as `locate`.
        """
        located = self.locate(ra, dec)
        first = self._first_pixels(located, shape)
        return located, [PixelBox(x, y, x + shape[1], y + shape[0]) for x, y in first.tolist()]

    def within_patch(self, ra: ArrayLike, dec: ArrayLike, shape: tuple[int, int]) -> Booleans:
        """(n,) whether a box of `shape` (ny, nx) pixels around each position is in the image of its patch entirely.

        What is not must be stitched from several.  Raises as `locate`.
        """
        located = self.locate(ra, dec)
        first = self._first_pixels(located, shape)
        low = self._origins(located.tracts, located.patches)
        inner, border = np.array(self.sky_map.patches.inner), self.sky_map.patches.border
        high = (self._patch_index(located.patches) + 1) * inner + border
        if self.sky_map.patches.clipped:
            high = np.minimum(high, (self.sky_map.box.x1, self.sky_map.box.y1))
        within: Booleans = ((first >= low) & (first + shape[::-1] <= high)).all(axis=1)
        return within

    def distance_to_patch_edge(self, ra: ArrayLike, dec: ArrayLike) -> Floats:
        """(n,) pixels from each position to the nearest edge of the inner box that holds it.  Raises as `locate`."""
        return self.sky_map.tract(0).distance_to_patch_edge(self.locate(ra, dec).pixels)

    # Names of patches ----------------------------------------------------------------------------

    def patch_numbers(self, patch: ArrayLike) -> Integers:
        """Numbers of patches that are given as such or as "x,y".  Raises DataIdValidationError, naming the index."""
        given = np.asarray(patch).ravel()
        nx, ny = self.sky_map.n_patches
        if given.dtype.kind in "iu":
            bad = (given < 0) | (given >= nx * ny)
            if not bad.any():
                return given.astype(np.int64)
            index = int(np.argmax(bad))
            raise DataIdValidationError(
                f"position {index}: patch is {given[index]}; it must be a number from 0 to {nx * ny - 1}",
                index=index,
                patch=int(given[index]),
            )
        parse = self.sky_map.tract(0).patch_number
        numbers = {value: parse(value) for value in dict.fromkeys(given.tolist())}
        return np.array([numbers[value] for value in given.tolist()], np.int64)

    def _patch_index(self, patches: Integers) -> Integers:
        nx = self.sky_map.n_patches[0]
        return np.column_stack([patches % nx, patches // nx])

    def _origins(self, tracts: Integers, patch: ArrayLike | None) -> Integers:
        """(n, 2) pixels of the tract where the images of patches begin; 0 without patches."""
        if patch is None:
            return np.zeros((1, 2), np.int64)
        patches = self.patch_numbers(patch)
        if patches.size not in (1, tracts.size):
            raise DataIdValidationError(f"{patches.size} patches for {tracts.size} positions; give one or as many")
        first = self._patch_index(patches) * np.array(self.sky_map.patches.inner) - self.sky_map.patches.border
        origins: Integers = np.maximum(first, 0) if self.sky_map.patches.clipped else first
        return origins

    def _first_pixels(self, located: Located, shape: tuple[int, int]) -> Integers:
        return np.ceil(located.pixels - np.array(shape[::-1]) / 2.0).astype(np.int64)

    def _tracts(self, tract: ArrayLike, count: int) -> NDArray[np.int64]:
        tracts = np.asarray(tract).ravel()
        self.sky_map.check_tracts(tracts)
        if tracts.size != count and 1 not in (tracts.size, count):
            raise DataIdValidationError(f"{tracts.size} tracts for {count} positions; give one or as many")
        return np.broadcast_to(tracts.astype(np.int64), max(tracts.size, count) if min(tracts.size, count) else 0)

    def _remembered(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        if self._cache is None:
            return make()
        whole = CacheKey.of("coordinates", self.sky_map.sha1, self.sky_map.version, *key)
        remembered: T = self._cache.get_or_load(whole, make)
        return remembered

    def _off_the_map(self, index: int, position: Floats, tract: int) -> None:
        raise CoordinateConversionError(
            f"position {index}: ra {position[0]:.6f}, dec {position[1]:+.6f} belongs to tract {tract} but is on "
            "none of its patches",
            advice="its tracts do not overlap enough there, or its numbering is version 0; "
            "radec_to_tract_patch_radius with a radius of 0 finds other tracts that have it",
            index=index,
            tract=tract,
        )


def _single(*values: ArrayLike) -> bool:
    return all(np.ndim(value) == 0 for value in values)


def _pair(values: Floats, *, single: bool) -> tuple[Any, Any]:
    """Two columns, as numbers where numbers were given."""
    return (float(values[0, 0]), float(values[0, 1])) if single else (values[:, 0], values[:, 1])
