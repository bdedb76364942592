"""One tract of a sky map: its image, its patches, and what touches them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.patches import PixelBox
from absurd.tasks.cutout.sphere import Booleans, Floats, Integers, project

if TYPE_CHECKING:
    from absurd.tasks.cutout.sky_map import RingsSkyMap


@dataclass(frozen=True, slots=True)
class Tract:
    """A tract by its number.  Patches are numbers y * nx + x, as a Butler's data ids have them."""

    sky_map: RingsSkyMap
    number: int

    @property
    def centre(self) -> tuple[float, float]:
        """(ra, dec) of the reference pixel, degrees."""
        ra, dec = self.sky_map.centres[self.number]
        return float(ra), float(dec)

    @property
    def box(self) -> PixelBox:
        """Its pixels."""
        return self.sky_map.box

    def to_pixel(self, positions: Floats) -> Floats:
        """(n, 2) pixels (x, y) of positions; NaN beyond 90 degrees from the centre."""
        return self.sky_map.to_pixel(positions, np.asarray(self.number))

    def to_sky(self, pixels: Floats) -> Floats:
        """(n, 2) positions of pixels (x, y)."""
        return self.sky_map.to_sky(pixels, np.asarray(self.number))

    def areas(self, positions: Floats) -> Floats:
        """(n,) solid angles of its pixels at positions, steradians: in a gnomonic projection cos³ of the distance."""
        xi, eta = project(positions, np.array(self.centre)).T
        solid: Floats = math.radians(self.sky_map.pixel_scale / 3600) ** 2 * (1 + xi * xi + eta * eta) ** -1.5
        return solid

    def owns(self, positions: Floats) -> Booleans:
        """(n,) whether positions belong to it, and not to another tract."""
        owned: Booleans = self.sky_map.tract_of(positions) == self.number
        return owned

    def header(self) -> dict[str, str | float]:
        """Its WCS as FITS keywords, LONPOLE included."""
        (ra, dec), (x, y), scale = self.centre, self.sky_map.reference_pixel, self.sky_map.pixel_scale / 3600
        return {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "CRPIX1": x + 1.0,
            "CRPIX2": y + 1.0,
            "CRVAL1": ra,
            "CRVAL2": dec,
            "CD1_1": -scale,
            "CD1_2": 0.0,
            "CD2_1": 0.0,
            "CD2_2": scale,
            "LONPOLE": 0.0 if dec >= 90 else 180.0,
            "RADESYS": "ICRS",
        }

    def wcs(self) -> Any:
        """Its WCS as astropy's."""
        from astropy.io.fits import Header

        from absurd.tasks.cutout.sky_wcs import SkyWCS

        return SkyWCS(Header(self.header()))

    # Patches -------------------------------------------------------------------------------------

    @property
    def n_patches(self) -> int:
        nx, ny = self.sky_map.n_patches
        return nx * ny

    def patch_number(self, patch: int | str | tuple[int, int]) -> int:
        """The number of a patch given as such, as "x,y", or as (x, y).  Raises DataIdValidationError."""
        nx, ny = self.sky_map.n_patches
        try:
            if isinstance(patch, str) and "," not in patch:
                patch = int(patch)
            if isinstance(patch, int | np.integer) and not isinstance(patch, bool):
                if 0 <= patch < nx * ny:
                    return int(patch)
            else:
                x, y = (int(part) for part in (patch.split(",") if isinstance(patch, str) else patch))  # type: ignore[union-attr]
                if 0 <= x < nx and 0 <= y < ny:
                    return y * nx + x
        except (TypeError, ValueError):
            pass
        raise DataIdValidationError(
            f"patch is {patch!r}; it must be a number from 0 to {nx * ny - 1}, or 'x,y' up to '{nx - 1},{ny - 1}'",
            tract=self.number,
            patch=str(patch),
        )

    def patch_index(self, patch: int) -> tuple[int, int]:
        """The (x, y) of a patch of that number."""
        y, x = divmod(self.patch_number(patch), self.sky_map.n_patches[0])
        return x, y

    def inner_box(self, patch: int) -> PixelBox:
        """The pixels that are that patch's own: inner boxes tile the tract."""
        (x, y), (width, height) = self.patch_index(patch), self.sky_map.patches.inner
        return PixelBox(x * width, y * height, (x + 1) * width, (y + 1) * height)

    def outer_box(self, patch: int) -> PixelBox:
        """The pixels of that patch's images, overlaps included."""
        outer = self.inner_box(patch).grown(self.sky_map.patches.border)
        return outer.common(self.box) if self.sky_map.patches.clipped else outer

    def patches_in(self, box: PixelBox) -> Integers:
        """Numbers of the patches whose inner boxes have pixels in common with `box`, ascending."""
        box = box.common(self.box)
        if box.empty:
            return np.empty(0, np.int64)
        width, height = self.sky_map.patches.inner
        x = np.arange(box.x0 // width, (box.x1 - 1) // width + 1)
        y = np.arange(box.y0 // height, (box.y1 - 1) // height + 1)
        return (y[:, None] * self.sky_map.n_patches[0] + x).ravel()

    def distance_to_patch_edge(self, pixels: Floats) -> Floats:
        """(n,) pixels to the nearest edge of the inner box of the patch that holds each pixel; negative off the tract.

        Off the tract it is the distance to the tract, as a negative number.
        """
        size = np.array(self.sky_map.patches.inner)
        place = np.mod(pixels + 0.5, size)
        inside = np.minimum(place, size - place).min(axis=1)
        limit = np.array((self.box.x1, self.box.y1)) - 0.5
        beyond = np.maximum(np.maximum(-0.5 - pixels, pixels - limit), 0)
        distance = np.hypot(beyond[:, 0], beyond[:, 1])
        return np.where(distance > 0, -distance, inside)

    def corners(self, box: PixelBox) -> Floats:
        """(4, 2) positions of the outer corners of a box's pixels, counterclockwise on the sky.

        The region of a tract or a patch in a Butler is the polygon of these, of the outer box.
        """
        x0, x1 = box.x0 - 0.5, box.x1 - 0.5
        y0, y1 = box.y0 - 0.5, box.y1 - 0.5
        return self.to_sky(np.array([(x1, y0), (x0, y0), (x0, y1), (x1, y1)]))
