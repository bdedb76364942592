"""Which recordings show a calibrator."""

from __future__ import annotations

import os
from pathlib import Path

from absurd.tasks.calibration.field_model import calibrator_near
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.measurement_set_rows import open_table, read_array, read_phase_centres, select


def calibrator_of(ms: str | os.PathLike[str], *, catalogs: str | None = None, radius_deg: float = 2.0) -> str | None:
    """The calibrator that a solution of the recording would take, by name; None where there is none.

    What lies in `catalogs` counts as well as what is known without, see `field_model`.  No visibilities are read.
    Raises DataError for what is no Measurement Set.
    """
    path = os.fspath(ms)
    with open_table(ms) as main:
        centres, array = read_phase_centres(main), read_array(main, path)
        frequencies_hz = select(main, path, None, None).frequencies_hz
    if not centres:
        raise DataError(f"{path} has no fields", path=path)
    beam = beam_named("airy", array.dish_diameter_m) if array.dish_diameter_m > 0 else None
    middle = centres[len(centres) // 2]  # of a drift scan, whose fields follow one another
    return calibrator_near(middle, frequencies_hz, beam=beam, catalogs=catalogs, radius_deg=radius_deg)


def version_of(ms: str | os.PathLike[str]) -> str:
    """What changes when a Measurement Set is made anew, and not when it is flagged or corrected.

    It is the time of its table of antennas, which is written once.  Empty where there is none.
    """
    try:
        told = (Path(ms) / "ANTENNA" / "table.dat").stat()
    except OSError:
        return ""
    return f"{told.st_mtime_ns}"
