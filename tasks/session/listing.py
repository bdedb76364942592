"""What sessions a data folder has, from the heads of their files alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absurd.tasks.session.errors import SessionDamagedError, SessionNotFoundError
from absurd.tasks.session.outline import outline
from absurd.tasks.session.place import place_of, unsealed
from absurd.tasks.session.reading import Head, items

DAY = "[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]"


@dataclass(slots=True)
class Summary:
    """A session in short."""

    session_id: str
    path: str
    """Its file, or where that will be."""
    state: str
    """``open`` (active, or left by a manager that is gone), ``ended`` (to be sealed), ``sealed`` or ``damaged``."""
    meta: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    """Why it is damaged."""


def summary(path: Path) -> Summary:
    """A session's file in short; reads no more of it than that takes.

    Raises SessionDamagedError for a file that is no session's, or is cut off before that, OSError.
    """
    import yaml

    made = Summary(path.stem, str(path), "sealed")
    try:
        with path.open("rb") as file:
            for where, value in items(Head(file)):
                match where:
                    case ("meta", str() as name):
                        made.meta[name] = value
                    case ("meta",) if isinstance(value, dict):  # as asdf may write it
                        made.meta = value
                    case ("observability", "metrics") if isinstance(value, dict):
                        made.metrics = value
                    case ("observability", "metrics", str() as name):
                        made.metrics[name] = value
                    case _ if made.meta and made.metrics:
                        break
    except (yaml.YAMLError, RuntimeError) as error:  # a stream that ends within an event
        raise SessionDamagedError(f"{path} is damaged: {error}", path=str(path)) from error
    if "session_id" not in made.meta or not made.metrics:
        raise SessionDamagedError(f"{path} is damaged, or no session's: it lacks meta or metrics", path=str(path))
    return made


def summaries(data_dir: Path) -> Iterator[Summary]:
    """All sessions of a folder, newest first, those that are not sealed yet before all others.

    A file that cannot be read is among them, as damaged.
    """
    for place in reversed(unsealed(data_dir)):
        yield _open(data_dir, place.id)
    for path in sorted(data_dir.glob(f"{DAY}/*.asdf"), key=_order, reverse=True):
        try:
            yield summary(path)
        except (SessionDamagedError, OSError) as error:
            yield Summary(path.stem, str(path), "damaged", reason=str(error))


def find(data_dir: Path, name: str) -> Path:
    """The file of a session, by its name or path.  Raises SessionNotFoundError."""
    path = Path(name)
    if path.suffix != ".asdf":
        path = place_of(data_dir, name).path
    if not path.exists():
        raise SessionNotFoundError(f"there is no file {path}", path=str(path))
    return path


def _open(data_dir: Path, session_id: str) -> Summary:
    place = place_of(data_dir, session_id)
    try:
        made = outline(place.journal)
    except (SessionDamagedError, OSError) as error:
        return Summary(session_id, str(place.path), "damaged", reason=str(error))
    return Summary(session_id, str(place.path), "ended" if made.ended else "open", made.meta(), made.metrics())


def _order(path: Path) -> tuple[str, ...]:
    return tuple(path.stem.rsplit("_", 3)[-3:])
