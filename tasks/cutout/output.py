"""Cut-outs as FITS files."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any
from uuid import UUID

from absurd.tasks.artifact import write_aside
from absurd.tasks.cutout.bare import BareCutout
from absurd.tasks.cutout.engine import Cutout
from absurd.tasks.quiet import quiet

Cards = list[tuple[str, Any, str]]
"""Keyword, value and comment."""


def write_fits(
    cutout: Cutout, path: str | os.PathLike[str], *, task_id: UUID | str | None = None, private: bool = False
) -> None:
    """Write a cut-out as FITS: the image first, then further planes, then tables of its WCS.

    The header keeps what the image's said, and tells where the cut-out comes from; no folder of this machine.  The
    file appears whole or not at all; a `private` path, as ``ctx.artifact`` gives, is written as it is.  Raises
    OSError.
    """
    with write_aside(path, private=private) as part:
        write_hdus(cutout, part, task_id=task_id)


def write_hdus(cutout: Cutout, target: Any, *, task_id: UUID | str | None = None) -> None:
    """As `write_fits`, to a path or an open file as it is."""
    from astropy.io import fits

    with quiet():  # long names leave no room for their comments; old cards are mended
        header = cutout.header.copy()
        for key, value, comment in _provenance(cutout, task_id):
            header[key] = (value, comment)
        hdus = [fits.PrimaryHDU(cutout.image.pixels, header)]
        for name, pixels in cutout.planes.items():
            own = cutout.image.wcs.to_header(relax=True)
            own.update(cutout.meanings.get(name, {}))
            hdus.append(fits.ImageHDU(pixels, own, name=name.upper()))
        fits.HDUList([*hdus, *cutout.tables]).writeto(target, output_verify="silentfix+ignore", checksum=True)


def whereabouts(cutout: Cutout | BareCutout) -> Cards:
    """What tells two cut-outs of an image apart, beside their WCS."""
    cards: Cards = [
        ("ORIGINX", cutout.box.origin[0], "[pixel] x there of the first pixel here, from 0"),
        ("ORIGINY", cutout.box.origin[1], "[pixel] y there of the first pixel here, from 0"),
        ("CUTRA", cutout.position[0], "[deg] position asked for, ICRS"),
        ("CUTDEC", cutout.position[1], "[deg] position asked for, ICRS"),
        ("NOUTSIDE", cutout.n_outside, "pixels beyond the image, filled with NaN"),
    ]
    cards += [(f"STITCH{number}", name, "pixels are from") for number, name in enumerate(cutout.stitched, 1)]
    return cards


def _provenance(cutout: Cutout, task_id: UUID | str | None) -> Cards:
    cards: Cards = [
        ("ORIGFILE", cutout.source, "cut out of"),
        ("ORIGHDU", cutout.hdu, "HDU in it, from 0"),
        *whereabouts(cutout),
    ]
    if cutout.band is not None and "BAND" not in cutout.header:
        cards.append(("BAND", cutout.band, "band of the image"))
    if task_id is not None:
        cards.append(("TASKID", str(task_id), "task that made this file"))
    cards.append(("CREATOR", f"absurd {version('absurd')}", "program that made this file"))
    return cards
