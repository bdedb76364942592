"""Frames of a session as FITS files, for whoever works with those."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from absurd.tasks.artifact import write_aside
from absurd.tasks.session.arrays import Kept, SessionArrays
from absurd.tasks.session.errors import SessionValueError
from absurd.tasks.session.place import slug
from absurd.tasks.session.writer import refused


def export_fits(session: SessionArrays, frames: Iterable[Kept], folder: Path) -> Iterator[Path]:
    """Write frames as FITS, one file each, in memory one after the other; gives their paths.

    The header tells object, time (UTC), exposure in seconds, camera, session, and the settings; the pixels are what
    arrived, with a checksum.  A file that is there is replaced.  Raises SessionValueError for complex numbers,
    SessionDamagedError, SessionStorageError, OSError.
    """
    from astropy.io import fits

    for each in frames:
        pixels = session.load(each)
        if pixels.dtype.kind == "c":
            raise SessionValueError(
                f"frame {each.index} of {each.name} is of complex numbers, which FITS images are not"
            )
        if pixels.dtype.kind == "b" or (pixels.dtype.itemsize == 1 and pixels.dtype.kind == "i"):
            pixels = pixels.astype("u1" if pixels.dtype.kind == "b" else "i2")
        unit = fits.PrimaryHDU(pixels)
        for name, value, comment in _cards(session.meta, each):
            unit.header[name] = (value, comment)
        unit.add_checksum()
        path = folder / f"{session.path.stem}_{slug(each.name) or 'camera'}_{each.index:05d}.fits"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with write_aside(path) as part, part.open("wb") as file:
                unit.writeto(file)
        except OSError as error:
            raise refused(path, error) from error
        yield path


def _cards(meta: dict[str, Any], kept: Kept) -> Iterator[tuple[str, Any, str]]:
    info = kept.info
    yield "SESSION", _ascii(meta.get("session_id")), "name of the session"
    yield "INSTRUME", _ascii(kept.name), "camera"
    yield "FRAME", kept.index, "place among the camera's frames, from 0"
    if meta.get("target"):
        yield "OBJECT", _ascii(meta["target"]), ""
    if info.get("time"):
        yield "DATE-OBS", str(info["time"]).removesuffix("Z"), "UTC"
    if isinstance(info.get("exposure_us"), int | float):
        yield "EXPTIME", info["exposure_us"] / 1e6, "s"
    taken = {"SESSION", "INSTRUME", "FRAME", "OBJECT", "DATE-OBS", "EXPTIME"}
    for name, value in (info.get("settings") or {}).items():
        key = re.sub(r"[^A-Z0-9_-]", "_", name.upper())[:8]
        number = isinstance(value, int | float) and math.isfinite(value)
        if key and key not in taken and (number or isinstance(value, str)):
            taken.add(key)
            yield key, _ascii(value) if isinstance(value, str) else value, f"setting {_ascii(name)}"[:40]


def _ascii(text: Any) -> str:
    """What a header holds."""
    return re.sub(r"[^ -~]", "?", str(text))[:60]
