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
KINDS = (*OF_GAINS, *OF_VISIBILITIES)


def draw(data: Visibilities | Gains, kinds: Sequence[str], folder: str | Path, stem: str, title: str) -> list[str]:
    """Write ``STEM_KIND.png`` of each kind that there is of the data; returns their paths.

    Without `kinds` all are drawn.  Raises ValidationError if none of those asked for fits, OSError.
    """
    pictures = _pictures(data)
    chosen = [each for each in pictures if not kinds or each in kinds]
    if not chosen:
        raise ValidationError(f"there is no picture {', '.join(kinds)} of this", advice=f"take {', '.join(pictures)}")
    written = []
    for kind in chosen:
        path = Path(folder) / f"{stem}_{kind}.png"
        style.save(pictures[kind](data, title), path)
        written.append(str(path))
    return written


def _pictures(data: Visibilities | Gains) -> dict[str, Any]:
    if isinstance(data, Visibilities):
        return dict(OF_VISIBILITIES)
    kind = "bandpass" if data.kind == "bandpass" else "gains"
    return {kind: OF_GAINS[kind]}
