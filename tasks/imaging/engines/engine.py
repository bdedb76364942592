"""What an imager has to do, and which ones there are."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from absurd.tasks.imaging.deconvolve import Tell
from absurd.tasks.imaging.image_set import image_planes
from absurd.tasks.imaging.imager import ImagingResult
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.samples import samples_of
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.visibility.measurement_set import read_measurement_set
from absurd.tasks.visibility.visibilities import Visibilities


@dataclass(frozen=True, slots=True)
class Recording:
    """Visibilities of a Measurement Set."""

    path: str | os.PathLike[str]
    column: str = "DATA"
    spectral_window: int | None = None
    fields: Sequence[int | str] | None = None

    def read(self) -> Visibilities:
        """Raises as `read_measurement_set`."""
        return read_measurement_set(
            self.path, column=self.column, spectral_window=self.spectral_window, fields=self.fields
        )


class Engine(Protocol):
    """An imager."""

    @property
    def name(self) -> str: ...

    def image(self, recording: Recording, parameters: ImagingParameters, tell: Tell) -> list[ImagingResult]:
        """An image for each plane, by ascending frequency.

        Raises DataError where nothing is usable, ValidationError for parameters that it has not, DependencyError where
        a program is missing, ImagingError where no image is made.
        """


@dataclass(frozen=True, slots=True)
class EmbeddedEngine:
    """The imager of this package."""

    name: str = "embedded"

    def image(self, recording: Recording, parameters: ImagingParameters, tell: Tell) -> list[ImagingResult]:
        """As `Engine.image`."""
        tell("reading")
        return image_planes(samples_of(recording.read(), parameters), parameters, tell)  # only Stokes I stays in memory


def _wsclean(scratch: Callable[[], Path]) -> Engine:
    from absurd.tasks.imaging.engines.wsclean import WSCleanEngine

    return WSCleanEngine(scratch)


def _tclean(scratch: Callable[[], Path]) -> Engine:
    from absurd.tasks.imaging.engines.tclean import TcleanEngine

    return TcleanEngine(scratch)


ENGINES: dict[str, Callable[[Callable[[], Path]], Engine]] = {
    "embedded": lambda scratch: EmbeddedEngine(),
    "wsclean": _wsclean,
    "tclean": _tclean,
}


def engine_named(name: str, scratch: Callable[[], Path] = lambda: Path(tempfile.gettempdir())) -> Engine:
    """An engine by its name; `scratch` gives a folder for what others write.  Raises ValidationError."""
    if name not in ENGINES:
        raise ValidationError(f"imager {name!r} is not known", advice=f"take {', '.join(ENGINES)}")
    return ENGINES[name](scratch)
