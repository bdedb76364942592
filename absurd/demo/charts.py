"""The pictures of the report, as SVG that follows the page's light or dark colours (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from absurd.demo.compare import Comparison, Source


@dataclass(frozen=True, slots=True)
class Bar:
    """A run, for the timeline."""

    row: str
    """Its executor."""
    name: str
    worker: str
    begin: datetime
    end: datetime
    lost: bool
    """Its worker was killed."""


def light_curve(source: Source, width: int = 420, height: int = 210) -> str:
    """Flux densities with errors by recording, over what was put in; a limit is an arrow."""
    left, right, top, bottom = 52, 12, 12, 44
    highest = max(max(each.measured_jy + each.error_jy, each.injected_jy) for each in source.epochs) * 1.05
    step = _step(highest / 4)
    highest = step * math.ceil(highest / step)

    def x(number: int) -> float:
        return left + (width - left - right) * (number + 0.5) / len(source.epochs)

    def y(flux: float) -> float:
        return top + (height - top - bottom) * (1 - max(0.0, flux) / highest)

    parts = [_open(width, height, f"Light curve of {source.name}: flux density in Jy by recording")]
    for number in range(int(highest / step) + 1):
        at = y(number * step)
        parts.append(f'<line class=grid x1="{left}" x2="{width - right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor=end>{number * step:g}</text>')
    parts.append(f'<text x="12" y="{(top + height - bottom) / 2:.0f}" class=turned>flux density (Jy)</text>')
    line = " ".join(f"{x(at):.1f},{y(each.injected_jy):.1f}" for at, each in enumerate(source.epochs))
    parts.append(f'<polyline class=truth points="{line}"/>')
    for at, each in enumerate(source.epochs):
        told = f"{each.begin}: {each.measured_jy:.3f} ± {each.error_jy:.3f} Jy, {each.injected_jy:.3f} Jy put in"
        parts.append(f"<g><title>{escape(told)}</title>")
        if not each.detected and each.limit_jy is not None:
            up = y(each.limit_jy)
            parts.append(f'<path class=limit d="M{x(at) - 6:.1f} {up:.1f}h12m-6 0v14m-4 -4l4 4l4 -4"/></g>')
        else:
            low, high = y(each.measured_jy - each.error_jy), y(each.measured_jy + each.error_jy)
            parts.append(f'<path class=error d="M{x(at):.1f} {low:.1f}V{high:.1f}"/>')
            parts.append(f'<circle class=point cx="{x(at):.1f}" cy="{y(each.measured_jy):.1f}" r="4"/></g>')
        parts.append(f'<text x="{x(at):.1f}" y="{height - bottom + 18}" text-anchor=middle>{each.begin[11:16]}</text>')
    parts.append(f'<text x="{width / 2:.0f}" y="{height - 8}" text-anchor=middle>begin of the recording (UTC)</text>')
    return "".join(parts) + "</svg>"


def recovered(comparison: Comparison, width: int = 860) -> str:
    """Each source's mean flux density over the one that was put in, with its error; 1 is right."""
    shown = [each for each in comparison.sources if each.epochs and each.injected_jy > 0]
    left, right, row = 130, 130, 22
    height = row * len(shown) + 46
    widest = max(
        [0.05, *(abs(each.measured_jy / each.injected_jy - 1) + each.error_jy / each.injected_jy for each in shown)]
    )

    def x(ratio: float) -> float:
        return left + (width - left - right) * (0.5 + (ratio - 1) / (2.1 * widest))

    step = _step(widest / 2)
    parts = [_open(width, height, "Measured over injected flux density of each source")]
    for number in range(-int(widest / step), int(widest / step) + 1):
        at = x(1 + number * step)
        kind = "grid" if number else "axis"
        parts.append(f'<line class={kind} x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{height - 40}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 24}" text-anchor=middle>{1 + number * step:.3g}</text>')
    for at, each in enumerate(shown):
        y = 16 + at * row
        ratio, error = each.measured_jy / each.injected_jy, each.error_jy / each.injected_jy
        told = f"{each.measured_jy:.3f} ± {each.error_jy:.3f} Jy"
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor=end>{escape(_label(each))}</text>')
        parts.append(f'<path class=error d="M{x(ratio - error):.1f} {y}H{x(ratio + error):.1f}"/>')
        parts.append(f'<circle class=point cx="{x(ratio):.1f}" cy="{y}" r="4"/>')
        parts.append(f'<text x="{width - right + 10}" y="{y + 4}">{told}</text>')
    parts.append(f'<text x="{x(1):.0f}" y="{height - 6}" text-anchor=middle>measured / injected flux density</text>')
    return "".join(parts) + "</svg>"


def timeline(bars: Sequence[Bar], killed: datetime | None, width: int = 1000, row: int = 22) -> str:
    """Runs as bars over seconds since the first one, a row for each executor, a shade for each worker."""
    if not bars:
        return ""
    begin = min(each.begin for each in bars)
    span = max((each.end - begin).total_seconds() for each in bars) or 1.0
    rows = list(dict.fromkeys(each.row for each in sorted(bars, key=lambda bar: bar.begin)))
    workers = list(dict.fromkeys(each.worker for each in bars))
    left, right = 170, 12
    bottom = row * len(rows) + 8
    height = bottom + 40
    scale = (width - left - right) / span
    step = _step(span / 8)
    parts = [_open(width, height, "Timeline of the runs, a row for each executor")]
    for tick in range(int(span / step) + 1):
        x = left + tick * step * scale
        parts.append(f'<line class=grid x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor=middle>{tick * step:g}</text>')
    parts.append(
        f'<text x="{(width + left) / 2:.0f}" y="{height - 6}" text-anchor=middle>seconds since the first run</text>'
    )
    for at, name in enumerate(rows):
        parts.append(f'<text x="{left - 8}" y="{at * row + 16}" text-anchor=end>{escape(name)}</text>')
    thin = max(3.0, (row - 6) / max(1, len(workers)))
    for each in bars:
        x = left + (each.begin - begin).total_seconds() * scale
        long = max(2.0, (each.end - each.begin).total_seconds() * scale)
        y = rows.index(each.row) * row + 4 + workers.index(each.worker) * thin
        kind = "lost" if each.lost else f"w{workers.index(each.worker) % 4}"
        told = f"{each.name} on {each.worker}: {(each.end - each.begin).total_seconds():.1f} s"
        told += ", lost with its worker" if each.lost else ""
        parts.append(
            f'<rect class="bar {kind}" x="{x:.1f}" y="{y:.1f}" width="{long:.1f}" height="{thin:.1f}" rx="2">'
            f"<title>{escape(told)}</title></rect>"
        )
    if killed is not None:
        x = left + (killed - begin).total_seconds() * scale
        parts.append(f'<line class=killed x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom}"/>')
        parts.append(f'<text class=killed x="{x + 5:.1f}" y="{bottom - 4}">kill -9</text>')
    return "".join(parts) + "</svg>"


def graph(nodes: Mapping[str, Sequence[str]], again: frozenset[str], width: int = 1000) -> str:
    """A graph of tasks from left to right: `nodes` has the parents of each; those run `again` are marked."""
    depth: dict[str, int] = {}

    def deep(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((deep(each) for each in nodes[name] if each in nodes), default=-1)
        return depth[name]

    layers: dict[int, list[str]] = {}
    for name in nodes:
        layers.setdefault(deep(name), []).append(name)
    across = (width - 20) / max(1, len(layers))
    tall = max(map(len, layers.values()), default=1)
    height = 34 * tall + 10
    place = {
        name: (10 + at * across, 5 + (height - 10) * (number + 0.5) / len(names))
        for at, names in layers.items()
        for number, name in enumerate(sorted(names))
    }
    box = across - 26
    parts = [_open(width, height, "The graph of tasks of one field")]
    for name, parents in nodes.items():
        x, y = place[name]
        for each in parents:
            if each in place:
                fx, fy = place[each]
                parts.append(
                    f'<path class=edge d="M{fx + box:.1f} {fy:.1f}C{fx + box + 18:.1f} {fy:.1f} {x - 18:.1f} {y:.1f} '
                    f'{x:.1f} {y:.1f}"/>'
                )
    for name, (x, y) in place.items():
        short = name.rpartition("/")[2].partition("[")[0].partition(".")[2] or name.rpartition("/")[2]
        kind = "node again" if name in again else "node"
        parts.append(f"<g><title>{escape(name)}</title>")
        parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y - 11:.1f}" width="{box:.1f}" height="22" rx="4"/>')
        parts.append(f'<text x="{x + box / 2:.1f}" y="{y + 4:.1f}" text-anchor=middle>{escape(short)}</text></g>')
    return "".join(parts) + "</svg>"


def _open(width: float, height: float, title: str) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role=img aria-label="{escape(title)}">'


def _label(source: Source) -> str:
    return source.name if source.name == source.field else f"{source.name}, {source.field}"


def _step(wanted: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(max(wanted, 1e-9)))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= wanted * 0.999)
