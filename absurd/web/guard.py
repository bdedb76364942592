"""Around every request: headers, errors, the log, the size of bodies, and tags of what has not changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from absurd.errors import AbsurdError, PayloadTooLargeError
from absurd.telemetry import Event
from absurd.web.problems import status_of

log = structlog.get_logger("absurd.web")

HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer carries, unless its route says otherwise."""
Answer = Callable[[Scope, AbsurdError | None], Response]
"""What is answered when something was raised; None: a mistake of our own."""


class Guard:
    """Makes an answer of whatever is raised further in, and writes a line for each request.

    The line names the route and not the path, and nothing that the caller sent: no token can get into it.
    """

    def __init__(self, app: ASGIApp, *, answer: Answer) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises only what comes after an answer has begun, so that the connection is cut."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        begun, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = 101
            elif message["type"].endswith("http.response.start"):  # a WebSocket is refused by one too
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except AbsurdError as error:
            if status:
                raise
            if status_of(error) >= 500:
                log.error(Event.REQUEST_FAILED, **_told(scope), error=error.code, message=error.message)
            await self._answer(scope, error)(scope, receive, sending)
        except Exception:
            log.exception(Event.REQUEST_FAILED, **_told(scope))
            if status:
                raise
            await self._answer(scope, None)(scope, receive, sending)
        finally:
            log.info(
                Event.REQUEST_SERVED,
                **_told(scope),
                status=status,
                milliseconds=round(1000 * (time.monotonic() - begun)),
            )


class Bodies:
    """Reads the body before anything else is done with a request.  Raises PayloadTooLargeError."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is too large is refused by its announced length, else once so much has come."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._limit:
            raise self._too_large()
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit:
                raise self._too_large()
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replayed() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replayed, send)

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(f"the body is larger than {self._limit} bytes", limit=self._limit)


class Tags:
    """Gives a JSON answer to a GET the hash of what it holds as its ETag; who has that already is told so, with 304."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An answer is held until it is whole: it was made in memory anyway."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_taggable(message):
                start.update(message)
            elif not start:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._answer(scope, start, bytes(body), send)

        await self._app(scope, receive, sending)

    @staticmethod
    async def _answer(scope: Scope, start: Message, body: bytes, send: Send) -> None:
        tag = f'"{sha256(body).hexdigest()[:32]}"'
        MutableHeaders(scope=start)["ETag"] = tag
        if has_tag(scope, tag):
            start["status"], body = 304, b""
            for name in ("content-length", "content-type"):
                del MutableHeaders(scope=start)[name]
        await send(start)
        await send({"type": "http.response.body", "body": body})


def has_tag(scope: Scope, tag: str) -> bool:
    """Whether the caller has what `tag` stands for."""
    known = Headers(scope=scope).get("if-none-match", "")
    return known.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in known.split(","))


def _is_taggable(start: Message) -> bool:
    headers = Headers(scope=start)
    return start["status"] == 200 and headers.get("content-type") == "application/json" and "etag" not in headers


def _told(scope: Scope) -> dict[str, Any]:
    state = scope["state"]
    caller = state.get("caller")
    return {
        "method": scope.get("method", "WEBSOCKET"),
        "route": getattr(scope.get("route"), "path", None),
        "actor": (caller and caller.name) or None,
        "address": state.get("address"),
    }
