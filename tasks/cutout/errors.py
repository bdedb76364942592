"""What can go wrong with a cut-out, by what one does about it."""

from __future__ import annotations

from absurd.errors import ExecutionError, InvalidInputError, NotFoundError


class InvalidPositionError(InvalidInputError):
    """Right ascension or declination is no number, or out of its range."""

    code = "cutout_position_invalid"


class InvalidSizeError(InvalidInputError):
    """The size is no number, not above 0, smaller than a pixel, or larger than memory allows."""

    code = "cutout_size_invalid"


class PositionOutsideError(InvalidInputError):
    """The box around the position has no pixel in common with the image, or with any image of the source."""

    code = "cutout_outside"


class SourceNotFoundError(NotFoundError):
    """The file, the folder or the HDU does not exist."""

    code = "cutout_source_not_found"


class BandNotFoundError(NotFoundError):
    """No image of that band covers the position."""

    code = "cutout_band_not_found"


class PlaneNotFoundError(NotFoundError):
    """The file has no plane of that name, or not of the image's shape."""

    code = "cutout_plane_not_found"


class NotOnSkyError(InvalidInputError):
    """The image has no celestial WCS that a cut-out could keep."""

    code = "cutout_no_wcs"


class ImageUnreadableError(ExecutionError):
    """The file is not FITS, damaged or shorter than its header says."""

    code = "cutout_image_unreadable"
