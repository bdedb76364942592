"""How a Butler of our own stores exposures, so that a box of one is read without afw.

``Butler.makeRepo(root, config=exposure_config())`` makes a repository in which datasets of the storage class
"FitsExposure" are `absurd.tasks.cutout.sources.exposure.Exposure`, in FITS files of the pipelines' layout.  It keeps
the names of the classes here: whoever reads it must have this package.

The pipelines' own storage classes Exposure, ExposureF and ExposureI stand for types of afw, which no configuration
can change.  Files of theirs can be ingested into such a repository without afw, and read by `ButlerClient`, not by
``Butler.get``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from lsst.daf.butler import Config, FormatterV2, StorageClassDelegate
from lsst.resources import ResourcePath

from absurd.tasks.cutout.sources.exposure import LAYOUT, Exposure, ExposureFile, write_exposure

STORAGE_CLASS = "FitsExposure"
STOCK = ("Exposure", "ExposureF", "ExposureI")
"""Storage classes of the pipelines, whose files the formatter here is named for."""


def exposure_config() -> Config:
    """What ``Butler.makeRepo`` is told, so that it stores exposures as this module does."""
    config = Config()
    config["storageClasses", STORAGE_CLASS] = {
        "pytype": _name_of(Exposure),
        "delegate": _name_of(ExposureDelegate),
        "parameters": ["bbox", "planes"],
        "derivedComponents": dict.fromkeys(LAYOUT, "NumpyArray"),
    }
    config["datastore", "formatters"] = dict.fromkeys((STORAGE_CLASS, *STOCK), _name_of(ExposureFormatter))
    return config


class ExposureFormatter(FormatterV2):  # type: ignore[misc]  # without types
    """Exposures as FITS files; `bbox` and `planes` are as in `ExposureFile.read`."""

    default_extension: ClassVar[str] = ".fits"
    supported_extensions: ClassVar[frozenset[str]] = frozenset({".fits", ".fits.fz", ".fits.gz", ".fit"})
    unsupported_parameters: ClassVar[frozenset[str]] = frozenset()
    can_read_from_local_file: ClassVar[bool] = True

    def read_from_local_file(self, path: str, component: str | None = None, expected_size: int = -1) -> Any:
        """The exposure, or one plane of it."""
        parameters = self.file_descriptor.parameters or {}
        planes = (component,) if component else tuple(parameters.get("planes", ()))
        exposure = ExposureFile(path).read(parameters.get("bbox"), planes)
        return exposure.planes[component] if component else exposure

    def write_local_file(self, in_memory_dataset: Any, uri: ResourcePath) -> None:
        """Write an `Exposure`."""
        write_exposure(in_memory_dataset, uri.ospath)


class ExposureDelegate(StorageClassDelegate):  # type: ignore[misc]  # as above
    """Components and boxes of an exposure in memory."""

    def getComponent(self, composite: Exposure, componentName: str) -> Any:  # noqa: N802, N803 - the Butler's names
        """A plane."""
        return composite.planes[componentName]

    def handleParameters(self, inMemoryDataset: Any, parameters: Any = None) -> Any:  # noqa: N802, N803 - as above
        """The box `bbox` of it."""
        bbox = (parameters or {}).get("bbox")
        return inMemoryDataset if bbox is None else inMemoryDataset.cut(bbox)


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
