"""Small cut-outs that were made before: given again without reading a file, as long as their files are the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os.path import abspath
from typing import Any

import numpy as np

from absurd.tasks.cutout.batch import Batch
from absurd.tasks.cutout.cache import MISSING, CacheManager
from absurd.tasks.cutout.cache_key import CacheKey, Version
from absurd.tasks.cutout.fetched import Fetched
from absurd.tasks.cutout.header import wcs_of
from absurd.tasks.cutout.images import ImageRef, local_path
from absurd.tasks.cutout.parsed import MOST_FILES, ParsedFile
from absurd.tasks.cutout.ranged import is_remote
from absurd.tasks.cutout.request import PSF, CutoutRequest

MOST_PIXELS = 128 * 128
"""Of a cut-out that is kept there are fewer, in each band."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A place in the cache that was looked at."""

    key: CacheKey
    versions: tuple[Version, ...]
    """Of the files, before they are read."""
    batch: Batch | None
    """What was there: a batch of one."""
    psf: CacheKey | None = None
    """Where the plane of the point-spread function has its place, if it is wanted."""


class KeptCutouts:
    """Cut-outs of fewer than 128 x 128 pixels in a cache (kind "cutout"), with the headers they need (kind "wcs").

    A plane of the point-spread function is of a kind of its own ("psf"): for as long as `cache_ttl` says of it.
    Found by the images and their versions, the position, the shape and the planes, which are the box on each image.
    Kept is what lies wholly on its images: beyond them others may come to be.  For several threads.
    """

    def __init__(self, cache: CacheManager) -> None:
        self._cache = cache
        self._files: OrderedDict[tuple[Any, ...], ParsedFile] = OrderedDict()
        self._lock = threading.Lock()

    def look(self, request: CutoutRequest, shape: tuple[int, int], images: Sequence[ImageRef]) -> Looked | None:
        """What is kept of a request; None if it is of no kind that is."""
        local = [each for each in images if not is_remote(each.uri)]
        if shape[0] * shape[1] >= MOST_PIXELS or not all(each.version for each in images if each not in local):
            return None
        told, files = _told(tuple(map(_hashed, images)))
        box = (request.ra, request.dec, *shape)
        key = CacheKey.of("cutout", told, box, request.planes, files=files)
        psf = CacheKey.of("psf", told, box, files=files) if PSF in request.planes else None
        versions = key.versions()
        found = self._cache.get(key)
        if found is not MISSING and psf is not None:
            of_psf = self._cache.get(psf)
            found = of_psf if of_psf is MISSING else found | {"pixels": found["pixels"] | of_psf}
        of_file = dict(zip((each.uri for each in local), versions, strict=True))
        parsed = (
            [] if found is MISSING else [self._file(each, request.planes, of_file.get(each.uri)) for each in images]
        )
        if found is MISSING or None in parsed:
            return Looked(key, versions, None, psf)
        batch = Batch(
            rows=np.zeros(1, np.int64),
            positions=np.array([[request.ra, request.dec]]),
            bands=tuple(each.band for each in images),
            shape=shape,
            pixels={name: np.array(found["pixels"][name])[None] for name in request.planes},
            pixel_positions=np.array(found["pixel_positions"])[None],
            origins=np.array(found["origins"])[None],
            n_outside=np.zeros((1, len(images)), np.int64),
            errors={},
            plane_errors={},
            files=[parsed],
        )
        return Looked(key, versions, batch, psf)

    def put(self, looked: Looked, row: Fetched) -> None:
        """Keep a cut-out, if it is whole."""
        batch, columns = row.batch, list(row.columns)
        if row.error is not None or row.without or row.stitched or batch is None:
            return
        files = [batch.files[row.place][column] for column in columns]
        if batch.n_outside[row.place, columns].any() or any(each is None or each.tables for each in files):
            return
        of_file = dict(zip(looked.key.files, looked.versions, strict=True))
        for image, file in zip(row.images, files, strict=True):
            assert file is not None
            version = None if is_remote(image.uri) else of_file[abspath(local_path(image.uri))]
            self._keep_header(image, row.planes, file, version)
        value = {
            "pixels": {name: row.plane(name) for name in row.planes if name != PSF},
            "pixel_positions": batch.pixel_positions[row.place, columns],
            "origins": batch.origins[row.place, columns],
        }
        self._cache.put(looked.key, value, versions=looked.versions)
        if looked.psf is not None:
            self._cache.put(looked.psf, {PSF: row.plane(PSF)}, versions=looked.versions)

    def _keep_header(self, image: ImageRef, planes: tuple[str, ...], file: ParsedFile, version: Version) -> None:
        name = (*_hashed(image), planes, version)
        with self._lock:
            if name in self._files:
                return
            self._remember(name, file)
        told = {each: getattr(file, each) for each in ("name", "hdu", "shape", "unit", "band", "meanings")}
        texts = {"header": file.header.tostring(), "primary": file.primary.tostring()}
        key = _header_key(image, planes)
        self._cache.put(key, told | texts, versions=(version,) if key.files else ())

    def _file(self, image: ImageRef, planes: tuple[str, ...], version: Version) -> ParsedFile | None:
        """What an image's headers told, without where its pixels are; None if that is not kept."""
        name = (*_hashed(image), planes, version)
        with self._lock:
            if name in self._files:
                return self._files[name]
        found = self._cache.get(_header_key(image, planes))
        if found is MISSING:
            return None
        from astropy.io.fits import Header

        header, primary = (Header.fromstring(found.pop(each)) for each in ("header", "primary"))
        file = ParsedFile(wcs=wcs_of(header, ()), header=header, primary=primary, tables=(), planes={}, **found)
        with self._lock:
            self._remember(name, file)
        return file

    def _remember(self, name: tuple[Any, ...], file: ParsedFile) -> None:
        self._files[name] = file
        while len(self._files) > MOST_FILES:
            self._files.popitem(last=False)


def _hashed(image: ImageRef) -> tuple[Any, ...]:
    """What tells an image from all others; of local files their own versions are looked at as well."""
    return image.uri, image.version, image.band, *sorted(image.hdus.items())


@lru_cache(maxsize=1024)
def _told(images: tuple[tuple[Any, ...], ...]) -> tuple[str, tuple[str, ...]]:
    """A word for images, the same in every process, and the paths of those that are local files."""
    files = tuple(abspath(local_path(uri)) for uri, *_ in images if not is_remote(uri))
    return CacheKey.of("cutout", images).digest, files


def _header_key(image: ImageRef, planes: tuple[str, ...]) -> CacheKey:
    """The headers of an image, and of the planes that were wanted of it."""
    told, files = _told(((*_hashed(image), *planes),))
    return CacheKey.of("wcs", told, files=files)
