"""FITS files as images of the sky: which HDU, which WCS, and sections of the pixels."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.errors import AbsurdError
from absurd.tasks.cutout.bands import band_in_headers, band_in_name
from absurd.tasks.cutout.errors import (
    ImageUnreadableError,
    NotOnSkyError,
    PlaneNotFoundError,
    SourceNotFoundError,
)
from absurd.tasks.cutout.geometry import Slices, to_pixel
from absurd.tasks.cutout.ranged import RemoteFile
from absurd.tasks.quiet import quiet

BLOCK = 2880
"""Bytes that FITS files are made of; the end of the last may be missing without harm."""

PACKED = (".gz", ".bz2", ".xz", ".zip", ".Z")
"""Ends of the names of files that are compressed as a whole."""

NOT_AN_IMAGE = frozenset({"wtmap", "dqmask", "expmap"})
"""PRODTYPE of files that belong to an image: weights, data quality, exposure."""

AN_IMAGE = frozenset({"image", "sci"})
"""EXTNAME of HDUs that are the image itself, wherever they stand among others."""

BESIDE_AN_IMAGE = frozenset({"mask", "variance", "psf", "weight", "wht", "err", "dq", "var", "ivar"})
"""EXTNAME of HDUs that belong to an image, though they have its WCS."""

_HCOMPRESS = threading.Lock()
"""Held while astropy unpacks it: the C under it keeps its place in static variables, and runs without the GIL.

Two threads at once get an error ("bad format code"), and now and then, without a word, pixels that are not the file's.
"""


def mask_bits(header: Any) -> dict[str, int]:
    """The bit of each plane of a mask, by its name, from 0: MP_<name> of the mask's header (lsst.afw.image.Mask)."""
    return {key[3:]: int(header[key]) for key in header if key.startswith("MP_")}


def meaning_of(header: Any) -> dict[str, Any]:
    """The cards that tell what the numbers of a plane are: BUNIT, and MP_<name> of a mask."""
    told = {key: header[key] for key in header if key == "BUNIT" or key.startswith("MP_")}
    return {key: value for key, value in told.items() if isinstance(value, str | int)}  # a card may have no value


@dataclass(frozen=True, slots=True, eq=False)
class FitsImage:
    """An image HDU of an open FITS file."""

    path: Path | RemoteFile
    hdus: Any
    """The open `astropy.io.fits.HDUList`."""
    hdu: int
    """Place of the image's HDU in the file, from 0."""
    wcs: Any
    """`astropy.wcs.WCS` of the two celestial axes, with all distortions."""

    @property
    def header(self) -> Any:
        """The image's own header."""
        return self.hdus[self.hdu].header

    @property
    def name(self) -> str:
        """The file's name, for messages and headers: without its folder."""
        return self.path.name

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx) of the image."""
        ny, nx = self.hdus[self.hdu].shape[-2:]
        return int(ny), int(nx)

    @property
    def unit(self) -> str | None:
        """BUNIT of the header."""
        return str(self.header.get("BUNIT", "")).strip() or None

    def band(self, wanted: Iterable[str] = ()) -> str | None:
        """The band by the headers, the image's own first, else by the file's name."""
        return band_in_headers(self.header, self.hdus[0].header) or band_in_name(self.path.name, wanted)

    def covers(self, ra: float, dec: float) -> float:
        """Pixels from an ICRS position in degrees to the nearest edge of the image; negative outside it."""
        pixel = to_pixel(self.wcs, ra, dec)
        if pixel is None:
            return -np.inf
        (x, y), (ny, nx) = pixel, self.shape
        return min(x + 0.5, y + 0.5, nx - 0.5 - x, ny - 0.5 - y)

    def read(self, section: Slices) -> NDArray[Any]:
        """Pixels of (y, x) slices, scaled by BSCALE and BZERO, in the byte order of this machine.

        Reads no more of the file than it must.  Integers that are BLANK become NaN, which makes them floats.
        """
        return self.section(self.hdus[self.hdu], section)

    def plane(self, name: str, section: Slices) -> NDArray[Any]:
        """As `read`, of the HDU whose EXTNAME is `name`, in capitals or not.

        Raises PlaneNotFoundError if there is none, or it has another shape than the image.
        """
        return self.section(self.named(name), section)

    def places_of(self, name: str) -> list[int]:
        """The HDUs of that EXTNAME which belong to this image, from 0.

        Where several images have one name, as the chips of a camera, those with the EXTVER of this one; where they
        have no EXTVER of their own, those between this one and the next.
        """
        own = self.hdus[self.hdu]
        places = [place for place, hdu in enumerate(self.hdus) if hdu.name.lower() == name.lower()]
        alike = [place for place, hdu in enumerate(self.hdus) if own.name and hdu.is_image and hdu.name == own.name]
        if len(alike) < 2:
            return places
        if len({self.hdus[place].ver for place in alike}) == len(alike):
            return [place for place in places if self.hdus[place].ver == own.ver]
        end = next((place for place in alike if place > self.hdu), len(self.hdus))
        return [place for place in places if self.hdu <= place < end]

    def named(self, name: str) -> Any:
        """The HDU that `plane` reads; raises as it."""
        named = [self.hdus[place] for place in self.places_of(name)]
        if not named:
            names = (
                ", ".join(hdu.name.lower() for hdu in self.hdus if hdu.name and hdu.is_image and hdu.shape) or "none"
            )
            raise PlaneNotFoundError(f"{self.name} has no plane called {name!r}; it has {names}", plane=name)
        if tuple(named[0].shape[-2:]) != self.shape:
            raise PlaneNotFoundError(
                f"plane {name!r} of {self.name} has the shape {named[0].shape}, the image {self.shape}", plane=name
            )
        return named[0]

    def section(self, hdu: Any, section: Slices) -> NDArray[Any]:
        """As `read`, of another HDU of the file."""
        with _reading(self.path), _alone(hdu):
            self.check_whole(hdu)
            extra = (0,) * (len(hdu.shape) - 2)
            pixels: NDArray[Any] = np.asarray(hdu.section[(*extra, *section)])
            return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)

    def check_whole(self, hdu: Any) -> None:
        """Raise ImageUnreadableError for a file that ends before the pixels do, wherever the section lies."""
        if self.path.suffix in PACKED:
            return  # its length tells nothing; unpacking finds the end
        from astropy.io import fits

        info = hdu.fileinfo()
        if info is None:
            return
        whole = not isinstance(hdu, fits.CompImageHDU)
        needed = info["datLoc"] + (hdu.size if whole else info["datSpan"] - (BLOCK - 1))
        have = self.path.size if isinstance(self.path, RemoteFile) else self.path.stat().st_size
        if have < needed:
            raise ImageUnreadableError(f"{self.name} is truncated: it has {have} bytes of {needed}", source=self.name)


@contextmanager
def open_image(
    path: Path | RemoteFile, *, ra: float | None = None, dec: float | None = None, hdu: int | None = None
) -> Iterator[FitsImage]:
    """Open a FITS file, plain or compressed in any way that astropy reads, at its image of the sky.

    That is the one in `hdu` (from 0), else the first of its `own_images` with two celestial axes; given a position, the
    one with the position deepest inside if any has it.  Of a file that is all weights, the first of these.  Axes of
    length 1 beside the celestial ones are dropped.

    Raises
    ------
    SourceNotFoundError
        The file does not exist, or has no such HDU.
    ImageUnreadableError
        It is not FITS, or damaged.
    NotOnSkyError
        No image in it has a celestial WCS.
    """
    with open_images(path, hdu=hdu) as images:
        candidates = own_images(images) or images
        if ra is not None and dec is not None and len(candidates) > 1:
            with _reading(path):
                depths = [max(candidate.covers(ra, dec), -1.0) for candidate in candidates]
            yield candidates[depths.index(max(depths))]
        else:
            yield candidates[0]


@contextmanager
def open_images(path: Path | RemoteFile, *, hdu: int | None = None) -> Iterator[list[FitsImage]]:
    """As `open_image`, with all its images of the sky: one at least.

    Cards are read when they are asked for: what goes wrong with them in the block is an ImageUnreadableError as well.
    """
    with opened(path) as file:
        try:
            with _reading(path):
                from astropy.io import fits

                hdus = fits.open(file, memmap=False)
        except FileNotFoundError:
            raise SourceNotFoundError(f"there is no file {path}", source=str(path)) from None
        with hdus, _reading(path):
            yield list(_on_sky(path, hdus, hdu))


def own_images(images: list[FitsImage]) -> list[FitsImage]:
    """Those of the images of a file that are no weights or masks of another; none of a file that is all weights.

    First what is called an image, wherever in the file it stands, then as they stand there.
    """
    if str(images[0].hdus[0].header.get("PRODTYPE", "")).strip().lower() in NOT_AN_IMAGE:
        return []
    named = [(each.hdus[each.hdu].name.lower(), each) for each in images]
    own = [(name, each) for name, each in named if name not in BESIDE_AN_IMAGE] or named
    return [each for _, each in sorted(own, key=lambda one: one[0] not in AN_IMAGE)]


@contextmanager
def opened(path: Path | RemoteFile) -> Iterator[Any]:
    """What astropy opens: a path, or a remote file of which it reads no more than it must.

    Raises ImageUnreadableError for a remote file that is packed as a whole.
    """
    if not isinstance(path, RemoteFile):
        yield path
        return
    if path.suffix in PACKED:
        raise ImageUnreadableError(
            f"{path.name} is packed as a whole, so that no part of it can be read",
            advice="download it",
            source=path.name,
        )
    with path.open() as file:
        yield file


def _on_sky(path: Path | RemoteFile, hdus: Any, hdu: int | None) -> Iterator[FitsImage]:
    """The images with a celestial WCS; at least one, or an error that tells why the last was none."""
    _check_order(hdus)
    if hdu is not None and not 0 <= hdu < len(hdus):
        raise SourceNotFoundError(f"{path.name} has {len(hdus)} HDUs, from 0; there is no {hdu}", source=path.name)
    reasons = []
    found = False
    for place, each in enumerate(hdus) if hdu is None else [(hdu, hdus[hdu])]:
        reason = _why_not_image(each)
        if reason is None:
            wcs, reason = _celestial_wcs(each.header, hdus)
            if reason is None:
                found = True
                yield FitsImage(path, hdus, place, wcs)
                continue
        reasons.append(f"HDU {place} {reason}")
    if not found:
        raise NotOnSkyError(f"{path.name} has no image with a celestial WCS: {'; '.join(reasons)}", source=path.name)


def _check_order(hdus: Any) -> None:
    """Raise ValueError where an HDU has a size below 0: astropy would read those before it again, for ever."""
    before = -1
    for each in hdus:
        start = each.fileinfo()["hdrLoc"]
        if start <= before:
            raise ValueError("one of its HDUs ends before it begins")
        before = start


def _why_not_image(hdu: Any) -> str | None:
    """Why an HDU is no image of two axes; None if it is one."""
    if not hdu.is_image:
        return "is a table"
    if hdu.shape is None or len(hdu.shape) < 2 or 0 in hdu.shape:
        return "has no pixels"
    if any(length != 1 for length in hdu.shape[:-2]):
        return f"is a cube of shape {tuple(hdu.shape)}"
    return None


def read_wcs(header: Any, hdus: Any = None) -> Any:
    """The WCS of the first two axes of an image; `hdus` are its file's, where tables of distortions may be."""
    from absurd.tasks.cutout.sky_wcs import SkyWCS

    further = max(header["NAXIS"], header.get("WCSAXES", 0)) > 2  # a WCS may have more axes than there are pixels along
    with quiet():  # what astropy mends while it reads, and says, changes no meaning
        return SkyWCS(header, fobj=hdus, naxis=[1, 2] if further else None)


def _celestial_wcs(header: Any, hdus: Any) -> tuple[Any, str | None]:
    """The celestial WCS of the first two axes, or why there is none."""
    try:
        with quiet():
            wcs = read_wcs(header, hdus)
            if not wcs.has_celestial or wcs.naxis != 2:
                kinds = [kind for kind in list(wcs.wcs.ctype)[:2] if kind]
                return None, f"has axes {' and '.join(kinds)}" if kinds else "has no WCS"
            wcs.wcs.set()
    except (ValueError, KeyError, AssertionError, OSError) as error:
        return None, f"has a WCS that cannot be used ({' '.join(str(error).split())})"
    return wcs, None


def _alone(hdu: Any) -> AbstractContextManager[Any]:
    """What to hold while pixels of an HDU are read."""
    return _HCOMPRESS if str(getattr(hdu, "compression_type", "")).startswith("HCOMPRESS") else nullcontext()


@contextmanager
def _reading(path: Path | RemoteFile) -> Iterator[None]:
    """Turn what astropy raises over a file that is not as it should be into one error.

    That may be anything: KeyError, VerifyError, and what its C raises, of which nothing but Exception is a base.
    """
    try:
        with quiet():  # truncation is checked for; the rest is about style
            yield
    except (FileNotFoundError, MemoryError, AbsurdError):
        raise
    except Exception as error:
        reason = " ".join(str(error).partition("If this is really a FITS file")[0].split()) or type(error).__name__
        raise ImageUnreadableError(f"{path.name} cannot be read as FITS: {reason}", source=path.name) from error
