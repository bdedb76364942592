"""What became of a request: its pixels, or why there are none, and where they are from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.bare import BareCutout
from absurd.tasks.cutout.batch import Batch
from absurd.tasks.cutout.engine import Cutout
from absurd.tasks.cutout.errors import BandNotFoundError, PlaneNotFoundError, RippleError
from absurd.tasks.cutout.geometry import Box
from absurd.tasks.cutout.images import ImageRef, Unread, told_of
from absurd.tasks.cutout.quality import Quality, quality_of
from absurd.tasks.cutout.request import IMAGE, MASK, CutoutRequest
from absurd.tasks.cutout.resilience import LeftOut
from absurd.tasks.cutout.straddle import Stitching

State = Literal["accepted", "rejected", "failed"]
"""Good by the limits of its request; cut and not good by them; not to be had, for a reason."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Fetched:
    """What became of a request."""

    row: int
    """Its number, from 0."""
    request: CutoutRequest
    state: State
    reason: str = ""
    """Why it is not accepted, in words."""
    error: RippleError | None = None
    """Why it failed."""
    bands: tuple[str | None, ...] = ()
    """Those that were cut, in the order asked for, else from blue to red."""
    planes: tuple[str, ...] = ()
    """Those that were cut, in the order asked for."""
    without: tuple[LeftOut, ...] = ()
    """Bands, and planes in all bands, that were asked for and are not there, and why."""
    images: tuple[ImageRef, ...] = ()
    """What each band was cut from: the image that the position is on."""
    stitched: Mapping[int, Stitching] = field(default_factory=dict)
    """What was put beside that image where it ends, by the band's place in `bands`."""
    n_nameless: int = 0
    """Further images that the position is on, of unknown band as the one that was cut: nothing tells which to cut."""
    n_found: int = 0
    """Images that the first source with any has there, of all bands that were asked for."""
    source: str = ""
    """Name of the source that answered, or of the last that was asked."""
    unread: Unread = field(default_factory=dict)
    """Files of that source that could not be read, where what they hold may be missing."""
    unanswered: bool = False
    """Whether it failed because no source answered: nothing is known of its position."""
    passed_over: Mapping[str, str] = field(default_factory=dict)
    """Why the sources before it did not, by name, in order."""
    passing: bool = False
    """Whether it may end better another time, as a source was away, or could not read what it has for a while."""
    quality: Quality | None = None
    """The worst of all bands."""
    batch: Batch | None = None
    place: int = 0
    """Where it is in the batch that it was cut with."""
    columns: tuple[int, ...] = ()
    """Where its bands are there."""

    def __repr__(self) -> str:
        """In a line, for a notebook: the pixels of all that it was cut with would be pages."""
        said = [f"row {self.row}", f"ra {self.request.ra:.6f}, dec {self.request.dec:+.6f}", self.state]
        if self.batch is not None and self.error is None:
            ny, nx = self.batch.shape
            said.append(f"{ny} x {nx} pixels of {', '.join(self.planes)} in {', '.join(map(str, self.bands))}")
        return f"<Fetched: {'; '.join([*said, *filter(None, (self.reason, self.note))])}>"

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names of bands, and of planes in all bands, that were asked for and are not there."""
        return tuple(each.plane or str(each.band) for each in self.without)

    @property
    def all_images(self) -> tuple[ImageRef, ...]:
        """Every image that has given pixels: those of the bands first."""
        beside = [image for each in self.stitched.values() for image in each.images]
        return tuple({(each.uri, each.hdus.get(IMAGE)): each for each in (*self.images, *beside)}.values())

    @property
    def note(self) -> str:
        """What is unusual about how it was had, in words, for a manifest; empty if nothing is."""
        said = []
        if self.error is None and self.passed_over:
            before = "; ".join(f"{name} ({why})" for name, why in self.passed_over.items())
            said.append(f"{self.source} answered in place of {before}")
        if self.without:
            said.append(f"without {'; '.join(map(str, self.without))}")
        if self.error is None and self.unread:
            said.append(told_of(self.unread))
        if self.n_nameless:
            said.append(f"{self.n_nameless} more image{'s' * (self.n_nameless > 1)} of unknown band left out")
        if self.stitched:
            said.append(f"stitched of {len(self.all_images)} images")
        return "; ".join(said)

    def require(self) -> Fetched:
        """Itself, if there are pixels; raises the RippleError of one that failed."""
        if self.error is not None:
            raise self.error
        return self

    def plane(self, name: str = IMAGE) -> NDArray[Any]:
        """The pixels of a plane in all bands, (bands, ny, nx).  Raises PlaneNotFoundError, or why it failed."""
        batch = self.require().batch
        assert batch is not None
        if name not in self.planes:
            raise PlaneNotFoundError(
                f"there is no plane {name!r} in the cut-out; it has {', '.join(self.planes)}", plane=name
            )
        return batch.pixels[name][self.place, list(self.columns)]

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels, in all bands and planes."""
        if self.batch is None:
            return 0
        return len(self.columns) * sum(int(self.batch.pixels[name][0, 0].nbytes) for name in self.planes)

    @property
    def pixels(self) -> NDArray[Any]:
        """The image in all bands, (bands, ny, nx), floating point; NaN beyond the images."""
        return self.plane()

    def cutout(self, band: str | None = None) -> Cutout:
        """One band with its header and WCS; the only one, or the first, if none is named.

        Raises BandNotFoundError, and the RippleError of one that failed.
        """
        return self.bare(band).cutout()

    def bare(self, band: str | None = None) -> BareCutout:
        """As `cutout`, without a header."""
        batch = self.require().batch
        assert batch is not None
        if band is not None and band not in self.bands:
            there = ", ".join(str(each) for each in self.bands)
            raise BandNotFoundError(f"there is no band {band!r} in the cut-out; it has {there}", band=band)
        number = self.bands.index(band) if band is not None else 0
        made = batch.bare(self.place, self.columns[number], self.planes)
        beside = self.stitched.get(number)
        if beside is None:
            return made
        names = tuple(image.uri.rpartition("/")[2] for image in beside.images)
        return replace(made, stitched=names, n_missing=int(np.count_nonzero(beside.outside)))

    def box(self, number: int = 0) -> Box:
        """The box on the image of a band, by its place in `bands`."""
        batch = self.require().batch
        assert batch is not None
        file = batch.files[self.place][self.columns[number]]
        assert file is not None
        x, y = batch.origins[self.place, self.columns[number]]
        return Box(batch.shape, (int(x), int(y)), file.shape)

    def outside(self, number: int = 0) -> NDArray[np.bool_]:
        """(ny, nx), which pixels of a band are on no image, by its place in `bands`."""
        if number in self.stitched:
            return self.stitched[number].outside
        box = self.box(number)
        outside = np.ones(box.shape, dtype=bool)
        outside[box.in_box] = False
        return outside

    def judged(self) -> Fetched:
        """The same with its quality, accepted or rejected by the limits of its request."""
        request, batch = self.request, self.batch
        assert batch is not None
        found = []
        for number, column in enumerate(self.columns):
            outside = self.outside(number)
            mask = batch.pixels[MASK][self.place, column] if MASK in self.planes else None
            pixels = batch.pixels[IMAGE][self.place, column] if IMAGE in self.planes else np.zeros(outside.shape)
            found.append(quality_of(pixels, mask, outside, mask_bits=request.limits.mask_bits))
        worst = Quality(*(max(getattr(each, name) for each in found) for name in ("not_finite", "masked", "outside")))
        reason = worst.reason(request.limits)
        return replace(self, state="rejected" if reason else "accepted", reason=reason, quality=worst)


def failed(row: int, request: CutoutRequest, error: RippleError) -> Fetched:
    """A request that cannot be served."""
    return Fetched(row, request, "failed", error.message, error)
