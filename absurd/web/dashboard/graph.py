"""The drawing of a workflow as a graph: which box goes where (pure; lengths in pixels at full size).

Each task stands one column right of the last of its parents.  Tasks of one executor that wait for the same tasks are
alike; many of them are one box that counts them, so that a workflow of thousands can be taken in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WIDTH, HEIGHT = 184, 44
"""Of a box."""
ACROSS, DOWN = 56, 12
"""Between boxes."""
MARGIN = 8
FOLDED = 8
"""So many alike are one box."""
SEVERITY = ("failed", "running", "cancelled", "pending", "sleeping", "moving", "blocked", "completed")
"""Of many in one box the first state that occurs is the box's."""


@dataclass
class Box:
    """A task, or many that are alike."""

    members: list[Mapping[str, Any]]
    column: int
    parents: set[int] = field(default_factory=set)
    x: float = 0
    y: float = 0

    @property
    def state(self) -> str:
        """Of all: the one that matters most."""
        found = {each["state"] for each in self.members}
        return next((each for each in SEVERITY if each in found), "blocked")

    @property
    def counts(self) -> dict[str, int]:
        """How many are in each state."""
        return dict(Counter(each["state"] for each in self.members))


@dataclass(frozen=True)
class Drawing:
    """Boxes with their places, and the curves from parent to child."""

    width: float
    height: float
    boxes: list[Box]
    curves: list[str]
    """As SVG paths."""


def draw(nodes: Sequence[Mapping[str, Any]]) -> Drawing:
    """A graph of nodes with `id`, `name`, `state` and `depends_on`; parents outside of it are left out."""
    known = {each["id"]: each for each in nodes}
    parents = {key: [parent for parent in each["depends_on"] if parent in known] for key, each in known.items()}
    columns = _columns(parents)
    boxes, box_of = _boxes(nodes, parents, columns)
    for place, box in enumerate(boxes):
        box.parents = {box_of[parent] for each in box.members for parent in parents[each["id"]]} - {place}
    by_column: dict[int, list[Box]] = defaultdict(list)
    for box in boxes:
        by_column[box.column].append(box)
    tallest = max((len(each) for each in by_column.values()), default=1)
    height = tallest * (HEIGHT + DOWN) - DOWN
    for column, members in sorted(by_column.items()):
        members.sort(key=lambda box: _middle([boxes[each].y for each in box.parents]))
        top = (height - len(members) * (HEIGHT + DOWN) + DOWN) / 2
        for place, box in enumerate(members):
            box.x, box.y = MARGIN + column * (WIDTH + ACROSS), MARGIN + top + place * (HEIGHT + DOWN)
    width = len(by_column) * (WIDTH + ACROSS) - ACROSS
    curves = [_curve(boxes[parent], box) for box in boxes for parent in sorted(box.parents)]
    return Drawing(max(width, 0) + 2 * MARGIN, height + 2 * MARGIN, boxes, curves)


def _columns(parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The longest way to each node from one without parents.  Of a circle, which cannot be spawned, nothing comes."""
    children: dict[str, list[str]] = defaultdict(list)
    missing = {key: len(above) for key, above in parents.items()}
    for key, above in parents.items():
        for parent in above:
            children[parent].append(key)
    column = dict.fromkeys(parents, 0)
    ready = [key for key, count in missing.items() if count == 0]
    for key in ready:
        for child in children[key]:
            column[child] = max(column[child], column[key] + 1)
            missing[child] -= 1
            if missing[child] == 0:
                ready.append(child)
    return column


def _boxes(
    nodes: Iterable[Mapping[str, Any]], parents: Mapping[str, Sequence[str]], columns: Mapping[str, int]
) -> tuple[list[Box], dict[str, int]]:
    alike: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for each in nodes:
        alike[columns[each["id"]], each["name"], tuple(sorted(parents[each["id"]]))].append(each)
    boxes: list[Box] = []
    box_of: dict[str, int] = {}
    for (column, _, _), members in alike.items():
        for group in [members] if len(members) >= FOLDED else [[each] for each in members]:
            box_of |= {each["id"]: len(boxes) for each in group}
            boxes.append(Box(group, column))
    return boxes, box_of


def _middle(places: Sequence[float]) -> float:
    return sum(places) / len(places) if places else 0.0


def _curve(parent: Box, child: Box) -> str:
    x, y = parent.x + WIDTH, parent.y + HEIGHT / 2
    end, low = child.x, child.y + HEIGHT / 2
    half = (end - x) / 2
    return f"M{x:g} {y:g}C{x + half:g} {y:g} {end - half:g} {low:g} {end:g} {low:g}"
