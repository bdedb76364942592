"""A catalogue dataset as a table of Arrow, whatever class it is stored as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError

if TYPE_CHECKING:
    from lsst.daf.butler import Butler, DatasetRef


def as_arrow(butler: Butler, ref: DatasetRef, columns: Sequence[str] | None = None, *, patch: int | None = None) -> Any:
    """The dataset as a `pyarrow.Table`: all columns or those wanted, of all rows or those of a patch.

    Only the columns wanted are read of Parquet; other tables of Astropy are read whole.  A table of afw, as `src` of
    DP0.2, is a FITS file whose first table holds its rows; it is read as such.  Raises DataIdValidationError for a
    column that it does not have.
    """
    try:
        arrow = ref.overrideStorageClass("ArrowTable")
    except ValueError:
        return picked(_whole(_from_fits(butler, ref)), columns, patch)
    if "columns" not in ref.datasetType.storageClass.parameters:  # no Parquet
        return picked(_whole(butler.get(ref)), columns, patch)
    there = set(butler.get(arrow.makeComponentRef("schema")).names)
    wanted = None if columns is None else [*columns, *(["patch"] if patch is not None else [])]
    _check(wanted or (), there)
    if wanted is None:
        return picked(butler.get(arrow), None, patch)
    return picked(butler.get(arrow, parameters={"columns": list(dict.fromkeys(wanted))}), columns, patch)


def picked(table: Any, columns: Sequence[str] | None, patch: int | None) -> Any:
    """Columns of a table, all for None, and the rows of a patch.  Raises DataIdValidationError."""
    import pyarrow.compute as pc

    if patch is not None:
        _check(["patch"], set(table.column_names))
        table = table.filter(pc.equal(table["patch"], patch))
    if columns is None:
        return table
    _check(columns, set(table.column_names))
    return table.select(list(columns))


def _check(wanted: Sequence[str], there: set[str]) -> None:
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise DataIdValidationError(
            f"the catalogue has no column {', '.join(unknown)}; it has {', '.join(sorted(there))}"
        )


def _whole(table: Any) -> Any:
    from astropy.table import Table
    from lsst.daf.butler.formatters.parquet import astropy_to_arrow

    if not isinstance(table, Table | np.ndarray):
        raise CutoutExtractionError(f"the dataset is no table but a {type(table).__name__}")
    return astropy_to_arrow(Table(table, copy=False))  # of a QTable, whose columns are quantities, too


def _from_fits(butler: Butler, ref: DatasetRef) -> Any:
    from astropy.table import Table

    uri = butler.getURI(ref)
    with uri.as_local() as local:
        return Table.read(local.ospath, format="fits", hdu=1, unit_parse_strict="silent")
