"""A page that shows the cut-outs of a batch side by side, and says of each that is missing why."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.artifact import write_aside
from absurd.tasks.cutout.bands import by_wavelength
from absurd.tasks.cutout.fetch import State
from absurd.tasks.cutout.preview import NO_DATA, combine, of_one_unit, stretch

SIDE = 128
"""Pixels of a thumbnail's longer side."""
MOST_SHOWN = 1_000
"""Cut-outs on a page: one of a million would open in no browser."""
COLOURS = 3
_KEY = "Right ascension and declination are ICRS.  Rows of pixels run upwards; where it is blue there is no image."

_STYLE = """
:root { color-scheme: dark; --ground: #0d1420; --panel: #151f30; --ink: #dfe7f3; --faint: #8fa1bb; --line: #24334b;
        --accepted: #4cc38a; --rejected: #e5b567; --failed: #ef6a6a }
* { box-sizing: border-box }
body { margin: 0; padding: 2rem clamp(1rem, 4vw, 4rem); background: var(--ground); color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem }
p { color: var(--faint); margin: 0 } .key { font-size: .85rem; margin-bottom: .75rem } b { color: var(--ink) }
.bar { display: flex; height: .5rem; margin: 1rem 0 .5rem; border-radius: 1rem; overflow: hidden;
       background: var(--line) }
.bar i { display: block } .accepted { background: var(--accepted) } .rejected { background: var(--rejected) }
.failed { background: var(--failed) }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem;
        align-items: start }
figure { margin: 0; padding: .5rem; background: var(--panel); border-radius: .5rem; border-top: 3px solid var(--line) }
figure.is-accepted { border-color: var(--accepted) } figure.is-rejected { border-color: var(--rejected) }
img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated; background: #000 }
figcaption { font-size: .78rem; color: var(--faint); margin-top: .4rem; overflow-wrap: anywhere }
figcaption b { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; line-clamp: 2;
               overflow: hidden }
.why { color: var(--rejected) } td.name { overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--faint); font-weight: 500 } td.n { font-variant-numeric: tabular-nums; white-space: nowrap }
@media (max-width: 40rem) { table { font-size: .85rem } td.n { white-space: normal } }
"""


def thumbnail(pixels: NDArray[Any], bands: Sequence[str | None], units: Sequence[str | None]) -> bytes:
    """A small PNG of one cut-out, shape (bands, ny, nx), of these bands in any order, and the unit of each.

    Its three reddest bands in colour, as `cutout.extract` shows them, or the bluest that has a value in grey.
    """
    from PIL import Image as Pictures

    order = sorted(range(len(bands)), key=lambda each: by_wavelength(bands[each]), reverse=True)
    if len(order) >= COLOURS:
        reddest = order[:COLOURS]
        red, green, blue = (pixels[each] for each in reddest)
        shades = combine(red, green, blue, same_unit=of_one_unit([units[each] for each in reddest]))
    else:
        shown = next((each for each in reversed(order) if np.isfinite(pixels[each]).any()), order[-1])
        shades = np.repeat(stretch(pixels[shown])[..., None], 3, axis=-1)
    empty = np.asarray(np.isnan(shades).all(axis=-1))
    coloured = np.where(empty[..., None], np.array(NO_DATA[0], dtype=np.uint8), np.round(np.nan_to_num(shades) * 255))
    picture = Pictures.fromarray(coloured.astype(np.uint8)[::-1])  # FITS counts rows upwards
    picture.thumbnail((SIDE, SIDE), Pictures.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def write_contact_sheet(
    path: str | os.PathLike[str],
    title: str,
    counts: Mapping[State, int],
    rows: Iterable[Mapping[str, Any]],
    thumbnails: Mapping[int, bytes],
    *,
    private: bool = False,
) -> None:
    """Write the page: counts, then rows of the manifest with a thumbnail as pictures, those that failed as a table.

    At most `MOST_SHOWN` of each; the page says how many there are in all, and needs no other file.  Raises OSError.
    """
    shown: list[str] = []
    failed: list[str] = []
    pictures, failures = min(MOST_SHOWN, len(thumbnails)), min(MOST_SHOWN, counts.get("failed", 0))
    for row in rows:
        if len(shown) == pictures and len(failed) == failures:
            break  # a manifest may have millions more
        if row["state"] == "failed" and len(failed) < MOST_SHOWN:
            failed.append(_failed(row))
        elif row["row"] in thumbnails and len(shown) < MOST_SHOWN:
            shown.append(_figure(row, thumbnails[row["row"]]))
    with write_aside(path, private=private) as aside:
        aside.write_text(_page(title, counts, shown, failed), encoding="utf-8")


def _page(title: str, counts: Mapping[State, int], shown: Sequence[str], failed: Sequence[str]) -> str:
    total = sum(counts.values())
    told = ", ".join(f"<b>{counts[each]:,}</b> {each}" for each in counts)
    bar = "".join(f'<i class="{each}" style="flex:{counts[each]}"></i>' for each in counts if counts[each])
    good = counts.get("accepted", 0) + counts.get("rejected", 0)
    pictures = (
        f"<h2>Cut-outs{_of(len(shown), good)}</h2><p class=key>{_KEY}</p><div class=grid>{''.join(shown)}</div>"
        if shown
        else ""
    )
    table = (
        f"<h2>Failed{_of(len(failed), counts.get('failed', 0))}</h2><table><tr><th>Row<th>Position<th>Reason</tr>"
        f"{''.join(failed)}</table>"
        if failed
        else ""
    )
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>{total:,} requests: {told}</p><div class=bar>{bar}</div>{pictures}{table}\n"
    )


def _of(shown: int, total: int) -> str:
    return f" (the first {shown:,} of {total:,})" if shown < total else ""


def _figure(row: Mapping[str, Any], picture: bytes) -> str:
    name = row["id"] if row["id"] is not None else f"row {row['row']}"
    bands = escape(" ".join(filter(None, row["bands"])))
    reason = f"<span class=why>{escape(row['reason'])}</span>" if row["reason"] else ""
    size = f"{row['nx']} × {row['ny']} pixels" if row.get("nx") else ""
    told = "<br>".join(filter(None, (_position(row), size, bands, reason)))
    source = base64.b64encode(picture).decode()
    return (
        f'<figure class="is-{row["state"]}"><img alt="{escape(name, quote=True)}" src="data:image/png;base64,{source}">'
        f'<figcaption><b title="{escape(name, quote=True)}">{escape(name)}</b>{told}</figcaption>'
        "</figure>"
    )


def _failed(row: Mapping[str, Any]) -> str:
    name = f"{row['row']}" + (f" {escape(row['id'])}" if row["id"] is not None else "")
    return f"<tr><td class=name>{name}<td class=n>{_position(row)}<td>{escape(row['reason'] or '')}</tr>"


def _position(row: Mapping[str, Any]) -> str:
    ra, dec = row["ra"], row["dec"]
    return f"{'–' if ra is None else f'{ra:.5f}°'} {'–' if dec is None else f'{dec:+.5f}°'}"
