"""What is registered of a gain set, and what it is looked up by."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from absurd.tasks.calibration.gain_table import GainSet, Stored, table_names
from absurd.tasks.calibration.gains import Gains
from absurd.tasks.calibration.validity import STRIP_DEG, WINDOW_HOURS, Target, window
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.measurement_set_tables import Description
from absurd.tasks.visibility.visibilities import Visibilities

Recording = Description | Visibilities
"""What tells when, where and in which band something was recorded."""
_MJD_0 = datetime(1858, 11, 17, tzinfo=UTC)
_NOT_OF_NAMES = re.compile(r"[^A-Za-z0-9_.:+-]+")


def moment(seconds: float) -> datetime:
    """Of seconds of UTC since MJD 0; leap seconds are not counted, in neither."""
    return _MJD_0 + timedelta(seconds=seconds)


def seconds_of(at: datetime) -> float:
    """Seconds of UTC since MJD 0."""
    return (at - _MJD_0).total_seconds()


def telescope_of(recording: Recording) -> str:
    """The name that gain sets of an array go by: that of the recording, with letters and digits only."""
    return _NOT_OF_NAMES.sub("_", recording.array.telescope).lstrip(".:+-")[:64] or "unknown"


def observed(recording: Recording) -> tuple[datetime, datetime]:
    """From when to when was recorded, in whole milliseconds within: recordings that touch do not overlap.

    Raises DataError for no rows.
    """
    if not len(recording.time_s):
        raise DataError("there are no visibilities")
    half = recording.exposure_s / 2
    start = float((recording.time_s - half).min())
    end = float((recording.time_s + half).max())
    first, last = math.ceil(start * 1000) / 1000, math.floor(end * 1000) / 1000
    return moment(first), moment(max(last, first + 0.001))


def pointing_deg(recording: Recording) -> float:
    """Where the telescope pointed: the mean declination of the rows' phase centres, degrees, ICRS."""
    used = np.unique(recording.field)
    return float(np.degrees(np.mean([recording.phase_centres[each].dec_rad for each in used])))


def target_of(recording: Recording) -> Target:
    """What gains are wanted for, to correct these."""
    start, end = observed(recording)
    centres = recording.frequencies_hz
    return Target(start + (end - start) / 2, pointing_deg(recording), float(centres.min()), float(centres.max()))


def record(
    gain_set: GainSet,
    stored: Stored,
    visibilities: Visibilities,
    *,
    validity_hours: float = WINDOW_HOURS,
    strip_deg: float = STRIP_DEG,
    provenance: Mapping[str, Any] | None = None,
    task_id: str | None = None,
) -> dict[str, Any]:
    """For `register_gain_set`, of a set that was solved from these visibilities."""
    start, end = observed(visibilities)
    valid_from, valid_until = window(start, end, validity_hours)
    half = np.abs(visibilities.channel_width_hz) / 2
    lowest, highest = (visibilities.frequencies_hz - half).min(), (visibilities.frequencies_hz + half).max()
    first = gain_set.tables[0]
    return {
        "telescope": telescope_of(visibilities),
        "path": stored.path,
        "checksum": stored.checksum,
        "bytes": stored.bytes,
        "kinds": [each.kind for each in gain_set.tables],
        "source": first.source,
        "ra": round(math.degrees(first.ra_rad) % 360, 9) % 360 if math.isfinite(first.ra_rad) else None,
        "declination": round(pointing_deg(visibilities), 6),
        "strip": strip_deg,
        # Whole hertz within: bands that touch do not overlap.
        "lowest_hz": float(math.ceil(lowest)),
        "highest_hz": float(max(math.floor(highest), math.ceil(lowest) + 1)),
        "observed_from": start.isoformat(),
        "observed_until": end.isoformat(),
        "valid_from": valid_from.isoformat(),
        "valid_until": valid_until.isoformat(),
        "quality": quality(gain_set),
        "provenance": dict(provenance or {}),
        "task_id": task_id,
    }


def quality(gain_set: GainSet) -> dict[str, Any]:
    """What the tables tell of themselves, by kind: share flagged, median SNR of the rest, antennas with solutions."""
    return dict(zip(table_names(gain_set.tables), map(_quality, gain_set.tables), strict=True))


def _quality(gains: Gains) -> dict[str, Any]:
    good = ~gains.flags
    return {
        "flagged": round(float(gains.flags.mean()), 6),
        "snr": round(float(np.median(gains.snr[good])), 3) if good.any() else None,
        "antennas": int(good.any(axis=(0, 2, 3)).sum()),
        "times": len(gains.time_s),
        "chi_squared": round(gains.chi_squared, 4) if math.isfinite(gains.chi_squared) else None,
        "outliers": round(gains.outliers, 6) if math.isfinite(gains.outliers) else None,
    }
