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
from absurd.tasks.pipeline.plots.light_curves import LightCurves, draw_light_curves
from absurd.tasks.pipeline.plots.opening import IMAGES, TABLES, Data, open_data
from absurd.tasks.pipeline.plots.sky import SkyPicture, draw_footprint, draw_image, draw_residuals
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OF_VISIBILITIES: dict[str, Callable[[Visibilities, str], Figure]] = {
    "coverage": draw_coverage,
    "flags": draw_flags,
    "closure": draw_closure,
}
OF_IMAGES: dict[str, Callable[[SkyPicture, str], Figure]] = {
    "image": draw_image,
    "residuals": draw_residuals,
    "footprint": draw_footprint,
}
OF_GAINS: dict[str, Callable[[Gains, str], Figure]] = {"gains": draw_gains, "bandpass": draw_bandpass}


def draw_all(
    path: Path,
    folder: Path,
    *,
    kinds: Sequence[str] = (),
    column: str = "DATA",
    spectral_window: int | None = None,
    sources: Sequence[str] = (),
) -> list[str]:
    """Draw what a path holds (see `open_data`) into a folder; returns the paths of the pictures.

    Without `kinds` all are drawn that there are.  Raises DataError and what readers raise, ValidationError if none of
    `kinds` fits, OSError.
    """
    found = open_data(path, column=column, spectral_window=spectral_window, sources=sources)
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
            title = f"{path.name}, {column}" if column != "DATA" and isinstance(data, Visibilities) else path.name
            style.save(picture(data, title), target)
            written.append(str(target))
    return written


_SUFFIXES = (".ms", ".hdf5", ".uvh5", ".uvfits", ".zarr", *IMAGES, *TABLES)


def pictures_of(data: Data) -> dict[str, Any]:
    """The functions that draw it, by kind."""
    if isinstance(data, Visibilities):
        return dict(OF_VISIBILITIES)
    if isinstance(data, LightCurves):
        return {"light_curves": draw_light_curves}
    if isinstance(data, SkyPicture):
        return {kind: draw for kind, draw in OF_IMAGES.items() if kind != "footprint" or data.tiles is not None}
    kind = "bandpass" if data.kind == "bandpass" or len(data.frequencies_hz) > len(data.time_s) > 0 else "gains"
    return {kind: OF_GAINS[kind]}
