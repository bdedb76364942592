"""What a solver of a calibrator's scan takes and gives, whoever solves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from absurd.tasks.calibration.calibrator import CalibratorSolution, solve_calibrator
from absurd.tasks.calibration.settings import CalibratorSettings
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

ENGINES = ("embedded", "casatasks")


class Engine(Protocol):
    """Solves for bandpass and gains."""

    @property
    def name(self) -> str: ...

    def solve(
        self,
        visibilities: Visibilities,
        model: NDArray[Any],
        settings: CalibratorSettings,
        *,
        measurement_set: Path | None = None,
    ) -> CalibratorSolution:
        """As `solve_calibrator`.

        `measurement_set` is where the same visibilities are, with the model in MODEL_DATA, for engines that read it
        themselves.  Raises CalibrationError where nothing passes, and DependencyError where the engine is not there.
        """


class EmbeddedEngine:
    """The solver of this package: of what is in memory."""

    name = "embedded"

    def solve(
        self,
        visibilities: Visibilities,
        model: NDArray[Any],
        settings: CalibratorSettings,
        *,
        measurement_set: Path | None = None,
    ) -> CalibratorSolution:
        return solve_calibrator(visibilities, model, settings)


def engine_named(name: str, **options: Any) -> Engine:
    """The engine ``embedded`` or ``casatasks``; `options` are those of `CasaEngine`.

    Raises ValidationError for others.
    """
    if name == "embedded":
        return EmbeddedEngine()
    if name == "casatasks":
        from absurd.tasks.calibration.engines.casa import CasaEngine

        return CasaEngine(**options)
    raise ValidationError(f"calibration engine {name!r} is not known", advice=f"take {' or '.join(ENGINES)}")
