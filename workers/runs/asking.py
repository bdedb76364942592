"""A run's calls of its port as messages, for runs that have no database at hand: both ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from absurd.errors import AbsurdError
from absurd.middleware import SpawnMiddleware
from absurd.offspring import Ending
from absurd.port import Port
from absurd.scratch import ScratchSpace
from absurd.workers.runs.room import make_folder
from absurd.workers.runs.wire import dump_error, load_error


class Ask(Protocol):
    """Sends a call and brings its answer, as `answer` has made it."""

    async def __call__(self, method: str, args: list[Any], /) -> dict[str, Any]: ...


class AskingPort:
    """Implements `absurd.port.Port` by asking somebody who has a port."""

    def __init__(self, ask: Ask, scratch: ScratchSpace | None = None) -> None:
        self._send_call = ask
        self.spawn_middleware: Sequence[SpawnMiddleware] = ()
        self.scratch = ScratchSpace() if scratch is None else scratch

    async def get_checkpoints(self, task_id: UUID) -> dict[str, Any]:
        """Saved steps by name."""
        found: dict[str, Any] = await self._ask("get_checkpoints", str(task_id))
        return found

    async def set_checkpoint(self, lease: int, task_id: UUID, name: str, value: str) -> None:
        """Save a step."""
        await self._ask("set_checkpoint", lease, str(task_id), name, value)

    async def set_progress(
        self, lease: int, task_id: UUID, done: float, total: float | None, message: str | None
    ) -> None:
        """Tell how far the run is."""
        await self._ask("set_progress", lease, str(task_id), done, total, message)

    async def check_claim(self, lease: int, task_id: UUID) -> None:
        """Raises StaleClaimError unless the claim is held."""
        await self._ask("check_claim", lease, str(task_id))

    async def clock_time(self) -> datetime:
        """What time it is in the database."""
        return datetime.fromisoformat(await self._ask("clock_time"))

    async def make_scratch(self, name: str) -> Path:
        """A scratch folder for this run.  Raises NoScratchError."""
        return Path(await self._ask("make_scratch", name))

    async def get_results(self, task_ids: Sequence[UUID]) -> list[Ending]:
        """How tasks stand, in the order of the ids."""
        found = await self._ask("get_results", [str(each) for each in task_ids])
        return [Ending(UUID(each[0]), *each[1:]) for each in found]

    async def await_files(self, task_ids: Sequence[UUID]) -> None:
        """Wait until the files of completed tasks are in their places.  Raises FilesMissing."""
        await self._ask("await_files", [str(each) for each in task_ids])

    async def _ask(self, method: str, *args: Any) -> Any:
        answered = await self._send_call(method, [*args])
        if "error" in answered:
            raise load_error(answered["error"])
        return answered["value"]


async def answer(port: Port, method: str, args: list[Any]) -> dict[str, Any]:
    """Make a call that an `AskingPort` has sent."""
    value: Any = None
    try:
        match method, args:
            case "get_checkpoints", [task_id]:
                value = await port.get_checkpoints(UUID(task_id))
            case "set_checkpoint", [lease, task_id, name, text]:
                await port.set_checkpoint(lease, UUID(task_id), name, text)
            case "set_progress", [lease, task_id, done, total, message]:
                await port.set_progress(lease, UUID(task_id), done, total, message)
            case "check_claim", [lease, task_id]:
                await port.check_claim(lease, UUID(task_id))
            case "get_results", [task_ids]:
                found = await port.get_results([UUID(each) for each in task_ids])
                value = [(str(each.task_id), *each[1:]) for each in found]
            case "await_files", [task_ids]:
                await port.await_files([UUID(each) for each in task_ids])
            case "make_scratch", [name]:
                value = str(await make_folder(port.scratch, name))
            case "clock_time", []:
                value = (await port.clock_time()).isoformat()
            case _:
                raise EOFError(f"a run has asked for {method!r}")
    except AbsurdError as error:
        return {"error": dump_error(error)}
    return {"value": value}
