"""A session in pictures: telemetry, events and logs over time, and a frame of each camera; as PNG and HTML."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.artifact import write_aside
from absurd.tasks.session.arrays import SessionArrays
from absurd.tasks.session.listing import summary
from absurd.tasks.session.outline import ERRORS, WARNINGS
from absurd.tasks.session.reading import Head, items

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

MOST_POINTS = 5000
"""Of one line: of more every so-manieth is drawn."""
MOST_EVENTS = 200
"""Lines of the table of events."""


class Story:
    """What a session's file tells by time."""

    def __init__(self, path: Path) -> None:
        """Read the tree.  Raises SessionDamagedError, OSError."""
        self.path = path
        self.head = summary(path)
        self.telemetry: dict[tuple[str, str], list[tuple[datetime, float]]] = {}
        self.events: list[tuple[datetime, str, Any]] = []
        self.troubles: list[tuple[datetime, str, str]] = []
        with path.open("rb") as file:
            for where, value in items(Head(file)):
                self._note(where, value)

    def _note(self, where: tuple[str | int, ...], value: Any) -> None:
        match where:
            case ("telemetry", str() as name, int()):
                time = _time(value.get("time"))
                for field, each in value.items():
                    if field != "time" and time and isinstance(each, int | float) and math.isfinite(each):
                        self.telemetry.setdefault((name, field), []).append((time, float(each)))
            case ("observability", "events", int()) if time := _time(value.get("time")):
                self.events.append((time, str(value.get("event")), value.get("details")))
            case ("observability", "logs", int()) if value.get("level") in ERRORS | WARNINGS:
                if time := _time(value.get("time")):
                    self.troubles.append((time, str(value["level"]), str(value.get("message"))))
            case _:
                pass


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=None)
    except ValueError:
        return None


def draw(path: Path) -> bytes:
    """A session as PNG.  Raises SessionDamagedError, OSError."""
    from matplotlib.figure import Figure

    story, arrays = Story(path), SessionArrays(path)
    names = sorted({name for name, _ in story.telemetry})
    previews = _previews(arrays)
    rows = len(names) + 1 + bool(previews)
    figure = Figure(figsize=(11, 2.2 * rows + 1.5 * bool(previews)), layout="constrained")
    grid = figure.add_gridspec(
        rows, max(1, len(previews)), height_ratios=[*[1] * (len(names) + 1), *[2] * bool(previews)]
    )
    figure.suptitle(f"{story.head.session_id}   {story.head.meta.get('target') or ''}", fontsize=11)
    for row, name in enumerate(names):
        _draw_telemetry(figure.add_subplot(grid[row, :]), story, name)
    _draw_events(figure.add_subplot(grid[len(names), :]), story)
    for column, (title, pixels) in enumerate(previews):
        _draw_frame(figure.add_subplot(grid[rows - 1, column]), title, pixels)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90, metadata={"Software": None})
    return out.getvalue()


def _draw_telemetry(axes: Any, story: Story, name: str) -> None:
    for (own, field), points in story.telemetry.items():
        if own == name:
            step = math.ceil(len(points) / MOST_POINTS)
            axes.plot(*zip(*points[::step], strict=True), marker=".", markersize=3, linewidth=0.8, label=field)
    for time, _, _ in story.events:
        axes.axvline(time, color="0.8", linewidth=0.8, zorder=0)
    axes.set_ylabel(name, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7, loc="upper right")


def _draw_events(axes: Any, story: Story) -> None:
    kinds = sorted({event for _, event, _ in story.events})
    for time, event, _ in story.events:
        axes.plot([time], [kinds.index(event) + 2], "d", color="tab:blue", markersize=5)
    for time, level, _ in story.troubles:
        at, colour = (1, "tab:red") if level in ERRORS else (0, "tab:orange")
        axes.plot([time], [at], "|", color=colour, markersize=9)
    axes.set_yticks(range(len(kinds) + 2), ["warnings", "errors", *kinds], fontsize=7)
    axes.set_ylim(-0.6, len(kinds) + 1.6)
    start, end = _time(story.head.meta.get("start_time")), _time(story.head.meta.get("end_time"))
    if start and end and end > start:
        axes.set_xlim(start, end)
    axes.tick_params(labelsize=7)


def _draw_frame(axes: Axes, title: str, pixels: np.ndarray[Any, Any]) -> None:
    import numpy as np

    step = max(1, math.ceil(max(pixels.shape) / 1024))
    shown = pixels[::step, ::step].astype(float)
    finite = shown[np.isfinite(shown)]
    low, high = np.percentile(finite, [1, 99.5]) if finite.size else (0.0, 1.0)
    axes.imshow(shown, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), origin="lower")
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()


def _previews(arrays: SessionArrays) -> list[tuple[str, np.ndarray[Any, Any]]]:
    """The middle frame of each camera, of the first four, as a plane."""
    made = []
    for camera in list(dict.fromkeys(each.name for each in arrays.kept if each.section == "cameras"))[:4]:
        frames = arrays.of("cameras", camera)
        if frames:
            middle = frames[len(frames) // 2]
            pixels = abs(arrays.load(middle))
            while pixels.ndim > 2:
                pixels = pixels[0] if pixels.shape[0] < pixels.shape[-1] else pixels[..., 0]
            made.append((f"{camera}, frame {middle.index}", pixels if pixels.ndim == 2 else pixels[None, :]))
    return made


def page(path: Path, picture: bytes) -> str:
    """A session as one HTML page that needs nothing else, with its picture, what it was, and its events."""
    story = Story(path)
    facts = {**story.head.meta, **story.head.metrics}
    shown = "".join(_row(name, value if isinstance(value, str) else json.dumps(value)) for name, value in facts.items())
    happened = sorted([*((t, e, json.dumps(d)) for t, e, d in story.events), *story.troubles])
    events = "".join(_row(each.isoformat(timespec="seconds"), *more) for each, *more in happened[:MOST_EVENTS])
    left = len(happened) - MOST_EVENTS
    more = f"<p>and {left} more</p>" if left > 0 else ""
    title = html.escape(story.head.session_id)
    image = base64.b64encode(picture).decode()
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>'
        "body{font-family:sans-serif;max-width:70rem;margin:2rem auto}table{border-collapse:collapse;font-size:.85rem}"
        "td{border-top:1px solid #ccc;padding:.2rem .8rem .2rem 0;vertical-align:top}img{max-width:100%}</style></head>"
        f'<body><h1>{title}</h1><img alt="Telemetry, events and frames" src="data:image/png;base64,{image}">'
        f"<h2>What it was</h2><table>{shown}</table><h2>What happened</h2><table>{events}</table>{more}</body></html>\n"
    )


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in cells) + "</tr>"


def plot(path: Path, folder: Path) -> list[Path]:
    """Draw a session's file to a PNG and an HTML file in `folder`; gives both.  Raises SessionDamagedError, OSError."""
    picture = draw(path)
    made = [folder / f"{path.stem}.png", folder / f"{path.stem}.html"]
    for each, data in zip(made, (picture, page(path, picture).encode()), strict=True):
        with write_aside(each) as part:
            part.write_bytes(data)
    return made
