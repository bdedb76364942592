"""The array of the demo: it looks at one field after the other, and its files arrive as they would."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord

from absurd.demo.plan import NEW, NEW_JY, VARIABLE, VARIABLE_JY, Field, Plan
from absurd.tasks.pipeline.simulation.recording import EPOCH, Recording, plan
from absurd.tasks.pipeline.simulation.settings import SimulationSettings
from absurd.tasks.pipeline.simulation.sky import Source, draw
from absurd.tasks.pipeline.simulation.subband_file import file_name, write_subband
from absurd.tasks.radio.earth import SIDEREAL_DAY_S

_FAINTEST_JY, _BRIGHTEST_JY = 0.6, 3.0
_RADIUS_DEG = 0.8
"""From the calibrator: so near that every recording of the field shows them."""
_APART_DEG = 0.12
"""Between two sources at least: the demo is not about blends."""


@dataclass(frozen=True)
class Pointing:
    """A field as it is observed."""

    night: Plan
    place: Field
    recording: Recording
    """With all that ever shines here, the calibrator first, at its undisturbed brightness."""

    def at(self, number: int) -> Recording:
        """One recording: with the sources as they shine then."""
        return replace(self.recording, sources=tuple(self.night.sky_at(self.place, number, self.recording.sources)))


def point(night: Plan, number: int) -> Pointing:
    """Look at a field of the night, the calibrator in its middle; what else shines there is drawn by the seed."""
    place, size = night.size.fields[number], night.size
    settings = SimulationSettings(
        antennas=size.antennas,
        channels=size.channels,
        integrations=size.integrations,
        calibrator=place.calibrator,
        sources=0,
        interference=size.interference,
        gains="steady",  # those of the transit hold for the field
        dead=night.trouble.dead_antennas,
        seed=night.seed + number,
    )
    middle = plan(settings)  # a single recording, in which the calibrator transits
    before = (place.recordings - 1) / 2 * size.recording_s
    whole = plan(
        replace(
            settings,
            groups=place.recordings,
            start=EPOCH + timedelta(seconds=round(middle.start_s - before + night.day * SIDEREAL_DAY_S)),
            declination_deg=float(np.degrees(middle.declination_rad)),
        )
    )
    others = _others(whole, place, np.random.default_rng([night.seed, number]))
    return Pointing(night, place, replace(whole, sources=(*whole.sources, *others)))


def _others(recording: Recording, place: Field, random: np.random.Generator) -> list[Source]:
    """Sources beside the calibrator, none next to another: those drawn, and where they are the variable and new one."""
    calibrator = recording.sources[0]
    reference = float(np.mean(recording.frequencies_hz))
    found = [calibrator]
    if place.changes:
        east = 1 / np.cos(np.radians(calibrator.dec))
        found += [
            Source(VARIABLE, calibrator.ra + 0.45 * east, calibrator.dec + 0.35, VARIABLE_JY, (-0.7,), reference),
            Source(NEW, calibrator.ra - 0.35 * east, calibrator.dec - 0.45, NEW_JY, (-0.7,), reference),
        ]
    known = len(found)
    while len(found) < known + place.sources:
        drawn = draw(
            random,
            1,
            ra_deg=(calibrator.ra, calibrator.ra),
            dec_deg=calibrator.dec,
            radius_deg=_RADIUS_DEG,
            flux_jy=(_FAINTEST_JY, _BRIGHTEST_JY),
            reference_hz=reference,
        )[0]
        if all(separation_deg(drawn, each) > _APART_DEG for each in found):
            found.append(replace(drawn, name=f"S{len(found) - known + 1}"))
    return found[1:]


def separation_deg(one: Source, other: Source) -> float:
    """Between two sources, degrees."""
    ra, dec = np.radians([one.ra, other.ra]), np.radians([one.dec, other.dec])
    half = np.sin(np.diff(dec) / 2) ** 2 + np.cos(dec[0]) * np.cos(dec[1]) * np.sin(np.diff(ra) / 2) ** 2
    return float(np.degrees(2 * np.arcsin(np.sqrt(half[0]))))


def record(pointing: Pointing, number: int, incoming: Path, missing: Collection[int]) -> Iterator[Path]:
    """Have the files of a recording arrive, sub-band by sub-band; those `missing` never do."""
    recording = pointing.at(number)
    for subband in recording.subbands:
        if subband not in missing:
            path = incoming / file_name(recording.stamp(number, subband), subband)
            write_subband(recording, number, subband, path)
            yield path


def write_catalogue(pointings: Iterable[Pointing], folder: Path) -> Path:
    """Write what was known of the fields before the night, as the VLA's list of calibrators has it: all but the new.

    They are neighbours of the calibrators, and marked as none themselves.
    """
    lines = []
    for pointing in pointings:
        for each in pointing.recording.sources[1:]:
            if each.name != NEW:
                place = SkyCoord(each.ra, each.dec, unit="deg")
                ra = place.ra.to_string("hourangle", sep="hms", precision=6, pad=True)
                dec = place.dec.to_string("deg", sep=("d", "'", '"'), precision=5, pad=True, alwayssign=True)
                name = f"{ra[:2]}{ra[3:5]}{dec[:3]}{dec[4:6]}"
                lines += [f"{name}  J2000  A {ra}  {dec}", f" 20cm    L  X X X X    {each.flux_jy:.4f}", ""]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "fields.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
