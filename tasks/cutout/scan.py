"""Files into an index of images: the headers of those that are new or have changed, and those that vanished go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from absurd.tasks.cutout.described import Document, images_of
from absurd.tasks.cutout.errors import (
    DataIdValidationError,
    ImageUnreadableError,
    NotOnSkyError,
    RippleError,
    SourceNotFoundError,
)
from absurd.tasks.cutout.sources.folder import version_of, walk_files

FILES_AT_ONCE = 50
"""Files that are looked up, read and put at a time: what a run that is killed has not yet put, it reads again."""
IMAGES_AT_ONCE = 200
"""Images after which files are put before that, as of cameras with many chips: bounds the memory."""
MOST_REASONS = 100
"""Files that the result names with the reason why they cannot be used; it counts all."""


class Client(Protocol):
    """What is asked of a `SyncAbsurdClient`."""

    def put_images(self, index: str, files: Sequence[Document]) -> int: ...
    def forget_images(self, index: str, uris: Iterable[str]) -> int: ...
    def get_image_files(self, index: str, uris: Iterable[str]) -> list[Document]: ...
    def list_image_files(
        self, index: str, folder: str, *, after: str | None = None, limit: int = 1000
    ) -> list[Document]: ...


@dataclass(slots=True)
class Scanned:
    """What a scan has found."""

    files: int = 0
    """FITS files that are there."""
    read: int = 0
    """Those that were opened, as the index had not this version of them."""
    images: int = 0
    """Images in these."""
    forgotten: int = 0
    """Files that have vanished, and are no longer in the index."""
    unusable: int = 0
    """Files and folders that could not be read, or hold no image of the sky."""
    reasons: list[Document] = field(default_factory=list)
    """Of the first of these: path, code, reason."""

    def tell(self, path: str, error: Document) -> None:
        """Count one that cannot be used."""
        self.unusable += 1
        if len(self.reasons) < MOST_REASONS:
            self.reasons.append({"path": path, "code": error["code"], "reason": error["message"]})


def scan(
    client: Client, index: str, places: Sequence[str], *, told: Callable[[Scanned], None] | None = None
) -> Scanned:
    """Put the FITS files at `places`, files and folders with all below them, into an index, which is made if need be.

    Files are opened only if the index has not their version, by size and time of the last change, or they could not
    be read last time.  What cannot be used is told and stops nothing.  Files below the folders that are gone are
    forgotten, but nothing of a folder in which there is no FITS file at all: its disk may not be mounted.  Several
    scans of the same files do no harm to one another.

    Raises
    ------
    SourceNotFoundError
        There is no FITS file at any of the places.
    DataIdValidationError
        One of them is an address, not a path.
    AbsurdError
        What the client raises.
    """
    if any("://" in each for each in places):
        raise DataIdValidationError("an address cannot be scanned", advice="give the path of a file or a folder")
    client.put_images(index, [])
    found = Scanned()
    folders: dict[Path, int] = {}
    waiting = _Waiting(client, index, found)
    gone: list[str] = []
    files = _files([Path(os.path.abspath(each)) for each in places], folders, gone, found)
    while some := list(islice(files, FILES_AT_ONCE)):
        known = {each["uri"]: each for each in client.get_image_files(index, [str(path) for path, _ in some])}
        for path, version in some:
            before = known.get(str(path))
            found.files += 1
            if before is None or before["version"] != version or _may_pass(before["error"]):
                found.read += 1
                waiting.add(_read(path, version, found))
            elif before["error"]:
                found.tell(str(path), before["error"])
            if told is not None:
                told(found)
        waiting.put()
    if not found.files:
        reason = found.reasons[0]["reason"] if found.reasons else f"there is no FITS file in {', '.join(places)}"
        raise SourceNotFoundError(reason, advice="nothing was forgotten", source=", ".join(places))
    found.forgotten += client.forget_images(index, gone)
    for folder, count in folders.items():
        if count:
            found.forgotten += _forget(client, index, folder)
    return found


class _Waiting:
    """Files that are read and not yet in the index."""

    def __init__(self, client: Client, index: str, found: Scanned) -> None:
        self._client = client
        self._index = index
        self._found = found
        self._files: list[Document] = []

    def add(self, file: Document | None) -> None:
        """Put them all if these are many images."""
        if file is not None:
            self._files.append(file)
            if sum(len(each["images"]) for each in self._files) >= IMAGES_AT_ONCE:
                self.put()

    def put(self) -> None:
        """In one transaction."""
        if self._files:
            self._found.images += self._client.put_images(self._index, self._files)
            self._files = []


def _files(
    places: Sequence[Path], folders: dict[Path, int], gone: list[str], found: Scanned
) -> Iterator[tuple[Path, str]]:
    """Each file with its version, one by one; counts those of each folder, and notes places where there is nothing."""
    for place in places:
        folder = place.is_dir()
        if folder:
            folders[place] = 0
        for path in walk_files(place, lambda error: _tell_folder(found, error)) if folder else [place]:
            try:
                str(path).encode()
                version = version_of(path)
            except UnicodeEncodeError:
                name = str(path).encode(errors="surrogateescape").decode(errors="replace")
                found.tell(name, _reason(ImageUnreadableError(f"the name of {name} is not UTF-8", source=name)))
            except FileNotFoundError:
                if not folder:
                    gone.append(str(path))
                    found.tell(str(path), _reason(SourceNotFoundError(f"there is no file {path}", source=str(path))))
            except OSError as error:
                _tell_folder(found, error)
            else:
                if folder:
                    folders[place] += 1
                yield path, version


def _tell_folder(found: Scanned, error: OSError) -> None:
    name = str(error.filename)
    found.tell(name, _reason(ImageUnreadableError(f"{name} cannot be read: {error.strerror}", source=name)))


def _read(path: Path, version: str, found: Scanned) -> Document | None:
    """A file as the index keeps it; None if it has vanished."""
    file: Document = {"uri": str(path), "version": version, "error": None, "images": []}
    try:
        file["images"] = images_of(path)
    except SourceNotFoundError:
        return None
    except RippleError as error:
        file["error"] = _reason(error)
    except Exception as error:  # no file, however odd, may keep the others out of the index
        told = f"{path.name} cannot be understood: {type(error).__name__}: {error}"
        file["error"] = _reason(ImageUnreadableError(told, source=path.name))
    if file["error"]:
        found.tell(str(path), file["error"])
    return file


def _reason(error: RippleError) -> Document:
    return {"code": error.code, "message": error.message}


def _may_pass(error: Document | None) -> bool:
    """Whether a file that could not be used may be usable now, though it has not changed: its rights may have."""
    return error is not None and error["code"] != NotOnSkyError.code


def _forget(client: Client, index: str, folder: Path) -> int:
    """Take files below a folder that are gone out of the index; those that cannot be looked at stay."""
    count, after = 0, None
    while page := [each["uri"] for each in client.list_image_files(index, str(folder), after=after)]:
        after = page[-1]
        gone = [uri for uri in page if _is_gone(uri)]
        if gone:
            count += client.forget_images(index, gone)
    return count


def _is_gone(uri: str) -> bool:
    try:
        os.stat(uri)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
