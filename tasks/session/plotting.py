"""A session in pictures: telemetry, events and logs over time, and a frame of each camera; as PNG and HTML."""

from __future__ import annotations

import base64
import html
import io
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.artifact import write_aside
from absurd.tasks.session.arrays import SessionArrays
from absurd.tasks.session.errors import SessionDamagedError
from absurd.tasks.session.listing import summary
from absurd.tasks.session.outline import ERRORS, WARNINGS
from absurd.tasks.session.reading import Head, items
from absurd.tasks.session.writer import refused

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

MOST_POINTS = 5000
"""Of one line: of more every so-manieth is drawn."""
MOST_STRIPS = 16
"""Measures of telemetry, each with a strip of its own: beside others small changes of one would not be seen."""
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

    @property
    def kinds(self) -> list[str]:
        """What its events are called."""
        return sorted({event for _, event, _ in self.events})

    @property
    def span(self) -> tuple[datetime, datetime]:
        """The first and last time that it tells of, by whatever clock."""
        told = [_time(self.head.meta.get(name)) for name in ("start_time", "end_time")]
        told += [time for points in self.telemetry.values() for time, _ in (points[0], points[-1])]
        told += [time for time, *_ in (*self.events, *self.troubles)]
        times = [each for each in told if each is not None]
        none = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
        return min(times, default=none), max(times, default=none)

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
    """A time in UTC, without its zone; None for what is none."""
    try:
        made = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return made.astimezone(UTC).replace(tzinfo=None) if made.tzinfo else made


def draw(path: Path) -> bytes:
    """A session as PNG.  Raises SessionDamagedError, OSError."""
    from matplotlib.figure import Figure

    story, arrays = Story(path), SessionArrays(path)
    measures = sorted(story.telemetry)[:MOST_STRIPS]
    previews = _previews(arrays)
    heights = [1.1] * len(measures) + [1.0 + 0.2 * len(story.kinds)] + [3.5] * bool(previews)
    figure = Figure(figsize=(11, sum(heights) + 0.8), layout="constrained")
    grid = figure.add_gridspec(len(heights), max(1, len(previews)), height_ratios=heights)
    left = len(story.telemetry) - len(measures)
    more = f"   and {left} more measures" if left else ""
    figure.suptitle(f"{story.head.session_id}   {story.head.meta.get('target') or ''}{more}", fontsize=11)
    events = figure.add_subplot(grid[len(measures), :])
    _draw_events(events, story)
    for row, measure in enumerate(measures):
        _draw_telemetry(figure.add_subplot(grid[row, :], sharex=events), story, measure)
    for column, (title, pixels) in enumerate(previews):
        _draw_frame(figure.add_subplot(grid[-1, column]), title, pixels)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90, metadata={"Software": None})
    return out.getvalue()


def _draw_telemetry(axes: Any, story: Story, measure: tuple[str, str]) -> None:
    points = story.telemetry[measure]
    step = math.ceil(len(points) / MOST_POINTS)
    axes.plot(*zip(*points[::step], strict=True), marker=".", markersize=3, linewidth=0.8)
    for time, _, _ in story.events:
        axes.axvline(time, color="0.8", linewidth=0.8, zorder=0)
    name, field = measure
    axes.set_ylabel(name if field == "value" else f"{name}\n{field}", fontsize=7)
    axes.tick_params(labelsize=7, labelbottom=False)
    axes.ticklabel_format(axis="y", useOffset=False)


def _draw_events(axes: Any, story: Story) -> None:
    from matplotlib import dates

    kinds = story.kinds
    for time, event, _ in story.events:
        axes.plot([time], [kinds.index(event) + 2], "d", color="tab:blue", markersize=5)
    for time, level, _ in story.troubles:
        at, colour = (1, "tab:red") if level in ERRORS else (0, "tab:orange")
        axes.plot([time], [at], "|", color=colour, markersize=9)
    axes.set_yticks(range(len(kinds) + 2), ["warnings", "errors", *kinds], fontsize=7)
    axes.set_ylim(-0.6, len(kinds) + 1.6)
    first, last = story.span
    if last > first:
        margin = (last - first) / 50
        axes.set_xlim(first - margin, last + margin)
    locator: Any = dates.AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlabel(f"UTC, from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S}", fontsize=8)
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
    import numpy as np

    made: list[tuple[str, np.ndarray[Any, Any]]] = []
    for camera in list(dict.fromkeys(each.name for each in arrays.kept if each.section == "cameras"))[:4]:
        frames = arrays.of("cameras", camera)
        if frames:
            middle = frames[len(frames) // 2]
            try:
                pixels = abs(arrays.load(middle))
            except SessionDamagedError:  # frames that were not copied with the file hide nothing else
                made.append((f"{camera}, frame {middle.index} cannot be read", np.zeros((9, 16))))
                continue
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
    """Draw a session's file to a PNG and an HTML file in `folder`, which is made if need be; gives both.

    Raises SessionDamagedError, SessionStorageError, OSError.
    """
    picture = draw(path)
    made = [folder / f"{path.stem}.png", folder / f"{path.stem}.html"]
    for each, data in zip(made, (picture, page(path, picture).encode()), strict=True):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with write_aside(each) as part:
                part.write_bytes(data)
        except OSError as error:
            raise refused(each, error) from error
    return made
