"""Loops that are compiled when they are first called, and kept compiled on the disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numba
from numba.core.compiler_lock import global_compiler_lock

F = TypeVar("F", bound=Callable[..., object])

_held: set[str] = set()
"""Files that this process keeps others from; guarded by numba's own lock."""

_CONFIG: Any = numba.config  # it fills itself from a table, which tells a type checker nothing


def kernel(function: F) -> F:
    """Compile a loop over arrays; it runs without the GIL, and may call other kernels.

    Sums are made in the order in which they are written: the same input gives the same bits.  Of processes that want
    it at the same time one compiles it, and the others wait and load what that one has put on the disk.
    """
    return _compiled(function, 0)


def vector_kernel(function: F) -> F:
    """As `kernel`, for sums side by side of neighbours in memory, which are added a vector at a time.

    A product and a sum are rounded once where the processor can: processors may differ in the last bit.
    """
    return _compiled(function, 1, fastmath={"contract"})


def reordering_kernel(function: F) -> F:
    """As `kernel`, with sums in the order that fills vectors: the same bits on processors of one kind."""
    return _compiled(function, 0, fastmath={"reassoc", "contract", "nsz"})


def _compiled(function: F, vectors: int, **options: Any) -> F:
    compiled: Any = numba.njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    load_or_compile = compiled.compile

    def load_or_compile_alone(signature: object) -> object:
        # numba's own lock first, as where one kernel calls another: two threads would wait for each other.
        with global_compiler_lock, _alone(function.__code__.co_filename):
            # numba has this for all functions of a process or for none, and by default for none.
            before, _CONFIG.SLP_VECTORIZE = _CONFIG.SLP_VECTORIZE, vectors or _CONFIG.SLP_VECTORIZE
            try:
                return load_or_compile(signature)
            finally:
                _CONFIG.SLP_VECTORIZE = before

    compiled.compile = load_or_compile_alone
    kept: F = compiled
    return kept


@contextmanager
def _alone(source: str) -> Iterator[None]:
    """Wait until no other process compiles kernels of the file `source`, and keep others from it.

    Nobody else does: of two processes that save a kernel at once, for arguments of different types, numba gives one the
    code of the other, and so wrong numbers.  Where the file system has no locks, nobody is kept from it.
    """
    if source in _held:
        yield
        return
    descriptor = os.open(source, os.O_RDONLY)
    _held.add(source)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _held.discard(source)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile has the descriptor too
        os.close(descriptor)
