"""What happens, as it happens: server-sent events, and the same over a WebSocket."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from absurd.errors import InvalidInputError
from absurd.tokens import Scope
from absurd.web.answers import Text
from absurd.web.desk import Reader, check_scope
from absurd.web.feed import Batch, Feed, Topic, Wish
from absurd.web.problems import may_fail

router = APIRouter(prefix="/events", tags=["events"])

CHECK_SECONDS = 15.0
"""After how long it is asked again whether who watches may."""
SNAPSHOT = r"^\d{1,19}:\d{1,19}:(\d{1,19}(,\d{1,19})*)?$"
GOING_AWAY = 1001

Topics = Annotated[
    Text | None, Query(max_length=200, description=f"Only these, with commas between, of {', '.join(Topic)}.")
]
Queue = Annotated[Text | None, Query(description="Only of this queue.")]
After = Annotated[
    str | None, Query(pattern=SNAPSHOT, max_length=20_000, description="Go on after the event with this id.")
]
LastId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", pattern=SNAPSHOT, max_length=20_000, description="As `after`; browsers send it."),
]


@router.get(
    "",
    response_class=Response,
    responses=may_fail() | {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def watch_events(
    request: Request,
    desk: Reader,
    topics: Topics = None,
    queue: Queue = None,
    after: After = None,
    last_event_id: LastId = None,
    *,
    once: Annotated[bool, Query(description="End when all is told that has happened until now.")] = False,
) -> Response:
    """What happens, as server-sent events, until the caller closes; over a WebSocket the same comes as JSON.

    With `Last-Event-ID` nothing is missed that happened since, or `reset` says that there is no telling.
    """
    feed: Feed = request.app.state.feed
    told = _told(feed, request, _wish(topics, queue), last_event_id or after, once=once)
    first = await anext(told)  # before the answer begins: it may be refused

    async def stream() -> AsyncIterator[bytes]:
        async with aclosing(told):
            yield b"retry: 1000\n" + first.stream
            async for batch in told:
                yield batch.stream

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def watch_socket(socket: WebSocket) -> None:
    """As `watch_events`, each message a JSON object with `id`, `topic` and `data`; what the caller sends is ignored."""
    check_scope(socket.state.caller, Scope.READER)
    told = _told(socket.app.state.feed, socket, *_asked(socket))
    async with aclosing(told):
        first = await anext(told)
        await socket.accept()

        async with anyio.create_task_group() as group:

            async def await_end() -> None:
                while (await socket.receive())["type"] != "websocket.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(await_end)
            with suppress(WebSocketDisconnect):
                for text in first.texts:
                    await socket.send_text(text)
                async for batch in told:
                    for text in batch.texts:
                        await socket.send_text(text)
                await socket.close(GOING_AWAY)
            group.cancel_scope.cancel()


def _asked(socket: WebSocket) -> tuple[Wish, str | None]:
    query = socket.query_params
    after = query.get("after")
    if after is not None and not (len(after) <= 20_000 and re.fullmatch(SNAPSHOT, after)):
        raise InvalidInputError("after: it is not the id of an event")
    return _wish(query.get("topics"), query.get("queue")), after


def _wish(topics: str | None, queue: str | None) -> Wish:
    try:
        wanted = frozenset(Topic(each.strip()) for each in topics.split(",")) if topics else frozenset(Topic)
    except ValueError as error:
        raise InvalidInputError(f"topics: {error}; there are {', '.join(Topic)}") from None
    return Wish(wanted, queue)


async def _told(
    feed: Feed, asker: HTTPConnection, wish: Wish, after: str | None, *, once: bool = False
) -> AsyncGenerator[Batch]:
    """Messages for as long as who asks may have them."""
    checked = time.monotonic()
    async with aclosing(feed.follow(wish, after, once=once)) as batches:
        async for batch in batches:
            yield batch
            if time.monotonic() - checked > CHECK_SECONDS:
                if not await asker.state.still_admitted():
                    return
                checked = time.monotonic()
