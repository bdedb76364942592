"""Holds: a session's file that has to stay, whatever rules say; kept beside the file, so that they go where it goes."""

from __future__ import annotations

import getpass
import json
import time
from pathlib import Path
from typing import Any

from absurd.tasks.artifact import naming, sync, write_aside
from absurd.tasks.session.errors import SessionNotFoundError, SessionValueError
from absurd.tasks.session.values import moment


def hold_of(path: Path) -> dict[str, Any] | None:
    """Why the file of a session is held, since when and by whom; None if it is not.

    What is there and cannot be read holds too.
    """
    try:
        told: dict[str, Any] = json.loads(_beside(path).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"reason": f"its hold cannot be read: {error}"}
    return told


def hold(path: Path, reason: str) -> dict[str, Any]:
    """Have the file of a session stay for a reason; a hold that is there is replaced.

    Raises SessionValueError without a reason, SessionNotFoundError if there is no such file, OSError.
    """
    if not reason.strip():
        raise SessionValueError("a file is held for a reason: tell it")
    told = {"reason": reason, "since": moment(time.time_ns()), "by": getpass.getuser()}
    with _alone(path), write_aside(_beside(path)) as part:
        part.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    return told


def release(path: Path) -> bool:
    """Hold a file no longer; False if it was not held.  Raises SessionNotFoundError, OSError."""
    with _alone(path):
        is_held = _beside(path).exists()
        _beside(path).unlink(missing_ok=True)
        sync(path.parent)
    return is_held


def _alone(path: Path) -> Any:
    """Hold off who would retire the file."""
    if not path.exists():
        raise SessionNotFoundError(f"there is no file {path}", path=str(path))
    return naming(path.parent)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".hold")
