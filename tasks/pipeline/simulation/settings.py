"""What is to be simulated."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from absurd.tasks.radio.errors import ValidationError

GainKind = Literal["perfect", "steady", "drifting"]


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """Each has a default: together a small recording of a calibrator by DSA-110, made in seconds.

    The same settings give the same bytes.  Raises ValidationError for what cannot be meant.
    """

    telescope: str = "dsa110"
    """Name of one that comes with the package, or a TOML file."""
    antennas: int | None = 16
    """How many, spread over all that the telescope has, its first reference antenna among them; None takes all."""
    subbands: int | None = None
    """How many, from sub-band 0 on; None takes all."""
    channels: int | None = None
    """Of one sub-band, whose width stays: fewer are wider.  None takes those of the telescope."""
    integrations: int | None = None
    """Of one group; None takes those of the telescope."""
    groups: int = 1
    """One after the other."""
    start: datetime | None = None
    """When the first integration begins; None has the calibrator transit in the middle of the first group."""
    declination_deg: float | None = None
    """Apparent, where the dishes look; None is that of the calibrator."""
    calibrator: str | None = "0834+555"
    """A source by name (see `sky.calibrator`); None for none."""
    sources: int = 20
    """Others, drawn around where the dishes look."""
    faintest_jy: float = 0.02
    brightest_jy: float = 0.5
    """Of those drawn, at the middle of the band."""
    counts_index: float = -1.5
    """Between the two N(> S) goes with S to this power; -1.5 is that of sources that fill space evenly."""
    radius_deg: float | None = None
    """Those drawn lie within so much of where the dishes look while they record; None is the beam's full width."""
    sky: str | None = None
    """A table of sources (.csv) instead of those drawn: ra and dec in degrees (ICRS), flux_jy, and perhaps
    spectrum, reference_hz and name (see `sky.read_sky`)."""
    beam: Literal["airy", "gaussian", "none"] = "airy"
    """Fixed on the meridian, while sources drift through it."""
    gains: GainKind = "drifting"
    """Of antennas: all 1; amplitudes and phases drawn once; or these with a smooth change in time."""
    bandpass: bool = True
    """Whether antennas have one: ripples of a tenth, a slope of phase, edges of sub-bands that fall off."""
    noise_jy: float | None = None
    """Standard deviation of the real part of a visibility, Jy; None is that of the telescope's SEFD."""
    interference: float = 0.0
    """Share of integrations x channels in which somebody else transmits."""
    dead: int = 0
    """Antennas that give noise alone."""
    lost: float = 0.0
    """Share of integrations x antennas whose packets were lost: visibilities that are 0."""
    missing: tuple[int, ...] = ()
    """Sub-bands that no file is written of."""
    jitter_s: int = 0
    """By how much the time in a file's name may be off, both ways, file by file."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("antennas", 2), ("subbands", 1), ("channels", 1), ("integrations", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValidationError(f"{name} is {value}", advice=f"{least} is the least")
        for name, least in (("groups", 1), ("sources", 0), ("dead", 0), ("jitter_s", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValidationError(f"{name} is {getattr(self, name)}", advice=f"{least} is the least")
        for name in ("interference", "lost"):
            if not 0 <= getattr(self, name) < 1:
                raise ValidationError(f"{name} is {getattr(self, name)}", advice="it is a share, from 0 to below 1")
        if not 0 < self.faintest_jy <= self.brightest_jy:
            raise ValidationError(
                f"sources from {self.faintest_jy:g} to {self.brightest_jy:g} Jy",
                advice="the faintest is above 0 and not above the brightest",
            )
        if not -10 <= self.counts_index < 0:
            raise ValidationError(f"counts_index is {self.counts_index:g}", advice="it is below 0, and -10 at least")
        if self.radius_deg is not None and not 0 < self.radius_deg <= 90:
            raise ValidationError(f"radius_deg is {self.radius_deg:g}", advice="it is above 0, and 90 at most")
        if self.noise_jy is not None and not 0 <= self.noise_jy < float("inf"):
            raise ValidationError(f"noise is {self.noise_jy:g} Jy", advice="it is 0 or more")
        if self.declination_deg is not None and not -90 <= self.declination_deg <= 90:
            raise ValidationError(f"declination is {self.declination_deg:g}", advice="it is -90 to 90 degrees")
        if self.declination_deg is None and self.calibrator is None:
            raise ValidationError("neither a declination nor a calibrator is given", advice="give one of them")
        if self.start is not None and self.start.tzinfo is None:
            raise ValidationError(f"start is {self.start}, without a time zone", advice="write it with Z for UTC")

    @property
    def near(self) -> datetime:
        """The time next to which the calibrator's transit is looked for, where no start is given."""
        return self.start or datetime(2026, 1, 15, 8, tzinfo=UTC)
