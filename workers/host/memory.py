"""The limit on what a run and all that it has started may hold of memory: set before it, lifted after it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import structlog

from absurd.errors import ConfigurationError, OutOfMemoryError
from absurd.executor import Executor
from absurd.model import Claim
from absurd.workers.failures import describe
from absurd.workers.host.cgroups import Group, Groups, count_kills, find_events
from absurd.workers.host.guard import Usage, read_usage

GIB = 1024**3
ANSWER_SECONDS = 30.0
"""How long a guard may take to take an order before a run; on a machine that is too busy the run goes elsewhere."""
RELEASE_SECONDS = 3.0
"""How long a guard may take after a run, whose outcome waits for it; else the process is not used again."""
NEARLY = 0.95
"""A group whose peak came so near its limit was killed for that, and not because the machine was full."""

log = structlog.get_logger("absurd.worker")


def needs_of(claim: Claim, executor: Executor) -> Mapping[str, float]:
    """What a run needs: what its task says, else its executor."""
    return claim.needs or getattr(executor, "needs", None) or {}


class GuardSilentError(Exception):
    """The guard of a process lives, and does not answer: it gets no time, or was stopped by force."""


class MemoryLimits:
    """How a worker limits memory, as the setting ``worker_memory_limit`` says.  Raises ConfigurationError."""

    def __init__(self, how: str) -> None:
        self.groups: Groups | None = None
        self.reserved = how == "rlimit"
        """Whether what the run's processes reserve is limited too."""
        self._on = how != "none"
        if how in ("auto", "cgroup"):
            try:
                self.groups = Groups.find()
            except OSError as error:
                if how == "cgroup":
                    raise ConfigurationError(
                        f"worker_memory_limit is cgroup, but no control group can be made here ({error}); "
                        "with auto the memory of a run is watched instead",
                        setting="worker_memory_limit",
                    ) from error

    def size(self, claim: Claim, executor: Executor) -> int | None:
        """The limit of a run in bytes; None: it has none."""
        wanted = needs_of(claim, executor).get("memory_gib") if self._on else None
        return max(1, int(wanted * GIB)) if wanted else None


class Restraint:
    """The limit of one child: by a control group of its own, or by its guard, to which `lifeline` leads."""

    def __init__(self, lifeline: socket.socket) -> None:
        self._lifeline = lifeline
        self._group: Group | None = None
        self._words = b""
        self._events = find_events()
        self._kills = self._count_kills()
        self.size: int | None = None
        """The limit at present, in bytes."""

    def begin(self) -> None:
        """A run begins: what was killed before it is not its own."""
        self._kills = self._count_kills()

    async def restrain(self, limits: MemoryLimits, pid: int, size: int) -> None:
        """Limit what process `pid` and all it starts may hold.

        Raises EOFError if its guard is gone, GuardSilentError if that does not answer.
        """
        self.size = size
        if limits.groups is not None:
            try:
                if self._group is None:
                    self._group = await asyncio.to_thread(_enter, limits.groups, pid)
                self._group.limit(size)
                self.begin()
                return
            except OSError as error:
                log.warning("memory_limit_watched", pid=pid, error=str(error))
                self._drop_group()
        await self._order(size, ANSWER_SECONDS)

    async def release(self) -> int:
        """End the limit, and give the most that was held under it, in bytes; 0 if none was set.  Raises EOFError.

        Where it cannot be ended the child must not be used again: that is EOFError too.
        """
        size, self.size = self.size, None
        if size is None:
            return 0
        if self._group is None:
            try:
                return await self._order(0, RELEASE_SECONDS)
            except GuardSilentError as error:
                raise EOFError from error
        peak = self._group.peak() or 0
        try:
            self._group.limit(None)
        except OSError as error:
            raise EOFError from error
        return peak

    @property
    def starved(self) -> bool | None:
        """Whether a process was killed for want of memory since the run began; None where that cannot be told."""
        now = self._count_kills()
        return None if self._kills is None or now is None else now > self._kills

    @property
    def exceeded(self) -> bool:
        """Whether the process was killed because of its limit, once it has ended."""
        if self.size is None:
            return False
        if self._group is not None:
            return bool(self.starved) and (self._group.peak() or self.size) >= NEARLY * self.size
        usage = self.usage()
        return usage is not None and usage.over_limit

    def usage(self) -> Usage | None:
        """What the child's processes have used in all, once they have ended; None where nobody tells."""
        with suppress(OSError):  # it has said nothing, or all of it before
            while more := self._lifeline.recv(4096):
                self._words += more
        usage = read_usage(self._words)
        if usage is None or self._group is None:
            return usage
        return usage._replace(peak=self._group.peak() or 0)

    def remove(self) -> None:
        """The child and all it has started have ended."""
        self._drop_group()

    def _drop_group(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.remove()

    def _count_kills(self) -> int | None:
        if self._group is not None:
            return self._group.kills()
        return None if self._events is None else count_kills(self._events)

    async def _order(self, size: int, seconds: float) -> int:
        """Have the guard watch for `size` bytes (0: no more); gives the most that it has seen since the last order."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                await loop.sock_sendall(self._lifeline, b"%d\n" % size)
                answer = await loop.sock_recv(self._lifeline, 4096)
        except TimeoutError:
            raise GuardSilentError(f"the guard of a run's process has not answered for {seconds:g} s") from None
        except OSError as error:
            raise EOFError from error
        if not answer or b" " in answer:  # its last words: it has ended everything
            self._words = answer
            raise EOFError
        return int(answer)


def _enter(groups: Groups, pid: int) -> Group:
    group = groups.make()
    try:
        group.add(pid)
    except OSError:
        group.remove()
        raise
    return group


def told(peak: int, cpu_ms: float) -> dict[str, float]:
    """What a run has used, as stored with its error: the most memory in bytes that it held, and milliseconds."""
    return {"peak_memory_gib": round(peak / GIB, 4), "cpu_seconds": max(0.0, cpu_ms / 1000)}


def out_of_memory(size: int, used: Mapping[str, float], cause: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The error of a run that exceeded its limit of `size` bytes, as stored; `cause` is what came of that within it."""
    peak = used.get("peak_memory_gib")
    seen = "" if peak is None else f"; {peak:.4g} GiB were held at the peak"
    why = "" if cause is None else f" ({cause['type']}: {cause['message']})"
    message = f"the run and its processes exceeded their memory limit of {size / GIB:.4g} GiB{seen}{why}"
    described = describe(OutOfMemoryError(message)) | ({} if cause is None else dict(cause))
    known = {"code": OutOfMemoryError.code, "message": message, "out_of_memory": True}
    return described | known | {"memory_limit_gib": size / GIB} | dict(used)
