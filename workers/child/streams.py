"""Buffers between a run and its stdout and stderr: lines go out when they end, and everything at the end of a run."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from io import TextIOWrapper

_LINE_BUFFERED = 1  # _IOLBF


def buffer_lines() -> None:
    """Have what is printed be seen at the end of the line, not when a buffer is full; of native code too."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    with suppress(AttributeError, ValueError, OSError):  # a C library that calls it otherwise
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, ctypes.c_size_t(0))


def flush_streams() -> None:
    """Have all that was written lie in the pipes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or replaced, by the executor
            stream.flush()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).fflush(None)
