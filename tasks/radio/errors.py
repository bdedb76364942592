"""What can go wrong between a sub-band's file and a picture, by the stage it goes wrong in."""

from __future__ import annotations

from typing import Any

from absurd.errors import AbsurdError, ConflictError, ExecutionError, InvalidInputError
from absurd.errors import ConfigurationError as CoreConfigurationError


class PipelineError(AbsurdError):
    """Root of the errors of the radio pipeline.

    `details` tells the circumstances by name; `advice` is the way out in words, in the message too if there is any.
    """

    code = "pipeline_failed"

    def __init__(self, message: str, *, advice: str = "", **details: Any) -> None:
        super().__init__(f"{message}: {advice}" if advice else message, **details)
        self.advice = advice


class ConfigurationError(PipelineError, CoreConfigurationError):
    """A key of a configuration or of a telescope is unknown, or has a value that cannot be used."""

    code = "pipeline_configuration"


class ValidationError(PipelineError, InvalidInputError):
    """A parameter of a stage cannot be meant."""

    code = "pipeline_validation"


class DataError(PipelineError, ExecutionError):
    """Visibilities cannot be read, or are not what they should be."""

    code = "visibility_data"


class UnreadableError(DataError):
    """A file of visibilities cannot be read now, or changed while it was read: another attempt may."""

    code = "visibility_unreadable"


class StageError(PipelineError, ExecutionError):
    """A stage could not make its product."""

    code = "stage_failed"


class CalibrationError(StageError):
    """No usable gains: not solved, not valid for these visibilities, or not to be applied to them."""

    code = "calibration_failed"


class ImagingError(StageError):
    """No usable image."""

    code = "imaging_failed"


class MosaickingError(StageError):
    """No usable mosaic."""

    code = "mosaicking_failed"


class PhotometryError(StageError):
    """No usable fluxes."""

    code = "photometry_failed"


class QualityError(StageError):
    """A product was made, and a gate does not let it pass: it is quarantined, and `details` tell each measure."""

    code = "quality_failed"


class DependencyError(PipelineError, ExecutionError):
    """A package or program that the stage needs is not there."""

    code = "pipeline_dependency"


class ServiceError(PipelineError, ExecutionError):
    """A service of the pipeline cannot go on."""

    code = "pipeline_service"


class MessageQueueError(ServiceError):
    """The queue did not take or give a task."""

    code = "pipeline_queue"


class StateManagementError(PipelineError, ConflictError):
    """What is recorded of groups, products or gains contradicts what was asked."""

    code = "pipeline_state"
