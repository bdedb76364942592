"""Two catalogues as a table of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from absurd.tasks.catalog.cross_match import Match, cross_match
from absurd.tasks.catalog.params import CatalogueParams, CrossmatchParams
from absurd.tasks.catalog.positions import Floats, read_places

COLUMNS = {
    "first_row": "row of the source in the first catalogue, from 0",
    "second_row": "row of it in the second",
    "first_id": "its name in the first catalogue, where a column was told",
    "second_id": "its name in the second",
    "separation_arcsec": "distance of the two places, arcseconds",
    "east_arcsec": "what the second place lies east of the first, arcseconds",
    "north_arcsec": "what it lies north, arcseconds",
    "crowded": "whether either has another candidate within the radius",
}


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    ids: tuple[str | None, ...] | None
    ra: Floats
    dec: Floats


def pair_catalogues(params: CrossmatchParams) -> tuple[Any, dict[str, Any]]:
    """An Arrow table of the pairs, and what is to be told of it.

    Pairs stand in the order of the first catalogue; after them, if that is asked for, what is in the first alone and
    what is in the second alone.  Raises DataError for what cannot be read, or has no place on the sky.
    """
    first, second = (_side(each) for each in (params.first, params.second))
    match = cross_match(first.ra, first.dec, second.ra, second.dec, params.radius_arcsec)
    alone = np.setdiff1d(np.arange(len(first.ra)), match.first), np.setdiff1d(np.arange(len(second.ra)), match.second)
    east, north = match.offset_arcsec(first.ra, first.dec, second.ra, second.dec)
    told = {
        "pairs": len(match.first),
        "crowded": int(match.crowded.sum()),
        "first_alone": len(alone[0]),
        "second_alone": len(alone[1]),
        "median_separation_arcsec": float(np.median(match.separation_arcsec)) if len(match.first) else None,
        "median_east_arcsec": east if len(match.first) else None,
        "median_north_arcsec": north if len(match.first) else None,
    }
    return _table(first, second, match, *(alone if params.unmatched else ((), ()))), told


def _side(catalogue: CatalogueParams | str) -> _Side:
    given = CatalogueParams(path=catalogue) if isinstance(catalogue, str) else catalogue
    return _Side(*read_places(given.path, ra=given.ra_column, dec=given.dec_column, names=given.id_column))


def _table(first: _Side, second: _Side, match: Match, first_alone: Any, second_alone: Any) -> Any:
    import pyarrow as pa

    lone = len(first_alone) + len(second_alone)
    one = [*match.first.tolist(), *first_alone, *[None] * len(second_alone)]
    other = [*match.second.tolist(), *[None] * len(first_alone), *second_alone]
    east, north = match.offsets_arcsec(first.ra, first.dec, second.ra, second.dec)
    numbers = {"separation_arcsec": match.separation_arcsec, "east_arcsec": east, "north_arcsec": north}
    arrays = {
        "first_row": pa.array(one, pa.int64()),
        "second_row": pa.array(other, pa.int64()),
        "first_id": pa.array(_ids(first, one), pa.string()),
        "second_id": pa.array(_ids(second, other), pa.string()),
        **{name: pa.array([*each.tolist(), *[None] * lone], pa.float64()) for name, each in numbers.items()},
        "crowded": pa.array([*match.crowded.tolist(), *[None] * lone], pa.bool_()),
    }
    fields = [pa.field(name, arrays[name].type, metadata={"description": COLUMNS[name]}) for name in COLUMNS]
    return pa.table([arrays[name] for name in COLUMNS], schema=pa.schema(fields))


def _ids(side: _Side, rows: list[int | None]) -> list[str | None]:
    return [None if side.ids is None or row is None else side.ids[row] for row in rows]
