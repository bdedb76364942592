"""Cut-outs for learning: many of one shape in one Parquet file or Zarr store, as (n, bands, y, x)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from absurd.tasks.artifact import write_aside
from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.tensor_layout import AXES, Append, Layout
from absurd.tasks.cutout.tensor_zarr import read_zarr, zarr_store

ROWS_OF_A_GROUP = 1024


class TensorFile:
    """Tensors, written piece by piece; use it as a context manager.  What it makes appears when it is whole.

    A path that ends in ``.zarr`` is a Zarr store, see `absurd.tasks.cutout.tensor_zarr`, any other a Parquet file.
    That has columns ``row`` (number of the request, from 0), ``id``, ``pixels`` and ``mask`` (1 where a pixel has no
    value), both Arrow tensors of a fixed shape: `pyarrow.FixedShapeTensorArray.to_numpy_ndarray` gives (n, bands, y,
    x).  The footer names the bands.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: tuple[int, int, int],
        *,
        bands: Sequence[str],
        normalisation: str = "none",
        private: bool = False,
    ) -> None:
        if len(bands) != shape[0]:
            raise DataIdValidationError(f"{len(bands)} bands are named for tensors of {shape[0]}")
        self.rows = 0
        self._layout = Layout(shape, tuple(bands), normalisation)
        self._store = _store(Path(path), self._layout, private=private)
        self._stack = ExitStack()
        self._append: Append

    def __enter__(self) -> Self:
        self._append = self._stack.enter_context(self._store)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def add(
        self,
        rows: NDArray[np.int64],
        ids: Sequence[str | None],
        pixels: NDArray[np.float32],
        valid: NDArray[np.bool_],
    ) -> range:
        """Append cut-outs, pixels and `valid` of shape (n, bands, y, x); gives their places in the file."""
        if pixels.shape[1:] != self._layout.shape:
            raise DataIdValidationError(
                f"cut-outs of shape {pixels.shape[1:]} do not go into tensors of {self._layout.shape}"
            )
        self._append(rows, ids, np.ascontiguousarray(pixels, dtype=np.float32), np.ascontiguousarray(~valid))
        first, self.rows = self.rows, self.rows + len(rows)
        return range(first, self.rows)


def read_tensors(path: str | os.PathLike[str]) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Row numbers, pixels and where they are valid, (n, bands, y, x), of what `TensorFile` has written."""
    if _is_zarr(Path(path)):
        return read_zarr(Path(path))
    table = pq.read_table(path).combine_chunks()
    pixels, mask = (_stacked(table[name]) for name in ("pixels", "mask"))
    return table["row"].to_numpy(), pixels, mask == 0


def _store(path: Path, layout: Layout, *, private: bool) -> AbstractContextManager[Append]:
    return (zarr_store if _is_zarr(path) else _parquet)(path, layout, private=private)


def _is_zarr(path: Path) -> bool:
    return path.suffix == ".zarr"


@contextmanager
def _parquet(path: Path, layout: Layout, *, private: bool) -> Iterator[Append]:
    pixel, mask = (pa.fixed_shape_tensor(kind, layout.shape, dim_names=AXES) for kind in (pa.float32(), pa.uint8()))
    schema = pa.schema(
        [("row", pa.int64()), ("id", pa.string()), ("pixels", pixel), ("mask", mask)],
        metadata={"absurd.bands": "\n".join(layout.bands), "absurd.normalisation": layout.normalisation},
    )
    with (
        write_aside(path, private=private) as part,
        pq.ParquetWriter(
            part,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False,
            use_byte_stream_split=["pixels"],
            write_statistics=["row"],
        ) as writer,
    ):

        def append(
            rows: NDArray[np.int64], ids: Sequence[str | None], pixels: NDArray[np.float32], masked: NDArray[np.bool_]
        ) -> None:
            arrays = [
                pa.array(rows, pa.int64()),
                pa.array(ids, pa.string()),
                _tensors(pixels, pixel),
                _tensors(masked.astype(np.uint8), mask),
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=ROWS_OF_A_GROUP)

        yield append


def _tensors(stacked: NDArray[Any], kind: Any) -> Any:
    """Cut-outs, (n, bands, y, x) and contiguous, as Arrow has them; its own way refuses an array of one."""
    values = pa.array(stacked.reshape(-1))
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(values, int(np.prod(kind.shape))))


def _stacked(column: Any) -> Any:
    """A column of tensors as one array."""
    whole = column.combine_chunks()
    return (whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole).to_numpy_ndarray()
