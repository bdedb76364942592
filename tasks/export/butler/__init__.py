"""Catalogues of an LSST Butler as Parquet files; executor ``export.butler_catalog``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.export.butler.catalog import CatalogResult, extract_catalog
    from absurd.tasks.export.butler.errors import (
        ButlerRepositoryError,
        CatalogReadError,
        CatalogSchemaError,
        FilterIdsError,
    )
    from absurd.tasks.export.butler.filter_ids import read_filter_ids

__all__ = [
    "ButlerRepositoryError",
    "CatalogReadError",
    "CatalogResult",
    "CatalogSchemaError",
    "FilterIdsError",
    "extract_catalog",
    "read_filter_ids",
]

_MODULES = {
    "ButlerRepositoryError": "errors",
    "CatalogReadError": "errors",
    "CatalogResult": "catalog",
    "CatalogSchemaError": "errors",
    "FilterIdsError": "errors",
    "extract_catalog": "catalog",
    "read_filter_ids": "filter_ids",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: the Butler takes seconds."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
