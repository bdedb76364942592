"""A FITS file, or those of a folder: which of them hold a position, found by headers that are read once."""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.bands import as_spelled, band_in_headers, band_in_name, by_wavelength
from absurd.tasks.cutout.errors import (
    BandNotFoundError,
    ButlerConnectionError,
    ImageUnreadableError,
    NotOnSkyError,
    PositionOutsideError,
    RippleError,
    SourceNotFoundError,
)
from absurd.tasks.cutout.fits_image import (
    FitsImage,
    open_image,
    open_images,
    own_images,
)
from absurd.tasks.cutout.geometry import check_position
from absurd.tasks.cutout.images import ImageRef, is_of_the_disk, or_unread, told_of
from absurd.tasks.cutout.ranged import RemoteFile, shown
from absurd.tasks.cutout.request import IMAGE
from absurd.tasks.cutout.sources.footprint import cap_of, depths, near, unit_vectors

_log = logging.getLogger(__name__)

SUFFIXES = (".fits", ".fit", ".fts")
PACKED = (".fz", ".gz", ".bz2", ".xz", ".Z")
"""What may follow a suffix: compressed tiles, or a compressed file."""

BESIDE_IN_NAME = frozenset(
    {"mask", "msk", "dqmask", "ood", "variance", "invvar", "ivar", "weight", "wht", "wtmap", "oow", "rms"}
)
"""Words of a file's name that tell the same, where PRODTYPE tells nothing or, as in copies that archives cut of images
of DECam, says that all are images: one such is cut only where nothing else is."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image that covers the position."""

    path: Path
    band: str | None
    depth: float
    """Pixels from the position to the nearest edge."""


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """What is remembered of an image HDU, so that its file need not be opened again."""

    path: Path | RemoteFile
    version: str
    told: str | None
    """The band that the headers tell."""
    hdus: dict[str, int]
    wcs: Any
    shape: tuple[int, int]
    centre: NDArray[np.float64]
    radius: float

    def band(self, wanted: Iterable[str]) -> str | None:
        return self.told or band_in_name(self.path.name, wanted)

    def ref(self, band: str | None) -> ImageRef:
        return ImageRef(str(self.path), band, self.hdus, version=self.version)


Read: TypeAlias = list[_Image] | ImageUnreadableError | NotOnSkyError
"""What the headers of a file give."""


class FolderSource:
    """The images in a folder and below it, or in one file.

    The headers of a file are read once, and again when its size or the time of its last change is another.  Files
    that cannot be used are passed over; `unusable` tells why, `unread` of which of them nobody knows what they hold.
    For several threads.
    """

    is_local = True
    """Nothing of it answers over a network: to read the headers of a large folder takes as long as it takes."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name
        self.unusable: dict[Path | RemoteFile, ImageUnreadableError | NotOnSkyError] = {}
        self.opened = 0
        """Files whose headers were read, each time counted."""
        self._known: dict[str, tuple[str, list[_Image]]] = {}
        self._lock = threading.Lock()

    @property
    def unread(self) -> dict[str, RippleError]:
        """Files, and folders in the folder, that could not be read when they were looked at last, and why."""
        return {
            shown(path.address) if isinstance(path, RemoteFile) else str(path): error
            for path, error in dict(self.unusable).items()
            if isinstance(error, ImageUnreadableError)
        }

    def find(self, positions: NDArray[np.float64], bands: Sequence[str] = ()) -> list[list[ImageRef]]:
        """For each of (n, 2) positions the images that contain it; see `Source`.  Deeper inside is better.

        Raises SourceNotFoundError: there is no folder, or no FITS file in it; ButlerConnectionError: it cannot be
        looked at; of a single file also ImageUnreadableError, NotOnSkyError.
        """
        found: list[list[tuple[float, ImageRef]]] = [[] for _ in positions]
        for image, held, deep in self.covering(positions):
            ref = image.ref(image.band(bands))
            for index, depth in zip(held, deep, strict=True):
                found[index].append((depth, ref))
        return [in_order(each, bands) for each in found]

    def covering(
        self, positions: NDArray[np.float64]
    ) -> Iterator[tuple[_Image, NDArray[np.intp], NDArray[np.float64]]]:
        """Each image that contains any of (n, 2) positions, which ones, and how many pixels from its edge."""
        images = self.images()
        if not images:
            return
        centres, radii = np.array([each.centre for each in images]), np.array([each.radius for each in images])
        for number, candidates in near(unit_vectors(positions), centres, radii):
            image = images[number]
            deep = depths(image.wcs, image.shape, positions[candidates])
            inside = deep >= 0
            if inside.any():
                yield image, candidates[inside], deep[inside]

    def images(self) -> list[_Image]:
        """All there are now, sorted by path.  Raises as `find`."""
        with self._lock:
            if not _is_folder(self.folder):
                images = self._of(self.folder)
                if self.unusable:
                    raise self.unusable[self.folder]
                return images
            files, closed = _listed(self.folder)
            for gone in {*self._known, *map(str, self.unusable)} - set(map(str, files)):
                self._known.pop(gone, None)
                self.unusable.pop(Path(gone), None)
            self.unusable.update(closed)
            return [image for path in files for image in self._of(path)]

    def test_connection(self) -> bool:
        """Whether the folder, or the file, may be read; what is in it is not looked at.

        Raises SourceNotFoundError where there is neither, ButlerConnectionError where that cannot be told.
        """
        try:
            if _is_folder(self.folder):
                os.scandir(self.folder).close()
            else:
                self.folder.open("rb").close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Forget what was read: no file stays open between calls."""
        with self._lock:
            self._known.clear()
            self.unusable.clear()

    def _of(self, path: Path) -> list[_Image]:
        try:
            version = version_of(path)
        except FileNotFoundError:  # since the folder was listed
            return []
        except OSError as error:
            self.unusable[path] = _unread(path, error)
            return []
        return self._of_version(path, version)

    def _of_version(self, path: Path | RemoteFile, version: str) -> list[_Image]:
        known = self._still(path, version)
        return self._remember(path, version, read_images(path, version)) if known is None else known

    def _still(self, path: Path | RemoteFile, version: str) -> list[_Image] | None:
        """What is remembered of a file, if that is of this version."""
        if is_of_the_disk(self.unusable.get(path)):
            del self.unusable[path]
        known = self._known.get(str(path))
        return known[1] if known is not None and known[0] == version else None

    def _remember(self, path: Path | RemoteFile, version: str, read: Read) -> list[_Image]:
        self.opened += 1
        self.unusable.pop(path, None)
        if isinstance(read, list):
            images = read
        else:
            images, self.unusable[path] = [], read
        if is_of_the_disk(self.unusable.get(path)):  # no fault of the file, which is the same when it can be read
            self._known.pop(str(path), None)
        else:
            self._known[str(path)] = version, images
        return images


def _is_folder(place: Path) -> bool:
    """Whether it is a folder, else a file.  Raises SourceNotFoundError, ButlerConnectionError."""
    try:
        mode = place.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as error:
        raise _away(place, error) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SourceNotFoundError(f"there is no file or folder {place}", source=str(place))
    return stat.S_ISDIR(mode)


def _listed(folder: Path) -> tuple[list[Path], dict[Path | RemoteFile, ImageUnreadableError | NotOnSkyError]]:
    """The FITS files in a folder and below it, sorted, and folders there that may not be looked into.

    Raises SourceNotFoundError, ButlerConnectionError if there is no file.
    """
    failed: dict[Path, OSError] = {}
    files = list(walk_files(folder, lambda error: failed.setdefault(Path(str(error.filename)), error)))
    failed = {place: error for place, error in failed.items() if not isinstance(error, FileNotFoundError)}
    if not files:
        for place, error in failed.items():
            raise _away(place, error) from error
        raise SourceNotFoundError(f"there is no FITS file in {folder}", source=str(folder))
    return files, {place: _unread(place, error) for place, error in failed.items()}


def read_images(path: Path | RemoteFile, version: str) -> Read:
    """The images of a file, by its headers; or why it cannot be used."""
    try:
        with open_images(path) as images:
            return [_remembered(each, version) for each in own_images(images)]
    except SourceNotFoundError:  # since the folder was listed
        return []
    except (ImageUnreadableError, NotOnSkyError) as error:
        return error


def _unread(path: Path, error: OSError) -> ImageUnreadableError:
    made = ImageUnreadableError(f"{path.name} cannot be read: {error.strerror}", source=path.name)
    made.__cause__ = error
    return made


def _away(place: Path, error: OSError) -> ButlerConnectionError:
    return ButlerConnectionError(f"{place} cannot be read: {error.strerror}", source=str(place))


def version_of(path: Path) -> str:
    """Size and time of the last change of a file.  Raises OSError."""
    told = path.stat()
    return f"{told.st_size}-{told.st_mtime_ns}"


def planes_of(image: FitsImage) -> dict[str, int]:
    """The HDU of the image and of each named HDU of its shape that belongs to it, by its name in small letters."""
    planes = {IMAGE: image.hdu}
    for name in dict.fromkeys(hdu.name.lower() for hdu in image.hdus if hdu.is_image and hdu.name):
        for place in image.places_of(name):
            if place != image.hdu and tuple(image.hdus[place].shape or ())[-2:] == image.shape:
                planes.setdefault(name, place)
    return planes


def _remembered(image: FitsImage, version: str) -> _Image:
    told = band_in_headers(image.header, image.hdus[0].header)
    return _Image(image.path, version, told, planes_of(image), image.wcs, image.shape, *cap_of(image.wcs, image.shape))


def in_order(found: list[tuple[float, ImageRef]], bands: Sequence[str]) -> list[ImageRef]:
    """The images of the wanted bands, in each those before weights and masks, and the deepest first."""
    found.sort(key=lambda each: (is_beside(each[1].uri), -each[0], each[1].uri))
    refs = [ref for _, ref in found]
    if not bands:
        return sorted(refs, key=lambda ref: by_wavelength(ref.band))
    there = {ref.band for ref in refs}
    wanted = [as_spelled(band, there) for band in bands]
    return [ref for band in wanted if band is not None for ref in refs if ref.band == band]


def is_beside(uri: str) -> bool:
    """Whether a file's name says that it belongs to an image."""
    words = re.split(r"[^a-z0-9]+", uri.rpartition("/")[2].lower())
    return not BESIDE_IN_NAME.isdisjoint(words)


def find_images(source: Path, ra: float, dec: float, bands: Sequence[str] = ()) -> list[Found]:
    """One image for each band, those in `bands` in that order, else all there are, from blue to red.

    A file is taken as it is.  Of a folder, and the folders in it, the FITS files whose image contains the position
    (degrees, ICRS) are taken, the deepest inside for each band; files without a sky image, and those that PRODTYPE
    declares weights or masks, are passed over, and those that their names do come last.  Bands are called
    as `as_spelled` takes them.

    Raises
    ------
    InvalidPositionError, SourceNotFoundError
    ImageUnreadableError, NotOnSkyError
        The file cannot be used, or every file of the folder is such; or what is wanted is on none that could be read,
        while others could not be.
    PositionOutsideError
        No image of the folder contains the position.
    BandNotFoundError
        A wanted band is not among those that do.
    """
    check_position(ra, dec)
    if not source.is_dir():
        with open_image(source, ra=ra, dec=dec) as image:
            return _select(source, [Found(source, image.band(bands), image.covers(ra, dec))], bands)
    images = FolderSource(source)
    try:
        found = _select(source, _search(images, ra, dec, bands), bands)
    except (BandNotFoundError, PositionOutsideError) as error:
        raise or_unread(error, images.unread) from error
    if images.unread and not bands:
        _log.warning("%s: %s", source, told_of(images.unread))
    return found


def _search(source: FolderSource, ra: float, dec: float, bands: Sequence[str]) -> list[Found]:
    best: dict[str | None, Found] = {}
    for image, _, deep in source.covering(np.array([[ra, dec]])):
        assert isinstance(image.path, Path)
        each = Found(image.path, image.band(bands), float(deep[0]))
        if each.band not in best or _goodness(each) > _goodness(best[each.band]):
            best[each.band] = each
    if not best:
        usable = {image.path for image in source.images()}
        if not usable and source.unusable:
            raise next(iter(source.unusable.values()))
        raise PositionOutsideError(
            f"ra {ra:.6f}, dec {dec:+.6f} is on none of the {len(usable)} images in {source.name}", ra=ra, dec=dec
        )
    return [best[band] for band in sorted(best, key=by_wavelength)]


def _goodness(found: Found) -> tuple[bool, float]:
    return not is_beside(found.path.name), found.depth


def walk_files(folder: Path, unreadable: Callable[[OSError], object]) -> Iterator[Path]:
    """The FITS files in a folder and below it, one by one, sorted, without hidden ones.

    `unreadable` is told which folder could not be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda each: each.name)
    except OSError as error:
        unreadable(error)
        return
    for each in found:
        if each.name.startswith("."):
            continue
        path = folder / each.name
        if each.is_dir(follow_symlinks=False):
            yield from walk_files(path, unreadable)
        elif is_fits(path) and _is_file(each):
            yield path


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # whoever opens it is told why it cannot be
        return True


def is_fits(path: Path) -> bool:
    """Whether the name is that of a FITS file, packed or not."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in PACKED]
    return bool(suffixes) and suffixes[-1].lower() in SUFFIXES


def _select(source: Path, found: Sequence[Found], bands: Sequence[str]) -> list[Found]:
    if not bands:
        return list(found)
    selected = []
    for band in bands:
        spelled = as_spelled(band, [each.band for each in found])
        if spelled is None:
            there = ", ".join(each.band or "one of unknown band" for each in found)
            raise BandNotFoundError(f"{source.name} has no image in band {band!r} there; it has {there}", band=band)
        selected.append(next(each for each in found if each.band == spelled))
    return selected
