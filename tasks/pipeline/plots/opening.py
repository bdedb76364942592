"""What a path holds, to be drawn: visibilities of any form that is read, gain sets, CASA's gain tables, a truth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.pipeline.plots.light_curves import LightCurves, open_light_curves
from absurd.tasks.pipeline.plots.sky import SkyPicture, open_picture
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.visibilities import Visibilities

Data = Visibilities | Gains | SkyPicture | LightCurves


IMAGES, TABLES = (".fits", ".fit"), (".parquet", ".pq")
"""What names of files end with that hold images, and measurements."""


def open_data(
    path: str | os.PathLike[str],
    *,
    column: str = "DATA",
    spectral_window: int | None = None,
    sources: Sequence[str] = (),
) -> list[tuple[str, Data]]:
    """What is to be drawn of a path, each with a word for its name (empty where there is one thing).

    A Measurement Set gives the visibilities of a spectral window in `column`; UVH5, uvfits and miriad those they have;
    a gain set (Zarr) or CASA table each of its tables; the folder of a simulation's truth its gains and bandpass; FITS
    an image or mosaic, Parquet the light curves of `sources`, or of those that change most.

    Raises DataError for anything else, and what the readers raise.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"{place} is not there", path=str(place))
    if place.suffix in IMAGES and (picture := open_picture(place)) is not None:
        return [("", picture)]
    if place.suffix in TABLES:
        return [("", open_light_curves(place, sources))]
    if (place / "simulation.json").is_file():
        from absurd.tasks.pipeline.simulation.truth import read_truth

        truth = read_truth(place)
        return [("", truth.as_gains()), ("", truth.as_bandpass())]
    if (place / "zarr.json").is_file():
        from absurd.tasks.calibration.gain_table import read_gains

        tables = read_gains(place).tables
        kinds = [each.kind for each in tables]
        return [(f"{at}" if kinds.count(each.kind) > 1 else "", each) for at, each in enumerate(tables)]
    if _is_calibration(place):
        from absurd.tasks.calibration.casa_table import read_casa_table

        windows = read_casa_table(place).tables
        return [(f"window{number}" if len(windows) > 1 else "", each) for number, each in windows.items()]
    from absurd.tasks.visibility.foreign import read_visibilities

    return [("", read_visibilities(place, spectral_window=spectral_window, column=column))]


def _is_calibration(place: Path) -> bool:
    """Whether a table of casacore says of itself that it is of gains."""
    try:
        return "Calibration" in (place / "table.info").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
