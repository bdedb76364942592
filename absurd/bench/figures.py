"""What a benchmark found: figures, kept in a file, and held against an earlier run."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from absurd.errors import InvalidInputError

NOISE = 0.1
"""A figure that is off by less than this part of itself is called unchanged: machines are shared."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number; `higher` tells whether more is better (None: it only informs)."""

    name: str
    value: float
    unit: str
    higher: bool | None = True


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one benchmark, where and when they were measured."""

    benchmark: str
    at: str
    rounds: int
    machine: dict[str, Any]
    figures: list[Figure]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def percentile(values: Sequence[float], part: float) -> float:
    """The value that `part` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def medians(rounds: Sequence[Sequence[Figure]]) -> list[Figure]:
    """The median of each figure over the rounds, in the order of the first."""
    return [
        Figure(first.name, statistics.median(each[n].value for each in rounds), first.unit, first.higher)
        for n, first in enumerate(rounds[0])
    ]


def report(benchmark: str, rounds: Sequence[Sequence[Figure]], server: str | None) -> Report:
    """Medians of the rounds, with what they were measured on; `server` is None where no database took part."""
    machine = {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "postgresql": server,
        "absurd": version("absurd"),
    }
    return Report(benchmark, datetime.now(UTC).isoformat(timespec="seconds"), len(rounds), machine, medians(rounds))


def load(path: Path) -> dict[tuple[str, str], float]:
    """Values by benchmark and name, of a file that `save` wrote.  Raises InvalidInputError."""
    try:
        documents = json.loads(path.read_text(encoding="utf-8"))
        return {
            (document["benchmark"], each["name"]): float(each["value"])
            for document in documents
            for each in document["figures"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{path} holds no saved figures ({error}); `absurd bench ... --save FILE` writes them"
        ) from None


def save(path: Path, reports: Iterable[Report]) -> None:
    """Write reports to a file, in place of those of the same benchmark that are in it.  Raises InvalidInputError."""
    new = [each.to_json() for each in reports]
    names = {each["benchmark"] for each in new}
    kept = []
    if path.exists():
        load(path)  # refuses a file of something else
        kept = [each for each in json.loads(path.read_text(encoding="utf-8")) if each["benchmark"] not in names]
    try:
        path.write_text(json.dumps([*kept, *new], indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}") from None


def change(figure: Figure, before: float | None) -> str:
    """How a figure compares with that of an earlier run: ``1.23x better``, ``same``; empty without one."""
    if not before or not figure.value:
        return ""
    ratio = figure.value / before
    if abs(ratio - 1) < NOISE:
        return "same"
    if figure.higher is None:
        return f"{ratio:.2f}x"
    better = (ratio > 1) == figure.higher
    return f"{ratio if ratio > 1 else 1 / ratio:.2f}x {'better' if better else 'worse'}"
