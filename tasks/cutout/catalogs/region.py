"""Rows of a table by where they are on the sky."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from absurd.tasks.cutout.catalogs.filters import Where, all_of
from absurd.tasks.cutout.catalogs.rows import degrees_of
from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.regions import Region

POSITIONS = (("ra", "dec"), ("coord_ra", "coord_dec"), ("RAdeg", "DEdeg"), ("RA", "DEC"))
"""Names of columns of right ascension and declination; the first pair that is there."""


def position_in(names: Sequence[str], catalog: str) -> tuple[str, str]:
    """The columns of right ascension and declination among `names`.  Raises DataIdValidationError."""
    for pair in POSITIONS:
        if set(pair) <= set(names):
            return pair
    raise DataIdValidationError(
        f"{catalog} has none of the columns {', '.join('/'.join(pair) for pair in POSITIONS)}",
        advice="name its columns of right ascension and declination in position",
    )


def picked(table: Any, region: Region | None, position: tuple[str, str] | None, where: Sequence[Where]) -> Any:
    """The rows of a table in a region, by its columns of position, that pass all comparisons, in their order.

    Positions are in degrees, or in radians where the column's unit says so.  A row without a position is in no region.
    Raises DataIdValidationError for values that cannot be compared, and for positions in another unit.
    """
    import pyarrow as pa

    if where:
        try:
            table = table.filter(all_of(where, table.schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise _incomparable(table, where, error) from error
    if region is None or position is None:
        return table
    ra, dec = (table[name].to_numpy().astype(np.float64) * degrees_of(table.schema.field(name)) for name in position)
    known = np.isfinite(ra) & np.isfinite(dec)
    inside = np.zeros(len(ra), dtype=bool)
    inside[known] = region.contains(ra[known] % 360, dec[known])
    return table.filter(pa.array(inside))


def _incomparable(table: Any, where: Sequence[Where], error: Exception) -> DataIdValidationError:
    """The error that names the first comparison that no row could pass, by the types of column and value."""
    import pyarrow as pa

    for each in where:
        kind = table.schema.field(each.column).type
        try:
            table.slice(0, 0).filter(each.expression(kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return DataIdValidationError(f"{each.column} is of type {kind}; it cannot be compared with {each.value!r}")
    return DataIdValidationError(f"the columns cannot be compared so: {error}")
