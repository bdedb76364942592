"""Services beside this one, such as a Grafana or an archive: whether each that is configured answers, and how fast."""

from __future__ import annotations

import asyncio
import http.client
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from absurd.errors import NotFoundError


class NeighbourService:
    """Probes addresses that the settings name, and no others: ``http``, ``https`` or ``tcp``."""

    def __init__(self, addresses: Mapping[str, str], timeout: float) -> None:
        self._addresses = addresses
        self._timeout = timeout

    async def probe_all(self) -> list[dict[str, Any]]:
        """All of them at once, by name."""
        return await asyncio.gather(*(self.probe(name) for name in sorted(self._addresses)))

    async def probe(self, name: str) -> dict[str, Any]:
        """Whether one answers: `up`, `latency_seconds` (null if it is not), `status` of HTTP, and why it is not up.

        A web server is up that answers with a status below 500.  Raises NotFoundError.
        """
        if name not in self._addresses:
            raise NotFoundError(f"no service {name} is configured", name=name)
        address = urlsplit(self._addresses[name])
        begun = time.monotonic()
        status, error = None, None
        try:
            async with asyncio.timeout(self._timeout):
                if address.scheme == "tcp":
                    _, writer = await asyncio.open_connection(address.hostname, address.port)
                    writer.close()
                else:
                    status = await asyncio.to_thread(_ask, address, self._timeout)
        except TimeoutError:
            error = f"no answer within {self._timeout:g} s"
        except (OSError, http.client.HTTPException) as failed:
            error = str(failed) or type(failed).__name__
        up = error is None and (status is None or status < 500)
        return {
            "name": name,
            "url": self._addresses[name],
            "up": up,
            "latency_seconds": round(time.monotonic() - begun, 6) if error is None else None,
            "status": status,
            "error": error,
        }


def _ask(address: SplitResult, timeout: float) -> int:
    """The status of an answer; redirections are not followed: that one answers is what was asked."""
    port = address.port
    if address.scheme == "https":
        context = ssl.create_default_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            address.hostname or "", port, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(address.hostname or "", port, timeout=timeout)
    try:
        target = f"{address.path or '/'}{'?' + address.query if address.query else ''}"
        connection.request("GET", target, headers={"User-Agent": "absurd", "Connection": "close"})
        return connection.getresponse().status
    finally:
        connection.close()
