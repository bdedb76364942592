"""What files need beyond `open`: names that outlive a loss of power, and locks that are asked for without waiting."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def persist_names(folder: str | Path) -> None:
    """Make the names in a folder survive a loss of power; the content of files is persisted by those who write it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file, unless it is locked already: then False.  It ends with the last copy of the descriptor."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
