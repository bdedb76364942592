"""The page that ``absurd demo`` leaves: pictures, table and timeline in one self-contained HTML file (pure)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
:root { color-scheme: light dark;
  --ink: #1d2433; --paper: #fbfaf7; --faint: #6b7280; --line: #e2e0da; --accent: #b4531a }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6e6e3; --paper: #14161b; --faint: #9aa0aa; --line: #2c3038; --accent: #f0a064 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .3rem }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem }
p { margin: .3rem 0 .9rem }
.faint, figcaption, th { color: var(--faint) }
code, pre, td.number { font-family: ui-monospace, monospace; font-size: .86em }
.facts { display: flex; flex-wrap: wrap; gap: 1.2rem 2.4rem; margin: 1.4rem 0 }
.facts b { display: block; font-size: 1.5rem }
.cutouts { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: 1rem }
figure { margin: 0 }
figure img { width: 100%; display: block; border-radius: 4px; image-rendering: pixelated; background: #000 }
figcaption { font-size: .82rem; margin-top: .35rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem }
th { text-align: left; font-weight: 500 }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }
td.number { text-align: right }
pre { overflow-x: auto; padding: .9rem 1rem; border: 1px solid var(--line); border-radius: 6px }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink) }
svg .axis { stroke: var(--line) }
"""

LEAD = "Real tasks through a real PostgreSQL queue, executed by a worker process of its own."

COLOURS = {"cutout.extract": "#3b82c4", "export.query": "#d9822b"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One cut-out: its preview and what to say of it."""

    preview: Path
    title: str
    note: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One run on the timeline."""

    name: str
    label: str
    started_at: datetime
    finished_at: datetime


def build_page(
    *,
    facts: Sequence[tuple[str, str]],
    pictures: Sequence[Picture],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    table_note: str,
    bars: Sequence[Bar],
    products: Sequence[tuple[str, str, str]],
    status: str,
    hints: Sequence[str],
) -> str:
    """The whole page; pictures are embedded, so that the file can be sent to somebody."""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1"><title>absurd demo</title>',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>absurd demo</h1><p class=faint>{LEAD}</p>",
        "<div class=facts>"
        + "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in facts)
        + "</div>",
        "<h2>Cut-outs of the brightest sources</h2><div class=cutouts>" + "".join(map(_figure, pictures)) + "</div>",
        f"<h2>The exported catalogue</h2><p class=faint>{escape(table_note)}</p>",
        "<div class=wide>" + _table(columns, rows) + "</div>",
        "<h2>What ran when</h2><div class=wide>" + timeline(bars) + "</div>",
        "<h2>Products</h2><div class=wide>" + _table(("file", "kind", "SHA-256"), products) + "</div>",
        f"<h2>absurd status, at the end</h2><pre>{escape(status)}</pre>",
        "<h2>Go on from here</h2><pre>" + escape("\n".join(hints)) + "</pre></body></html>",
    ]
    return "\n".join(parts)


def timeline(bars: Sequence[Bar], width: int = 960, height: int = 16) -> str:
    """Runs as bars over seconds since the first one started, as SVG."""
    if not bars:
        return ""
    bars = sorted(bars, key=lambda bar: bar.started_at)
    begin = bars[0].started_at
    span = max((bar.finished_at - begin).total_seconds() for bar in bars) or 1.0
    left, right = 190, 40
    scale = (width - left - right) / span
    step = next((each for each in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if span / each <= 8), 100)
    bottom = len(bars) * (height + 4) + 8
    out = [f'<svg viewBox="0 0 {width} {bottom + 24}" width="{width}" role="img" aria-label="Timeline of the runs">']
    for tick in range(int(span / step) + 1):
        x = left + tick * step * scale
        out.append(f'<line class=axis x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick * step:g} s</text>')
    for at, bar in enumerate(bars):
        y = at * (height + 4) + 4
        x = left + (bar.started_at - begin).total_seconds() * scale
        length = max(2.0, (bar.finished_at - bar.started_at).total_seconds() * scale)
        out.append(f'<text x="{left - 8}" y="{y + height - 4}" text-anchor="end">{escape(bar.label)}</text>')
        colour = COLOURS.get(bar.name, "#7a7f8a")
        out.append(
            f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{height}" rx="3" fill="{colour}">'
            f"<title>{escape(bar.name)}: {(bar.finished_at - bar.started_at).total_seconds():.2f} s</title></rect>"
        )
    return "".join(out) + "</svg>"


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.preview.read_bytes()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.title)}<br>{escape(picture.note)}</figcaption></figure>"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"<td class=number>{value:.6g}</td>"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"<td class=number>{value}</td>"
    return f"<td>{escape('' if value is None else str(value))}</td>"
