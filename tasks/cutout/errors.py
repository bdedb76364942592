"""What can go wrong between a position and its pixels, by what one does about it."""

from __future__ import annotations

from typing import Any

from absurd.errors import (
    AbsurdError,
    ConfigurationError,
    ConflictError,
    ExecutionError,
    InvalidInputError,
    NotFoundError,
)


class RippleError(AbsurdError):
    """Root of the errors of cut-outs and catalogues.

    `details` tells the circumstances by name; `advice` is the way out in words, in the message too if there is any.
    """

    code = "cutout_failed"

    def __init__(self, message: str, *, advice: str = "", **details: Any) -> None:
        super().__init__(f"{message}: {advice}" if advice else message, **details)
        self.advice = advice


def error_types() -> dict[str, type[RippleError]]:
    """The classes of this tree by their codes, as a manifest tells them."""
    families: list[type[RippleError]] = [RippleError]
    for family in families:
        families += family.__subclasses__()
    return {each.code: each for each in families}


# The call is wrong -------------------------------------------------------------------------------


class DataIdValidationError(RippleError, InvalidInputError):
    """A parameter or a coordinate of the request cannot be meant."""

    code = "cutout_request_invalid"


class ButlerConfigError(RippleError, ConfigurationError):
    """A field of the configuration is unknown, or has a value that cannot be used."""

    code = "cutout_configuration"


class InvalidPositionError(DataIdValidationError):
    """Right ascension or declination is no number, or out of its range."""

    code = "cutout_position_invalid"


class InvalidSizeError(DataIdValidationError):
    """The size is no number, not above 0, smaller than a pixel, or larger than memory allows."""

    code = "cutout_size_invalid"


class PositionOutsideError(DataIdValidationError):
    """The box around the position has no pixel in common with the image, or with any image of the source."""

    code = "cutout_outside"


class CoordinateConversionError(RippleError, InvalidInputError):
    """A position cannot be put into the other coordinates: off the sky map, or where a projection has no inverse."""

    code = "cutout_coordinates"


class NotOnSkyError(CoordinateConversionError):
    """The image has no celestial WCS that a cut-out could keep."""

    code = "cutout_no_wcs"


# What it needs is not there ----------------------------------------------------------------------


class SourceNotFoundError(RippleError, NotFoundError):
    """The file, the folder or the HDU does not exist."""

    code = "cutout_source_not_found"


class BandNotFoundError(RippleError, NotFoundError):
    """No image of that band covers the position."""

    code = "cutout_band_not_found"


class PlaneNotFoundError(RippleError, NotFoundError):
    """The file has no plane of that name, or not of the image's shape."""

    code = "cutout_plane_not_found"


class CollectionError(RippleError, NotFoundError):
    """A collection does not exist in the repository, or may not be read."""

    code = "cutout_collection"


class FolderInUseError(RippleError, ConflictError):
    """Another batch is at work in the folder; `details["holder"]` is its task, if it has one."""

    code = "cutout_folder_in_use"


# It was tried, and did not work ------------------------------------------------------------------


class CutoutExtractionError(RippleError, ExecutionError):
    """The pixels could not be had."""

    code = "cutout_extraction"


class ImageUnreadableError(CutoutExtractionError):
    """The file is not FITS, damaged or shorter than its header says."""

    code = "cutout_image_unreadable"


class ButlerConnectionError(RippleError, ExecutionError):
    """The repository cannot be reached, or does not let us in; the same call may work later."""

    code = "cutout_repository"


class CircuitOpenError(ButlerConnectionError):
    """A source failed so often that it is left alone for a while; see `CircuitBreaker`."""

    code = "cutout_circuit_open"


class AllSourcesFailedError(ButlerConnectionError):
    """None of several sources answered; `details["errors"]` tells what each said, by its name."""

    code = "cutout_all_sources_failed"


class PerformanceError(RippleError, ExecutionError):
    """It took longer, or more memory, than was allowed."""

    code = "cutout_too_costly"


class DeadlineError(PerformanceError):
    """There was no answer within the time that was given."""

    code = "cutout_deadline"
