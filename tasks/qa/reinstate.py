"""A gain set that somebody wants back: out of quarantine, and as it was registered."""

from __future__ import annotations

import os

from absurd.tasks.calibration.gain_table import read_gains
from absurd.tasks.qa.quarantine import find_in_quarantine, release_from_quarantine
from absurd.tasks.radio.errors import DataError


def reinstate(path: str, checksum: str) -> str | None:
    """Have the folder of a gain set be where its row says, with what was registered; the place it came from, if any.

    Called before the row says that it is valid: a row whose folder lies in quarantine would be chosen, and fail all
    that it is chosen for.  Raises DataError where the folder is neither there nor in quarantine, CalibrationError
    where it holds something else, StateManagementError where another has its place.
    """
    if os.path.lexists(path):
        read_gains(path, checksum=checksum)
        return None
    told = find_in_quarantine(path)
    if told is None:
        raise DataError(f"there is no gain set in {path}, nor in quarantine", path=path)
    place: str = told["place"]
    read_gains(place, checksum=checksum)
    release_from_quarantine(place)
    return place
