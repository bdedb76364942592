"""Cut-outs of FITS images at sky positions; executors ``cutout.*``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.cutout.batch import Batch, cut_batch, cut_stream
    from absurd.tasks.cutout.cache import CacheManager
    from absurd.tasks.cutout.cache_statistics import MemoryAlert
    from absurd.tasks.cutout.catalogs.butler import ButlerCatalog
    from absurd.tasks.cutout.catalogs.columns import to_astropy
    from absurd.tasks.cutout.catalogs.fetch import Join, fetch_catalog
    from absurd.tasks.cutout.catalogs.filters import Where
    from absurd.tasks.cutout.catalogs.parquet import ParquetCatalog
    from absurd.tasks.cutout.catalogs.write import write_catalog
    from absurd.tasks.cutout.config import ButlerConfig
    from absurd.tasks.cutout.coordinates import CoordinateConverter
    from absurd.tasks.cutout.engine import Cutout, extract
    from absurd.tasks.cutout.errors import (
        AllSourcesFailedError,
        BandNotFoundError,
        ButlerConfigError,
        ButlerConnectionError,
        CircuitOpenError,
        CollectionError,
        CoordinateConversionError,
        CutoutExtractionError,
        DataIdValidationError,
        DeadlineError,
        ImageUnreadableError,
        InvalidPositionError,
        InvalidSizeError,
        NotOnSkyError,
        PerformanceError,
        PlaneNotFoundError,
        PositionOutsideError,
        RippleError,
        SourceNotFoundError,
    )
    from absurd.tasks.cutout.fetched import Fetched
    from absurd.tasks.cutout.fetcher import LsstDataFetcher
    from absurd.tasks.cutout.images import ImageRef
    from absurd.tasks.cutout.output import write_fits
    from absurd.tasks.cutout.performance import PerformanceMetrics, PerformanceMonitor, Threshold
    from absurd.tasks.cutout.preview import write_preview
    from absurd.tasks.cutout.products import write_products
    from absurd.tasks.cutout.prometheus import serve_metrics
    from absurd.tasks.cutout.regions import Circle, Polygon, RaDecBox
    from absurd.tasks.cutout.request import CutoutRequest
    from absurd.tasks.cutout.sky_map import RingsSkyMap, sky_map_named, sky_map_of
    from absurd.tasks.cutout.sources.butler import ButlerClient
    from absurd.tasks.cutout.sources.butler_source import ButlerSource, VisitSource
    from absurd.tasks.cutout.sources.folder import FolderSource, find_images
    from absurd.tasks.cutout.sources.index import IndexSource
    from absurd.tasks.cutout.sources.remote import RemoteSource
    from absurd.tasks.cutout.targets import Targets

__all__ = [
    "AllSourcesFailedError",
    "BandNotFoundError",
    "Batch",
    "ButlerCatalog",
    "ButlerClient",
    "ButlerConfig",
    "ButlerConfigError",
    "ButlerConnectionError",
    "ButlerSource",
    "CacheManager",
    "Circle",
    "CircuitOpenError",
    "CollectionError",
    "CoordinateConversionError",
    "CoordinateConverter",
    "Cutout",
    "CutoutExtractionError",
    "CutoutRequest",
    "DataIdValidationError",
    "DeadlineError",
    "Fetched",
    "FolderSource",
    "ImageRef",
    "ImageUnreadableError",
    "IndexSource",
    "InvalidPositionError",
    "InvalidSizeError",
    "Join",
    "LsstDataFetcher",
    "MemoryAlert",
    "NotOnSkyError",
    "ParquetCatalog",
    "PerformanceError",
    "PerformanceMetrics",
    "PerformanceMonitor",
    "PlaneNotFoundError",
    "Polygon",
    "PositionOutsideError",
    "RaDecBox",
    "RemoteSource",
    "RingsSkyMap",
    "RippleError",
    "SourceNotFoundError",
    "Targets",
    "Threshold",
    "VisitSource",
    "Where",
    "cut_batch",
    "cut_stream",
    "extract",
    "fetch_catalog",
    "find_images",
    "serve_metrics",
    "sky_map_named",
    "sky_map_of",
    "to_astropy",
    "write_catalog",
    "write_fits",
    "write_preview",
    "write_products",
]

_MODULES = {
    "Batch": "batch",
    "ButlerConfig": "config",
    "CacheManager": "cache",
    "Circle": "regions",
    "CoordinateConverter": "coordinates",
    "ButlerCatalog": "catalogs.butler",
    "Join": "catalogs.fetch",
    "ParquetCatalog": "catalogs.parquet",
    "Where": "catalogs.filters",
    "to_astropy": "catalogs.columns",
    "write_catalog": "catalogs.write",
    "ButlerClient": "sources.butler",
    "ButlerSource": "sources.butler_source",
    "Cutout": "engine",
    "CutoutRequest": "request",
    "FolderSource": "sources.folder",
    "Fetched": "fetched",
    "ImageRef": "images",
    "IndexSource": "sources.index",
    "LsstDataFetcher": "fetcher",
    "PerformanceMetrics": "performance",
    "PerformanceMonitor": "performance",
    "Threshold": "performance",
    "MemoryAlert": "cache_statistics",
    "Targets": "targets",
    "cut_batch": "batch",
    "cut_stream": "batch",
    "Polygon": "regions",
    "RaDecBox": "regions",
    "RemoteSource": "sources.remote",
    "RingsSkyMap": "sky_map",
    "VisitSource": "sources.butler_source",
    "extract": "engine",
    "serve_metrics": "prometheus",
    "sky_map_named": "sky_map",
    "sky_map_of": "sky_map",
    "write_fits": "output",
    "write_preview": "preview",
    "write_products": "products",
    "fetch_catalog": "catalogs.fetch",
    "find_images": "sources.folder",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: astropy takes its time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
