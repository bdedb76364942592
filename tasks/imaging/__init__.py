"""Images of visibilities, gridded, cleaned, restored and written as FITS; mosaics of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.imaging.imager import ImagingResult, image_samples, image_visibilities
    from absurd.tasks.imaging.parameters import ImagingParameters
    from absurd.tasks.imaging.products import product_paths, write_products
    from absurd.tasks.imaging.samples import Samples, samples_of

_MODULES = {
    "ImagingParameters": "parameters",
    "ImagingResult": "imager",
    "Samples": "samples",
    "image_samples": "imager",
    "image_visibilities": "imager",
    "product_paths": "products",
    "samples_of": "samples",
    "write_products": "products",
}

__all__ = [
    "ImagingParameters",
    "ImagingResult",
    "Samples",
    "image_samples",
    "image_visibilities",
    "product_paths",
    "samples_of",
    "write_products",
]


def __getattr__(name: str) -> Any:
    """Load what is asked for when it is: ducc0, numba and casacore take their time."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
