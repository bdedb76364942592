"""Parquet files, folders of them, and HATS trees as a catalogue: only the row groups that can match are read.

A HATS tree (https://hats.readthedocs.io) has files ``dataset/Norder=k/Dir=d/Npix=n.parquet``, each with the rows in
pixel n of order k, and ``hats.properties`` (or ``properties``) with the names of the columns of positions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from absurd.tasks.cutout.catalogs.filters import Where, ranges_of
from absurd.tasks.cutout.catalogs.healpix import centre_of, radius_of
from absurd.tasks.cutout.catalogs.region import picked, position_in
from absurd.tasks.cutout.catalogs.rows import Rows, degrees_of, one_schema, with_units
from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError, SourceNotFoundError
from absurd.tasks.cutout.regions import Region
from absurd.tasks.cutout.retry import Deadline, RetryPolicy, policies

_PIXEL = re.compile(r"Norder=(\d+)/(?:Dir=\d+/)?Npix=(\d+)(?:\.parquet|/)")


class ParquetCatalog:
    """A Parquet file, a folder of them, or a HATS tree.

    `position` names its columns of right ascension and declination, where they are not told by ``hats.properties`` or
    one of `POSITIONS`.  `row_groups_read` counts what was read.  What may pass, as of a disk behind a network, is tried
    again as `retry` has it, row group by row group; without one as `policies` has it.
    """

    def __init__(
        self, path: str | Path, *, position: tuple[str, str] | None = None, retry: RetryPolicy | None = None
    ) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.row_groups_read = 0
        self._position = position
        self._retry = retry or policies()["read"]

    def stream(
        self, region: Region | None = None, columns: Sequence[str] | None = None, where: Sequence[Where] = ()
    ) -> Rows:
        """The rows in a region that pass all comparisons, in the order of files and rows; a row group is in memory.

        Raises SourceNotFoundError, DataIdValidationError (a column that is not there) and CutoutExtractionError (a
        file that cannot be read), the last while rows are read as well.
        """
        first, *others = self._files()
        schema = self._schema(first)
        position = self._columns_of_position(schema) if region is not None else None
        wanted = list(schema.names if columns is None else columns)
        needed = list(dict.fromkeys([*wanted, *(position or ()), *(each.column for each in where)]))
        unknown = [name for name in needed if name not in schema.names]
        if unknown:
            raise DataIdValidationError(
                f"{self.name} has no column {', '.join(unknown)}; it has {', '.join(schema.names)}"
            )
        schema = pa.schema([schema.field(name) for name in needed])
        paths = [path for path in (first, *others) if _may_hold_pixel(path, self.path, region)]
        for path in paths:
            schema = one_schema(schema, self._schema(path), path.name)
        typed = [each.of(schema.field(each.column).type) for each in where]
        parts = (
            picked(part, region, position, typed).select(wanted)
            for path in paths
            for part in self._groups(path, schema, region, position, typed)
        )
        return Rows(pa.schema([schema.field(name) for name in wanted]), parts)

    def _files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        found = [
            each
            for each in sorted(self.path.rglob("*.parquet"))
            if not each.name.startswith(("_", ".", "data_thumbnail")) and each.is_file()
        ]
        trees = [each for each in found if _PIXEL.search(each.relative_to(self.path).as_posix())]
        if not found:
            raise SourceNotFoundError(f"there is no Parquet file at {self.path}", source=str(self.path))
        return trees or found  # a tree has files beside its rows that are none of them

    def _open(self, path: Path) -> Any:
        try:
            return self._retry.call(lambda _: parquet.ParquetFile(path))
        except (pa.ArrowInvalid, OSError) as error:
            raise CutoutExtractionError(f"{path.name} cannot be read as Parquet: {error}", source=path.name) from error

    def _schema(self, path: Path) -> Any:
        with self._open(path) as file:
            return with_units(file.schema_arrow)

    def _groups(
        self, path: Path, schema: Any, region: Region | None, position: tuple[str, str] | None, where: Sequence[Where]
    ) -> Iterator[Any]:
        scales = [degrees_of(schema.field(name)) for name in position or ()]
        with self._open(path) as file:
            for number in range(file.num_row_groups):
                ranges = ranges_of(file.metadata.row_group(number))
                if not _may_hold(ranges, region, position, scales, where):
                    continue
                self.row_groups_read += 1
                try:
                    part = self._row_group(path, file, number, schema.names).select(schema.names).cast(schema)
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
                    raise CutoutExtractionError(f"{path.name} cannot be read: {error}", source=path.name) from error
                yield part

    def _row_group(self, path: Path, file: Any, number: int, names: list[str]) -> Any:
        """Of a file that is open; once that has failed, of the file opened anew."""
        tried = False

        def read(_: Deadline) -> Any:
            nonlocal tried
            if not tried:
                tried = True
                return file.read_row_group(number, columns=names)
            with parquet.ParquetFile(path) as again:
                return again.read_row_group(number, columns=names)

        return self._retry.call(read)

    def _columns_of_position(self, schema: Any) -> tuple[str, str]:
        told = self._position or _told_by_properties(self.path)
        return told or position_in(schema.names, self.name)


def _told_by_properties(path: Path) -> tuple[str, str] | None:
    for name in ("hats.properties", "properties"):
        file = path / name
        if file.is_file():
            lines = [line.partition("=") for line in file.read_text(encoding="utf-8").splitlines()]
            told = {key.strip(): value.strip() for key, _, value in lines}
            if "hats_col_ra" in told and "hats_col_dec" in told:
                return told["hats_col_ra"], told["hats_col_dec"]
    return None


def _may_hold_pixel(path: Path, root: Path, region: Region | None) -> bool:
    """Whether a file of a HATS tree can have a row in the region; other files can."""
    found = _PIXEL.search(path.relative_to(root).as_posix()) if path != root else None
    if region is None or found is None:
        return True
    order, pixel = int(found[1]), int(found[2])
    (ra, dec), radius = centre_of(order, pixel), radius_of(order)
    bounds = region.bounds()
    low, high = dec - radius, dec + radius
    if high < bounds.dec[0] or low > bounds.dec[1]:
        return False
    if low <= -90 or high >= 90:
        return True
    half = math.degrees(math.asin(min(1.0, math.sin(math.radians(radius)) / math.cos(math.radians(dec))))) + 1e-9
    return any(start - half <= ra + turn <= end + half for start, end in bounds.ra for turn in (-360, 0, 360))


def _may_hold(
    ranges: Any,
    region: Region | None,
    position: tuple[str, str] | None,
    scales: Sequence[float],
    where: Sequence[Where],
) -> bool:
    """Whether rows with columns in these ranges can be wanted; `scales` are `degrees_of` the columns of position."""
    if region is not None and position is not None:
        bounds = region.bounds()
        for name, scale, wanted in zip(position, scales, (bounds.ra, [bounds.dec]), strict=True):
            if name in ranges:
                low, high = (end * scale for end in ranges[name])
                turned = (-360, 0, 360) if name == position[0] else (0,)  # right ascensions may be given below 0
                if not any(low + turn <= end and start <= high + turn for start, end in wanted for turn in turned):
                    return False
    return all(each.may_hold(*ranges[each.column]) for each in where if each.column in ranges)
