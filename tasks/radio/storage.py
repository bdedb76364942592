"""The package that gain sets and records of flags are stored by."""

from __future__ import annotations

from typing import Any

from absurd.tasks.radio.errors import DependencyError


def zarr_package() -> Any:
    """Zarr, which is loaded when it is first needed.  Raises DependencyError where it is not installed."""
    try:
        import zarr
    except ModuleNotFoundError as error:
        if error.name != "zarr":
            raise
        raise DependencyError("zarr is not installed", advice="pip install 'absurd[radio]'") from None
    return zarr
