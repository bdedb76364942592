"""The pixels of many boxes of one plane: from plain FITS here, from RICE_1 in rice, from anything else by astropy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout import compiled
from absurd.tasks.cutout.boxes import Boxes
from absurd.tasks.cutout.errors import ButlerConnectionError, ImageUnreadableError, RippleError, SourceNotFoundError
from absurd.tasks.cutout.fits_image import open_image
from absurd.tasks.cutout.ranged import Range, RemoteFile, Sparse, ranges_of_rows
from absurd.tasks.cutout.scaling import Scaling

Failures: TypeAlias = dict[int, RippleError]
"""Why boxes could not be had, by their place among those that were wanted."""


class Pixels(Protocol):
    """The pixels of one plane of a file, wherever they are stored."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        ...

    def cut(self, boxes: Boxes, out: NDArray[Any], slots: NDArray[np.int64]) -> Failures:
        """Put what of the boxes is on the image into ``out[slots]``, and leave what is beyond as it is.

        `out` is (n, ny, nx), of a type that holds the values.  A box that failed may have been written in part.
        Raises RippleError where nothing can be had.
        """
        ...


class Opened(Protocol):
    """A file that is open."""

    @property
    def fd(self) -> int:
        """Its descriptor."""
        ...

    def need(self, ranges: Iterable[Range]) -> None:
        """Have these bytes there before they are read.  Raises RippleError."""
        ...


@dataclass(frozen=True, slots=True)
class _Local:
    """A file of this machine: all of it is there."""

    fd: int

    def need(self, ranges: Iterable[Range]) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it was when its headers were read."""

    path: Path | RemoteFile
    size: int
    changed: int
    """Nanoseconds of its last change."""

    @classmethod
    def of(cls, path: Path | RemoteFile) -> Stored:
        """Raises SourceNotFoundError, ImageUnreadableError."""
        if isinstance(path, RemoteFile):
            return cls(path, path.size, 0)
        with _telling(path):
            found = path.stat()
        return cls(path, found.st_size, found.st_mtime_ns)

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """It, open.  Raises SourceNotFoundError, or ImageUnreadableError if it is another by now, or at the end."""
        if isinstance(self.path, RemoteFile):
            self.path.check_unchanged()
            sparse = Sparse(self.path)
            try:
                yield sparse
            finally:
                sparse.close()
            self.path.check_unchanged()
            return
        with _telling(self.path):
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._check(os.fstat(fd))
            yield _Local(fd)
            self._check(os.fstat(fd))
        finally:
            os.close(fd)

    def check_unchanged(self) -> None:
        """Raise as `opened` if the file at its path is another by now."""
        if isinstance(self.path, RemoteFile):
            self.path.check_unchanged()
            return
        with _telling(self.path):
            found = self.path.stat()
        self._check(found)

    def _check(self, found: os.stat_result) -> None:
        if (found.st_size, found.st_mtime_ns) != (self.size, self.changed):
            raise ImageUnreadableError(
                f"{self.path.name} was changed while it was read",
                advice="cut again, once it is written",
                source=self.path.name,
            )

    def unreadable(self, reason: str) -> ImageUnreadableError:
        """The error of pixels of it that cannot be had."""
        return ImageUnreadableError(f"{self.path.name} cannot be read as FITS: {reason}", source=self.path.name)


@dataclass(frozen=True, slots=True)
class PlainPixels:
    """Pixels that lie in the file row by row."""

    stored: Stored
    start: int
    """Place of the first in the file."""
    scaling: Scaling

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.scaling.dtype

    def cut(self, boxes: Boxes, out: NDArray[Any], slots: NDArray[np.int64]) -> Failures:
        failures: Failures = {}

        def read(target: NDArray[Any], places: NDArray[np.int64]) -> None:
            with self.stored.opened() as file:
                item, width = self.scaling.stored.itemsize, boxes.image_shape[1]
                sections = ((y, slice(x.start * item, x.stop * item)) for _, (y, x), _ in boxes.sections())
                file.need(ranges_of_rows(self.start, width * item, sections))
                order = np.argsort(boxes.origins[:, 1], kind="stable")
                gather = compiled.gather if compiled.library() else _gather
                status = gather(file.fd, self.start, boxes.take(order), target, places[order])
            for i in np.flatnonzero(status > compiled.DONE):
                failures[int(order[i])] = self.stored.unreadable("it ends before these pixels, or a read failed")

        convert(self.scaling, boxes, out, slots, read)
        return failures


@dataclass(frozen=True, slots=True)
class SectionPixels:
    """Pixels that astropy reads, in any compression it knows."""

    stored: Stored
    image_hdu: int
    hdu: int
    dtype: np.dtype[Any]

    def cut(self, boxes: Boxes, out: NDArray[Any], slots: NDArray[np.int64]) -> Failures:
        failures: Failures = {}
        with open_image(self.stored.path, hdu=self.image_hdu) as image:
            self.stored.check_unchanged()
            for i, on_image, in_box in boxes.sections():
                try:
                    out[(slots[i], *in_box)] = image.section(image.hdus[self.hdu], on_image)
                except ButlerConnectionError:  # it may be tried again
                    raise
                except RippleError as error:
                    failures[i] = error
            self.stored.check_unchanged()
        return failures


def convert(
    scaling: Scaling,
    boxes: Boxes,
    out: NDArray[Any],
    slots: NDArray[np.int64],
    read: Callable[[NDArray[Any], NDArray[np.int64]], None],
) -> None:
    """Have stored numbers read straight into `out` if they are meant as they are, else in between and converted."""
    if scaling.is_none and out.dtype == scaling.stored:
        read(out, slots)
        return
    between = np.zeros((len(boxes), *boxes.shape), scaling.stored)
    read(between, np.arange(len(boxes)))
    values = scaling(between)
    whole = boxes.n_outside == 0
    out[slots[whole]] = values if whole.all() else values[whole]
    part = np.flatnonzero(~whole)
    for i, _, in_box in boxes.take(part).sections():
        out[(slots[part[i]], *in_box)] = values[(part[i], *in_box)]


def _gather(fd: int, start: int, boxes: Boxes, out: NDArray[Any], slots: NDArray[np.int64]) -> NDArray[np.int8]:
    """As `compiled.gather`, without a compiler: row by row, so that no more is in memory than the boxes."""
    status = np.zeros(len(slots), np.int8)
    item, width = out.itemsize, boxes.image_shape[1]
    stored = out.dtype.newbyteorder(">")
    for i, (rows, columns), in_box in boxes.sections():
        status[i] = compiled.DONE
        for row, to in zip(range(rows.start, rows.stop), out[(slots[i], *in_box)], strict=True):
            try:
                held = os.pread(fd, to.nbytes, start + (row * width + columns.start) * item)
            except OSError:
                held = b""
            if len(held) < to.nbytes:
                status[i] = compiled.UNREAD
                break
            to[:] = np.frombuffer(held, stored)
    return status


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise SourceNotFoundError(f"there is no file {path}", source=str(path)) from None
    except OSError as error:
        raise ImageUnreadableError(f"{path.name} cannot be read: {error.strerror}", source=path.name) from error
