"""Processes that must not outlive the one that started them, even when that is killed."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # loaded here: between fork and exec it could wait for a lock for ever


def _stop_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


stop_with_parent: Callable[[], None] | None = _stop_with_parent if sys.platform == "linux" else None
"""The ``preexec_fn`` of a process that is asked to stop when its parent dies, where the system can do that."""
