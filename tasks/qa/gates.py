"""What gates there are: what each measures, from where on it warns, and from where on it lets nothing pass."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from absurd.tasks.radio.errors import ConfigurationError

Verdict = Literal["ok", "warn", "fail", "none"]
"""``none``: there was nothing to measure it by, and it need not be measured."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A value below or above these; None is no limit."""

    warn_below: float | None = None
    fail_below: float | None = None
    warn_above: float | None = None
    fail_above: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and (isinstance(value, bool) or not math.isfinite(value)):
                raise ConfigurationError(f"{each.name} is {value!r}; it must be a number, or nothing for no limit")
        for inner, outer in ((self.fail_below, self.warn_below), (self.warn_above, self.fail_above)):
            if inner is not None and outer is not None and inner > outer:
                raise ConfigurationError("a gate must warn before it fails", limits=self)

    def judge(self, value: float) -> Verdict:
        """Whether a value passes; a limit itself does, and what is no number does not."""
        if math.isnan(value) or self._beyond(value, self.fail_below, self.fail_above):
            return "fail"
        return "warn" if self._beyond(value, self.warn_below, self.warn_above) else "ok"

    @staticmethod
    def _beyond(value: float, below: float | None, above: float | None) -> bool:
        return (below is not None and value < below) or (above is not None and value > above)

    def with_(self, changes: Mapping[str, Any]) -> Limits:
        """The same with others in place of some; the names are those of the fields."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Gate:
    """A measure and its limits."""

    meaning: str
    limits: Limits
    unit: str = ""
    is_required: bool = False
    """Whether a product does not pass of which this cannot be measured."""


GATES: Mapping[str, Gate] = {
    "unusable_fraction": Gate(
        "Of the visibilities of different antennas: those flagged, zero or without a number.",
        Limits(warn_above=0.2, fail_above=0.5),
        is_required=True,
    ),
    "outlier_fraction": Gate(
        "Of the usable visibilities: those more than a thousand times the median amplitude.",
        Limits(warn_above=1e-4, fail_above=0.05),
    ),
    "antennas": Gate(
        "Antennas left: with more than 5 % usable visibilities, and with more than half their solutions.",
        Limits(fail_below=10),
        is_required=True,
    ),
    "closure_log10_false_alarm": Gate(
        "Decimal logarithm of the probability, at most, that noise closes so well on the model, or on a point source.",
        Limits(warn_above=-9, fail_above=-6),
        is_required=True,
    ),
    "closure_departure_deg": Gate(
        "Median departure of coherent closure phases from those of the model, or from a point source's.",
        Limits(warn_above=20, fail_above=60),
        "deg",
    ),
    "solution_snr": Gate(
        "Median signal to noise of the solutions that are not flagged.", Limits(warn_below=10, fail_below=5)
    ),
    "flagged_solutions": Gate(
        "Fraction of the solutions that are flagged, of antennas with data.", Limits(warn_above=0.1, fail_above=0.5)
    ),
    "amplitude_range": Gate(
        "The farthest antenna's median gain amplitude from that of all, as a ratio of 1 or more.",
        Limits(warn_above=5, fail_above=10),
    ),
    "gain_amplitude": Gate(
        "Median gain amplitude.  Without limits of its own: 0.1 to 10 are those of recordings that are in janskys.",
        Limits(),
    ),
    "phase_scatter_deg": Gate(
        "Scatter of an antenna's gain phase from one solution to the next, of the median antenna.",
        Limits(warn_above=15, fail_above=30),
        "deg",
    ),
    "model_ratio": Gate(
        "Median amplitude of the corrected baselines over the model's, or its inverse: 1 or more.",
        Limits(warn_above=1.5, fail_above=5),
    ),
    "residual_phase_deg": Gate(
        "Scatter of the corrected baselines' phases about the model's.", Limits(warn_above=15, fail_above=30), "deg"
    ),
    "flux_scale": Gate(
        "Corrected flux of the calibrator over the one that it should have.",
        Limits(warn_below=0.9, fail_below=0.7, warn_above=1.1, fail_above=1.4),
    ),
    "sensitivity": Gate(
        "Noise of the corrected visibilities over that of the telescope's system, which no model of the sky has a part "
        "in: a flux density ten times too high makes it 10.",
        Limits(warn_below=0.5, fail_below=0.2, warn_above=2, fail_above=5),
    ),
}


def gates_with(changes: Mapping[str, Mapping[str, Any]], gates: Mapping[str, Gate] = GATES) -> dict[str, Gate]:
    """All of `gates`, with other limits for some: ``{"antennas": {"fail_below": 6}}``.

    Raises ConfigurationError for a gate or limit that is not known, and for limits that cannot be.
    """
    names = [each.name for each in fields(Limits)]
    for gate, limits in changes.items():
        _require_known("gate", gate, list(gates))
        for name in limits:
            _require_known(f"limit of {gate}", name, names)
    return {
        name: replace(gate, limits=gate.limits.with_(changes[name])) if name in changes else gate
        for name, gate in gates.items()
    }


def _require_known(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        raise ConfigurationError(
            f"{what} {name!r} is not known", advice=f"did you mean {near[0]}?" if near else f"take {', '.join(known)}"
        )
