"""A tap on the line between a process and PostgreSQL: what goes through is counted by the statement."""

from __future__ import annotations

import asyncio
import re
import struct
import threading
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

from absurd.database_url import parse
from absurd.errors import ConfigurationError


class Tap:
    """Listens on a Unix socket in `folder`, and forwards to the server of `url`.

    Methods may be called from any thread.  It reads what goes to the server, so that must not be encrypted.
    """

    def __init__(self, url: str, folder: Path) -> None:
        given = parse(url)
        if given.get("sslmode") in ("require", "verify-ca", "verify-full"):
            raise ConfigurationError("statements cannot be counted on an encrypted line: use another address")
        self._host, self._port = given.get("host", "localhost"), int(given.get("port", 5432))
        kept = {name: value for name, value in given.items() if name in ("user", "password")}
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / ".s.PGSQL.5432"
        self.url = f"postgresql:///{quote(given.get('dbname', 'postgres'))}?" + urlencode(
            {"host": str(folder), "port": 5432, **kept}
        )
        self._counts: Counter[str] = Counter()
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="absurd-tap", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def counts(self) -> Counter[str]:
        """How often each statement has been executed so far, by the function that it calls, else its first word."""
        return self._counts.copy()

    # In the thread ------------------------------------------------------------------------------

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, str(self._path))

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            if self._host.startswith("/"):
                back, forth = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
            else:
                back, forth = await asyncio.open_connection(self._host, self._port)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._answers(back, writer))
                    both.create_task(self._questions(reader, forth))
            except* (OSError, asyncio.IncompleteReadError, EOFError):
                pass
            finally:
                forth.transport.abort()
        writer.transport.abort()

    async def _answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await back.read(65536):
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _questions(self, reader: asyncio.StreamReader, forth: asyncio.StreamWriter) -> None:
        statements: dict[bytes, str] = {}
        first = await reader.readexactly(4)  # the startup message alone has no kind
        forth.write(first + await reader.readexactly(struct.unpack("!i", first)[0] - 4))
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(struct.unpack("!i", head[1:])[0] - 4)
            forth.write(head + body)
            await forth.drain()
            match head[:1]:
                case b"P":  # parse: name, text
                    name, text, *_ = body.split(b"\0")
                    statements[name] = _called(text)
                case b"B":  # bind: portal, name; executed at once by all drivers
                    self._counts[statements.get(body.split(b"\0")[1], "?")] += 1
                case b"Q":
                    self._counts[_called(body)] += 1


def _called(text: bytes) -> str:
    sql = text.rstrip(b"\0").decode(errors="replace")
    found = re.search(r'"?\."?(\w+)\(', sql)
    return found[1] if found else sql.split(maxsplit=1)[0].lower() if sql.strip() else ""
