"""What was measured of a product, and what follows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from absurd.tasks.qa.gates import Gate, Limits, Verdict
from absurd.tasks.radio.errors import QualityError

_WORST: tuple[Verdict, ...] = ("none", "ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Measure:
    """A value at its gate."""

    gate: str
    value: float | None
    """None where it could not be measured: `note` says why."""
    verdict: Verdict
    limits: Limits
    unit: str = ""
    of: str = ""
    """Of which of several products, such as ``bandpass``."""
    note: str = ""
    """What else there is to know: which antenna it was, of what it is made up."""

    @property
    def sentence(self) -> str:
        """The measure in words, as in ``antennas 7, below 10 (dead: pad003)``."""
        name = f"{self.gate} of the {self.of}" if self.of else self.gate
        note = f" ({self.note})" if self.note else ""
        if self.value is None:
            return f"{name} cannot be measured{note}"
        prefix = "fail" if self.verdict == "fail" else "warn"
        below, above = getattr(self.limits, f"{prefix}_below"), getattr(self.limits, f"{prefix}_above")
        told = f"{name} {self.value:.4g}{' ' + self.unit if self.unit else ''}"
        if below is not None and self.value < below:
            return f"{told}, below {below:g}{note}"
        if above is not None and self.value > above:
            return f"{told}, above {above:g}{note}"
        return f"{told}{note}"


@dataclass(frozen=True, slots=True)
class QualityReport:
    """All measures of a product."""

    subject: str
    measures: tuple[Measure, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return max((each.verdict for each in self.measures), key=_WORST.index, default="none")

    @property
    def reasons(self) -> list[str]:
        """Why it does not pass, a sentence for each gate; empty if it does."""
        return [each.sentence for each in self.measures if each.verdict == "fail"]

    @property
    def warnings(self) -> list[str]:
        """What it passes with, a sentence for each gate."""
        return [each.sentence for each in self.measures if each.verdict == "warn"]

    def value(self, gate: str, of: str = "") -> float | None:
        """The value at a gate; None if it was not measured.  Raises KeyError for a gate that was not asked."""
        for each in self.measures:
            if each.gate == gate and each.of == of:
                return each.value
        raise KeyError(gate)

    def to_json(self) -> dict[str, Any]:
        """As plain values: what is no finite number is None."""
        return {
            "subject": self.subject,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "measures": [asdict(each) | {"value": _plain(each.value)} for each in self.measures],
        }

    def require(self, **details: Any) -> None:
        """Raise QualityError, with all measures in its details, if the product does not pass."""
        if self.verdict == "fail":
            raise QualityError(f"{self.subject} does not pass: {'; '.join(self.reasons)}", **self.to_json(), **details)


def measure(
    name: str, gate: Gate, value: float | None, *, of: str = "", note: str = "", may_lack: bool = True
) -> Measure:
    """A value at a gate, judged.  None fails at a gate that is required, or unless it `may_lack`."""
    if value is None:
        verdict: Verdict = "fail" if gate.is_required or not may_lack else "none"
    else:
        verdict = gate.limits.judge(value)
    return Measure(name, value, verdict, gate.limits, gate.unit, of, note)


def report_on(subject: str, measures: Iterable[Measure]) -> QualityReport:
    """A report of measures in their order."""
    return QualityReport(subject, tuple(measures))


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
