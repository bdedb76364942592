"""Values that can be cached: plain data and arrays, in memory and as bytes; nothing in them is ever executed.

None, bool, int, float, str, bytes, numpy arrays without Python objects, and lists, tuples, dicts of them with text as
keys.  A header with a WCS is kept as its text.  Pickle would take all, and run what a shared folder holds.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

_OVERHEAD = 64
"""Bytes that a Python object or an array takes beside its content, about."""
_SCALARS: tuple[type[Any], ...] = (bool, int, float, str, bytes)


def frozen(value: Any) -> Any:
    """A copy of `value` that nobody can change: its arrays are read-only.  Raises TypeError for what cannot be cached.

    Scalars of numpy become numbers of Python, so that memory and disk give the same.
    """
    if value is None or type(value) in _SCALARS:
        return value
    if isinstance(value, np.ndarray):
        copy = plain_copy(value)
        copy.flags.writeable = False
        return copy
    if isinstance(value, np.generic) and not isinstance(value, np.longdouble):  # which Python's numbers cannot hold
        return frozen(value.item())
    if isinstance(value, tuple | list):
        inner = [frozen(each) for each in value]
        return tuple(inner) if isinstance(value, tuple) else inner
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"a dict with the key {name!r} cannot be cached: keys must be texts")
        return {str(name): frozen(each) for name, each in value.items()}
    for plain in _SCALARS:  # enumerations and other kinds of text and numbers
        if isinstance(value, plain):
            return plain(value)
    raise TypeError(f"a {type(value).__qualname__} cannot be cached; plain data and numpy arrays can")


def plain_copy(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy of `array`, with zeros in the gaps of its records, so that equal arrays have equal bytes.

    numpy copies a record field by field; what then lies in its gaps is whatever the memory held before.
    Raises TypeError unless `array` is only its numbers: masks and units would get lost, objects need pickle.
    """
    if array.dtype.hasobject or type(array) not in (np.ndarray, np.memmap):
        what = "an array of Python objects" if array.dtype.hasobject else f"a {type(array).__qualname__}"
        raise TypeError(f"{what} cannot be cached, nor be part of a key; plain numpy arrays can")
    if array.dtype.names is None:
        return np.array(array, order="K", subok=False)
    order: Literal["F", "C"] = "F" if array.flags.fnc else "C"
    copy = np.zeros(array.shape, array.dtype, order)  # zeros_like would fill the fields alone
    copy[...] = array
    return copy


def handed_out(value: Any) -> Any:
    """A frozen value for a caller: lists and dicts are the caller's own, arrays are shared."""
    if isinstance(value, list):
        return [handed_out(each) for each in value]
    if isinstance(value, tuple):
        return tuple(handed_out(each) for each in value)
    if isinstance(value, dict):
        return {name: handed_out(each) for name, each in value.items()}
    return value


def size_of(value: Any) -> int:
    """Bytes that a frozen value takes in memory."""
    if isinstance(value, np.ndarray):
        return value.nbytes + 2 * _OVERHEAD
    if isinstance(value, list | tuple):
        return _OVERHEAD + sum(8 + size_of(each) for each in value)
    if isinstance(value, dict):
        return _OVERHEAD + sum(_OVERHEAD + len(name) + size_of(each) for name, each in value.items())
    return sys.getsizeof(value)


def arrays_of(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """Every array in `value`, at any depth."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from arrays_of(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from arrays_of(each)


def pack(value: Any) -> bytes:
    """A frozen value as bytes: its structure as JSON, then the bytes of its arrays."""
    arrays: list[bytes] = []
    structure = json.dumps(_structure(value, arrays), separators=(",", ":")).encode()
    return b"".join([len(structure).to_bytes(8, "big"), structure, *arrays])


def unpack(content: bytes | memoryview) -> Any:
    """The value that `pack` made `content` of, frozen.  Raises ValueError for other bytes."""
    content = memoryview(content)
    end = 8 + int.from_bytes(content[:8], "big")
    try:
        value, rest = _value(json.loads(bytes(content[8:end]).decode()), content[end:])
    except (EOFError, LookupError, MemoryError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"no cached value: {error}") from error
    if rest:
        raise ValueError("no cached value: there is more than was said")
    return value


def _structure(value: Any, arrays: list[bytes]) -> Any:
    """JSON for `value`: scalars as they are, all else as a list that begins with its type."""
    if isinstance(value, np.ndarray):
        arrays.append(value.tobytes("A"))
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        return ["array", np.lib.format.dtype_to_descr(value.dtype), value.shape, order]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if isinstance(value, list | tuple):
        return ["list" if isinstance(value, list) else "tuple", *(_structure(each, arrays) for each in value)]
    if isinstance(value, dict):
        return ["dict", *([name, _structure(each, arrays)] for name, each in value.items())]
    return value


def _value(structure: Any, arrays: memoryview) -> tuple[Any, memoryview]:
    """The value of a structure, and the bytes that are not its arrays'."""
    if not isinstance(structure, list):
        return structure, arrays
    kind, *inner = structure
    if kind == "array":
        descr, shape, order = inner
        return _array(descr, shape, order, arrays)
    if kind == "bytes":
        return bytes.fromhex(inner[0]), arrays
    values = []
    for each in inner:
        value, arrays = _value(each[1] if kind == "dict" else each, arrays)
        values.append(value)
    match kind:
        case "list":
            return values, arrays
        case "tuple":
            return tuple(values), arrays
        case "dict":
            return dict(zip((name for name, _ in inner), values, strict=True)), arrays
    raise ValueError(f"no cached value: {kind!r}")


def _array(descr: Any, shape: list[int], order: Literal["C", "F"], arrays: memoryview) -> tuple[Any, memoryview]:
    """The next array: a copy, for only that lies where processors want it."""
    dtype = np.lib.format.descr_to_dtype(_description(descr))
    length = dtype.itemsize * math.prod(shape)
    if dtype.hasobject or length > len(arrays) or min(shape, default=0) < 0:
        raise ValueError("no cached value: an array of Python objects, or more than there is")
    made: np.ndarray[Any, Any] = np.ndarray(shape, dtype, bytes(arrays[:length]), order=order).copy(order="K")
    made.flags.writeable = False
    return made, arrays[length:]


def _description(told: Any) -> Any:
    """What `dtype_to_descr` gave, after JSON has made lists of its tuples."""
    if not isinstance(told, list):
        return told
    return [
        (tuple(name) if isinstance(name, list) else name, _description(inner), *map(tuple, shape))
        for name, inner, *shape in told  # the fields of a record; a name may have a title before it
    ]
