"""Whether the scratch disk has what a run needs; where it has not, or cannot be used, the run is put off."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import structlog

from absurd.disk import ask_disk
from absurd.errors import NoScratchError
from absurd.model import Claim
from absurd.outcome import Suspended
from absurd.scratch import ScratchSpace

NO_ROOM_SECONDS = 30.0
"""How long a run is put off where the scratch disk has no room; no attempt is spent, any worker may have it then."""
DISK_SECONDS = 5.0
"""How long the scratch disk may take to answer: one over the network may hang."""

log = structlog.get_logger("absurd.worker")


def put_off(spawns: tuple[dict[str, Any], ...] = ()) -> Suspended:
    """The outcome of a run for which there is no scratch space."""
    return Suspended("no_scratch", delay=NO_ROOM_SECONDS, spawns=spawns)


async def find_room(space: ScratchSpace, claim: Claim, min_free_gib: float) -> Suspended | None:
    """None where the run may start; else its outcome.

    How much room there is may be unknown: then what the run writes will tell.  A disk that does not answer is not
    given to a run that asks for room there.
    """
    needed = (claim.needs or {}).get("scratch_gib", 0.0)
    wanted = needed + min_free_gib
    if not wanted:
        return None
    try:
        free = await ask_disk(space.free_gib, DISK_SECONDS)
    except OSError as error:  # a TimeoutError too
        hangs = isinstance(error, TimeoutError)
        why = f"no answer for {DISK_SECONDS:g} s" if hangs else error.strerror or str(error)
        log.warning("scratch_unknown", folder=space.place, error=why)
        space.refuse(why)
        return put_off() if hangs and needed else None
    if free >= wanted:
        space.problem = None
        return None
    log.warning(
        "scratch_full", task_id=str(claim.task_id), folder=space.place, free_gib=round(free, 3), wanted_gib=wanted
    )
    space.refuse(f"{free:.3g} GiB are free, and {wanted:.3g} were wanted")
    return put_off()


async def make_folder(space: ScratchSpace, name: str) -> Path:
    """A scratch folder for a run.  Raises NoScratchError."""
    try:
        await ask_disk(space.probe, DISK_SECONDS)  # first, for of a disk that hangs this is asked but once
        return await ask_disk(partial(space.make, name), DISK_SECONDS)
    except NoScratchError:
        raise
    except TimeoutError:
        raise space.refuse(f"no answer for {DISK_SECONDS:g} s") from None
    except OSError as error:
        raise space.refuse(error.strerror or str(error)) from error
