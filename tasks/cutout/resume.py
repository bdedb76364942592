"""What an earlier run has left of a part of a batch: whether it still is what cutting it again would give."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from absurd.errors import InvalidInputError
from absurd.tasks.artifact import write_aside
from absurd.tasks.cutout import parsed
from absurd.tasks.cutout.errors import BandNotFoundError, ButlerConnectionError, PlaneNotFoundError, RippleError
from absurd.tasks.cutout.images import local_path
from absurd.tasks.cutout.manifest import read_part
from absurd.tasks.cutout.ranged import RemoteFile, is_remote
from absurd.tasks.cutout.sources.folder import version_of
from absurd.tasks.cutout.straddle import probes

if TYPE_CHECKING:
    from absurd.tasks.cutout.fetched import Fetched
    from absurd.tasks.cutout.fetcher import LsstDataFetcher
    from absurd.tasks.cutout.images import ImageRef
    from absurd.tasks.cutout.sphere import Floats


def may_improve(row: Fetched, *, n_planned: int = 0) -> bool:
    """Whether a request may end better another time, of the same images.

    `n_planned`: how many images had its position when the batch was planned.
    """
    if row.passing or row.n_found < n_planned:
        return True
    if any(each.failed for each in row.without) or (row.without and row.passed_over):
        return True
    return (
        row.error is not None
        and not row.unread
        and not isinstance(  # a damaged file that is mended is another
            row.error, InvalidInputError | BandNotFoundError | PlaneNotFoundError
        )
    )


def is_settled(parts: Iterable[Path]) -> bool:
    """Whether all parts are there, and none of their rows may end better another time."""
    return all(path.is_file() and not any(read_part(path)["may_improve"].to_pylist()) for path in parts)


def is_kept(path: Path, folder: Path, bands: Sequence[str], fetcher: LsstDataFetcher) -> bool:
    """Whether the part at `path` is there, with its files in `folder`, and would be the same again."""
    if not path.is_file():
        return False
    rows = read_part(path).select(["may_improve", "images"])
    if any(rows["may_improve"].to_pylist()):
        return False
    images = {(each["name"], each["version"]) for row in rows["images"].to_pylist() for each in row or ()}
    if not all(_is_same_image(uri, version) for uri, version in images):
        return False
    return has_its_files(path, folder) and Beyond.is_as_it_was(path, bands, fetcher)


def has_its_files(path: Path, folder: Path) -> bool:
    """Whether the part at `path` is there, and its files in `folder` are those that it has written."""
    if not path.is_file():
        return False
    files = (each for row in read_part(path)["files"].to_pylist() for each in row or ())
    return all(_is_same(folder / each["name"], each["version"]) for each in files)


class Beyond:
    """What a source has, or has not, where the boxes of a part reach beyond all images.

    Images that are there later, or that have changed, would be found there.
    """

    def __init__(self) -> None:
        self._positions: list[Floats] = []

    def add(self, row: Fetched) -> None:
        """Remember where a cut-out has no pixels, also one that was refused for that."""
        if row.batch is not None:
            for column in row.columns:
                if row.batch.n_outside[row.place, column]:
                    self._positions.append(probes(row.batch, (row.place, column)))

    def write(self, part: Path, bands: Sequence[str], fetcher: LsstDataFetcher) -> None:
        """Keep it beside the part's file, which must not be there yet."""
        beside = _beside(part)
        if not self._positions:
            beside.unlink(missing_ok=True)
            return
        positions = np.concatenate(self._positions)
        told = {"positions": positions.tolist(), "found": _found(positions, bands, fetcher)}
        with write_aside(beside) as aside:
            aside.write_text(json.dumps(told), encoding="utf-8")

    @staticmethod
    def is_as_it_was(part: Path, bands: Sequence[str], fetcher: LsstDataFetcher) -> bool:
        """Whether the source still says the same."""
        beside = _beside(part)
        if not beside.is_file():
            return True
        told = json.loads(beside.read_text(encoding="utf-8"))
        positions = np.array(told["positions"], dtype=np.float64).reshape(-1, 2)
        return bool(told["found"]) and told["found"] == _found(positions, bands, fetcher)


def _beside(part: Path) -> Path:
    return part.with_suffix(".beyond.json")


def _found(positions: Floats, bands: Sequence[str], fetcher: LsstDataFetcher) -> str:
    """What is at some positions, as a digest; empty if the source does not answer."""
    try:
        found: Iterable[tuple[str, str]] = {
            (each.uri, each.version) for images in fetcher.find_images(positions, bands) for each in images
        }
    except RippleError:
        return ""
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


def version_cut(image: ImageRef) -> str:
    """The version of an image that its pixels are of; empty where that was not asked for, as of remembered cut-outs."""
    return parsed.version_read(image.uri) or "" if is_remote(image.uri) else image.version


def _is_same_image(uri: str, version: str) -> bool:
    if not is_remote(uri):
        return _is_same(local_path(uri), version)
    try:
        return not version or RemoteFile.of(uri).state == version
    except ButlerConnectionError:  # what is there is better than what cannot be had now
        return True
    except RippleError:
        return False


def _is_same(path: Path, version: str) -> bool:
    try:
        return version_of(path) == version
    except OSError:
        return False
