"""What routes are given (``Depends``): services on repositories on the adapter of the application."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from absurd.web.adapters import DatabaseAdapter
from absurd.web.repositories import rows
from absurd.web.repositories.interfaces import (
    ArtifactRepositoryProtocol,
    CountRepositoryProtocol,
    ImageRepositoryProtocol,
    MeasurementSetRepositoryProtocol,
    RepositoryProtocol,
    SourceRepositoryProtocol,
)
from absurd.web.services.cache import Cache
from absurd.web.services.images import ImageService
from absurd.web.services.jobs import JobService
from absurd.web.services.measurement_sets import MeasurementSetService
from absurd.web.services.neighbours import NeighbourService
from absurd.web.services.pictures import PictureService
from absurd.web.services.published import PublishedService
from absurd.web.services.records import RecordService
from absurd.web.services.sky import SkyService
from absurd.web.services.sources import SourceService
from absurd.web.services.statistics import StatisticsService


def get_adapter(request: Request) -> DatabaseAdapter:
    """Where the product tables are."""
    adapter: DatabaseAdapter = request.app.state.products
    return adapter


def get_cache(request: Request) -> Cache:
    """What this process keeps."""
    cache: Cache = request.app.state.cache
    return cache


def get_picture_service(request: Request) -> PictureService:
    """Pictures of files."""
    pictures: PictureService = request.app.state.pictures
    return pictures


def get_neighbour_service(request: Request) -> NeighbourService:
    """The configured services beside this one."""
    settings = request.app.state.settings
    return NeighbourService(settings.web_services or {}, settings.timeout_health_check)


Adapter = Annotated[DatabaseAdapter, Depends(get_adapter)]
Kept = Annotated[Cache, Depends(get_cache)]


def get_async_image_repository(adapter: Adapter) -> ImageRepositoryProtocol:
    """Data of images."""
    return rows.ImageRepository(adapter)


def get_async_source_repository(adapter: Adapter) -> SourceRepositoryProtocol:
    """Data of sources."""
    return rows.SourceRepository(adapter)


def get_async_ms_repository(adapter: Adapter) -> MeasurementSetRepositoryProtocol:
    """Data of Measurement Sets."""
    return rows.MeasurementSetRepository(adapter)


def get_async_cal_repository(adapter: Adapter) -> RepositoryProtocol:
    """Data of gain sets."""
    return rows.GainSetRepository(adapter)


def get_async_qa_repository(adapter: Adapter) -> RepositoryProtocol:
    """Data of what gates have measured."""
    return rows.QaRepository(adapter)


def get_async_session_repository(adapter: Adapter) -> RepositoryProtocol:
    """Data of sessions."""
    return rows.SessionRepository(adapter)


def get_async_count_repository(adapter: Adapter) -> CountRepositoryProtocol:
    """Data of how much there is."""
    return rows.CountRepository(adapter)


def get_async_export_repository(adapter: Adapter) -> ArtifactRepositoryProtocol:
    """Data of what exports have published."""
    return rows.ArtifactRepository(adapter, "export")


def get_async_cutout_repository(adapter: Adapter) -> ArtifactRepositoryProtocol:
    """Data of what cut-outs have published."""
    return rows.ArtifactRepository(adapter, "cutout")


def get_async_product_service(adapter: Adapter) -> ImageService:
    """As the image service, of products of any kind."""
    return ImageService(rows.ProductRepository(adapter), "product")


def get_async_sky_service(adapter: Adapter) -> SkyService:
    """Service for pages of the sky."""
    return SkyService(rows.ProductRepository(adapter), rows.SourceRepository(adapter))


def get_async_job_service(adapter: Adapter) -> JobService:
    """Service for jobs."""
    return JobService(rows.ProductRepository(adapter))


ImageData = Annotated[ImageRepositoryProtocol, Depends(get_async_image_repository)]
SourceData = Annotated[SourceRepositoryProtocol, Depends(get_async_source_repository)]
MsData = Annotated[MeasurementSetRepositoryProtocol, Depends(get_async_ms_repository)]
CalData = Annotated[RepositoryProtocol, Depends(get_async_cal_repository)]
QaData = Annotated[RepositoryProtocol, Depends(get_async_qa_repository)]
SessionData = Annotated[RepositoryProtocol, Depends(get_async_session_repository)]
ExportData = Annotated[ArtifactRepositoryProtocol, Depends(get_async_export_repository)]
CutoutData = Annotated[ArtifactRepositoryProtocol, Depends(get_async_cutout_repository)]
CountData = Annotated[CountRepositoryProtocol, Depends(get_async_count_repository)]


def get_async_image_service(repository: ImageData) -> ImageService:
    """Service for images."""
    return ImageService(repository)


def get_async_source_service(repository: SourceData, images: ImageData) -> SourceService:
    """Service for sources."""
    return SourceService(repository, images)


def get_async_ms_service(repository: MsData) -> MeasurementSetService:
    """Service for Measurement Sets."""
    return MeasurementSetService(repository)


def get_async_cal_service(repository: CalData) -> RecordService:
    """Service for gain sets."""
    return RecordService(repository, "gain set")


def get_async_qa_service(repository: QaData) -> RecordService:
    """Service for what gates have measured."""
    return RecordService(repository, "measure of a product")


def get_async_session_service(repository: SessionData) -> RecordService:
    """Service for sessions."""
    return RecordService(repository, "session")


def get_async_export_service(repository: ExportData) -> PublishedService:
    """Service for what exports have published."""
    return PublishedService(repository, "export")


def get_async_cutout_service(repository: CutoutData) -> PublishedService:
    """Service for what cut-outs have published."""
    return PublishedService(repository, "cut-out")


def get_async_stats_service(repository: CountData, cache: Kept) -> StatisticsService:
    """Service for how much there is."""
    return StatisticsService(repository, cache)


Images = Annotated[ImageService, Depends(get_async_image_service)]
Sky = Annotated[SkyService, Depends(get_async_sky_service)]
Jobs = Annotated[JobService, Depends(get_async_job_service)]
Products = Annotated[ImageService, Depends(get_async_product_service)]
Sources = Annotated[SourceService, Depends(get_async_source_service)]
MeasurementSets = Annotated[MeasurementSetService, Depends(get_async_ms_service)]
GainSets = Annotated[RecordService, Depends(get_async_cal_service)]
Measures = Annotated[RecordService, Depends(get_async_qa_service)]
Sessions = Annotated[RecordService, Depends(get_async_session_service)]
Exports = Annotated[PublishedService, Depends(get_async_export_service)]
Cutouts = Annotated[PublishedService, Depends(get_async_cutout_service)]
Statistics = Annotated[StatisticsService, Depends(get_async_stats_service)]
Pictures = Annotated[PictureService, Depends(get_picture_service)]
Neighbours = Annotated[NeighbourService, Depends(get_neighbour_service)]
