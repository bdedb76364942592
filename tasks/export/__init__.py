"""Exports of PostgreSQL queries to Parquet, exactly; executors ``export.*``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.export.arrow_types import PGOID_TO_ARROW, arrow_type_for_oid, register_type
    from absurd.tasks.export.batch import BatchResult, export_batch
    from absurd.tasks.export.config import load_config
    from absurd.tasks.export.errors import (
        ExportConfigError,
        ExportFailedError,
        ExportQueryError,
        ManifestError,
        SnapshotGoneError,
        UnfitValueError,
    )
    from absurd.tasks.export.fast_export import build_dsn, export_query_to_parquet
    from absurd.tasks.export.manifest import Manifest, open_dataset, read_manifest, verify_manifest
    from absurd.tasks.export.pipeline import DEFAULT_BLOCK_SIZE
    from absurd.tasks.export.query import ExportResult, export_query
    from absurd.tasks.export.row_group import DEFAULT_ROW_GROUP_SIZE

__all__ = [
    "DEFAULT_BLOCK_SIZE",
    "DEFAULT_ROW_GROUP_SIZE",
    "PGOID_TO_ARROW",
    "BatchResult",
    "ExportConfigError",
    "ExportFailedError",
    "ExportQueryError",
    "ExportResult",
    "Manifest",
    "ManifestError",
    "SnapshotGoneError",
    "UnfitValueError",
    "arrow_type_for_oid",
    "build_dsn",
    "export_batch",
    "export_query",
    "export_query_to_parquet",
    "load_config",
    "open_dataset",
    "read_manifest",
    "register_type",
    "verify_manifest",
]

_MODULES = {
    "PGOID_TO_ARROW": "arrow_types",
    "arrow_type_for_oid": "arrow_types",
    "register_type": "arrow_types",
    "ExportConfigError": "errors",
    "ExportFailedError": "errors",
    "ExportQueryError": "errors",
    "ManifestError": "errors",
    "SnapshotGoneError": "errors",
    "UnfitValueError": "errors",
    "BatchResult": "batch",
    "export_batch": "batch",
    "DEFAULT_BLOCK_SIZE": "pipeline",
    "build_dsn": "fast_export",
    "export_query_to_parquet": "fast_export",
    "load_config": "config",
    "Manifest": "manifest",
    "open_dataset": "manifest",
    "read_manifest": "manifest",
    "verify_manifest": "manifest",
    "ExportResult": "query",
    "export_query": "query",
    "DEFAULT_ROW_GROUP_SIZE": "row_group",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: pyarrow and the driver take their time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
