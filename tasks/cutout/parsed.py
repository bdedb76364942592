"""What the headers of an image file tell, read once: its WCS, and where the pixels of its planes are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from absurd.tasks.cutout import compiled
from absurd.tasks.cutout.errors import PlaneNotFoundError, RippleError
from absurd.tasks.cutout.fits_image import PACKED, FitsImage, mask_bits, meaning_of, open_image, opened
from absurd.tasks.cutout.gather import Pixels, PlainPixels, SectionPixels, Stored
from absurd.tasks.cutout.geometry import Box
from absurd.tasks.cutout.header import check_kept, moved_header, tables_of, wcs_of
from absurd.tasks.cutout.images import ImageRef, local_path
from absurd.tasks.cutout.ranged import RemoteFile, is_remote
from absurd.tasks.cutout.request import IMAGE, MASK, VARIANCE
from absurd.tasks.cutout.retry import ONCE, RetryPolicy
from absurd.tasks.cutout.rice import rice_pixels
from absurd.tasks.cutout.scaling import Scaling
from absurd.tasks.quiet import quiet

MOST_FILES = 64
"""Whose headers are kept, those that were wanted last."""
MOST_VERSIONS = 65_536
"""Remote files of which is kept as what they were read last."""


@dataclass(frozen=True, slots=True, eq=False)
class ParsedFile:
    """One image of the sky in a file, and its further planes; no file stays open."""

    name: str
    hdu: int
    shape: tuple[int, int]
    wcs: Any
    header: Any
    primary: Any
    """The header of the file's first HDU."""
    tables: tuple[Any, ...]
    """HDUs with lookup tables of distortions."""
    unit: str | None
    band: str | None
    planes: Mapping[str, Pixels | RippleError]
    """Those that were wanted: where their pixels are, or why they are not to be had."""
    meanings: Mapping[str, Mapping[str, Any]]
    """Of further planes that were wanted: the cards that tell what their numbers are."""

    @property
    def mask_bits(self) -> Mapping[str, int]:
        """The bit of each plane of the mask, by its name (MP_), from 0; none if the mask was not wanted."""
        return mask_bits(self.meanings.get(MASK, {}))


_kept: OrderedDict[tuple[Any, ...], ParsedFile] = OrderedDict()
_versions: OrderedDict[str, str] = OrderedDict()
_lock = threading.Lock()


def parse(ref: ImageRef, planes: Sequence[str], *, retry: RetryPolicy = ONCE) -> ParsedFile:
    """The image of a reference with these planes; its EXTNAME tells the HDU of a plane, else the reference does.

    Headers are read again only if the file has changed, by its size and time.  Raises SourceNotFoundError,
    ImageUnreadableError, NotOnSkyError, and ButlerConnectionError when `retry` tries no more.
    """
    return retry.call(lambda _: _known(ref, planes))


def _known(ref: ImageRef, planes: Sequence[str]) -> ParsedFile:
    stored = Stored.of(RemoteFile.of(ref.uri) if is_remote(ref.uri) else local_path(ref.uri))
    if isinstance(stored.path, RemoteFile):
        with _lock:
            _versions[ref.uri] = stored.path.state
            _versions.move_to_end(ref.uri)
            while len(_versions) > MOST_VERSIONS:
                _versions.popitem(last=False)
    key = (stored, tuple(sorted(ref.hdus.items())), tuple(planes))
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    parsed = _parse(stored, ref, planes)
    with _lock:
        _kept[key] = parsed
        while len(_kept) > MOST_FILES:
            _kept.popitem(last=False)
    return parsed


def version_read(uri: str) -> str | None:
    """As what a remote file was read last, as `RemoteFile.state`; None if that is not known."""
    with _lock:
        return _versions.get(uri)


def forget() -> None:
    """Read the headers of all files again when they are wanted next."""
    with _lock:
        _kept.clear()


def _parse(stored: Stored, ref: ImageRef, planes: Sequence[str]) -> ParsedFile:
    with open_image(stored.path, hdu=ref.hdus.get(IMAGE)) as image:
        named = _named_image(image)
        if named is not None:
            return _parse(stored, replace(ref, hdus={**ref.hdus, IMAGE: named}), planes)
        tables = tables_of(image.hdus)
        for table in tables:
            table.data.shape  # noqa: B018 - it is read now, as the file will be closed
        header, primary = image.header.copy(), image.hdus[0].header.copy()
        half = Box(image.shape, (image.shape[1] // 2, image.shape[0] // 2), image.shape)
        check_kept(image.name, image.wcs, wcs_of(*moved_header(header, primary, tables, half)), half)
        found: dict[str, Pixels | RippleError] = {}
        meanings: dict[str, dict[str, Any]] = {}
        for plane in planes:
            try:
                place = _hdu_of(image, ref, plane)
                pixels = _pixels(stored, image, place)
                if plane == MASK:
                    _check_has_bits(image, pixels.dtype)
                found[plane] = pixels
            except RippleError as error:
                found[plane] = error
            else:
                if plane != IMAGE:
                    meanings[plane] = meaning_of(image.hdus[place].header)
        return ParsedFile(
            name=image.name,
            hdu=image.hdu,
            shape=image.shape,
            wcs=image.wcs,
            header=header,
            primary=primary,
            tables=tables,
            unit=image.unit,
            band=ref.band or image.band(),
            planes=found,
            meanings=meanings,
        )


def _named_image(image: FitsImage) -> int | None:
    """The HDU that is named image, where the one that was taken for it is named as another plane of Rubin's."""
    names = [hdu.name.lower() for hdu in image.hdus]
    return names.index(IMAGE) if names[image.hdu] in (MASK, VARIANCE) and IMAGE in names else None


def _hdu_of(image: FitsImage, ref: ImageRef, plane: str) -> int:
    """The HDU of a plane, of the image's shape.  Raises PlaneNotFoundError."""
    if plane == IMAGE:
        return image.hdu
    own = image.places_of(plane)
    hdu = ref.hdus.get(plane)
    if any(each.name.lower() == plane.lower() for each in image.hdus) and hdu not in own:
        hdu = own[0] if own else None  # it was a guess by the layout of most files: what this one says goes before
    if hdu is None or not 0 <= hdu < len(image.hdus):
        raise PlaneNotFoundError(f"{image.name} has no plane called {plane!r}", plane=plane)
    shape = image.hdus[hdu].shape if image.hdus[hdu].is_image else None
    if shape is None or tuple(shape[-2:]) != image.shape or any(length != 1 for length in shape[:-2]):
        raise PlaneNotFoundError(
            f"plane {plane!r} of {image.name} has the shape {shape}, the image {image.shape}", plane=plane
        )
    return hdu


def _check_has_bits(image: FitsImage, dtype: np.dtype[Any]) -> None:
    """Told of the file, so that no mask of another becomes floating point with it.  Raises PlaneNotFoundError."""
    if dtype.kind not in "iu":
        raise PlaneNotFoundError(
            f"the mask of {image.name} is of {dtype}, which has no bits; it must be of integers", plane=MASK
        )


def _pixels(stored: Stored, image: FitsImage, place: int) -> Pixels:
    """Where the pixels of an HDU are, and how they are to be read.  Raises ImageUnreadableError."""
    from astropy.io import fits

    hdu = image.hdus[place]
    image.check_whole(hdu)
    scaling = Scaling.of(hdu.header, hdu.header["BITPIX"])
    packed = stored.path.suffix in PACKED
    if isinstance(hdu, fits.CompImageHDU):
        if not packed and compiled.library():
            with (
                quiet(),
                opened(stored.path) as file,
                fits.open(file, memmap=False, disable_image_compression=True) as raw,
            ):
                table, start = raw[place].header, raw[place].fileinfo()["datLoc"]
            rice = rice_pixels(stored, table, scaling, image.shape, start)
            if rice is not None:
                return rice
    elif not packed:
        return PlainPixels(stored, hdu.fileinfo()["datLoc"], scaling)
    return SectionPixels(stored, image.hdu, place, np.dtype(scaling.dtype))
