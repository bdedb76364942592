"""Products that did not pass, put where no stage looks for them, with the reasons beside.

Nothing is deleted: a product moves into the folder ``quarantine`` beside it, under its own name or one with a number,
and ``NAME.reasons.json`` is written there first.  So a process that is killed in between leaves reasons without a
product, which the next one replaces, and never a product without reasons.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from absurd.tasks.artifact import naming, sync, write_aside
from absurd.tasks.radio.errors import DataError, StateManagementError

FOLDER = "quarantine"
REASONS = ".reasons.json"


def put_into_quarantine(product: str | os.PathLike[str], reasons: Mapping[str, Any]) -> Path:
    """Move a file or folder away, and give its new place; `reasons` are plain values, written beside it.

    Raises DataError where there is no such product, OSError.
    """
    path = Path(os.path.abspath(product))
    folder = path.parent / FOLDER
    if not os.path.lexists(path):
        raise DataError(f"{path} cannot be put into quarantine: it is not there")
    folder.mkdir(exist_ok=True)
    with naming(folder):
        place, number = folder / path.name, 1
        while os.path.lexists(place):
            number += 1
            place = folder / f"{path.name}.{number}"
        told = {"product": str(path), "quarantined_at": datetime.now(UTC).isoformat(timespec="seconds")}
        _write(place, told | dict(reasons))
        path.rename(place)
        sync(folder)
    sync(path.parent)
    return place


def find_in_quarantine(product: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Why the product of that name was put away last, with its `place` now; None if it was not."""
    path = Path(os.path.abspath(product))
    found = []
    for each in (path.parent / FOLDER).glob(f"*{REASONS}"):
        place = each.with_name(each.name.removesuffix(REASONS))
        told = json.loads(each.read_text(encoding="utf-8"))
        if told["product"] == str(path) and os.path.lexists(place):
            found.append(told | {"place": str(place)})
    return max(found, key=lambda told: (told["quarantined_at"], len(told["place"]), told["place"]), default=None)


def release_from_quarantine(place: str | os.PathLike[str]) -> Path:
    """Put a product back where it was, because somebody decided so, and give that place.  Its reasons stay.

    Raises DataError for what is not in quarantine, StateManagementError where another product has its name by now.
    """
    path = Path(os.path.abspath(place))
    reasons = path.with_name(path.name + REASONS)
    if path.parent.name != FOLDER or not os.path.lexists(path) or not reasons.is_file():
        raise DataError(f"{path} is not a product in quarantine")
    told = json.loads(reasons.read_text(encoding="utf-8"))
    back = Path(told["product"])
    with naming(path.parent), naming(back.parent):
        if os.path.lexists(back):
            raise StateManagementError(
                f"{path} cannot go back: another product is at {back}", advice="move that away first"
            )
        path.rename(back)
        _write(path, told | {"released_at": datetime.now(UTC).isoformat(timespec="seconds")})
        sync(path.parent)
    sync(back.parent)
    return back


def _write(place: Path, told: Mapping[str, Any]) -> None:
    with write_aside(place.with_name(place.name + REASONS)) as part:
        part.write_text(json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
