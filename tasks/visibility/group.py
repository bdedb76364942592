"""Sub-bands of one recording, put together: which rows and channels there are, and where those of each file go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError
from absurd.tasks.radio.telescope import Band
from absurd.tasks.visibility.measurement_set_tables import Description
from absurd.tasks.visibility.subband_groups import DECLINATION_TOLERANCE_DEG, SAME_TIME
from absurd.tasks.visibility.uvh5 import Subband
from absurd.tasks.visibility.uvw import meridian_centres, uvw_m
from absurd.tasks.visibility.visibilities import PhaseCentre

Floats = NDArray[np.float64]

_IN_COMMON = 0.5
"""Part of its times that a sub-band has in common with the others."""
_SAME_CHANNEL = 0.1
"""Channels by which frequencies may differ and be the same."""
_SAME_PLACE_M = 0.1
_SAME_HOUR_ANGLE_RAD = 1e-4
_NO_WAY_M = 1e-5
"""Differences of paths that times tell no better: Julian days are kept to 40 microseconds."""


@dataclass(frozen=True, slots=True)
class Part:
    """Where the rows and channels of a sub-band go."""

    subband: Subband
    first_channel: int
    rows: NDArray[np.int64] | None
    """(row of the file,), number of the row of the group; None where they are the same, in the same order."""
    is_reversed: NDArray[np.bool_] | None
    """(row of the file,): whether its antennas are the other way round in the group; None where none is."""
    path_m: Floats | None
    """(row of the file,), by how much w is longer to the group's phase centre than to the file's; None where none is.

    `rotate` by it has the phases be those of the group's phase centre.
    """

    @property
    def channels(self) -> slice:
        """Of the group."""
        return slice(self.first_channel, self.first_channel + len(self.subband.frequencies_hz))


@dataclass(frozen=True, slots=True)
class Group:
    """What sub-bands are together."""

    description: Description
    parts: tuple[Part, ...]
    """By ascending frequency."""
    missing: tuple[slice, ...]
    """Channels of which there is no sub-band."""


def put_together(
    subbands: Sequence[Subband],
    band: Band | None = None,
    *,
    declination_tolerance_deg: float = DECLINATION_TOLERANCE_DEG,
) -> Group:
    """Rows and channels of a group: each time and baseline that any of the files has, and all channels of a band.

    Without a band, the channels from the lowest to the highest that there are.  Antennas are known by their names, so
    they may be in another order in each file, as rows may; a baseline may have its antennas the other way round.

    Times of the group are those of the file with most rows.  Others may be up to a tenth of an integration off, and
    declinations each as much as the tolerance from that of their group: `Part.path_m` takes phases to its centres.

    Raises DataError with the reason for sub-bands that do not belong together: other times, antennas, phase centres,
    correlations or widths of channels, or the same channels.
    """
    if not subbands:
        raise DataError("a group has one sub-band or more")
    ordered = sorted(subbands, key=lambda each: (each.frequencies_hz[0], str(each.path)))
    reference = max(ordered, key=lambda each: len(each.time_s))
    for each in ordered:
        _same_kind(each, reference, np.radians(2 * declination_tolerance_deg))
    frequencies, firsts, missing = _channels(ordered, band)
    times, slots = _times(ordered, reference)
    antennas = {name: number for number, name in enumerate(reference.array.names)}
    number = len(antennas)
    pairs: list[NDArray[np.int64]] = []
    turned: list[NDArray[np.bool_]] = []
    for each in ordered:
        lookup = np.array([antennas[name] for name in each.array.names])
        one, two = lookup[each.antenna1], lookup[each.antenna2]
        pairs.append(np.minimum(one, two) * number + np.maximum(one, two))
        turned.append(one > two)
    here = ordered.index(reference)
    first_come = [here, *(place for place in range(len(ordered)) if place != here)]
    baselines, is_turned = _baselines([pairs[place] for place in first_come], [turned[place] for place in first_come])
    order = np.argsort(baselines)
    ranks = [order[np.searchsorted(baselines, each, sorter=order)] for each in pairs]
    present = np.zeros((len(times), len(baselines)), np.bool_)
    for slot, rank in zip(slots, ranks, strict=True):
        present[slot, rank] = True
    row_of = np.cumsum(present.ravel()).reshape(present.shape) - 1
    slot_of_row, baseline_of_row = np.nonzero(present)
    low, high = np.divmod(baselines, number)
    one, two = np.where(is_turned, high, low)[baseline_of_row], np.where(is_turned, low, high)[baseline_of_row]
    description = _description(reference, ordered, frequencies, times[slot_of_row], slot_of_row, one, two)
    parts = []
    for place, each in enumerate(ordered):
        rows = row_of[slots[place], ranks[place]]
        if np.bincount(rows).max() > 1:
            raise DataError(f"{each.path} has a baseline twice at the same time", path=str(each.path))
        is_reversed = turned[place] != is_turned[ranks[place]]
        parts.append(
            Part(
                subband=each,
                first_channel=firsts[place],
                rows=None if len(rows) == len(slot_of_row) and np.array_equal(rows, np.arange(len(rows))) else rows,
                is_reversed=is_reversed if is_reversed.any() else None,
                path_m=_path_m(each, description, rows),
            )
        )
    return Group(description, tuple(parts), missing)


def _path_m(subband: Subband, description: Description, rows: NDArray[np.int64]) -> Floats | None:
    """By how much w is longer to the phase centres of rows of the group than to those of the file, at its own times."""
    field = description.field[rows]
    mine, theirs = (
        np.array([(each.ra_rad, each.dec_rad) for each in centres])[number]
        for centres, number in ((subband.phase_centres, subband.field), (description.phase_centres, field))
    )
    if np.array_equal(mine, theirs):  # mostly so, and soon told
        return None
    there = uvw_m(subband.array, subband.antenna1, subband.antenna2, subband.time_s, field, description.phase_centres)
    path: Floats = there[:, 2] - subband.uvw_m()[:, 2]
    return path if np.abs(path).max() > _NO_WAY_M else None


def _same_kind(one: Subband, other: Subband, apart_rad: float) -> None:
    """Raise DataError with the reason if two sub-bands are not of the same recording, as far as but times tell."""
    if one is other:
        return

    def refuse(what: str) -> DataError:
        return DataError(f"{one.path.name} does not belong to {other.path.name}: {what}", path=str(one.path))

    if one.correlations != other.correlations:
        raise refuse(f"correlations are {', '.join(one.correlations)}, and {', '.join(other.correlations)}")
    width, wanted = float(one.channel_width_hz[0]), float(other.channel_width_hz[0])
    if abs(width - wanted) > _SAME_CHANNEL * wanted / len(one.frequencies_hz):
        raise refuse(f"channels are {width / 1e3:.6g} kHz wide, and {wanted / 1e3:.6g}")
    if abs(float(np.median(one.exposure_s)) / float(np.median(other.exposure_s)) - 1) > 0.01:
        raise refuse(f"integrations are {np.median(one.exposure_s):.4g} s long, and {np.median(other.exposure_s):.4g}")
    places = dict(zip(other.array.names, other.array.positions_m, strict=True))
    for name, position in zip(one.array.names, one.array.positions_m, strict=True):
        if name not in places:
            raise refuse(f"there is an antenna {name}")
        if (away := float(np.linalg.norm(position - places[name]))) > _SAME_PLACE_M:
            raise refuse(f"antenna {name} stands {away:.3g} m apart")
    if np.isnan(one.declination_rad) != np.isnan(other.declination_rad):
        raise refuse("one is of a telescope that stands still, and one is not")
    if abs(one.hour_angle_rad - other.hour_angle_rad) > _SAME_HOUR_ANGLE_RAD:
        raise refuse(f"hour angles are {one.hour_angle_rad:.5f} and {other.hour_angle_rad:.5f} radians")
    if abs(one.declination_rad - other.declination_rad) > apart_rad + 1e-9:
        degrees = np.degrees([one.declination_rad, other.declination_rad])
        raise refuse(f"declinations are {degrees[0]:.4f} and {degrees[1]:.4f} degrees")
    if np.isnan(one.declination_rad):
        directions, others = (_directions(each.phase_centres) for each in (one, other))
        if directions.shape != others.shape or np.linalg.norm(directions - others, axis=1).max() > apart_rad + 1e-9:
            raise refuse("phase centres differ")


def _directions(centres: Sequence[PhaseCentre]) -> Floats:
    """Unit vectors, (phase centre, 3)."""
    ra, dec = (np.array([getattr(each, name) for each in centres]) for name in ("ra_rad", "dec_rad"))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _channels(ordered: Sequence[Subband], band: Band | None) -> tuple[Floats, list[int], tuple[slice, ...]]:
    """Frequencies of all channels, the first channel of each sub-band, and the channels that none has."""
    width = float(ordered[0].channel_width_hz[0])
    if band is None:
        lowest, highest = ordered[0].frequencies_hz[0], max(each.frequencies_hz[-1] for each in ordered)
        frequencies = lowest + width * np.arange(round((highest - lowest) / width) + 1)
    else:
        frequencies = band.frequencies_hz
        if abs(width / band.channel_width_hz - 1) > _SAME_CHANNEL / len(ordered[0].frequencies_hz):
            raise DataError(
                f"{ordered[0].path.name} has channels {width / 1e3:.6g} kHz wide, and the telescope's have "
                f"{band.channel_width_hz / 1e3:.6g}",
                path=str(ordered[0].path),
                advice="convert it without the telescope, or with a file that describes it",
            )
    filled = np.full(len(frequencies), -1)
    firsts = []
    for place, each in enumerate(ordered):
        first = round((each.frequencies_hz[0] - frequencies[0]) / width)
        last = first + len(each.frequencies_hz)
        span = f"{each.frequencies_hz[0] / 1e6:.3f} to {each.frequencies_hz[-1] / 1e6:.3f} MHz"
        if first < 0 or last > len(frequencies):
            raise DataError(f"{each.path.name}: {span} is outside of the band", path=str(each.path))
        if np.abs(each.frequencies_hz - frequencies[first:last]).max() > _SAME_CHANNEL * width:
            raise DataError(f"{each.path.name}: {span} is between the channels of the others", path=str(each.path))
        if (taken := filled[first:last].max()) >= 0:
            raise DataError(
                f"{each.path.name} and {ordered[taken].path.name} have the same channels", path=str(each.path)
            )
        filled[first:last] = place
        firsts.append(first)
    if band is None:  # as they are told, and not as they were reckoned here
        for first, each in zip(firsts, ordered, strict=True):
            frequencies[first : first + len(each.frequencies_hz)] = each.frequencies_hz
    edges = np.flatnonzero(np.diff(np.concatenate([[False], filled < 0, [False]]).astype(np.int8)))
    missing = tuple(slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2))
    return frequencies, firsts, missing


def _times(ordered: Sequence[Subband], reference: Subband) -> tuple[Floats, list[NDArray[np.intp]]]:
    """The times that there are, and for each row of each sub-band which of these it has."""
    nearest = SAME_TIME * float(np.median(reference.exposure_s))
    known = np.unique(reference.time_s)
    for each in ordered:
        mine = np.unique(each.time_s)
        apart = np.abs(mine - known[_nearest(known, mine)])
        shared = apart <= nearest
        if each is not reference and shared.mean() < _IN_COMMON:
            raise DataError(
                f"{each.path.name} is of another time than {reference.path.name}: it begins "
                f"{mine[0] - known[0]:+.1f} s after it, and {shared.mean():.0%} of its times are the same",
                path=str(each.path),
            )
        known = np.sort(np.concatenate([known, mine[~shared]]))
    return known, [_nearest(known, each.time_s) for each in ordered]


def _nearest(known: Floats, wanted: Floats) -> NDArray[np.intp]:
    after = np.clip(np.searchsorted(known, wanted), 1, max(1, len(known) - 1))
    if len(known) == 1:
        return np.zeros(len(wanted), np.intp)
    closer: NDArray[np.intp] = after - (wanted - known[after - 1] < known[after] - wanted)
    return closer


def _baselines(
    pairs: list[NDArray[np.int64]], turned: list[NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Each baseline once, in the order in which they come, and whether its first antenna is the later one."""
    every, which = np.concatenate(pairs), np.concatenate(turned)
    _, first = np.unique(every, return_index=True)
    first.sort()
    return every[first], which[first]


def _exposures(reference: Subband, ordered: Sequence[Subband], time_s: Floats, slots: NDArray[np.intp]) -> Floats:
    """Of rows: those of their times in the first file that has these, the one with most rows before others."""
    times = time_s[np.unique(slots, return_index=True)[1]]
    exposures = np.zeros(len(times))
    for each in (*reversed([one for one in ordered if one is not reference]), reference):
        exposures[_nearest(times, each.time_s)] = each.exposure_s
    of_row: Floats = exposures[slots]
    return of_row


def _description(
    reference: Subband,
    ordered: Sequence[Subband],
    frequencies: Floats,
    time_s: Floats,
    slots: NDArray[np.intp],
    antenna1: NDArray[np.int64],
    antenna2: NDArray[np.int64],
) -> Description:
    centres: tuple[PhaseCentre, ...] = reference.phase_centres
    if np.isnan(reference.declination_rad):
        # A time has one phase centre: that of its rows in the first file that has it.
        fields = np.zeros(slots.max() + 1, np.int64)
        times = time_s[np.unique(slots, return_index=True)[1]]
        for each in (*reversed([one for one in ordered if one is not reference]), reference):
            fields[_nearest(times, each.time_s)] = each.field
        field = fields[slots]
    else:
        times = time_s[np.unique(slots, return_index=True)[1]]
        pointing = {"declination_rad": reference.declination_rad, "hour_angle_rad": reference.hour_angle_rad}
        centres = meridian_centres(times, array=reference.array, **pointing)
        field = slots
    one, two = antenna1.astype(np.int32), antenna2.astype(np.int32)
    return Description(
        array=reference.array,
        phase_centres=centres,
        frequencies_hz=frequencies,
        channel_width_hz=np.full(len(frequencies), reference.channel_width_hz[0]),
        correlations=reference.correlations,
        antenna1=one,
        antenna2=two,
        time_s=time_s,
        exposure_s=_exposures(reference, ordered, time_s, slots),
        uvw_m=uvw_m(reference.array, one, two, time_s, field, centres),
        field=field.astype(np.int32),
        scan=np.ones(len(time_s), np.int32),
        history=(*reference.history, f"{len(ordered)} sub-bands: {', '.join(each.path.name for each in ordered)}"),
    )
