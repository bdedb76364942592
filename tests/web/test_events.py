"""What happens, as it happens: server-sent events and WebSockets."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from ready_server import ReadyServer
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from web.conftest import Site
from web.test_serve import served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from world import World

from absurd.config import load_settings
from absurd.database import AsyncDatabase
from absurd.embedded import EmbeddedServer
from absurd.tokens import new_token, token_hash
from absurd.web import feed
from absurd.web.feed import Feed, Topic, Wish
from absurd.web.routes import events as route

if TYPE_CHECKING:
    from starlette.testclient import WebSocketTestSession

HERE = Path(__file__).resolve().parents[1]
BOGUS = "99999999:99999999:"


def stream(text: str) -> list[tuple[str, str | None, Any]]:
    """Topic, id and data of the events of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


def last_id(found: list[tuple[str, str | None, Any]]) -> str:
    return str(next(number for _, number, _ in reversed(found) if number))


def once(site: Site, headers: Any = (), **query: Any) -> list[tuple[str, str | None, Any]]:
    answer = site.get("/events", "reader", headers, once="true", **query)
    assert (200, "text/event-stream; charset=utf-8") == (answer.status_code, answer.headers["content-type"])
    return stream(answer.text)


def test_who_comes_again_misses_nothing_and_gets_nothing_twice(site: Site, world: World) -> None:
    """By `Last-Event-ID` or `after`; only what was asked for; what is too old or from elsewhere is a reset."""
    begin = last_id(once(site))
    world.call("cancel_task(%s)", world.keyed)
    told = once(site, {"Last-Event-ID": begin}, topics="task", queue=world.queue)
    cancelled = [data for topic, _, data in told if topic == "task" and data["state"] == "cancelled"]
    assert str(world.keyed) in cancelled[0]["ids"]
    assert (world.queue, [world.executor]) == (cancelled[0]["queue"], cancelled[0]["names"])

    assert ["hello"] == [topic for topic, _, _ in once(site, after=last_id(told), topics="task,workflow")]
    assert ["hello"] == [topic for topic, _, _ in once(site, after=begin, topics="session")]
    assert ["hello"] == [topic for topic, _, _ in once(site, after=begin, topics="task", queue="elsewhere")]
    assert ["hello", "reset"] == [topic for topic, _, _ in once(site, after=BOGUS, topics="task")]
    assert 422 == site.get("/events", after="yesterday").status_code
    assert 422 == site.get("/events", topics="weather").status_code


def open_socket(site: Site, path: str = "", scope: str | None = "reader", **headers: str) -> WebSocketTestSession:
    token = {"Authorization": f"Bearer {site.tokens[scope]}"} if scope else {}
    return site.http.websocket_connect(f"/api/v1/events{path}", headers=token | headers)


def until(socket: WebSocketTestSession, topic: str, state: str) -> dict[str, Any]:
    """The next message of a topic with a state."""
    while True:
        found = socket.receive_json()
        if (topic, state) == (found["topic"], found["data"].get("state")):
            return dict(found)


def test_a_websocket_tells_the_same(site: Site, world: World) -> None:
    """Counts at first and whenever they change; what another session does to the database comes by itself."""
    with open_socket(site, f"?topics=queue,worker&queue={world.queue}") as socket:
        assert "hello" == socket.receive_json()["topic"]
        assert world.queue == until(socket, "queue", "open")["data"]["id"]
        world.call("set_queue_paused(%s, true)", world.queue)
        until(socket, "queue", "paused")
        world.call("set_queue_paused(%s, false)", world.queue)
        world.spawn()
        pending = world.call("pending from get_queue_stats(%s)", world.queue)
        while until(socket, "queue", "open")["data"].get("pending") != pending:
            pass


@pytest.mark.parametrize(
    ("scope", "path", "headers", "status"),
    [
        (None, "", {}, 401),
        ("unknown", "", {}, 401),
        ("reader", "", {"Origin": "https://elsewhere.example.org"}, 403),
        ("reader", "?topics=weather", {}, 422),
        ("reader", "?after=yesterday", {}, 422),
        ("reader", "?queue=%00", {}, 422),
    ],
)
def test_a_websocket_passes_the_same_checks(
    site: Site, scope: str | None, path: str, headers: dict[str, str], status: int
) -> None:
    """No token, a wrong one, a page of another site, a wrong call: refused before it opens, in one shape of errors."""
    site.tokens["unknown"] = new_token()
    with pytest.raises(WebSocketDenialResponse) as caught, open_socket(site, path, scope, **headers):
        pass
    assert status == caught.value.status_code
    assert {"error", "message", "details"} == set(caught.value.json())
    assert "nosniff" == caught.value.headers["x-content-type-options"]


def test_who_may_no_more_is_told_no_more(site: Site, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that is revoked ends what was opened with it."""
    monkeypatch.setattr(route, "CHECK_SECONDS", 0.0)
    site.tokens["passing"] = site.make_token("passing", "reader")
    with open_socket(site, "?topics=worker", "passing") as socket:
        assert "hello" == socket.receive_json()["topic"]
        site.connection.execute("select revoke_token('passing')")
        world.call("register_worker('w', 'h', 1, '{}', 1, '{}', '{}', 30)")
        with pytest.raises(WebSocketDisconnect):
            while True:
                socket.receive_json()


async def test_a_slow_reader_is_dropped(module_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody fetches is not kept: the reader's stream ends, and with its last id it gets what it has not seen."""
    monkeypatch.setattr(feed, "BEHIND", 2)
    monkeypatch.setattr(feed, "PAUSE", 0.01)
    wish = Wish(frozenset({Topic.WORKER}))
    async with AsyncDatabase(module_database_url) as database:
        shared = Feed(database)
        slow = shared.follow(wish)
        [hello] = (await anext(slow)).messages
        quick = shared.follow(wish)
        await anext(quick)
        for _ in range(5):
            await database.fetch("select {schema}.register_worker('w', 'h', 1, $1, 1, $2, $2, 30)", [], "{}")
            await anext(quick)
        assert [] == [batch async for batch in slow]
        again = [message async for batch in shared.follow(wish, hello.id, once=True) for message in batch.messages]
        assert 5 == sum(message.topic == "worker" for message in again)
        shared.close()
        assert [] == [batch async for batch in quick]


@pytest.fixture
def token(database_url: str) -> str:
    made = new_token()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("select absurd.create_token('probe', 'spawner', %s)", [token_hash(made)])
    return made


def test_a_worker_of_another_process_is_heard(database_url: str, token: str, tmp_path: Path) -> None:
    """What it runs comes through ``absurd serve``, whose end closes the connection in good order."""
    header = {"Authorization": f"Bearer {token}"}
    with served(database_url, tmp_path) as (process, url):
        address = url.replace("http", "ws", 1) + "/api/v1/events?topics=task"
        with pytest.raises(InvalidStatus) as refused, connect(address):
            pass
        assert 401 == refused.value.response.status_code
        with connect(address, additional_headers=header) as socket:
            assert "hello" == json.loads(socket.recv(60))["topic"]
            plain = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
            body = json.dumps({"name": "demo.add", "params": {"a": 1, "b": 2}})
            plain.request("POST", "/api/v1/tasks", body, header | {"Content-Type": "application/json"})
            task = json.loads(plain.getresponse().read())["id"]
            plain.close()
            subprocess.run(
                [Path(sys.executable).with_name("absurd-worker"), "--drain", "--import", "demo_executors"],
                env=os.environ
                | {"ABSURD_DATABASE_URL": database_url, "ABSURD_HOME": str(tmp_path), "PYTHONPATH": str(HERE)},
                check=True,
                capture_output=True,
            )
            states: list[str] = []
            while "completed" not in states:
                found = json.loads(socket.recv(60))
                if found["topic"] == "task":
                    assert [task] == found["data"]["ids"]
                    states.append(found["data"]["state"])
            assert ["running", "completed"] == states
            process.terminate()
            assert 0 == process.wait(60)


def test_a_restart_of_the_database_loses_nothing(ready_server: ReadyServer, tmp_path: Path) -> None:
    """Who is connected stays so, and is told what was committed before the crash and what is after it."""
    server = EmbeddedServer(load_settings(environ={}, home=ready_server.lay(tmp_path / "home")))
    url = server.start()
    options = "-c search_path=absurd,public"
    try:
        with psycopg.connect(url, autocommit=True, options=options) as connection:
            site = Site(url, connection)
            site.make_tokens()
            with site.http, open_socket(site, "?topics=workflow") as socket:
                assert "hello" == socket.receive_json()["topic"]
                insert = (
                    "insert into workflow (id, name, created_at, nodes, remaining)"
                    " values (new_task_id(), 'w', clock_time(), 0, 0) returning id::text"
                )
                before = connection.execute(insert).fetchone()
                server.stop("immediate")
                server.start()
                with psycopg.connect(url, autocommit=True, options=options) as other:
                    after = other.execute(insert).fetchone()
                told = [until(socket, "workflow", "running")["data"]["id"] for _ in range(2)]
                assert before is not None
                assert after is not None
                assert [before[0], after[0]] == told
    finally:
        server.stop("immediate")
        server.destroy()
