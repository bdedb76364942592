"""The report of the night: one HTML file that needs nothing beside it, and can be sent to somebody."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from absurd.demo import charts
from absurd.demo.compare import SCALE, Comparison, Source
from absurd.demo.night import Night
from absurd.demo.plan import NEW, VARIABLE
from absurd.model import RunState, Task

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fcfbf8; --faint: #5f6875; --line: #e3e0d8;
  --truth: #9a9384; --mark: #24518f; --warm: #b4531a; --w0: #3f76b5; --w1: #7a9e5f; --w2: #b08a3e; --w3: #8a6fae }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e7e3; --paper: #14161a; --faint: #a2a9b3; --line: #2d3138;
  --truth: #837d70; --mark: #8fb4ea; --warm: #f0a064; --w0: #6c9fdb; --w1: #9cc17e; --w2: #d3ae63; --w3: #b29ad6 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.1rem 5rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.8rem; margin: 0 } h2 { font-size: 1.2rem; margin: 3rem 0 .6rem }
p { margin: .3rem 0 .9rem; max-width: 46rem } .faint, figcaption, th { color: var(--faint) }
code, pre, td.number { font-family: ui-monospace, monospace; font-size: .88em }
.facts { display: flex; flex-wrap: wrap; gap: 1rem 2.6rem; margin: 1.6rem 0 }
.facts b { display: block; font-size: 1.5rem }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1.6rem }
figure { margin: 0 } figcaption { font-size: .86rem; margin-top: .4rem }
figure > img, figure > svg { width: 100%; height: auto; display: block; border-radius: 4px }
.wide { overflow-x: auto } .wide > svg { min-width: 46rem; width: 100% }
table { border-collapse: collapse; font-size: .9rem } th { text-align: left; font-weight: 500 }
th, td { padding: .28rem 1.1rem .28rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }
td.number { text-align: right }
pre { overflow-x: auto; padding: .9rem 1rem; border: 1px solid var(--line); border-radius: 6px }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink) }
svg .turned { writing-mode: vertical-rl; text-anchor: middle }
.grid line, svg .grid { stroke: var(--line) } svg .axis { stroke: var(--faint) }
.truth { fill: none; stroke: var(--truth); stroke-width: 2; stroke-dasharray: 5 4 }
.point { fill: var(--mark) } .error, .limit { stroke: var(--mark); stroke-width: 1.6; fill: none }
.bar { fill: var(--w0) } .w1 { fill: var(--w1) } .w2 { fill: var(--w2) } .w3 { fill: var(--w3) }
.lost { fill: var(--warm) } line.killed { stroke: var(--warm); stroke-dasharray: 3 3 }
svg text.killed { fill: var(--warm) }
.edge { fill: none; stroke: var(--line); stroke-width: 1.2 } .node { fill: var(--paper); stroke: var(--mark) }
.again { stroke: var(--warm); stroke-width: 2.2 } .sky circle { fill: none; stroke: #ffd24a; stroke-width: 1.4 }
.sky text { fill: #ffd24a; font-size: 13px } .sky .new, .sky text.new { stroke: #ff8d6b }
.sky text.new { fill: #ff8d6b; stroke: none }
"""
_PIXELS = 900
"""Of a picture's longer side, at most."""


def draw_calibration(night: Night) -> None:
    """Draw the gain sets of the night into its folder of pictures."""
    from absurd.tasks.pipeline.plots.draw import draw_all

    for path in sorted((night.out / "data" / "cal_tables").glob("*.gains")):
        draw_all(path, night.out / "pictures", kinds=())


def write_report(night: Night, comparison: Comparison, status: str, hints: Sequence[str]) -> Path:
    """Write ``index.html`` into the night's folder."""
    path = night.out / "index.html"
    body = "\n".join(_sections(night, comparison, status, hints))
    head = '<meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">'
    page = f"<!doctype html><html lang=en><head>{head}<title>A night of absurd</title><style>{STYLE}</style></head>"
    path.write_text(f"{page}<body>{body}</body></html>", encoding="utf-8")
    return path


def _sections(night: Night, comparison: Comparison, status: str, hints: Sequence[str]) -> Iterable[str]:
    size = night.plan.size
    antennas = night.pointings[0].recording.antennas
    yield "<h1>A night of absurd</h1>"
    yield (
        f"<p class=faint>Simulated: {antennas} antennas of DSA-110 with its band, site and beam, seed "
        f"{night.plan.seed}. Everything after the files arrived is what the platform has done by itself.</p>"
    )
    yield _facts(
        ("fields, recordings", f"{len(size.fields)}, {size.recordings}"),
        ("tasks completed", f"{sum(str(each.state) == 'completed' for each in night.tasks)}"),
        ("sources recovered", f"{sum(bool(each.epochs) for each in comparison.sources)} of {len(comparison.sources)}"),
        ("largest deviation", f"{comparison.worst:.1f} σ"),
        ("from first file to report", f"{night.seconds:.0f} s"),
    )
    yield "<h2>The sky</h2><p>Mosaics of the fields, north up, stretched by asinh. Rings are what was put in.</p>"
    yield '<div class="grid sky">' + "".join(_mosaics(night, comparison)) + "</div>"
    yield "<h2>What changed</h2><p>Measured flux densities with their errors; dashed is what was put in. "
    yield f"Errors are those of the noise and {SCALE:.0%} of the flux scale.</p><div class=grid>"
    yield "".join(map(_curve, (each for each in comparison.sources if each.name in (VARIABLE, NEW) and each.epochs)))
    yield "</div><h2>What was recovered</h2>"
    yield f"<div class=wide>{charts.recovered(comparison)}</div>"
    yield _strange(comparison)
    yield "<h2>Calibration</h2><p>Gains and bandpasses as they were solved, each at its calibrator's transit.</p>"
    yield "<div class=grid>"
    yield "".join(_calibration(night)) + "</div>"
    yield "<h2>The tasks</h2>" + _killed(night)
    yield f"<div class=wide>{charts.timeline(_bars(night), None if night.killed is None else night.killed.at)}</div>"
    yield "<p>The graph of the last field: each recording goes its way, then all meet in the mosaic.</p>"
    yield f"<div class=wide>{charts.graph(*_graph(night))}</div>"
    yield "<h2>Files</h2><div class=wide>" + _files(night) + "</div>"
    yield f"<h2>absurd status, at the end</h2><pre>{escape(status)}</pre>"
    yield f"<h2>Go on from here</h2><pre>{escape(chr(10).join(hints))}</pre>"


def _facts(*facts: tuple[str, str]) -> str:
    return "<div class=facts>" + "".join(f"<div><b>{escape(v)}</b>{escape(k)}</div>" for k, v in facts) + "</div>"


def _mosaics(night: Night, comparison: Comparison) -> Iterable[str]:
    for pointing, task in zip(night.pointings, _by_field(night, "imaging.mosaic"), strict=False):
        own = [each for each in comparison.sources if each.field == pointing.place.calibrator]
        yield _sky(Path(task.result["path"]), pointing.place.calibrator, own)


def _by_field(night: Night, executor: str) -> list[Task]:
    """Tasks of whole blocks, in the order of the night."""
    return sorted(night.named(executor), key=lambda each: each.tags[0])


def _sky(path: Path, name: str, sources: Sequence[Source]) -> str:
    from astropy.io import fits
    from astropy.wcs import WCS
    from PIL import Image as Picture

    with fits.open(path) as file:
        pixels = np.squeeze(np.asarray(file[0].data, np.float64))
        wcs = WCS(file[0].header).celestial
    step = max(1, -(-max(pixels.shape) // _PIXELS))
    small = pixels[::-step, ::step]
    noise = 1.4826 * float(np.nanmedian(np.abs(small - np.nanmedian(small))))
    bright = np.arcsinh(np.clip(small, -2 * noise, 200 * noise) / (3 * noise))
    grey = np.nan_to_num((bright - np.nanmin(bright)) / np.ptp(bright[np.isfinite(bright)]))
    buffer = BytesIO()
    Picture.fromarray((255 * grey).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    ny, nx = small.shape
    rings = []
    for each in sources:
        x, y = (float(value) for value in wcs.all_world2pix(each.ra, each.dec, 0))
        x, y = x / step, ny - 1 - y / step
        if 0 <= x < nx and 0 <= y < ny:
            kind = " class=new" if each.name in (NEW, VARIABLE) else ""
            rings.append(f'<circle{kind} cx="{x:.0f}" cy="{y:.0f}" r="12"/>')
            rings.append(f'<text{kind} x="{x + 16:.0f}" y="{y + 5:.0f}">{escape(each.name)}</text>')
    data = base64.b64encode(buffer.getvalue()).decode()
    picture = f'<image width="{nx}" height="{ny}" href="data:image/png;base64,{data}"/>'
    width = abs(float(wcs.wcs.cdelt[0])) * pixels.shape[1]
    told = f"{name}: {width:.1f}° across, noise {1000 * noise:.1f} mJy/beam in the middle value of the field"
    return (
        f'<figure><svg viewBox="0 0 {nx} {ny}" role=img aria-label="Mosaic of the field of {escape(name)}">{picture}'
        f"{''.join(rings)}</svg><figcaption>{escape(told)}</figcaption></figure>"
    )


def _curve(source: Source) -> str:
    kind = source.kind or "not judged"
    told = f"{source.name} in the field of {source.field}, for the pipeline: {kind}"
    return f"<figure>{charts.light_curve(source)}<figcaption>{escape(told)}</figcaption></figure>"


def _strange(comparison: Comparison) -> str:
    if not comparison.strange:
        return "<p>Nothing was found where nothing was put in.</p>"
    names = ", ".join(comparison.strange)
    return f"<p>Also catalogued, where nothing was put in (sidelobes of a small array): {escape(names)}.</p>"


def _calibration(night: Night) -> Iterable[str]:
    folder = night.out / "pictures"
    for path in sorted(folder.glob("*.png")):
        data = base64.b64encode(path.read_bytes()).decode()
        name = f"{path.stem.partition('_')[0]}, {path.stem.rpartition('_')[2]}"
        yield f'<figure><img src="data:image/png;base64,{data}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def _killed(night: Night) -> str:
    if night.killed is None:
        return ""
    task = next(each for each in night.tasks if str(each.id) == night.killed.task)
    ends = "; ".join(f"attempt {run.attempt}: {run.state}" for run in task.runs)
    return (
        f"<p>The worker with process id {night.killed.pid} was killed (<code>kill -9</code>) while it ran "
        f"<code>{escape(night.killed.node.rpartition('/')[2])}</code>. Nothing was lost: {escape(ends)}.</p>"
    )


def _bars(night: Night) -> list[charts.Bar]:
    return [
        charts.Bar(
            task.name,
            task.node or task.name,
            run.worker or "",
            run.started_at,
            run.finished_at,
            run.state is RunState.LOST,
        )
        for task in night.tasks
        for run in task.runs
        if run.started_at and run.finished_at
    ]


def _graph(night: Night) -> tuple[dict[str, list[str]], frozenset[str]]:
    """The nodes of the last block with their parents, and those that took more than one attempt."""
    last = _by_field(night, "pipeline.report")[-1].tags[0]
    own = [each for each in night.tasks if each.node and last in each.tags]
    names = {each.id: each.node or "" for each in own}
    nodes = {names[each.id]: [names[parent] for parent in each.depends_on if parent in names] for each in own}
    followed = {each for name, before in nodes.items() if not name.endswith("/report") for each in before}
    for name in [each for each in nodes if each.endswith("/report")]:  # after all: such edges would hide the others
        nodes[name] = [each for each in nodes if each not in followed and each != name]
    return nodes, frozenset(names[each.id] for each in own if each.attempts > 1)


def _files(night: Night) -> str:
    sealed = [each for each in night.sessions if each.exists()]
    rows: list[tuple[Any, ...]] = [
        (_short(each.path, night.out), each.kind, f"{(each.bytes or 0) / 1e6:.2f}", (each.sha256 or "")[:16])
        for task in night.tasks
        for each in task.artifacts
        if each.kind not in ("imaging.psf", "imaging.residual", "imaging.model", "imaging.pb")
    ]
    rows += [(_short(str(each), night.out), "session", f"{each.stat().st_size / 1e6:.2f}", "") for each in sealed]
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in dict.fromkeys(rows))
    body = "".join(f"<tr>{each}</tr>" for each in cells)
    return f"<table><thead><tr><th>file<th>kind<th>MB<th>SHA-256</tr></thead><tbody>{body}</tbody></table>"


def _short(path: str, out: Path) -> str:
    return str(Path(path).relative_to(out)) if Path(path).is_relative_to(out) else path
