"""What is told of an image as a product: when and where it was observed, its beam, and how deep it is."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from absurd.tasks.imaging.imager import ImagingResult

_MJD_0 = datetime(1858, 11, 17, tzinfo=UTC)


def image_record(results: Sequence[ImagingResult], paths: Mapping[str, str], ms: str) -> dict[str, Any]:
    """The row of an image, of whose planes the first tells noise and dynamic range, and the middle one the beam."""
    first, middle = results[0], results[len(results) // 2]
    begin, end = ((_MJD_0 + timedelta(seconds=each)).isoformat() for each in first.span_s)
    ra, dec = (math.degrees(each) for each in (first.geometry.centre.ra_rad, first.geometry.centre.dec_rad))
    told = first.statistics
    return {
        "path": paths["image"],
        "observed_from": begin,
        "observed_until": end,
        "telescope": first.telescope,
        "ra": round(ra % 360, 9) % 360,
        "declination": round(dec, 9),
        "frequency_hz": middle.frequency_hz,
        "bandwidth_hz": sum(each.bandwidth_hz for each in results),
        "beam_major_arcsec": math.degrees(middle.beam.major_rad) * 3600,
        "beam_minor_arcsec": math.degrees(middle.beam.minor_rad) * 3600,
        "beam_angle_deg": math.degrees(middle.beam.position_angle_rad),
        "rms_jy": told.get("rms_jy"),
        "thermal_jy": told.get("thermal_jy"),
        "peak_jy": told.get("peak_jy"),
        "dynamic_range": told.get("dynamic_range"),
        "inputs": [{"path": os.path.abspath(ms), "role": "visibilities"}],
        "facts": {
            "paths": {name: os.path.abspath(path) for name, path in paths.items()},
            "engine": first.engine,
            "stopped_by": first.stopped_by,
            "planes": len(results),
        },
    }
