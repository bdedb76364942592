"""Cut-outs of FITS images at sky positions; executors ``cutout.*``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.cutout.engine import Cutout, extract
    from absurd.tasks.cutout.errors import (
        BandNotFoundError,
        ImageUnreadableError,
        InvalidPositionError,
        InvalidSizeError,
        NotOnSkyError,
        PlaneNotFoundError,
        PositionOutsideError,
        SourceNotFoundError,
    )
    from absurd.tasks.cutout.output import write_fits
    from absurd.tasks.cutout.preview import write_preview
    from absurd.tasks.cutout.sources import find_images

__all__ = [
    "BandNotFoundError",
    "Cutout",
    "ImageUnreadableError",
    "InvalidPositionError",
    "InvalidSizeError",
    "NotOnSkyError",
    "PlaneNotFoundError",
    "PositionOutsideError",
    "SourceNotFoundError",
    "extract",
    "find_images",
    "write_fits",
    "write_preview",
]

_MODULES = {
    "Cutout": "engine",
    "extract": "engine",
    "write_fits": "output",
    "write_preview": "preview",
    "find_images": "sources",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: astropy takes its time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
