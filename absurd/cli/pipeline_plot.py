"""``absurd pipeline plot``: pictures of visibilities, gains, images, mosaics and light curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from absurd.cli.output import clean, emit, json_option, plural
from absurd.cli.pipeline import need_the_extra
from absurd.cli.pipeline_configured import configured, remark

KINDS = (
    *("gains", "bandpass", "coverage", "flags", "closure"),
    *("image", "residuals", "footprint", "light_curves"),
)


@click.command(epilog="Example: absurd pipeline plot recording.ms --out pictures --kind flags --kind closure")
@click.argument("path", type=click.Path())
@click.option("--out", type=click.Path(file_okay=False), default=".", metavar="FOLDER", help="Where pictures go.  [.]")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Draw this; repeatable.  [what fits]")
@click.option("--column", default="DATA", metavar="NAME", help="Of a Measurement Set.  [DATA]")
@click.option("--window", type=int, metavar="N", help="Its spectral window, where it has several.")
@click.option(
    "--source", "sources", multiple=True, metavar="NAME", help="Of light curves; repeatable.  [most changing]"
)
@configured("pipeline plot")
@json_option
def plot(
    path: str, out: str, kinds: Sequence[str], column: str, window: int | None, sources: Sequence[str], as_json: bool
) -> None:
    """Draw visibilities, gains, images or light curves as PNG.

    PATH is a Measurement Set, a UVH5 or uvfits file, a gain set, a gain table of CASA, the truth of a simulation, a
    FITS image or mosaic, or a Parquet file of measurements or light curves.  Of visibilities there are the uv coverage,
    flags and closure phases, of gains amplitude and phase by time or by frequency, of images the pixels with the beam
    and how they scatter, of mosaics where their tiles are, of sources their flux densities by time.
    """
    need_the_extra("matplotlib", "numpy")
    written = _drawn(path, out, kinds, column=column, spectral_window=window, sources=sources)
    remark(f"{plural(len(written), 'picture')} of {path} in {out}")
    emit({"pictures": written}, as_json=as_json, text="\n".join(map(clean, written)))


def _drawn(path: str, out: str, kinds: Sequence[str], **about: Any) -> list[str]:
    from absurd.tasks.pipeline.plots.draw import draw_all
    from absurd.tasks.radio.errors import StageError

    try:
        return draw_all(Path(path), Path(out), kinds=kinds, **about)
    except OSError as error:
        raise StageError(f"{error.filename or out}: {error.strerror or error}") from error
