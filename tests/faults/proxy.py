"""A proxy before PostgreSQL that does what networks do: it cuts connections, and it keeps them open in silence."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from absurd.database_url import parse

PORT = 5432


class Proxy:
    """Listens on a Unix socket in a folder of its own, and forwards to the server of `url`.

    All methods may be called from any thread.
    """

    def __init__(self, url: str, folder: Path) -> None:
        given = parse(url)
        self._target = Path(given["host"]) / f".s.PGSQL.{given.get('port', PORT)}"
        folder.mkdir(parents=True, exist_ok=True)
        # A role of the peer's name is not needed: the server asks the socket, which is the proxy's.
        query = urlencode({"host": str(folder), "port": PORT, "user": given.get("user", "absurd")})
        self.url = f"postgresql:///{quote(given.get('dbname', 'postgres'))}?{query}"
        self.path = folder / f".s.PGSQL.{PORT}"
        self._pairs: set[_Pair] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._flowing: asyncio.Event
        self._marker: bytes | None = None
        self._left = 0
        self._holds = False
        self.lost_answers = 0
        """How many answers were swallowed."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._call(self._start())

    # What networks do ---------------------------------------------------------------------------

    def cut(self) -> None:
        """End all connections there are."""
        self._call(self._cut())

    def freeze(self) -> None:
        """From now on nothing goes through, in either direction; connections stay open, and new ones are accepted."""
        self._call(self._flow(False))

    def resume(self, *, cut: bool = True) -> None:
        """Let what comes go through again; with `cut`, frozen connections are ended first, as a network does."""
        self._call(self._resume(cut))

    def lose_answer(self, marker: str, nth: int = 1, *, hold: bool = False) -> None:
        """Once the nth statement with `marker` in its text is committed, end its connection unanswered.

        With `hold` it stays open in silence instead, as everything does until `resume`.
        """
        self._marker, self._left, self._holds = marker.encode(), nth, hold

    def close(self) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # In the thread ------------------------------------------------------------------------------

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_unix_server(self._accept, str(self.path))

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()
        for task in self._serving:  # a connection that was accepted in a silence is not yet a pair
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is told so

    async def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.abort()

    async def _flow(self, flowing: bool) -> None:
        self._flowing.set() if flowing else self._flowing.clear()

    async def _resume(self, cut: bool) -> None:
        if cut:
            await self._cut()
        self._flowing.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(writer)
        try:
            await self._flowing.wait()
            there = await asyncio.open_unix_connection(str(self._target))
            pair = _Pair(writer, there[1])
            self._pairs.add(pair)
            await asyncio.gather(
                self._forward(reader, there[1], pair, asks=True), self._forward(there[0], writer, pair)
            )
        except OSError:  # nobody there
            pass
        finally:
            pair.abort()
            self._pairs.discard(pair)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair, *, asks: bool = False
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if asks and self._marker is not None:
                    self._look(data, pair)
                elif not asks and pair.swallows and data.endswith(b"Z\0\0\0\5I"):  # idle: it is committed
                    self.lost_answers += 1
                    if not self._holds:
                        break
                    self._flowing.clear()
                    continue
                writer.write(data)
                await writer.drain()
        pair.abort()

    def _look(self, data: bytes, pair: _Pair) -> None:
        """Note which statement is parsed, and whether it is executed now."""
        assert self._marker is not None
        if self._marker in data:
            self._left -= 1
            pair.marked = self._left <= 0
        if pair.marked and any(kind in b"EQ" for kind in _kinds(data)):
            pair.swallows, self._marker = True, None


class _Pair:
    """The two connections of a client."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.marked = False
        self.swallows = False

    def abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


def _kinds(data: bytes) -> Iterator[int]:
    """The kinds of the messages in `data`, which begins with one."""
    at = 0
    while at + 5 <= len(data):
        yield data[at]
        at += 1 + max(int(struct.unpack_from("!i", data, at + 1)[0]), 4)
