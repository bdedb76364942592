"""Files at addresses, of which no more is read than is wanted: over HTTP by ranges, from stores by their own calls.

`https://` and `http://` are read by fsspec, `s3://` and `gs://` by pyarrow, anything else by what fsspec knows.  What
was read lies in a sparse file in memory, at its own place, so that the kernels read it as they read local files.
"""

from __future__ import annotations

import io
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from absurd.tasks.cutout.errors import (
    ButlerConfigError,
    ButlerConnectionError,
    ImageUnreadableError,
    RippleError,
    SourceNotFoundError,
)

Range = tuple[int, int]
"""First byte and number of bytes."""

GAP = 1 << 15
"""Bytes between two ranges that are read along with them: sooner than another request is answered."""
PIECE = 1 << 23
"""Bytes of one request at most: so much of each is in memory twice."""
AT_ONCE = 8
"""Requests for a file that are not yet answered."""
BLOCK = 1 << 16
"""Bytes that headers are read by."""
STALL = 30.0
"""Seconds for which a server over HTTP may be silent."""
KEPT = 256
"""Blocks of headers that are kept."""

_read: Counter[str] = Counter()
_counting = threading.Lock()


def bytes_read() -> int:
    """How many bytes of remote files this process has read so far."""
    return _read["bytes"]


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at an address, as it was when it was looked at; another version is another file."""

    address: str
    size: int
    version: str
    """What the server tells of its content: a tag, or the time of its last change."""

    @classmethod
    def of(cls, address: str) -> RemoteFile:
        """Ask for its size.  Raises SourceNotFoundError, ButlerConnectionError, ButlerConfigError."""
        with _telling(address):
            files, path = _files(address)
            told = files.info(path)
        size = told.get("size")
        if size is None:
            raise ImageUnreadableError(
                f"{shown(address)} has no length that its server tells, so that no part of it can be asked for",
                advice="download it",
                source=shown(address),
            )
        tags = (told.get(each) for each in ("ETag", "Last-Modified", "mtime", "LastModified", "created"))
        return cls(address, int(size), str(next((each for each in tags if each), "")))

    @property
    def name(self) -> str:
        """Its name without the folders."""
        return urlsplit(self.address).path.rpartition("/")[2]

    @property
    def state(self) -> str:
        """What tells it from what it was or will be: the version, or the size where its server tells none."""
        return self.version or str(self.size)

    @property
    def suffix(self) -> str:
        """The end of its name, with the dot."""
        return os.path.splitext(self.name)[1]

    def __str__(self) -> str:
        return self.address

    def read(self, start: int, length: int) -> bytes:
        """So many bytes of it from a place on.

        Raises ImageUnreadableError: it is shorter, or the server sends no ranges; and as `of`.
        """
        with _telling(self.address), _opened(self) as file:
            file.seek(start)
            held = bytes(file.read(length))
        with _counting:
            _read["bytes"] += len(held)
        if len(held) < length:
            raise ImageUnreadableError(
                f"{self.name} ends at byte {start + len(held)}, before what was asked for; it should have {self.size}",
                advice="it is truncated, or was changed: ask again once it is whole",
                source=shown(self.address),
            )
        return held

    def open(self) -> io.RawIOBase:
        """It as a file, read block by block; for headers."""
        return _Blocks(self)

    def check_unchanged(self) -> None:
        """Raises ImageUnreadableError if it is another by now, and as `of`."""
        if RemoteFile.of(self.address) != self:
            raise ImageUnreadableError(
                f"{self.name} was changed while it was read",
                advice="cut again, once it is written",
                source=shown(self.address),
            )


class Sparse:
    """What was read of a remote file, each byte at its own place of a file in memory."""

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        self.fd = os.memfd_create("cutout", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, file.size)

    def close(self) -> None:
        os.close(self.fd)

    def need(self, ranges: Iterable[Range]) -> None:
        """Have these ranges there.  Raises as `RemoteFile.read`."""
        pieces = list(in_pieces(merged(ranges)))
        if len(pieces) < 2:
            for piece in pieces:
                self._have(piece)
            return
        pool = ThreadPoolExecutor(min(AT_ONCE, len(pieces)), thread_name_prefix="ranges")
        try:
            for _ in pool.map(self._have, pieces):
                pass
        finally:  # after an error nothing more is asked
            pool.shutdown(cancel_futures=True)

    def _have(self, piece: Range) -> None:
        place, length = piece
        held = memoryview(self.file.read(place, length))
        while held:
            written = os.pwrite(self.fd, held, place)
            held, place = held[written:], place + written


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Ranges in order, those with less than `GAP` between them as one."""
    made: list[Range] = []
    for start, length in sorted(each for each in ranges if each[1] > 0):
        if made and start <= sum(made[-1]) + GAP:
            first, so_far = made[-1]
            made[-1] = (first, max(so_far, start + length - first))
        else:
            made.append((start, length))
    return made


def in_pieces(ranges: Iterable[Range]) -> Iterator[Range]:
    """Ranges in order, none longer than `PIECE`."""
    for start, length in ranges:
        yield from ((start + done, min(PIECE, length - done)) for done in range(0, length, PIECE))


def shown(address: str) -> str:
    """An address without what may be a secret: user, password, signature."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def is_remote(uri: str) -> bool:
    """Whether it is an address, and no path or address of a local file."""
    return "://" in uri and not uri.startswith("file://")


class _Blocks(io.RawIOBase):
    """A remote file as astropy reads headers."""

    mode = "rb"

    def __init__(self, file: RemoteFile) -> None:
        self.name = file.name
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._file.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer).cast("B")
        length = max(0, min(len(wanted), self._file.size - self._place))
        if length > BLOCK:  # pixels, as they are
            wanted[:length] = self._file.read(self._place, length)
        else:
            blocks = range(self._place // BLOCK, (self._place + length - 1) // BLOCK + 1) if length else ()
            held = b"".join(_block(self._file, number) for number in blocks)
            first = self._place % BLOCK
            wanted[:length] = held[first : first + length]
        self._place += length
        return length


@lru_cache(maxsize=KEPT)
def _block(file: RemoteFile, number: int) -> bytes:
    start = number * BLOCK
    return file.read(start, min(BLOCK, file.size - start))


@lru_cache(maxsize=64)
def _files_of(scheme: str, host: str) -> Any:
    """The file system of a server, of fsspec."""
    import fsspec

    if scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=STALL, sock_read=STALL)
        return fsspec.filesystem(scheme, client_kwargs={"timeout": timeout})
    try:
        from pyarrow import fs

        found, _ = fs.FileSystem.from_uri(f"{scheme}://{host}")
    except (ImportError, ValueError, NotImplementedError, OSError):
        return fsspec.filesystem(scheme)
    from fsspec.implementations.arrow import ArrowFSWrapper

    return ArrowFSWrapper(found)


def _files(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    parts = urlsplit(address)
    try:
        files = _files_of(parts.scheme, parts.netloc)
    except ModuleNotFoundError as missing:
        raise ButlerConfigError(
            f"{shown(address)} needs the package {missing.name}, which is not installed",
            advice="pip install 'absurd[remote]'",
        ) from None
    except (ImportError, ValueError) as error:
        raise ButlerConfigError(f"{shown(address)} cannot be read: {error}") from None
    return files, address if parts.scheme in ("http", "https") else parts.netloc + parts.path


@contextmanager
def _opened(file: RemoteFile) -> Iterator[Any]:
    files, path = _files(file.address)
    known = {"size": file.size, "cache_type": "none"} if path == file.address else {}
    with files.open(path, "rb", **known) as opened:
        yield opened


@contextmanager
def _telling(address: str) -> Iterator[None]:
    """Turn what file systems raise into our errors, without what may be a secret in the address."""
    name = shown(address)
    try:
        yield
    except RippleError:
        raise
    except FileNotFoundError as error:
        why = error.__cause__  # fsspec has no file wherever a server does not give one
        if why is None or getattr(why, "status", None) in (404, 410):
            raise SourceNotFoundError(f"there is no file {name}", source=name) from None
        raise _unread(name, why) from None
    except PermissionError:
        raise ButlerConnectionError(
            f"{name} may not be read", advice="give credentials that may", source=name
        ) from None
    except ValueError as error:
        if "range" not in str(error):
            raise
        raise ImageUnreadableError(
            f"the server of {name} sends whole files only, no ranges", advice="download it", source=name
        ) from None
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise _unread(name, error) from None


def _unread(name: str, error: BaseException) -> ButlerConnectionError:
    status = getattr(error, "status", None)
    reason = f"HTTP status {status}" if status else type(error).__name__
    told = {"status": status} if status else {}
    return ButlerConnectionError(f"{name} cannot be read: {reason}", source=name, **told)


def _is_of_the_network(error: Exception) -> bool:
    kinds: list[type[Exception]] = [OSError, TimeoutError]
    with suppress(ImportError):
        from aiohttp import ClientError

        kinds.append(ClientError)
    return isinstance(error, tuple(kinds))


def ranges_of_rows(start: int, width: int, boxes: Iterable[tuple[slice, slice]]) -> Iterator[Range]:
    """The bytes of (y, x) slices of rows of `width` bytes, x in bytes too, that begin at `start`."""
    for y, x in boxes:
        length = x.stop - x.start
        if width - length <= GAP:
            yield start + y.start * width + x.start, (y.stop - y.start - 1) * width + length
        else:
            yield from ((start + row * width + x.start, length) for row in range(y.start, y.stop))
