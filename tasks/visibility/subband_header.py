"""What the header of a sub-band file tells: enough to group it, without a single visibility."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from absurd.tasks.radio.errors import DataError
from absurd.tasks.said import first_line
from absurd.tasks.visibility.correlations import AIPS

_JD_OF_UNIX = 2440587.5


@dataclass(frozen=True, slots=True)
class SubbandHeader:
    """Facts of a whole file."""

    begins_at: datetime
    """Middle of its first integration, UTC."""
    integration_s: float
    declination_deg: float | None
    """Of its phase centre; None where the header does not tell one for all times."""
    content: str
    """What all sub-bands of one recording have in common beside time and declination, in words."""


def read_header(path: str | os.PathLike[str]) -> SubbandHeader:
    """Read the header of a UVH5 file, and see that the file is as long as HDF5 says and has its visibilities.

    Nothing is locked: a program that opens the file for writing meanwhile is not disturbed.

    Raises
    ------
    DataError
        It is no HDF5 file or not whole, or lacks what a sub-band needs: perhaps it is still being written.
    OSError
        The file is gone, or may not be read.
    """
    import h5py

    with open(path, "rb"):  # h5py tells of missing rights and of damage by one and the same error
        pass
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _facts(file)
    except FileNotFoundError:
        raise
    except KeyError as error:
        raise DataError(f"{os.fspath(path)} is not whole: {first_line(error)}", source=os.fspath(path)) from error
    except (OSError, RuntimeError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise DataError(f"{os.fspath(path)} cannot be read: {first_line(error)}", source=os.fspath(path)) from error


def _facts(file: Any) -> SubbandHeader:
    import numpy as np

    header = file["Header"]
    times = np.asarray(header["time_array"][()], float)
    if times.size == 0 or not np.isfinite(times).all():
        raise ValueError("its times are not finite numbers, or there are none")
    visibilities = file["Data"]["visdata"]
    for name in ("flags", "nsamples"):
        _ = file["Data"][name]
    if visibilities.shape[0] != times.size:
        raise ValueError(f"visdata has {visibilities.shape[0]} rows, and there are {times.size} times")
    if visibilities.chunks is None and visibilities.size and visibilities.id.get_storage_size() == 0:
        raise ValueError("no visibility is written yet")
    integration_s = float(np.median(np.asarray(header["integration_time"][()], float)))
    if not 0 < integration_s < math.inf:
        raise ValueError(f"its integration time is {integration_s} s")
    codes = [int(each) for each in np.atleast_1d(header["polarization_array"][()])]
    polarisations = ",".join(AIPS.get(each, str(each)) for each in codes)
    return SubbandHeader(
        begins_at=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=float(times.min()) - _JD_OF_UNIX),
        integration_s=integration_s,
        declination_deg=_declination_deg(header),
        # Not how many times and antennas: a sub-band that lost some is one of its group all the same.
        content=f"{_text(header, 'telescope_name')}, {integration_s:.4g} s, {visibilities.shape[-2]} channels, "
        f"{polarisations}",
    )


def _declination_deg(header: Any) -> float | None:
    import numpy as np

    extra = header.get("extra_keywords")
    if extra is not None and "phase_center_dec" in extra:
        values = extra["phase_center_dec"][()]
    elif "phase_center_catalog" in header:
        values = [
            each["cat_lat"][()]
            for each in header["phase_center_catalog"].values()
            if "cat_lat" in each and _text(each, "cat_type") in {"sidereal", "driftscan"}
        ]
    elif "phase_center_dec" in header:
        values = header["phase_center_dec"][()]
    else:
        return None
    declinations = np.degrees(np.atleast_1d(np.asarray(values, float)).ravel())
    if declinations.size == 0 or np.ptp(declinations) > 0.01:
        return None
    if not (np.abs(declinations) <= 90).all():
        raise ValueError(f"its declination is {declinations[0]} degrees")
    return float(declinations[0])


def _text(group: Any, name: str) -> str:
    value = group[name][()] if name in group else b""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
