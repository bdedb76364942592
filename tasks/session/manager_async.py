"""`AsyncSessionManager`: the manager for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import os
from abc import abstractmethod
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from absurd.tasks.session.manager import Session, SessionManager
from absurd.tasks.session.telling import AsyncTelling, Call


class _Landing(AsyncTelling):
    """Awaits what was told; those whose records go to the disk together are woken together."""

    def __init__(self) -> None:
        self._waiting: dict[Future[None], list[asyncio.Future[None]]] = {}

    @abstractmethod
    def _on_book(self, call: Call) -> Future[None]:
        """Have the active session keep what is told; done when it is safe."""

    async def _tell(self, call: Call) -> None:
        done = self._on_book(call)
        if done.done():
            return done.result()
        loop = asyncio.get_running_loop()
        waiting = self._waiting.get(done)
        if waiting is None:
            waiting = self._waiting[done] = []
            done.add_done_callback(lambda ended: loop.call_soon_threadsafe(self._wake, ended))
        waiting.append(loop.create_future())  # of its own: one that is cancelled cancels no other
        return await waiting[-1]

    def _wake(self, done: Future[None]) -> None:
        error = done.exception()
        for each in self._waiting.pop(done, ()):
            if each.done():
                continue
            if error is None:
                each.set_result(None)
            else:
                each.set_exception(error)

    async def _tell_apart(self, call: Call) -> None:
        await asyncio.to_thread(lambda: self._on_book(call).result())


class AsyncSession(_Landing):
    """One session; what is told to it is told to no other."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    @property
    def id(self) -> str:
        """Its name, which no other session has."""
        return self._session.id

    @property
    def session_type(self) -> str:
        """One of observation, alignment, experiment, maintenance, idle."""
        return self._session.session_type

    @property
    def path(self) -> Path:
        """Where its file is, or will be."""
        return self._session.path

    async def close(self) -> Path:
        """End it and give its file.  Raises as `SessionManager.end_session`."""
        return await asyncio.to_thread(self._session.close)

    def _on_book(self, call: Call) -> Future[None]:
        return self._session.on_book(call)


class AsyncSessionManager(_Landing):
    """`SessionManager` for asyncio, with the same arguments; `client` may be an `AbsurdClient`.

    Use it as a context manager: ``async with AsyncSessionManager(...) as sessions``.
    """

    def __init__(self, data_dir: str | os.PathLike[str], client: Any = None, **options: Any) -> None:
        super().__init__()
        self._make = partial(SessionManager, data_dir, **options)
        self._client = client
        self._manager: SessionManager | None = None

    async def __aenter__(self) -> Self:
        client = self._client
        if inspect.iscoroutinefunction(getattr(client, "spawn", None)):
            client = _FromThreads(client, asyncio.get_running_loop())
        self._manager = await asyncio.to_thread(self._make, client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def active(self) -> AsyncSession:
        """The session that is active now."""
        return AsyncSession(self._opened.active)

    async def start_session(self, session_type: str, **fields: Any) -> AsyncSession:
        """As `SessionManager.start_session`."""
        return AsyncSession(await asyncio.to_thread(self._opened.start_session, session_type, **fields))

    async def end_session(self, *, wait: bool = True, timeout: float | None = None) -> Path:
        """As `SessionManager.end_session`."""
        return await asyncio.to_thread(self._opened.end_session, wait=wait, timeout=timeout)

    async def rebuild_catalog(self, *, full: bool = False, timeout: float | None = None) -> Path:
        """As `SessionManager.rebuild_catalog`."""
        return await asyncio.to_thread(self._opened.rebuild_catalog, full=full, timeout=timeout)

    async def close(self) -> None:
        """As `SessionManager.close`."""
        if self._manager is not None:
            await asyncio.to_thread(self._manager.close)

    async def leave(self) -> None:
        """As `SessionManager.leave`."""
        await asyncio.to_thread(self._opened.leave)

    @property
    def _opened(self) -> SessionManager:
        assert self._manager is not None, "use it in `async with`"
        return self._manager

    def _on_book(self, call: Call) -> Future[None]:
        return self._opened.on_book(call)


class _FromThreads:
    """A client of a running loop, for threads."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def spawn(self, name: str, params: Any = None, **options: Any) -> UUID:
        """As the client's."""
        spawning = self._client.spawn(name, params, **options)
        spawned: UUID = asyncio.run_coroutine_threadsafe(spawning, self._loop).result()
        return spawned

    def wait(self, task_id: UUID, timeout: float | None = None) -> Any:
        """As the client's."""
        return asyncio.run_coroutine_threadsafe(self._client.wait(task_id, timeout), self._loop).result()

    def tell_session(self, session_id: str, entries: list[dict[str, Any]], missed: int = 0) -> bool:
        """As the client's."""
        telling = self._client.tell_session(session_id, entries, missed)
        watched: bool = asyncio.run_coroutine_threadsafe(telling, self._loop).result()
        return watched
