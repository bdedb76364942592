"""Where things lie in a data folder, and what they are called."""

from __future__ import annotations

import os
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from absurd.tasks.session.errors import SessionNotFoundError, SessionValueError

WORK = ".sessions"
"""The folder of what is not sealed yet, a folder for each session."""
CATALOG = "catalog"
"""The folder of what is derived from the files."""
CALIBRATION = "calibration"
"""The folder of master frames."""
FRAMES_SUFFIX = "_frames"
TYPES = ("observation", "alignment", "experiment", "maintenance", "idle")
LONGEST_TARGET = 40
"""Characters of a target in a file's name; the file itself has all of it."""

_ID = re.compile(r"[a-z]+(?:_[a-z0-9-]+)?_([0-9]{4})([0-9]{2})([0-9]{2})_[0-9]{6}_[0-9a-f]{8}")


def slug(text: str, longest: int = LONGEST_TARGET) -> str:
    """What of a text can be in a file's name anywhere: ``a``-``z``, ``0``-``9`` and ``-``; nothing, perhaps."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:longest].strip("-")


def new_id(session_type: str, target: str | None, begun_ns: int) -> str:
    """A session's name, which no other has: ``<type>_<target>_<YYYYMMDD_HHMMSS>_<short id>``, its time in UTC.

    `begun_ns` is nanoseconds since 1970.  Raises SessionValueError for an unknown type.
    """
    if session_type not in TYPES:
        raise SessionValueError(f"{session_type!r} is no type of a session; there are {', '.join(TYPES)}")
    stamp = datetime.fromtimestamp(begun_ns // 1_000_000_000, UTC).strftime("%Y%m%d_%H%M%S")
    return "_".join(each for each in (session_type, slug(target or ""), stamp, secrets.token_hex(4)) if each)


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """The places of one session in a data folder."""

    data_dir: Path
    id: str

    @property
    def work(self) -> Path:
        """Folder of the session until it is sealed."""
        return self.data_dir / WORK / self.id

    @property
    def journal(self) -> Path:
        """What was told to the session."""
        return self.work / "journal"

    @property
    def frames(self) -> Path:
        """Folder of frames as they arrived."""
        return self.work / "frames"

    @property
    def aside(self) -> Path:
        """The file while it is written."""
        return self.work / "sealing.asdf"

    @property
    def path(self) -> Path:
        """The file in the end: in the folder of the day on which the session began, by UTC."""
        found = _ID.fullmatch(self.id)
        assert found is not None, self.id
        return self.data_dir.joinpath(*found.groups(), f"{self.id}.asdf")

    @property
    def beside(self) -> Path:
        """Folder of external frames in the end, beside the file."""
        return self.path.with_name(self.id + FRAMES_SUFFIX)


def place_of(data_dir: str | os.PathLike[str], id: str) -> Place:
    """The place of the session of that name.  Raises SessionNotFoundError for what cannot be one's name."""
    if _ID.fullmatch(id) is None:
        raise SessionNotFoundError(f"{id!r} is no name of a session", session_id=id)
    return Place(Path(data_dir), id)


def existing_folder(data_dir: str | os.PathLike[str]) -> Path:
    """A data folder by its absolute path.  Raises SessionNotFoundError if it is not there."""
    folder = Path(os.path.abspath(data_dir))
    if not folder.is_dir():
        raise SessionNotFoundError(f"there is no folder {folder}", path=str(folder))
    return folder


def is_frames_folder(name: str) -> bool:
    """Whether a folder of that name has the external frames of a session."""
    return name.endswith(FRAMES_SUFFIX) and _ID.fullmatch(name.removesuffix(FRAMES_SUFFIX)) is not None


def unsealed(data_dir: Path) -> list[Place]:
    """The sessions that have a folder of their own still, by the time they began."""
    try:
        names = os.listdir(data_dir / WORK)
    except FileNotFoundError:
        return []
    places = [Place(data_dir, name) for name in names if _ID.fullmatch(name)]
    return sorted(places, key=lambda each: each.id.rsplit("_", 3)[-3:])
