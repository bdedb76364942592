"""FITS files at addresses as a source: their headers are read by ranges, and of their pixels what is wanted."""

from __future__ import annotations

from collections.abc import Iterable

from absurd.tasks.cutout.errors import ButlerConnectionError, RippleError
from absurd.tasks.cutout.ranged import RemoteFile, shown
from absurd.tasks.cutout.sources.folder import FolderSource, _Image


class RemoteSource(FolderSource):
    """The images in files at addresses: ``https://``, ``s3://`` or another that fsspec knows.

    The headers of a file are read once, and again when its server tells another version.  `unreachable` tells of
    addresses that did not answer when they were asked last, `unusable` of files without an image of the sky.
    """

    is_local = False

    def __init__(self, addresses: Iterable[str]) -> None:
        super().__init__("")
        self.addresses = tuple(addresses)
        self.name = ", ".join(map(shown, self.addresses[:3])) + (", ..." if len(self.addresses) > 3 else "")
        self.unreachable: dict[str, RippleError] = {}

    def images(self) -> list[_Image]:
        """All there are now, in the order of the addresses.

        Raises ButlerConnectionError if none of the addresses answers.
        """
        found: list[_Image] = []
        with self._lock:
            self.unreachable.clear()
            for address in self.addresses:
                try:
                    file = RemoteFile.of(address)
                except RippleError as error:
                    self.unreachable[address] = error
                else:
                    found += self._of_version(file, file.version or str(file.size))
        if self.addresses and len(self.unreachable) == len(self.addresses):
            first = next(iter(self.unreachable.values()))
            raise ButlerConnectionError(f"none of {len(self.addresses)} addresses answers: {first}") from first
        return found
