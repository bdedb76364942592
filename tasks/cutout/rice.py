"""Boxes out of images whose tiles are compressed by RICE_1: FITS standard 4.0, 10."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout import compiled
from absurd.tasks.cutout.boxes import Boxes
from absurd.tasks.cutout.gather import Failures, Stored, convert
from absurd.tasks.cutout.geometry import Slices
from absurd.tasks.cutout.ranged import Range
from absurd.tasks.cutout.scaling import Scaling

_METHODS = {"NO_DITHER": -1, "SUBTRACTIVE_DITHER_1": 1, "SUBTRACTIVE_DITHER_2": 2}
_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])([LXBIJKAEDCM]?)(?:\(\d*\))?\s*")
_TYPES = {"L": "u1", "A": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_LIMIT = 1 << 31


@dataclass(frozen=True, slots=True)
class RicePixels:
    """Pixels in compressed tiles; the table of the tiles is read when they are."""

    stored: Stored
    scaling: Scaling
    image_shape: tuple[int, int]
    tile_shape: tuple[int, int]
    table: int
    """Place of the table in the file."""
    n_tiles: int
    row: np.dtype[Any]
    """A row of the table."""
    spare: str | None
    """Column with the tiles that were not compressed by RICE_1, if there may be any."""
    spare_type: str
    """What numbers it holds; bytes are compressed by gzip."""
    heap: int
    """Place of the heap in the file."""
    heap_size: int
    bytepix: int
    block: int
    method: int
    seed: int
    blank: int | None
    """ZBLANK of the header, where the table has no column of it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.scaling.dtype

    def cut(self, boxes: Boxes, out: NDArray[Any], slots: NDArray[np.int64]) -> Failures:
        failures: Failures = {}

        def read(target: NDArray[Any], places: NDArray[np.int64]) -> None:
            with self.stored.opened() as file:
                fd = file.fd
                file.need([(self.table, self.n_tiles * self.row.itemsize)])
                table = self._table(fd)
                file.need(self._ranges(table, boxes))
                status = self._decode(fd, table, boxes, target, places)
                for tile in np.flatnonzero(status > compiled.DONE):
                    reason = f"tile {tile} is damaged"
                    if status[tile] == compiled.LOSSLESS:
                        try:
                            pixels = self._lossless(fd, table[tile], int(tile))
                        except (OSError, ValueError, zlib.error) as error:
                            reason += f" ({error})"
                        else:
                            for i, in_tile, in_box in self._parts(boxes, int(tile)):
                                target[(places[i], *in_box)] = pixels[in_tile]
                            continue
                    elif status[tile] == compiled.NO_MEMORY:
                        reason = f"there is not enough memory for tile {tile}"
                    for i, _, _ in self._parts(boxes, int(tile)):
                        failures[i] = self.stored.unreadable(reason)

        convert(self.scaling, boxes, out, slots, read)
        return failures

    def _table(self, fd: int) -> NDArray[Any]:
        size = self.n_tiles * self.row.itemsize
        held = os.pread(fd, size, self.table)
        if len(held) < size:
            raise self.stored.unreadable("it ends within the table of its tiles")
        return np.frombuffer(held, self.row)

    def _ranges(self, table: NDArray[Any], boxes: Boxes) -> Iterator[Range]:
        """Where the tiles are that have pixels of the boxes."""
        across = -(-self.image_shape[1] // self.tile_shape[1])
        tiles: set[int] = set()
        for _, (y, x), _ in boxes.sections():
            rows, columns = (
                range(part.start // side, (part.stop - 1) // side + 1)
                for part, side in zip((y, x), self.tile_shape, strict=True)
            )
            tiles.update(row * across + column for row in rows for column in columns)
        columns_ = [("COMPRESSED_DATA", 1)]
        if self.spare is not None:
            columns_.append((self.spare, np.dtype(self.spare_type).itemsize))
        for name, item in columns_:
            for length, offset in table[name][sorted(tiles)].tolist():
                if length > 0 and 0 <= offset <= self.heap_size - length * item:
                    yield self.heap + offset, length * item

    def _decode(
        self, fd: int, table: NDArray[Any], boxes: Boxes, target: NDArray[Any], places: NDArray[np.int64]
    ) -> NDArray[np.int8]:
        names = self.row.names or ()
        quantized = self.scaling.bitpix < 0
        blanks = None
        if quantized and "ZBLANK" in names:
            blanks = np.ascontiguousarray(table["ZBLANK"], np.int32)
        elif quantized and self.blank is not None:
            blanks = np.full(self.n_tiles, self.blank, np.int32)
        lengths, offsets = np.ascontiguousarray(table["COMPRESSED_DATA"].T, np.int64)
        return compiled.rice(
            fd,
            self.heap,
            boxes,
            target,
            places,
            tile_shape=self.tile_shape,
            heap=self.heap_size,
            offsets=offsets,
            lengths=lengths,
            scales=np.ascontiguousarray(table["ZSCALE"], np.float64) if quantized else None,
            zeros=np.ascontiguousarray(table["ZZERO"], np.float64) if quantized else None,
            blanks=blanks,
            bytepix=self.bytepix,
            block=self.block,
            method=self.method,
            seed=self.seed,
        )

    def _corner(self, tile: int) -> tuple[int, int, int, int]:
        """(y, x) of the first pixel of a tile, and its height and width."""
        (height, width), (tall, wide) = self.image_shape, self.tile_shape
        row, column = divmod(tile, -(-width // wide))
        y, x = row * tall, column * wide
        return y, x, min(tall, height - y), min(wide, width - x)

    def _parts(self, boxes: Boxes, tile: int) -> Iterator[tuple[int, Slices, Slices]]:
        """Of each box that has pixels of a tile: its place, and (y, x) slices of the tile and of the box."""
        y, x, tall, wide = self._corner(tile)
        yield from Boxes(boxes.shape, (tall, wide), boxes.origins - np.array([x, y])).sections()

    def _lossless(self, fd: int, row: Any, tile: int) -> NDArray[Any]:
        """The pixels of a tile that would not be quantized, as they are.  Raises OSError, ValueError, zlib.error."""
        if self.spare is None:
            raise ValueError("it has no data")
        _, _, tall, wide = self._corner(tile)
        length, offset = (int(each) for each in row[self.spare])
        item = np.dtype(self.spare_type).itemsize
        if length <= 0 or offset < 0 or offset + length * item > self.heap_size:
            raise ValueError("it has no data in the file")
        held = os.pread(fd, length * item, self.heap + offset)
        if self.spare == "UNCOMPRESSED_DATA":
            return np.frombuffer(held, self.spare_type).reshape(tall, wide)
        unpacked = zlib.decompressobj(wbits=47).decompress(held, 8 * tall * wide + 1)
        bits = 8 * len(unpacked) // (tall * wide)
        kind = "f" if self.scaling.bitpix < 0 and bits > 16 else "i"
        return np.frombuffer(unpacked, f">{kind}{bits // 8}" if bits > 8 else "u1").reshape(tall, wide)


def rice_pixels(
    stored: Stored, header: Mapping[str, Any], scaling: Scaling, image_shape: tuple[int, int], table: int
) -> RicePixels | None:
    """What `header`, of the table at `table` in the file, tells of tiles; None if they are not of the usual kinds."""
    if header.get("ZCMPTYPE") not in ("RICE_1", "RICE_ONE") or scaling.bitpix not in (8, 16, 32, -32, -64):
        return None
    row = _row(header)
    names = (row and row.names) or ()
    if row is None or "COMPRESSED_DATA" not in names or _array_type(header, "COMPRESSED_DATA") != "u1":
        return None
    settings: dict[str, Any] = {
        str(header[f"ZNAME{i}"]).upper(): header.get(f"ZVAL{i}") for i in range(1, 100) if f"ZNAME{i}" in header
    }
    bytepix, block = settings.get("BYTEPIX", 4), settings.get("BLOCKSIZE", 32)
    quantized = "ZSCALE" in names and "ZZERO" in names
    method = _METHODS.get(str(header.get("ZQUANTIZ", "NO_DITHER")).strip())
    seed = header.get("ZDITHER0", 0)
    blank = header.get("ZBLANK", header.get("BLANK"))
    tile_shape = (header.get("ZTILE2", 1), header.get("ZTILE1", image_shape[1]))
    n_tiles = header["NAXIS2"]
    usual = (
        bytepix in (1, 2, 4)
        and all(isinstance(each, int) and 0 < each < _LIMIT for each in (block, *tile_shape, *image_shape))
        and quantized == (scaling.bitpix < 0)
        and (not quantized or (bytepix == 4 and method is not None and (method < 0 or 0 < seed < _LIMIT)))
        and (quantized or "ZBLANK" not in names)
        and (blank is None or (isinstance(blank, int) and -_LIMIT <= blank < _LIMIT))
    )
    if not usual or n_tiles != -(-image_shape[0] // tile_shape[0]) * -(-image_shape[1] // tile_shape[1]):
        return None
    spare = next((name for name in ("GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA") if name in names), None)
    spare_type = _array_type(header, spare)
    if spare == "GZIP_COMPRESSED_DATA" and spare_type != "u1":
        return None
    size = header["NAXIS1"] * n_tiles
    heap = header.get("THEAP", size)
    heap_size = header.get("PCOUNT", 0) - (heap - size)
    if table + heap + heap_size > stored.size:
        heap_size = max(0, stored.size - table - heap)
    return RicePixels(
        stored,
        scaling,
        image_shape,
        tile_shape,
        table,
        n_tiles,
        row,
        spare,
        spare_type,
        table + heap,
        heap_size,
        bytepix,
        block,
        method or 0,
        seed,
        blank,
    )


def _row(header: Mapping[str, Any]) -> np.dtype[Any] | None:
    """A row of a binary table; None where it holds what no table of tiles does."""
    fields: list[tuple[Any, ...]] = []
    for i in range(1, header["TFIELDS"] + 1):
        form = _FORM.fullmatch(str(header[f"TFORM{i}"]))
        if form is None:
            return None
        count, kind = int(form[1] or 1), form[2]
        name = str(header.get(f"TTYPE{i}", f"column {i}")).strip().upper()
        if kind in "PQ" and count == 1:
            fields.append((name, ">i4" if kind == "P" else ">i8", (2,)))
        elif kind in _TYPES and count == 1:
            fields.append((name, _TYPES[kind]))
        elif kind in _TYPES:
            fields.append((name, _TYPES[kind], (count,)))
        else:
            return None
    if len({field[0] for field in fields}) < len(fields):
        return None
    row = np.dtype(fields)
    return row if row.itemsize == header["NAXIS1"] else None


def _array_type(header: Mapping[str, Any], name: str | None) -> str:
    """What the arrays of a column hold."""
    for i in range(1, header["TFIELDS"] + 1):
        if name is not None and str(header.get(f"TTYPE{i}", "")).strip().upper() == name:
            form = _FORM.fullmatch(str(header[f"TFORM{i}"]))
            return _TYPES.get(form[3], "") if form else ""
    return ""
