"""A client that is closed with the loop it was used in, whoever made and closes that loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from absurd.client import AbsurdClient
from absurd.database import AsyncDatabase


class LoopClient(AbsurdClient):
    """Connects at its first use; closes when its loop is shut down, or by `close_in_its_loop` before that."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: AsyncIterator[None] | None = None

    def close_in_its_loop(self) -> None:
        """Close, from outside of the loop; one that is closed has done it already."""
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed() and not loop.is_running():
            loop.run_until_complete(self.close())

    async def _opened(self) -> AsyncDatabase:
        if self._keeper is None:
            self._loop = asyncio.get_running_loop()
            self._keeper = self._keep()
            await anext(self._keeper)
        return await super()._opened()

    async def _keep(self) -> AsyncIterator[None]:
        # A loop closes the asynchronous generators that are left when it is shut down.
        try:
            yield
        finally:
            self._keeper = self._loop = None
            await self.close()
