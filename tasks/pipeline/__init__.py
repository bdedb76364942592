"""The radio pipeline on top of the queue: its configuration, its simulator, blocks from recording to light curve."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.pipeline.blocks import ProcessingBlock
    from absurd.tasks.pipeline.config import PipelineConfig
    from absurd.tasks.pipeline.environments import environment_names, load_pipeline_config, pipeline_config_schema
    from absurd.tasks.pipeline.health import HealthCheck, HealthChecker
    from absurd.tasks.pipeline.metrics import PipelineMetrics
    from absurd.tasks.pipeline.orchestrator import PipelineOrchestrator
    from absurd.tasks.pipeline.outcome import ProcessingResult
    from absurd.tasks.pipeline.stages import stage_params
    from absurd.tasks.pipeline.workflows import block_workflow
    from absurd.tasks.radio.errors import (
        CalibrationError,
        ConfigurationError,
        DataError,
        DependencyError,
        ImagingError,
        MessageQueueError,
        MosaickingError,
        PhotometryError,
        PipelineError,
        QualityError,
        ServiceError,
        StageError,
        StateManagementError,
        ValidationError,
    )

__all__ = [
    "CalibrationError",
    "ConfigurationError",
    "DataError",
    "DependencyError",
    "HealthCheck",
    "HealthChecker",
    "ImagingError",
    "MessageQueueError",
    "MosaickingError",
    "PhotometryError",
    "PipelineConfig",
    "PipelineError",
    "PipelineMetrics",
    "PipelineOrchestrator",
    "ProcessingBlock",
    "ProcessingResult",
    "QualityError",
    "ServiceError",
    "StageError",
    "StateManagementError",
    "ValidationError",
    "block_workflow",
    "environment_names",
    "load_pipeline_config",
    "pipeline_config_schema",
    "stage_params",
]

_MODULES = {
    "HealthCheck": "pipeline.health",
    "HealthChecker": "pipeline.health",
    "PipelineConfig": "pipeline.config",
    "PipelineMetrics": "pipeline.metrics",
    "PipelineOrchestrator": "pipeline.orchestrator",
    "ProcessingBlock": "pipeline.blocks",
    "ProcessingResult": "pipeline.outcome",
    "block_workflow": "pipeline.workflows",
    "environment_names": "pipeline.environments",
    "load_pipeline_config": "pipeline.environments",
    "pipeline_config_schema": "pipeline.environments",
    "stage_params": "pipeline.stages",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is; errors come from the floor that all stages stand on."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"absurd.tasks.{_MODULES.get(name, 'radio.errors')}"), name)
