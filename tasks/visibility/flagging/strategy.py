"""What is flagged, with which settings: steps in a fixed order, each of which may be left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from absurd.tasks.radio.errors import ValidationError


@dataclass(frozen=True, slots=True)
class Values:
    """Of each visibility by itself."""

    largest: float = 1e15
    """Amplitude beyond which nothing was received, whatever the unit."""
    zeros: bool = True
    autos: bool = True


@dataclass(frozen=True, slots=True)
class Edges:
    """Channels at which the receivers fade out."""

    channels: int = 0
    """At each end of the band."""
    subband_channels: int | None = None
    """Of one sub-band; None: there are none."""
    subband_edge: int = 0
    """Channels at each end of a sub-band."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Limits of amplitudes, in the unit of the data."""

    lowest: float = -math.inf
    highest: float = math.inf


@dataclass(frozen=True, slots=True)
class Smooth:
    """How smooth the sky is: standard deviations of the Gaussian that makes the surface."""

    times: float = 7.5
    channels: float = 5.0
    fits: int = 3
    """How often is smoothed what is left: more follow a surface that bends, and noise, more closely."""


@dataclass(frozen=True, slots=True)
class SigmaClip:
    """Single samples."""

    sigma: float = 7.0
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class SumThreshold:
    """Neighbours, by their sum."""

    first_threshold: float = 6.0
    """Standard deviations at which a single sample is flagged."""
    rho: float = 1.5
    """By which the limit of the mean gets smaller with each doubling of neighbours."""
    longest: int = 64
    """Most neighbours."""
    rounds: int = 3
    strictness: float = 2.0
    """By which limits of a round are higher than those of the next; the last has them as they are."""


@dataclass(frozen=True, slots=True)
class Together:
    """All baselines, by their mean."""

    first_threshold: float = 6.0
    """As in `SumThreshold`."""
    least_baselines: int = 10
    channels: float = 60.0
    """As in `Smooth`, of the mean, which has less of a shape than a baseline's amplitudes."""


@dataclass(frozen=True, slots=True)
class Dead:
    """Antennas, by what is flagged of them."""

    flagged: float = 0.95


@dataclass(frozen=True, slots=True)
class Grow:
    """What lies among interference."""

    eta_time: float = 0.2
    """Part of a stretch of times that need not be flagged for the stretch to be; 0: as they are."""
    eta_channel: float = 0.2
    time_part: float = 0.8
    """Part of a time's channels beyond which all of them are flagged; 1: as they are."""
    channel_part: float = 0.8
    correlations: bool = True
    """What one correlation has goes for all."""


@dataclass(frozen=True, slots=True)
class AOFlagger:
    """The program of that name, instead of our own search."""

    lua: str | None = None
    """File of a strategy; None: ours, which is its generic one that leaves out what is flagged before."""
    seconds: float = 3600.0
    """After which it is ended, and the step has failed."""


Step = Values | Edges | Clip | SigmaClip | SumThreshold | Together | Dead | Grow | AOFlagger


@dataclass(frozen=True, slots=True)
class Strategy:
    """The steps, in the order in which they are made; None: not made."""

    values: Values | None = field(default_factory=Values)
    edges: Edges | None = None
    clip: Clip | None = None
    smooth: Smooth = field(default_factory=Smooth)
    sigma_clip: SigmaClip | None = None
    sum_threshold: SumThreshold | None = field(default_factory=SumThreshold)
    aoflagger: AOFlagger | None = None
    together: Together | None = field(default_factory=Together)
    grow: Grow | None = field(default_factory=Grow)
    dead: Dead | None = field(default_factory=Dead)

    def __post_init__(self) -> None:
        for step in (each.name for each in fields(self)):
            settings = getattr(self, step)
            if settings is not None:
                _check(step, settings)

    def told(self) -> dict[str, Any]:
        """The settings of the steps that are made, as JSON holds them."""
        made = {name: settings for name, settings in asdict(self).items() if settings is not None}
        return {
            name: {key: None if value in {math.inf, -math.inf} else value for key, value in settings.items()}
            for name, settings in made.items()
        }


_KINDS: dict[str, type[Step | Smooth]] = {
    "values": Values,
    "edges": Edges,
    "clip": Clip,
    "smooth": Smooth,
    "sigma_clip": SigmaClip,
    "sum_threshold": SumThreshold,
    "aoflagger": AOFlagger,
    "together": Together,
    "grow": Grow,
    "dead": Dead,
}
_BOUNDS: dict[str, tuple[float, float]] = {
    "values.largest": (0, 1e38),
    "edges.channels": (0, 1e6),
    "edges.subband_channels": (1, 1e6),
    "edges.subband_edge": (0, 1e6),
    "smooth.times": (0, 1e4),
    "smooth.channels": (0, 1e4),
    "smooth.fits": (1, 5),
    "sigma_clip.sigma": (3, 1e3),
    "sigma_clip.rounds": (1, 20),
    "sum_threshold.first_threshold": (3, 1e3),
    "sum_threshold.rho": (1, 2),
    "sum_threshold.longest": (1, 4096),
    "sum_threshold.rounds": (1, 20),
    "sum_threshold.strictness": (1, 10),
    "together.first_threshold": (3, 1e3),
    "together.least_baselines": (1, 1e6),
    "together.channels": (0, 1e4),
    "dead.flagged": (0, 1),
    "grow.eta_time": (0, 0.5),
    "grow.eta_channel": (0, 0.5),
    "grow.time_part": (0, 1),
    "grow.channel_part": (0, 1),
    "aoflagger.seconds": (0.1, 1e6),
}


def _check(step: str, settings: Step | Smooth) -> None:
    for each in fields(settings):
        name, value = f"{step}.{each.name}", getattr(settings, each.name)
        kinds = {"bool": bool, "int": int, "float": (int, float), "int | None": (int, type(None))}
        kind: Any = kinds.get(str(each.type), (str, type(None)))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValidationError(f"{name} is {value!r}, and it is of type {each.type}")
        if name in _BOUNDS and value is not None:
            low, high = _BOUNDS[name]
            if not low <= value <= high:
                raise ValidationError(f"{name} is {value}", advice=f"it lies between {low:g} and {high:g}")
    if isinstance(settings, Clip) and not settings.lowest < settings.highest:
        raise ValidationError(f"clip has no amplitudes between {settings.lowest} and {settings.highest}")


def _nearest(name: str, known: Mapping[str, Any] | set[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"


STRATEGIES = {
    "default": Strategy(),
    "quick": Strategy(sum_threshold=None, together=None, sigma_clip=SigmaClip()),
    "structure": Strategy(sum_threshold=None, together=None, grow=None),
    "aoflagger": Strategy(sum_threshold=None, together=None, grow=None, aoflagger=AOFlagger()),
}
"""By name: our own search; single samples only; no search for interference; that of AOFlagger."""


def strategy_named(name: str, changes: Mapping[str, Mapping[str, Any] | None] | None = None) -> Strategy:
    """A strategy by its name, with steps changed by their settings, or left out where these are None.

    Raises ValidationError for names that there are not, and for values that cannot be meant.
    """
    if name not in STRATEGIES:
        raise ValidationError(f"strategy {name!r} is not known", advice=_nearest(name, STRATEGIES))
    strategy = STRATEGIES[name]
    made: dict[str, Any] = {}
    for step, settings in (changes or {}).items():
        if step not in _KINDS:
            raise ValidationError(f"step {step!r} is not known", advice=_nearest(step, _KINDS))
        if settings is None:
            if step == "smooth":
                raise ValidationError("smooth is no step that can be left out", advice="leave its users out")
            made[step] = None
            continue
        known = {each.name for each in fields(_KINDS[step])}
        if unknown := sorted(set(settings) - known):
            raise ValidationError(f"{step} has no setting {unknown[0]!r}", advice=_nearest(unknown[0], known))
        made[step] = replace(getattr(strategy, step) or _KINDS[step](), **settings)
    return replace(strategy, **made)
