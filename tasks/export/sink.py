"""What a Parquet file is written into: counted and hashed on its way."""

from __future__ import annotations

import hashlib
from typing import IO, Any

import pyarrow as pa


class HashingSink:
    """Passes bytes on to a file, and knows how many there were and their SHA-256.

    For `pyarrow.PythonFile`; a Parquet file is written from its beginning to its end, without going back.
    """

    def __init__(self, file: IO[bytes] | Any) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        self._digest.update(data)
        self.bytes += len(data)
        self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; again does no harm."""
        if not self.closed:
            self.closed = True
            self._file.close()

    @property
    def sha256(self) -> str:
        """64 hexadecimal digits."""
        return self._digest.hexdigest()

    def native(self) -> Any:
        """As Arrow wants it."""
        return pa.PythonFile(self, mode="w")
