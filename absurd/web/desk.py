"""What a route works with: the database, and who asks.  A change is recorded in its own transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Request, Security
from fastapi.security import HTTPBearer, SecurityScopes

from absurd.call import Call
from absurd.config import Settings
from absurd.database import AsyncDatabase, AsyncSession
from absurd.errors import ForbiddenError
from absurd.tokens import Scope, record_change
from absurd.web.access import Caller

T = TypeVar("T")

_bearer = HTTPBearer(scheme_name="token", description="`absurd token create` makes one.", auto_error=False)


class Desk:
    """Calls for one request."""

    def __init__(self, request: Request, caller: Caller) -> None:
        self.settings: Settings = request.app.state.settings
        # None with a file of products, whose routes ask none
        self._database: AsyncDatabase = request.app.state.database
        self._caller = caller
        self._action: str = request.scope["route"].name
        self._target = next((str(each) for each in request.path_params.values()), None)

    async def read(self, call: Call[T]) -> T:
        """Make a call that changes nothing."""
        return await self._database.run(call)

    async def change(self, call: Call[T]) -> T:
        """Make a call, and record who made it to what the path names."""
        return (await self.change_all([call], self._target))[0]

    async def change_all(self, calls: Iterable[Call[T]], target: str | None) -> list[T]:
        """Make calls, all or none, and record who made them to what."""
        made: list[Call[Any]] = [self._record(target), *calls]
        return (await self._database.run_all(made))[1:]

    async def record(self, target: str | None) -> None:
        """Record what changes nothing in the database; where there is none, there is no record either."""
        if self._database is not None:
            await self._database.run(self._record(target))

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[AsyncSession]:
        """A transaction for calls of which one depends on another."""
        async with self._database.transaction() as session:
            await session.run(self._record(self._target))
            yield session

    def _record(self, target: str | None) -> Call[None]:
        return record_change(self._caller.name, self._action, target, self._caller.address or None)


def check_scope(caller: Caller, wanted: Scope) -> None:
    """Raise ForbiddenError unless `caller` may do what needs `wanted`."""
    if caller.scope is None or not caller.scope.allows(wanted):
        raise ForbiddenError(
            f"the token {caller.name} has the scope {caller.scope}; this needs {wanted}",
            scope=caller.scope,
            needs=wanted,
        )


async def _desk(request: Request, wanted: SecurityScopes, _: Annotated[object, Security(_bearer)]) -> Desk:
    """The desk of who has the scope that a route wants.  Raises ForbiddenError."""
    caller: Caller = request.state.caller
    for each in map(Scope, wanted.scopes):
        check_scope(caller, each)
    return Desk(request, caller)


READER = Security(_desk, scopes=[Scope.READER.value])
"""For routes that read, and need no desk."""
Reader = Annotated[Desk, Security(_desk, scopes=[Scope.READER.value])]
Spawner = Annotated[Desk, Security(_desk, scopes=[Scope.SPAWNER.value])]
Operator = Annotated[Desk, Security(_desk, scopes=[Scope.OPERATOR.value])]
Admin = Annotated[Desk, Security(_desk, scopes=[Scope.ADMIN.value])]
