"""Which pictures there are of what, and drawing them into a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.calibration.gains import Gains
from absurd.tasks.pipeline.plots import style
from absurd.tasks.pipeline.plots.closure import draw_closure
from absurd.tasks.pipeline.plots.coverage import draw_coverage
from absurd.tasks.pipeline.plots.flags import draw_flags
from absurd.tasks.pipeline.plots.gains import draw_bandpass, draw_gains
from absurd.tasks.pipeline.plots.opening import Data, open_data
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OF_VISIBILITIES: dict[str, Callable[[Visibilities, str], Figure]] = {
    "coverage": draw_coverage,
    "flags": draw_flags,
    "closure": draw_closure,
}
OF_GAINS: dict[str, Callable[[Gains, str], Figure]] = {"gains": draw_gains, "bandpass": draw_bandpass}


def draw_all(
    path: Path,
    folder: Path,
    *,
    kinds: Sequence[str] = (),
    column: str = "DATA",
    spectral_window: int | None = None,
) -> list[str]:
    """Draw what a path holds (see `open_data`) into a folder; returns the paths of the pictures.

    Without `kinds` all are drawn that there are.  Raises DataError and what readers raise, ValidationError if none of
    `kinds` fits, OSError.
    """
    found = open_data(path, column=column, spectral_window=spectral_window)
    offered = list(dict.fromkeys(kind for _, data in found for kind in pictures_of(data)))
    if kinds and not set(kinds) & set(offered):
        raise ValidationError(
            f"there is no picture {', '.join(kinds)} of {path.name}", advice=f"take {', '.join(offered)}"
        )
    stem = path.name.removesuffix(path.suffix) if path.suffix in _SUFFIXES else path.name
    written = []
    for word, data in found:
        for kind, picture in pictures_of(data).items():
            if kinds and kind not in kinds:
                continue
            target = folder / "_".join(each for each in (stem, word, f"{kind}.png") if each)
            title = path.name if column == "DATA" or isinstance(data, Gains) else f"{path.name}, {column}"
            style.save(picture(data, title), target)
            written.append(str(target))
    return written


_SUFFIXES = (".ms", ".hdf5", ".uvh5", ".uvfits", ".zarr")


def pictures_of(data: Data) -> dict[str, Any]:
    """The functions that draw it, by kind."""
    if isinstance(data, Visibilities):
        return dict(OF_VISIBILITIES)
    kind = "bandpass" if data.kind == "bandpass" or len(data.frequencies_hz) > len(data.time_s) > 0 else "gains"
    return {kind: OF_GAINS[kind]}
