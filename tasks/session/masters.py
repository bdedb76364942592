"""Master frames: many darks, flats or biases of one session made into one, which later sessions refer to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from absurd.tasks.artifact import checksum
from absurd.tasks.session.arrays import Kept, SessionArrays
from absurd.tasks.session.asdf_form import array_text, block_head, document
from absurd.tasks.session.errors import SessionNotFoundError, SessionValueError
from absurd.tasks.session.frames import Stored
from absurd.tasks.session.place import CALIBRATION, slug
from absurd.tasks.session.reading import Head, items

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["dark", "flat", "bias"]
FOLDERS: dict[str, str] = {"dark": "darks", "flat": "flats", "bias": "bias"}
LISTS = {"dark": "dark_frames", "flat": "flat_frames", "bias": "bias_frames"}
STRIP = 64 << 20
"""Bytes of all frames that are in memory at once while they are combined, beside one frame."""


@dataclass(frozen=True, slots=True)
class Master:
    """One master frame, and what is known of it."""

    pixels: np.ndarray[Any, Any]
    """float32, of the frames' shape; a flat's median is 1."""
    facts: dict[str, Any]


def make_master(
    session: SessionArrays,
    kind: Kind,
    scratch: Path,
    *,
    camera: str | None = None,
    exposure_us: float | None = None,
    subtract: Path | None = None,
    clip: float = 4.0,
    progress: Callable[..., Any] = lambda *_: None,
) -> Master:
    """Combine frames of a sealed session: the mean of each pixel without what lies off.

    The frames are those of a camera, or else those told as calibration arrays of this kind; with `exposure_us` those of
    that exposure.  A value counts that is within `clip` standard deviations (1.4826 times the median of the absolute
    deviations from the median) of the pixel's median.  `subtract` is a master to take from each first.  Flats are
    divided by their own median before, and the master by its own.  Frames are kept in `scratch` meanwhile, and in
    memory strip by strip: that does not grow with their number.

    Raises SessionNotFoundError if there is none, SessionValueError if shapes or, of darks, exposures differ, or the
    median of a flat is not above 0; SessionDamagedError; OSError.
    """
    import numpy as np

    kept = _chosen(session, kind, camera, exposure_us)
    shape = kept[0].shape
    bias = None if subtract is None else read_master(subtract).pixels
    if bias is not None and bias.shape != shape:
        raise SessionValueError(f"{subtract} is of shape {bias.shape}, the frames of {shape}")
    stack = np.lib.format.open_memmap(scratch / "frames.npy", "w+", np.float32, (len(kept), *shape))
    md5 = []
    for number, each in enumerate(kept):
        progress(number, len(kept), "reading")
        pixels = session.load(each)
        md5.append(each.info.get("md5") or hashlib.md5(pixels.tobytes(), usedforsecurity=False).hexdigest())
        made = pixels.astype(np.float32)
        if bias is not None:
            made -= bias
        stack[number] = _normal(made) if kind == "flat" else made
    pixels, clipped, noise = _combined(stack, clip, progress)
    if kind == "flat":
        pixels = _normal(pixels)
    facts = {
        "kind": kind,
        "camera": camera,
        "exposure_us": exposure_us if exposure_us is not None else kept[0].info.get("exposure_us"),
        "settings": _common([each.info.get("settings") or {} for each in kept]),
        "session_id": session.meta.get("session_id"),
        "start_time": session.meta.get("start_time"),
        "frames": len(kept),
        "clip": clip,
        "clipped": clipped,
        "noise": noise,
        "median": float(np.median(pixels)),
        "subtracted": None if subtract is None else {"path": subtract.name, "sha256": checksum(subtract)},
        "md5": md5,
    }
    return Master(pixels, facts)


def _chosen(session: SessionArrays, kind: str, camera: str | None, exposure_us: float | None) -> list[Kept]:
    found = session.of("calibration", LISTS[kind]) if camera is None else session.of("cameras", camera)
    if exposure_us is not None:
        found = [each for each in found if each.info.get("exposure_us") == exposure_us]
    if not found:
        where = f"calibration arrays {LISTS[kind]}" if camera is None else f"frames of the camera {camera!r}"
        raise SessionNotFoundError(f"{session.path} has no {where} that are asked for", path=str(session.path))
    for name, values in (
        ("shapes", {each.shape for each in found}),
        ("exposures", {each.info.get("exposure_us") for each in found} if kind == "dark" else {None}),
    ):
        if len(values) > 1:
            raise SessionValueError(
                f"the frames differ in their {name}: {', '.join(map(str, sorted(values, key=str)))}"
            )
    return found


def _normal(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    median = float(np.nanmedian(pixels))
    if not median > 0:
        raise SessionValueError(f"a flat has the median {median:g}; it must be above 0")
    made: np.ndarray[Any, Any] = (pixels / np.float32(median)).astype(np.float32)
    return made


def _combined(
    stack: np.ndarray[Any, Any], clip: float, progress: Callable[..., Any]
) -> tuple[np.ndarray[Any, Any], int, float]:
    """The clipped mean of each pixel, how many values were left out, and the noise of one frame."""
    import numpy as np

    flat = stack.reshape(len(stack), -1)
    pixels = np.empty(flat.shape[1], np.float32)
    clipped, variance = 0, 0.0
    step = max(1, STRIP // (4 * len(stack)))
    for begin in range(0, len(pixels), step):
        progress(begin, len(pixels), "combining")
        strip = np.array(flat[:, begin : begin + step])
        median = np.median(strip, axis=0)
        away = np.abs(strip - median)
        width = 1.4826 * np.median(away, axis=0)
        # Where more than half agree exactly the width is 0: nothing is left out then, for all would be.
        is_off = (away > clip * width) & (width > 0)
        clipped += int(is_off.sum())
        pixels[begin : begin + step] = np.mean(strip, axis=0, where=~is_off)
        variance += float(np.var(strip, axis=0, where=~is_off, dtype=np.float64).sum())
    noise = variance / len(pixels) * len(stack) / max(1, len(stack) - 1)
    return pixels.reshape(stack.shape[1:]), clipped, float(np.sqrt(noise))


def _common(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings in which all agree."""
    return {name: value for name, value in settings[0].items() if all(each.get(name) == value for each in settings)}


def name_of(facts: dict[str, Any]) -> str:
    """Where a master belongs, within the data folder: one session has one of a kind, camera and exposure."""
    exposure = facts["exposure_us"]
    parts = [facts["kind"], slug(facts["camera"] or ""), "" if exposure is None else f"{exposure:g}us"]
    stamp = str(facts["session_id"]).split("_")[-3:]
    return f"{CALIBRATION}/{FOLDERS[facts['kind']]}/{'_'.join(each for each in (*parts, *stamp) if each)}.asdf"


def write_master(master: Master, path: Path) -> None:
    """Write a master as an ASDF file, which any asdf opens: its pixels under ``frame``, what is known beside.

    Raises OSError.
    """
    data = master.pixels.astype("<f4").tobytes()
    told = Stored(path.name, list(master.pixels.shape), "float32", "little", 0, 0, len(data))
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    with path.open("wb") as file:
        file.write(document({"frame": array_text(told, 0)}, {"master": master.facts}))
        file.write(block_head(len(data), len(data), digest) + data)


def read_master(path: Path) -> Master:
    """A master from its file.  Raises SessionValueError for another file, FileNotFoundError, OSError."""
    import asdf
    import numpy as np

    facts = facts_of_master(path)
    with asdf.open(path, memmap=False, lazy_load=False, validate_checksums=True) as file:
        return Master(np.array(file["frame"], np.float32), facts)


def facts_of_master(path: Path) -> dict[str, Any]:
    """What is known of a master, from the head of its file.  Raises as `read_master`."""
    with path.open("rb") as file:
        for where, value in items(Head(file, 8 << 10)):
            if where == ("master",) and isinstance(value, dict):
                return value
    raise SessionValueError(f"{path} is no master frame", path=str(path))


def reference(data_dir: Path, path: Path) -> dict[str, Any]:
    """By what a session refers to a master: path (within the data folder, if it is there), SHA-256, and what it is.

    Raises SessionNotFoundError, SessionValueError, OSError.
    """
    full = data_dir / path
    try:
        facts = facts_of_master(full)
    except FileNotFoundError:
        raise SessionNotFoundError(f"there is no master {full}", path=str(full)) from None
    within = full.relative_to(data_dir).as_posix() if full.is_relative_to(data_dir) else str(full)
    names = ("kind", "camera", "exposure_us", "session_id", "frames")
    return {"path": within, "sha256": checksum(full), **{name: facts.get(name) for name in names}}


def find_master(
    data_dir: str | os.PathLike[str], kind: Kind, *, camera: str | None = None, exposure_us: float | None = None
) -> Path | None:
    """The newest master of a kind that fits a camera and an exposure; None if there is none.

    Exposures matter for darks alone.  Raises OSError.
    """
    found = []
    for path in (Path(data_dir) / CALIBRATION / FOLDERS[kind]).glob("*.asdf"):
        try:
            facts = facts_of_master(path)
        except SessionValueError:
            continue
        fits = camera is None or facts.get("camera") == camera
        if fits and (kind != "dark" or exposure_us is None or facts.get("exposure_us") == exposure_us):
            found.append((str(facts.get("start_time")), path))
    return max(found)[1] if found else None


def changed_masters(data_dir: Path, path: Path) -> list[str]:
    """What is wrong with the masters that a session refers to: gone, or other than they were.  Raises OSError."""
    wrong = []
    with path.open("rb") as file:
        for where, value in items(Head(file)):
            if where[:2] == ("calibration", "masters") and isinstance(value, dict):
                master = data_dir / str(value["path"])
                if not master.exists():
                    wrong.append(f"the master {master} is gone")
                elif checksum(master) != value["sha256"]:
                    wrong.append(f"the master {master} is not the one that was used")
    return wrong


def told(facts: dict[str, Any]) -> dict[str, Any]:
    """What a task tells of a master: without the checksums of its frames."""
    made: dict[str, Any] = json.loads(json.dumps({name: each for name, each in facts.items() if name != "md5"}))
    return made
