"""The rings sky map of the Rubin pipelines: which tract and which patch a position is in, and their pixel grids.

The sphere is cut into rings of equal height in declination and two polar caps; each ring into tracts of equal width in
right ascension.  Every tract is an image in the gnomonic projection (TAN) about its centre, larger than its part of
the sky by an overlap, and made of whole patches.  In that projection a distance r from the centre along an axis is
tan(r), so that all tracts of a sky map have one shape and one reference pixel: the grid is worked out once.

Definitions: lsst.skymap, RingsSkyMap and its tract builders (https://github.com/lsst/skymap), re-derived here.  Pixels
are 0-based, (x, y), with centres at whole numbers; shapes are (ny, nx).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.patches import CellPatches, LegacyPatches, Patches, PixelBox
from absurd.tasks.cutout.sphere import Floats, Integers, deproject, project, unit_vectors, wrapped
from absurd.tasks.cutout.tract import Tract

ARCSEC = math.radians(1 / 3600)

__all__ = ["KNOWN", "CellPatches", "LegacyPatches", "PixelBox", "RingsSkyMap", "Tract", "sky_map_named", "sky_map_of"]


@dataclass(frozen=True)
class RingsSkyMap:
    """A sky map by its parameters; equal parameters are the same tracts and patches.

    Raises DataIdValidationError.
    """

    num_rings: int
    pixel_scale: float
    """Arcseconds a pixel, at the centre of a tract."""
    tract_overlap: float = 1 / 60
    """Degrees by which a tract reaches beyond half a ring at least."""
    patches: Patches = field(default_factory=LegacyPatches)
    ra_start: float = 0.0
    """Right ascension of the first tract of each ring, degrees."""
    version: int = 1
    """Of the numbering.  0: the first tract of each ring but the first has the number after the ring's last."""
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.num_rings < 1:
            raise DataIdValidationError(f"num_rings is {self.num_rings}; it must be 1 or more")
        if not 0 < self.pixel_scale < math.inf:
            raise DataIdValidationError(f"pixel_scale is {self.pixel_scale:g}; it must be arcseconds above 0")
        if not 0 <= self.ra_start < 360:
            raise DataIdValidationError(f"ra_start is {self.ra_start:g}; it must be degrees from 0 to below 360")
        if self.version not in (0, 1):
            raise DataIdValidationError(f"version is {self.version}; the numberings are 0 and 1")
        reach = 90 / (self.num_rings + 1) + self.tract_overlap
        if not self.tract_overlap >= 0 or not reach < 90:
            raise DataIdValidationError(
                f"tract_overlap is {self.tract_overlap:g}; it must be degrees of 0 or more, and a tract of "
                f"{reach:g} degrees to each side has no gnomonic projection: it must be below 90"
            )

    # Tracts --------------------------------------------------------------------------------------

    @cached_property
    def ring_height(self) -> float:
        """Radians of declination; the two caps together are one more ring."""
        return math.pi / (self.num_rings + 1)

    @cached_property
    def ring_sizes(self) -> Integers:
        """(num_rings,) how many tracts there are in each ring, from south to north.

        As many as are needed where the ring is longest, so that its tracts overlap everywhere.
        """
        low = self.ring_height * (np.arange(self.num_rings) + 0.5) - math.pi / 2
        nearest = np.minimum(np.abs(low), np.abs(low + self.ring_height))
        sizes: Integers = (2 * math.pi * np.cos(nearest) / self.ring_height).astype(np.int64) + 1
        return sizes

    @cached_property
    def _before(self) -> Integers:
        """(num_rings + 1,) how many tracts lie in the rings before; tract 0 is the southern cap, not counted."""
        return np.concatenate([[0], np.cumsum(self.ring_sizes)])

    @property
    def n_tracts(self) -> int:
        return int(self._before[-1]) + 2

    def tract_of(self, positions: Floats) -> Integers:
        """(n,) numbers of the tracts that (n, 2) positions belong to: each position to one."""
        ra, dec = np.radians(positions[:, 0]), np.radians(positions[:, 1])
        first = self.ring_height * 0.5 - math.pi / 2
        # the last ring may round to one too many at its very edge
        ring = np.clip(((dec - first) / self.ring_height).astype(np.int64), 0, self.num_rings - 1)
        size = self.ring_sizes[ring]
        turn = np.mod(ra - math.radians(self.ra_start), 2 * math.pi)
        place = (turn / (2 * math.pi / size) + 0.5).astype(np.int64)
        place[place >= size] = 0
        if self.version == 0:
            ring = ring + ((place == 0) & (ring > 0))
        tracts = self._before[ring] + place + 1
        tracts[dec < first] = 0
        tracts[dec > -first] = self.n_tracts - 1
        return tracts

    @cached_property
    def centres(self) -> Floats:
        """(n_tracts, 2) positions of the tracts' centres."""
        numbers = np.arange(self.n_tracts - 2)
        # in version 0 a ring's first number after the first ring is still a tract of the ring before
        side: Literal["left", "right"] = "right" if self.version else "left"
        ring = np.maximum(np.searchsorted(self._before, numbers, side=side) - 1, 0)
        place = numbers - self._before[ring]
        ra = wrapped(np.degrees(2 * math.pi * place / self.ring_sizes[ring]) + self.ra_start)
        dec = np.degrees(self.ring_height * (ring + 1) - math.pi / 2)
        return np.concatenate([[(0.0, -90.0)], np.column_stack([ra, dec]), [(0.0, 90.0)]])

    @cached_property
    def centre_vectors(self) -> Floats:
        """(n_tracts, 3) unit vectors of the centres."""
        return unit_vectors(self.centres)

    @cached_property
    def tangents(self) -> Floats:
        """(n_tracts, 2) as `centres`, with the right ascension along which y falls at the pole where that matters.

        By FITS's default of LONPOLE, which is 0 where the reference point is the north pole and 180 elsewhere, the
        northern cap is turned by half a circle against the rule of all other tracts.
        """
        tangents = self.centres.copy()
        tangents[-1, 0] = 180.0
        return tangents

    def tract(self, number: int) -> Tract:
        """The tract of that number.  Raises DataIdValidationError."""
        self.check_tracts(np.atleast_1d(number))
        return Tract(self, int(number))

    def check_tracts(self, tracts: Integers) -> None:
        """Raise DataIdValidationError, naming the first index, unless all are numbers of tracts."""
        if not np.issubdtype(np.asarray(tracts).dtype, np.integer):
            raise DataIdValidationError(f"tracts are {tracts.dtype}; they must be integers")
        bad = (tracts < 0) | (tracts >= self.n_tracts)
        if bad.any():
            index = int(np.argmax(bad))
            raise DataIdValidationError(
                f"position {index}: tract is {tracts[index]}; this sky map has the tracts 0 to {self.n_tracts - 1}",
                index=index,
                tract=int(tracts[index]),
            )

    # The grid that all tracts share --------------------------------------------------------------

    @cached_property
    def _grid(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Patches along (x, y), and the reference pixel (x, y)."""
        half = math.tan(self.ring_height / 2 + math.radians(self.tract_overlap)) / (self.pixel_scale * ARCSEC)
        low, high = math.floor(-half + 0.5), math.ceil(half - 0.5)  # every pixel that is touched
        counts, reference = [], []
        for inner in self.patches.inner:
            count = -(-(high - low + 1) // inner)
            padding = inner * count - (high - low + 1)
            counts.append(count)
            reference.append(padding // 2 - low)
        return (counts[0], counts[1]), (reference[0], reference[1])

    @property
    def n_patches(self) -> tuple[int, int]:
        """Patches along (x, y) of every tract."""
        return self._grid[0]

    @property
    def reference_pixel(self) -> tuple[int, int]:
        """(x, y) of the tract's centre, the first pixel being (0, 0); FITS's CRPIX is one more."""
        return self._grid[1]

    @cached_property
    def box(self) -> PixelBox:
        """The pixels of every tract."""
        (nx, ny), (width, height) = self.n_patches, self.patches.inner
        return PixelBox(0, 0, nx * width, ny * height)

    def to_pixel(self, positions: Floats, tracts: Integers) -> Floats:
        """(n, 2) pixels (x, y) of positions on their tracts' grids; NaN beyond 90 degrees from the centre."""
        return self._pixels(project(positions, self.tangents[tracts]))

    def to_sky(self, pixels: Floats, tracts: Integers) -> Floats:
        """(n, 2) positions of pixels (x, y) on their tracts' grids; the inverse of `to_pixel`."""
        scale = self.pixel_scale * ARCSEC
        plane = (pixels - np.array(self.reference_pixel)) * (-scale, scale)
        return deproject(plane, self.tangents[tracts])

    def _pixels(self, plane: Floats) -> Floats:
        scale = self.pixel_scale * ARCSEC
        pixels: Floats = plane / (-scale, scale) + np.array(self.reference_pixel)
        return pixels

    def patch_at(self, pixels: Floats) -> Integers:
        """(n,) numbers of the patches whose inner boxes hold pixels (n, 2) of a tract; -1 off the tract."""
        with np.errstate(invalid="ignore"):
            whole = np.floor(pixels + 0.5)
            inside = np.asarray((whole >= 0).all(axis=1) & (whole < (self.box.x1, self.box.y1)).all(axis=1))  # not NaN
        index = np.where(inside[:, None], whole, 0).astype(np.int64) // np.array(self.patches.inner)
        return np.where(inside, index[:, 1] * self.n_patches[0] + index[:, 0], -1)

    # Who it is -----------------------------------------------------------------------------------

    @property
    def sha1(self) -> bytes:
        """The hash that a Butler keeps in the record of a sky map; it does not tell `version`."""
        packed = self.patches.packed() + struct.pack("<dd3sd", self.tract_overlap, self.pixel_scale, b"TAN", 0.0)
        packed += struct.pack("<id", self.num_rings, self.ra_start)
        return hashlib.sha1(b"RingsSkyMap" + packed, usedforsecurity=False).digest()


_CELLS = RingsSkyMap(120, 0.2, patches=CellPatches())

KNOWN: Mapping[str, RingsSkyMap] = MappingProxyType(
    {
        each.name: each
        for each in (
            # parameters confirmed by the hash in the export of a real repository: HSC RC2, lsst/daf_butler
            RingsSkyMap(120, 0.168, name="hsc_rings_v1"),
            # configs/skymap.py of lsst/ci_lsstcam, at two commits; data preview 1 uses lsst_cells_v1
            replace(_CELLS, name="lsst_cells_v1"),
            replace(_CELLS, patches=CellPatches(cell_border=0), name="lsst_cells_v2"),
            # makeSkyMap.py of LSSTDESC/gen3_workflow; simulated, data preview 0.2
            RingsSkyMap(120, 0.2, name="DC2"),
        )
    }
)
"""Sky maps of published repositories by name, in the numbering of version 1."""


def sky_map_named(name: str) -> RingsSkyMap:
    """The known sky map of that name.  Raises DataIdValidationError."""
    try:
        return KNOWN[name]
    except KeyError:
        raise DataIdValidationError(
            f"sky map {name!r} is not known here",
            advice=f"give its parameters to RingsSkyMap; known by name are {', '.join(KNOWN)}",
            skymap=name,
        ) from None


def sky_map_of(record: Any, *candidates: RingsSkyMap) -> RingsSkyMap:
    """The sky map that a Butler's record of one (`name`, `hash`, `tract_max`, `patch_nx_max`, ...) speaks of.

    The record holds no parameters, but a hash of them: of `candidates` and the known sky maps, whatever the name, the
    one with that hash is it.  Raises DataIdValidationError where there is none.
    """
    digest = bytes(record.hash)
    for each in (*candidates, *KNOWN.values()):
        if each.sha1 == digest:
            _check_counts(record, each)
            return replace(each, name=record.name)
    raise DataIdValidationError(
        f"sky map {record.name!r} has the hash {digest.hex()}, that of none known here",
        advice="give its parameters as a RingsSkyMap; other kinds than rings in the TAN projection are not supported",
        skymap=record.name,
    )


def _check_counts(record: Any, sky_map: RingsSkyMap) -> None:
    told = record.tract_max, record.patch_nx_max, record.patch_ny_max
    if told != (sky_map.n_tracts, *sky_map.n_patches):
        raise DataIdValidationError(
            f"sky map {record.name!r} has {told[0]} tracts of {told[1]} x {told[2]} patches by its record, but "
            f"{sky_map.n_tracts} of {sky_map.n_patches[0]} x {sky_map.n_patches[1]} by its hash",
            skymap=record.name,
        )
