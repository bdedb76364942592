"""What flagging finds of interference that is known, and of what is none: the table of docs/executors/flagging.md.

``.venv/bin/python tests/flag_table.py`` prints it anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np
from interference import KINDS, Sky, interfered, recording
from numpy.typing import NDArray

from absurd.tasks.pipeline.simulation.recording import plan
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.simulate import simulate_in_memory
from absurd.tasks.visibility.flagging.flagger import flag
from absurd.tasks.visibility.flagging.recording import take
from absurd.tasks.visibility.flagging.strategy import strategy_named
from absurd.tasks.visibility.visibilities import Visibilities

STRATEGIES = ("default", "quick", "aoflagger")
ANTENNAS, CHANNELS = 12, 256

Made: TypeAlias = tuple[Visibilities, NDArray[np.bool_]]
"""A recording, and where interference is in it, (row, channel, correlation)."""


@dataclass(frozen=True)
class Case:
    """A recording, and where interference is in it, (row, channel, correlation)."""

    name: str
    visibilities: Visibilities
    truth: NDArray[np.bool_]


SIMULATED = {
    "0834+555 by DSA-110": SimulationSettings(antennas=8),
    "3C286 by DSA-110": SimulationSettings(antennas=8, calibrator="3C286"),
    "0834+555, 40 times the noise": SimulationSettings(antennas=8, noise_jy=0.2),
}
"""Recordings of `absurd pipeline simulate`: sky, beam, bandpasses with sub-bands that fall off at their edges."""


def simulated(settings: SimulationSettings) -> Made:
    """A recording as the simulator makes it, without antennas with themselves."""
    made = simulate_in_memory(settings)[0]
    made = take(made, np.flatnonzero(~made.is_auto))
    truth = plan(settings).interference(0)[1]
    by_row = np.repeat(truth, len(made.data) // len(truth), axis=0)
    return made, np.repeat(by_row[:, :, None], made.data.shape[2], axis=2)


def drifting(*sky: Sky) -> Made:
    """Sources in noise."""
    return clean(recording(antennas=ANTENNAS, channels=CHANNELS, sky=list(sky)))


def passing() -> Made:
    """A source of 100 that the beam drifts across."""
    visibilities = quiet()
    height = np.repeat(100 * np.exp(-(((np.arange(24) - 8) / 36) ** 2)), len(visibilities.data) // 24)
    return clean(visibilities.with_(data=visibilities.data + height.astype(np.float32)[:, None, None]))


def shaped() -> Made:
    """A source of 5 behind a band that falls off and waves."""
    at = np.linspace(-1, 1, CHANNELS)
    band = 1 / (1 + (np.abs(at) / 0.9) ** 16) * (1 + 0.3 * np.sin(4 * at))
    return clean(recording(antennas=ANTENNAS, channels=CHANNELS, sky=[Sky(5.0)], shape=band))


def clean(visibilities: Visibilities) -> Made:
    """What holds no interference."""
    return visibilities, np.zeros(visibilities.data.shape, np.bool_)


def disturbed(inject: Callable[..., Any]) -> Made:
    """A kind of interference in noise."""
    return interfered(quiet(), inject)


@cache
def quiet() -> Visibilities:
    """Noise alone."""
    return recording(antennas=ANTENNAS, channels=CHANNELS)


def told(inject: Callable[..., object]) -> str:
    """A kind of interference, in words."""
    words = str(inject.__doc__).rstrip(".")
    return words[0].lower() + words[1:]


MAKERS: dict[str, Callable[[], Made]] = (
    {
        "noise": lambda: clean(quiet()),
        "a source of 10, drifting": lambda: drifting(Sky(10.0, 0.004, -0.006)),
        "sources of 10 and 7 that beat": lambda: drifting(Sky(10.0, 0.01, 0.01), Sky(7.0, -0.006, 0.012)),
        "a source of 100 that passes through the beam": passing,
        "a source of 5 behind a band's shape": shaped,
    }
    | {f"simulated: {name}": partial(simulated, settings) for name, settings in SIMULATED.items()}
    | {told(inject): partial(disturbed, inject) for inject in KINDS.values()}
    | {
        f"simulated: {name}, with interference": partial(simulated, replace(settings, interference=0.03))
        for name, settings in SIMULATED.items()
    }
)
"""Skies without interference, then one kind after the other in noise, then all kinds in recordings."""


def case(name: str) -> Case:
    """The case of that name."""
    return Case(name, *MAKERS[name]())


def measured(case: Case, strategy: str) -> tuple[float, float]:
    """Parts of the interference that are flagged, and of the rest, in per cent; NaN without interference."""
    flags = flag(case.visibilities, strategy_named(strategy))[0].flags
    found = 100 * float(flags[case.truth].mean()) if case.truth.any() else float("nan")
    return found, 100 * float(flags[~case.truth].mean())


def line(case: Case, numbers: dict[str, tuple[float, float]]) -> str:
    """A row of the table."""
    cells = [case.name, f"{100 * case.truth.mean():.2f} %" if case.truth.any() else "none"]
    for found, wrongly in numbers.values():
        cells.append("" if np.isnan(found) else f"{found:.1f} %")
        cells.append(f"{wrongly:.2f} %")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    some = [each for each in STRATEGIES if each != "aoflagger" or shutil.which(each)]
    for made in map(case, MAKERS):
        print(line(made, {each: measured(made, each) for each in some}))
