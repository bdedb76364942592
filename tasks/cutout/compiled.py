"""The kernels in C: see kernels.h, whose structures stand here once more.

They are built when the package is installed where a C compiler is; without one, numpy and astropy give the same pixels.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.boxes import Boxes

_LAYOUT = 1
DONE, LOSSLESS, DAMAGED, UNREAD, NO_MEMORY = range(1, 6)
"""What became of a box or a tile; 0 where nothing was wanted of it."""

_RANDOMS = 10000


class _Boxes(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_int32),
        ("item", ctypes.c_int32),
        ("start", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("ny", ctypes.c_int64),
        ("nx", ctypes.c_int64),
        ("n", ctypes.c_int64),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("slot", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("status", ctypes.c_void_p),
    )


class _Tiles(ctypes.Structure):
    _fields_ = (
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("heap", ctypes.c_int64),
        ("offset", ctypes.c_void_p),
        ("length", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("zero", ctypes.c_void_p),
        ("blank", ctypes.c_void_p),
        ("bytepix", ctypes.c_int32),
        ("block", ctypes.c_int32),
        ("method", ctypes.c_int32),
        ("seed", ctypes.c_int32),
        ("real", ctypes.c_int32),
        ("spare", ctypes.c_int32),
    )


@cache
def library() -> Any:
    """The compiled kernels; None where they were not built, or built from other sources than these."""
    found = find_spec("absurd.tasks.cutout._kernels")
    if found is None or found.origin is None or sys.byteorder != "little":
        return None
    try:
        loaded = ctypes.CDLL(found.origin)
        if loaded.absurd_cutout_layout() != _LAYOUT:
            return None
    except (OSError, AttributeError):
        return None
    loaded.absurd_gather.restype = loaded.absurd_randoms.restype = None
    loaded.absurd_gather.argtypes = [ctypes.c_void_p]
    loaded.absurd_rice.argtypes = [ctypes.c_void_p] * 3
    loaded.absurd_randoms.argtypes = [ctypes.c_void_p]
    return loaded


@cache
def _randoms() -> NDArray[np.float32]:
    """The numbers of subtractive dithering."""
    randoms = np.empty(_RANDOMS, np.float32)
    library().absurd_randoms(_address(randoms))
    return randoms


def gather(fd: int, start: int, boxes: Boxes, out: NDArray[Any], slots: NDArray[np.int64]) -> NDArray[np.int8]:
    """Cut boxes out of a plain image that begins at `start` of a file, into ``out[slots]``; what became of each.

    `out` is (n, ny, nx), each box contiguous, of the type that the file holds but for the byte order.
    """
    status = np.zeros(len(slots), np.int8)
    held = _specify(fd, start, boxes, out, slots, status)
    library().absurd_gather(ctypes.byref(held.boxes))
    return status


def rice(
    fd: int,
    start: int,
    boxes: Boxes,
    out: NDArray[Any],
    slots: NDArray[np.int64],
    *,
    tile_shape: tuple[int, int],
    heap: int,
    offsets: NDArray[np.int64],
    lengths: NDArray[np.int64],
    scales: NDArray[np.float64] | None,
    zeros: NDArray[np.float64] | None,
    blanks: NDArray[np.int32] | None,
    bytepix: int,
    block: int,
    method: int,
    seed: int,
) -> NDArray[np.int8]:
    """Cut boxes out of tiles compressed by RICE_1, into ``out[slots]``; what became of each tile.

    The heap of `heap` bytes begins at `start` of the file; the arrays have an element for each tile, row by row.
    Without `scales` and `zeros` the pixels are integers; else floats of the type of `out`.  Raises MemoryError.
    """
    status = np.zeros(len(offsets), np.int8)
    held = _specify(fd, start, boxes, out, slots, status)
    tiles = _Tiles(
        *tile_shape,
        heap,
        _address(offsets),
        _address(lengths),
        _address(scales),
        _address(zeros),
        _address(blanks),
        bytepix,
        block,
        method,
        seed,
        scales is not None,
    )
    randoms = _randoms()  # held here: where threads make them at once, the cache keeps one's and lets go of the others'
    ended = library().absurd_rice(ctypes.byref(held.boxes), ctypes.byref(tiles), _address(randoms))
    if ended == NO_MEMORY:
        raise MemoryError("there is not enough memory to sort the tiles of an image")
    return status


class _Held:
    """A structure, and the arrays that it points into."""

    def __init__(self, boxes: _Boxes, *arrays: NDArray[Any]) -> None:
        self.boxes = boxes
        self.arrays = arrays


def _specify(
    fd: int,
    start: int,
    boxes: Boxes,
    out: NDArray[Any],
    slots: NDArray[np.int64],
    status: NDArray[np.int8],
) -> _Held:
    x, y = (np.ascontiguousarray(boxes.origins[:, axis]) for axis in (0, 1))
    slots = np.ascontiguousarray(slots, np.int64)
    inner = out.itemsize * boxes.shape[1]
    if out.shape[1:] != boxes.shape or out.strides[1:] != (inner, out.itemsize):
        raise ValueError(f"the array of shape {out.shape} does not hold contiguous boxes of shape {boxes.shape}")
    held = _Boxes(
        fd,
        out.itemsize,
        start,
        *boxes.image_shape,
        *boxes.shape,
        len(slots),
        _address(x),
        _address(y),
        _address(slots),
        _address(out),
        out.strides[0],
        _address(status),
    )
    return _Held(held, x, y, slots, out, status)


def _address(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data
