"""What runs write on a Dask worker, on its way to the worker that has sent them: in few messages, and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from absurd.model import Claim
from absurd.workers.log.output import Sink

SEND_SECONDS = 0.2
"""How often what a run writes is sent."""
HELD_BYTES = 1024 * 1024
"""How much of a run waits to be sent; what it writes beyond that is dropped, and counted."""


class RemoteOutput:
    """A sink on the Dask worker.  `say` sends a message, `has_unheard` tells whether one is still on its way."""

    def __init__(self, say: Callable[[dict[str, Any]], int], has_unheard: Callable[[int], bool]) -> None:
        self._say = say
        self._has_unheard = has_unheard
        self._held: dict[tuple[int, UUID], _Held] = {}
        self._last = 0
        self._due: asyncio.TimerHandle | None = None

    def write(self, claim: Claim, stream: str, data: bytes) -> None:
        """Take what the run of `claim` has written to `stream`."""
        self._held.setdefault(claim[:2], _Held()).add(stream, data)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(SEND_SECONDS, self._look)

    def send(self) -> None:
        """Send all there is, as before the outcome of a run."""
        for (lease, task_id), held in self._held.items():
            self._last = self._say({"output": [lease, str(task_id)], **held.taken()})
        self._held.clear()

    def _look(self) -> None:
        self._due = None
        if not self._has_unheard(self._last):
            self.send()
        elif self._held:
            self._due = asyncio.get_running_loop().call_later(SEND_SECONDS, self._look)


class _Held:
    """What one run has written and is not sent."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, bytearray]] = []
        self._size = self._dropped = 0

    def add(self, stream: str, data: bytes) -> None:
        kept = data[: max(0, HELD_BYTES - self._size)]
        self._dropped += len(data) - len(kept)
        self._size += len(kept)
        if not self._parts or self._parts[-1][0] != stream:
            self._parts.append((stream, bytearray()))
        self._parts[-1][1].extend(kept)

    def taken(self) -> dict[str, Any]:
        return {"parts": [(name, to_text(data)) for name, data in self._parts], "dropped": self._dropped}


def pass_on(message: dict[str, Any], claims: Iterable[Claim], sink: Sink) -> None:
    """Put what came with a message into the log of its run, which is one of `claims`."""
    lease, task_id = message["output"]
    for claim in claims:
        if claim.lease == lease and str(claim.task_id) == task_id:
            for stream, text in message["parts"]:
                sink.write(claim, stream, to_bytes(text))
            if message["dropped"]:
                note = f"[{message['dropped']} bytes came faster than they could be sent from the Dask worker]\n"
                sink.write(claim, "stderr", note.encode())


def to_text(data: bytes | bytearray) -> str:
    """Bytes as text that JSON takes, whatever they are."""
    return data.decode(errors="surrogateescape")


def to_bytes(text: str) -> bytes:
    """The bytes that `to_text` has made text of."""
    return text.encode(errors="surrogateescape")
