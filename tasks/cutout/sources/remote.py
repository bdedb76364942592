"""FITS files at addresses as a source: their headers are read by ranges, and of their pixels what is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from absurd.tasks.cutout.errors import ButlerConnectionError, RippleError
from absurd.tasks.cutout.ranged import RemoteFile, shown
from absurd.tasks.cutout.sources.folder import FolderSource, Read, _Image, read_images

AT_ONCE = 16
"""Addresses that are asked at once, where nothing else is said."""


class RemoteSource(FolderSource):
    """The images in files at addresses: ``https://``, ``s3://`` or another that fsspec knows.

    The headers of a file are read once, and again when its server tells another version.  `unreachable` tells of
    addresses that did not answer when they were asked last, `unusable` of files without an image of the sky, `unread`
    of the first and of damaged files.  At most `at_once` addresses are asked at once: what takes time is the way to the
    server and back.
    """

    is_local = False

    def __init__(self, addresses: Iterable[str], *, at_once: int = AT_ONCE) -> None:
        super().__init__("")
        self.addresses = tuple(dict.fromkeys(addresses))
        self.name = ", ".join(map(shown, self.addresses[:3])) + (", ..." if len(self.addresses) > 3 else "")
        self.unreachable: dict[str, RippleError] = {}
        self._at_once = at_once

    @property
    def unread(self) -> dict[str, RippleError]:
        """Files that are damaged or do not answer, and why."""
        return super().unread | {shown(address): error for address, error in self.unreachable.items()}

    def images(self) -> list[_Image]:
        """All there are now, in the order of the addresses.

        Raises ButlerConnectionError if none of the addresses answers.
        """
        if not self.addresses:
            return []
        found: dict[str, list[_Image]] = {}
        new: dict[str, RemoteFile] = {}
        with ThreadPoolExecutor(min(self._at_once, len(self.addresses)), "cutout-remote") as threads:
            told = dict(zip(self.addresses, threads.map(_asked, self.addresses), strict=True))
            with self._lock:  # who comes meanwhile finds the headers read
                self._forget_versions_before(told)
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

    def test_connection(self) -> bool:
        """Whether any address answers; the first that does is enough, and so is that there is none to ask."""
        return not self.addresses or any(isinstance(_asked(each), RemoteFile) for each in self.addresses)

    def _forget_versions_before(self, told: Mapping[str, RemoteFile | RippleError]) -> None:
        """What was wrong with a file is forgotten once its server tells another version of it."""
        for file in list(self.unusable):
            assert isinstance(file, RemoteFile)
            if isinstance(told[file.address], RemoteFile) and told[file.address] != file:
                del self.unusable[file]


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
