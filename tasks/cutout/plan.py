"""How a batch is divided: requests on the same images together, so that what these hold is read and decoded once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from absurd.tasks.artifact import remove, write_aside
from absurd.tasks.cutout.contact_sheet import MOST_SHOWN
from absurd.tasks.cutout.errors import RippleError, SourceNotFoundError
from absurd.tasks.cutout.positions import Position
from absurd.tasks.cutout.resilience import is_away
from absurd.tasks.cutout.world import is_position

if TYPE_CHECKING:
    from absurd.tasks.cutout.fetcher import LsstDataFetcher
    from absurd.tasks.cutout.images import ImageRef
    from absurd.tasks.cutout.params import BatchOptions

PARTS = ".parts"
"""Folder beside the products with what is not yet one of them.  Who removes it makes a second run cut everything."""
FORMAT = "3"
"""Changes with what a part's file holds: parts of another format are made again."""
NAME = 32
"""Characters of the name of a part."""
ROWS_OF_A_PART = 1_500
"""Requests of one part at most: what its task costs the queue is then small beside them."""
ROWS_AT_ONCE = 8_192
"""Requests whose images are looked for at once: a source has to answer within its time-out."""
MOST_WAITING = 300_000
"""Requests that wait in memory for others on the same image."""

_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
        pa.field("size", pa.float64()),
        pa.field("problem", pa.string()),
        pa.field("images", pa.list_(pa.dictionary(pa.int32(), pa.string())), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """Some requests of a batch."""

    name: str
    """By what they and their images are: the same name, the same cut-outs."""
    rows: int
    thumbnails: int = 0
    """How many pictures of it the contact sheet has room for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch in parts; each request is in one of them."""

    parts: tuple[PlannedPart, ...]
    away: RippleError | None = None
    """What the source said that did not answer: the images of some requests, or of all, are not known."""

    @property
    def rows(self) -> int:
        """Requests in all."""
        return sum(each.rows for each in self.parts)

    def write(self, path: Path) -> None:
        """Keep it as JSON."""
        with write_aside(path) as aside:
            aside.write_text(json.dumps([asdict(each) for each in self.parts]), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Plan:
        """What `write` has kept.  Raises SourceNotFoundError: somebody has removed it."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SourceNotFoundError(f"there is no plan {path}", advice="run the batch anew") from None
        return cls(tuple(PlannedPart(**each) for each in json.loads(text)))


def plan_batch(options: BatchOptions, positions: Iterable[Position], fetcher: LsstDataFetcher, folder: Path) -> Plan:
    """Divide a batch by the images that its requests are on, and write the requests of each part to `folder`.

    Memory: `MOST_WAITING` requests.  What is no position, or on no image, is in parts too, and becomes a row there; so
    is what is asked of a source that does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = _Groups(options, folder, fetcher)
    rows, away = iter(positions), None
    while some := list(islice(rows, ROWS_AT_ONCE)):
        found, said = _images(some, options.bands, fetcher)
        away = away or said
        for position, images in zip(some, found, strict=True):
            groups.add(position, images)
    groups.flush()
    total = max(1, sum(each.rows for each in groups.parts))
    shares = [min(each.rows, -(-MOST_SHOWN * each.rows // total)) for each in groups.parts]
    return Plan(tuple(PlannedPart(each.name, each.rows, n) for each, n in zip(groups.parts, shares, strict=True)), away)


def forget_others(folder: Path, planned: Plan) -> None:
    """Remove what other parts than those of this plan have left: of other options, or of images as they were."""
    names = {each.name for each in planned.parts}
    for each in folder.iterdir():
        name, _, rest = each.name.partition(".")
        if len(name) == NAME and name not in names and not rest.startswith("plan"):
            remove(each)


def read_requests(folder: Path, name: str) -> Iterator[Position]:
    """The requests of a part.  Raises SourceNotFoundError: somebody has removed them."""
    path = folder / f"{name}.requests.arrow"
    try:
        table = pa.ipc.open_file(path.read_bytes()).read_all()
    except FileNotFoundError:
        raise SourceNotFoundError(f"there are no requests {path}", advice="run the batch anew") from None
    for each in table.to_pylist():
        yield Position(**each | {"images": tuple(each["images"])})


def _images(
    some: list[Position], bands: list[str], fetcher: LsstDataFetcher
) -> tuple[list[list[ImageRef]], RippleError | None]:
    """The images of each, none where there is no position; and what a source said that did not answer."""
    positions = np.array([(each.ra, each.dec) for each in some], dtype=np.float64)
    good = np.flatnonzero(is_position(positions))
    images: list[list[ImageRef]] = [[] for _ in some]
    if not len(good):
        return images, None
    try:
        for place, found in zip(good.tolist(), fetcher.find_images(positions[good], bands), strict=True):
            images[place] = found
    except RippleError as error:
        if not is_away(error):
            raise
        return images, error
    return images, None


@dataclass(slots=True)
class _Group:
    """Requests whose first image is the same."""

    waiting: list[Position] = field(default_factory=list)
    images: set[tuple[str, str]] = field(default_factory=set)
    """All images they are on, with their versions."""
    names: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    """The images of one request, once for all that are on the same."""


class _Groups:
    """Requests that wait for others on the same image, until there are enough for a part."""

    def __init__(self, options: BatchOptions, folder: Path, fetcher: LsstDataFetcher) -> None:
        self.parts: list[PlannedPart] = []
        self._options = options
        self._folder = folder
        self._fetcher = fetcher
        self._groups: dict[str, _Group] = {}
        self._waiting = 0

    def add(self, position: Position, images: list[ImageRef]) -> None:
        key = images[0].uri if images else ""
        group = self._groups.setdefault(key, _Group())
        names = tuple(each.uri for each in images)
        group.waiting.append(replace(position, images=group.names.setdefault(names, names)))
        group.images.update((each.uri, each.version) for each in images)
        self._waiting += 1
        if len(group.waiting) == ROWS_OF_A_PART:
            self._write([self._groups.pop(key)])
        elif self._waiting == MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Make parts of what waits: of several images where they have few requests."""
        together: list[_Group] = []
        for key in sorted(self._groups):
            group = self._groups[key]
            if sum(len(each.waiting) for each in together) + len(group.waiting) > ROWS_OF_A_PART:
                self._write(together)
                together = []
            together.append(group)
        self._groups = {}
        if together:
            self._write(together)

    def _write(self, groups: list[_Group]) -> None:
        # within an image from south to north, so that what lies close is read together
        rows = [each for group in groups for each in sorted(group.waiting, key=_southern_first)]
        self._waiting -= len(rows)
        columns = {name: [getattr(each, name) for each in rows] for name in _SCHEMA.names}
        table = pa.Table.from_pydict(columns, schema=_SCHEMA)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_table(table)
        content = sink.getvalue().to_pybytes()
        images: Mapping[str, Any] = dict(sorted({each for group in groups for each in group.images}))
        told = json.dumps([FORMAT, self._options.canonical(), images, self._unread(rows)])
        name = hashlib.sha256(told.encode() + b"\n" + content).hexdigest()[:NAME]
        with write_aside(self._folder / f"{name}.requests.arrow") as aside:
            aside.write_bytes(content)
        self.parts.append(PlannedPart(name, len(rows)))

    def _unread(self, rows: Iterable[Position]) -> list[str]:
        """Files that could not be read, where a row may lack what they hold: it tells of them, and is another later."""
        bands = len(self._options.bands)
        if bands and all(len(each.images) >= bands for each in rows):
            return []
        return sorted(self._fetcher.unreadable())


def _southern_first(position: Position) -> tuple[float, int]:
    """What a part is sorted by; NaN has no order."""
    return (-math.inf if math.isnan(position.dec) else position.dec, position.row)
