"""FITS files at addresses as a source: their headers are read by ranges, and of their pixels what is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from absurd.tasks.cutout.errors import ButlerConnectionError, RippleError
from absurd.tasks.cutout.ranged import RemoteFile, shown
from absurd.tasks.cutout.sources.folder import FolderSource, Read, _Image, read_images

AT_ONCE = 16
"""Addresses that are asked at once: what takes time is the way to the server and back."""


class RemoteSource(FolderSource):
    """The images in files at addresses: ``https://``, ``s3://`` or another that fsspec knows.

    The headers of a file are read once, and again when its server tells another version.  `unreachable` tells of
    addresses that did not answer when they were asked last, `unusable` of files without an image of the sky.
    """

    is_local = False

    def __init__(self, addresses: Iterable[str]) -> None:
        super().__init__("")
        self.addresses = tuple(dict.fromkeys(addresses))
        self.name = ", ".join(map(shown, self.addresses[:3])) + (", ..." if len(self.addresses) > 3 else "")
        self.unreachable: dict[str, RippleError] = {}

    def images(self) -> list[_Image]:
        """All there are now, in the order of the addresses; `AT_ONCE` of these are asked at once.

        Raises ButlerConnectionError if none of the addresses answers.
        """
        if not self.addresses:
            return []
        found: dict[str, list[_Image]] = {}
        new: dict[str, RemoteFile] = {}
        with ThreadPoolExecutor(min(AT_ONCE, len(self.addresses)), "cutout-remote") as threads:
            told = dict(zip(self.addresses, threads.map(_asked, self.addresses), strict=True))
            with self._lock:  # who comes meanwhile finds the headers read
                for address, file in told.items():
                    if isinstance(file, RemoteFile):
                        still = self._still(file, _version(file))
                        if still is None:
                            new[address] = file
                        else:
                            found[address] = still
                for (address, file), read in zip(new.items(), threads.map(_headers, new.values()), strict=True):
                    if isinstance(read, ButlerConnectionError):
                        told[address] = read
                    else:
                        found[address] = self._remember(file, _version(file), read)
        self.unreachable = {name: each for name, each in told.items() if isinstance(each, RippleError)}
        if len(self.unreachable) == len(self.addresses):
            first = next(iter(self.unreachable.values()))
            raise ButlerConnectionError(f"none of {len(self.addresses)} addresses answers: {first}") from first
        return [image for address in self.addresses for image in found.get(address, ())]


def _asked(address: str) -> RemoteFile | RippleError:
    try:
        return RemoteFile.of(address)
    except RippleError as error:
        return error


def _headers(file: RemoteFile) -> Read | ButlerConnectionError:
    try:
        return read_images(file, _version(file))
    except ButlerConnectionError as error:
        return error


def _version(file: RemoteFile) -> str:
    return file.version or str(file.size)
