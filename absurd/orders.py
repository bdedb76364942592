"""Orders to workers: they come to a worker with the answer to its next sign of life."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from absurd.call import Call, one_value

T = TypeVar("T")


def drain_worker(worker: int, *, draining: bool = True) -> Call[str]:
    """Have a worker claim nothing more and leave once its runs have ended, or take that back; gives its state.

    Raises WorkerNotFoundError.
    """
    sql = "select {schema}.drain_worker($1::integer, $2::boolean) as state"
    return Call(sql, (worker, draining), one_value("state"))


def set_worker_concurrency(worker: int, concurrency: int | None) -> Call[str]:
    """Have a worker run so many at a time, None: as it was started; gives its state.  Raises WorkerNotFoundError."""
    sql = "select {schema}.set_worker_concurrency($1::integer, $2::integer) as state"
    return Call(sql, (worker, concurrency), one_value("state"))


class WorkerMethods(ABC):
    """The part of `AbsurdClient` for workers."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Make a call."""

    async def drain_worker(self, worker: int, *, undo: bool = False) -> str:
        """Have a worker claim nothing more, and leave once its runs have ended; `undo` takes that back in time.

        Gives its state: ``running`` or ``stopping``, or ``stopped`` or ``lost`` for one that has left.  Raises
        WorkerNotFoundError.
        """
        return await self.run(drain_worker(worker, draining=not undo))

    async def set_worker_concurrency(self, worker: int, concurrency: int | None) -> str:
        """Have a worker run so many at a time from now on; None: as it was started.  What runs goes on.

        Gives its state: one that is ``stopped`` or ``lost`` takes no orders.  Raises WorkerNotFoundError.
        """
        return await self.run(set_worker_concurrency(worker, concurrency))


class SyncWorkerMethods(ABC):
    """The part of `SyncAbsurdClient` for workers: each method does what the one of `WorkerMethods` does."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Make a call."""

    def drain_worker(self, worker: int, *, undo: bool = False) -> str:
        """Have a worker claim nothing more, and leave once its runs have ended; `undo` takes that back in time.

        Gives its state: ``running`` or ``stopping``, or ``stopped`` or ``lost`` for one that has left.  Raises
        WorkerNotFoundError.
        """
        return self.run(drain_worker(worker, draining=not undo))

    def set_worker_concurrency(self, worker: int, concurrency: int | None) -> str:
        """Have a worker run so many at a time from now on; None: as it was started.  What runs goes on.

        Gives its state: one that is ``stopped`` or ``lost`` takes no orders.  Raises WorkerNotFoundError.
        """
        return self.run(set_worker_concurrency(worker, concurrency))
