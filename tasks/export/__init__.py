"""Exports of PostgreSQL queries to Parquet, exactly; executors ``export.*``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.export.arrow_types import PGOID_TO_ARROW, arrow_type_for_oid
    from absurd.tasks.export.errors import ExportConfigError, ExportFailedError, ExportQueryError, UnfitValueError
    from absurd.tasks.export.fast_export import build_dsn, export_query_to_parquet, load_config
    from absurd.tasks.export.query import ExportResult, export_query
    from absurd.tasks.export.row_group import DEFAULT_ROW_GROUP_SIZE

__all__ = [
    "DEFAULT_ROW_GROUP_SIZE",
    "PGOID_TO_ARROW",
    "ExportConfigError",
    "ExportFailedError",
    "ExportQueryError",
    "ExportResult",
    "UnfitValueError",
    "arrow_type_for_oid",
    "build_dsn",
    "export_query",
    "export_query_to_parquet",
    "load_config",
]

_MODULES = {
    "PGOID_TO_ARROW": "arrow_types",
    "arrow_type_for_oid": "arrow_types",
    "ExportConfigError": "errors",
    "ExportFailedError": "errors",
    "ExportQueryError": "errors",
    "UnfitValueError": "errors",
    "build_dsn": "fast_export",
    "export_query_to_parquet": "fast_export",
    "load_config": "fast_export",
    "ExportResult": "query",
    "export_query": "query",
    "DEFAULT_ROW_GROUP_SIZE": "row_group",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: pyarrow and the driver take their time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
