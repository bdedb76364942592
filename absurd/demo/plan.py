"""What the night of the demo holds: fields, sources, what goes wrong, and how the pipeline is to treat it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.pipeline.simulation.sky import Source

FIRST = datetime(2026, 1, 14, 20, tzinfo=UTC)
"""Noon before the first night, in the Owens Valley."""
CATALOGUES = "data/catalogues"
"""Below the night's folder: what is known of its fields."""
LENGTH = 12.884902
"""Of an integration, seconds, as DSA-110 has it."""
VARIABLE = "VAR 1"
NEW = "NEW 1"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of the array takes part."""

    antennas: int | None
    """Of 96; None takes all."""
    channels: int
    """Of each of the 16 sub-bands, whose width stays that of the array."""
    integrations: int
    """Of a recording."""
    image_pixels: int
    cell_arcsec: float
    fields: tuple[Field, ...]
    patience_s: float = 1800.0
    """After which a night that does not end is given up."""
    interference: float = 0.01
    """Share of integrations x channels in which others transmit."""

    @property
    def recording_s(self) -> float:
        """Length of a recording, seconds."""
        return self.integrations * LENGTH

    @property
    def recordings(self) -> int:
        """Of the whole night."""
        return sum(each.recordings for each in self.fields)


@dataclass(frozen=True, slots=True)
class Field:
    """Where the dishes look for a while: at the declination of a calibrator, as it transits."""

    calibrator: str
    """Of the scale of Perley and Butler (2017): its place and its flux densities are facts."""
    recordings: int
    sources: int
    """Others, drawn around where the dishes look."""
    changes: tuple[float, ...] = ()
    """Factor of the variable source in each recording, 1 in that of the transit; none where neither it nor the new
    one is."""
    appears: int = 0
    """First recording in which the new source shines."""


NIGHT = (
    Field("3C48", 5, 5),
    Field("3C147", 5, 5),
    Field("3C286", 5, 6, changes=(1.4, 1.2, 1.0, 1.7, 2.1), appears=3),
)
SIZES = {
    "night": Size(24, 4, 12, 1152, 10.0, NIGHT),
    "full": Size(None, 48, 24, 4800, 2.5, NIGHT, patience_s=86_400.0),
    "tiny": Size(16, 2, 10, 768, 15.0, (Field("3C286", 5, 6, changes=(1.4, 1.2, 1.0, 1.7, 2.1), appears=3),)),
}
VARIABLE_JY, NEW_JY = 1.2, 0.8


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong in the night."""

    dead_antennas: int = 1
    missing: tuple[tuple[int, int, int], ...] = ((0, 1, 5),)
    """Field, recording and sub-band that never come."""
    kill_at: str = "imaging.image"
    """The worker that runs the first task of that executor is killed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A night."""

    size: Size
    seed: int
    trouble: Trouble = field(default_factory=Trouble)
    day: int = 0
    """How many nights were before it, of the same sky."""

    @property
    def date(self) -> date:
        """Of its evening, by the clocks of the Owens Valley."""
        return (FIRST + timedelta(days=self.day)).date()

    @property
    def span(self) -> tuple[datetime, datetime]:
        """From noon before the first night to noon after this one."""
        return FIRST, FIRST + timedelta(days=self.day + 1)

    def sky_at(self, place: Field, recording: int, sources: Sequence[Source]) -> list[Source]:
        """The sources of a field as they shine in a recording: the variable one by its factor, the new one or none."""
        lit = []
        for each in sources:
            if each.name == VARIABLE:
                lit.append(replace(each, flux_jy=each.flux_jy * place.changes[recording]))
            elif each.name != NEW or recording >= place.appears:
                lit.append(each)
        return lit

    def configuration(self, base: str) -> dict[str, Any]:
        """What the radio pipeline is told, over its environment *testing*: folders below `base`, sizes, rules."""
        size = self.size
        longest = max(each.recordings for each in size.fields)
        minutes = size.recording_s / 60
        pixels = [size.image_pixels] * 2
        return {
            "paths": {"base_dir": base, "skymodels_dir": CATALOGUES},
            "services": {
                "mosaic_duration_min": longest * minutes,
                "mosaic_overlap_min": 0.0,
                "ms_chunk_duration_min": minutes,
                "max_concurrent_blocks": 2,
                "group_tolerance_s": 30.0,
                "partial_after_min": 0.1,
            },
            "calibration": {
                "calibrator_radius_deg": size.recording_s / 240 / 2 * 0.99,  # the recording of the transit
                "gcal_solint": "inf",
            },
            "imaging": {
                "image_size": pixels,
                "cell_size": f"{size.cell_arcsec:g}arcsec",
                "niter": 3000,
                "threshold": "15mJy",
                "pblimit": 0.15,
            },
            "mosaicking": {
                "mosaic_nx": int(1.3 * size.image_pixels),
                "mosaic_ny": size.image_pixels,
                "mosaic_cell": f"{size.cell_arcsec:g}arcsec",
            },
            "photometry": {
                "detection": {"threshold_sigma": 8.0},
                "classification": {"target_flux_range": [0.01, 5.0], "reference_flux_range": [0.3, 20.0]},
            },
            "skymodel": {"field": {"radius_deg": 2.0, "n_sources": 100}, "flux": {"min_flux_jy": 0.01}},
            "logging": {"level": "INFO", "console_output": False},
        }
