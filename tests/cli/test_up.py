"""``absurd up``: one process tree that does everything and leaves nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from absurd.cli import children
from absurd.config import Settings
from absurd.embedded import EmbeddedServer
from absurd.embedded_process import alive

if TYPE_CHECKING:
    from cli.conftest import Ended, Run, Start

Until = Callable[[Callable[[], object]], None]


@pytest.fixture
def embedded(environment: dict[str, str], tmp_path: Path) -> Iterator[EmbeddedServer]:
    """The server of the home that the commands use, without any other database."""
    del environment["ABSURD_DATABASE_URL"]
    server = EmbeddedServer(Settings(home=tmp_path / "home"))
    yield server
    server.destroy()


def first_said(up: subprocess.Popen[str]) -> Any:
    """The document that it prints once all is up."""
    assert up.stdout is not None
    lines: list[str] = []
    while not lines or lines[-1] != "}\n":
        lines.append(up.stdout.readline())
        assert lines[-1], up.communicate()
    return json.loads("".join(lines))


def wait_until_said(up: subprocess.Popen[str], line: str) -> None:
    """A process may be gone before those who watch it have heard so: only what they say tells that they have."""
    assert up.stderr is not None
    said: list[str] = []
    while not said or said[-1] != line:
        said.append(up.stderr.readline())
        assert said[-1], "".join(said)


def status_of(port: int) -> int | None:
    """With which the web server answers; None as long as it does not."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        try:
            connection.request("GET", "/")
            return connection.getresponse().status
        except OSError:
            return None


def test_up_works_and_leaves_nothing(start: Start, program: Run, embedded: EmbeddedServer, until: Until) -> None:
    """It starts database, worker, scheduler and web server, replaces what dies, and stops all of them on SIGTERM."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    up = start("absurd", "up", "--json", "--port", str(port))
    first = first_said(up)
    try:
        until(lambda: status_of(port) == 200)
        until(lambda: program("absurd", "worker", "list", "--json").document)
        done: Ended = program("absurd", "spawn", "cli.add", "a=1", "b=2", "--wait", "--json")
        assert (0, {"sum": 3}) == (done.code, done.document["result"])

        os.kill(first["worker"], signal.SIGKILL)
        again: Ended = program("absurd", "spawn", "cli.add", "a=2", "b=2", "--wait", "--json")
        assert (0, {"sum": 4}) == (again.code, again.document["result"])
    finally:
        up.send_signal(signal.SIGTERM)
        _, said = up.communicate(timeout=60)

    assert 0 == up.returncode, said
    assert "The worker ended by signal SIGKILL; it is started again in 1.0 s.\n" in said
    assert "Traceback" not in said
    assert "stopped" == embedded.status().state
    assert not alive(first["worker"])
    assert not alive(first["scheduler"])
    assert not alive(first["web_server"])


def test_up_leaves_a_drained_worker_alone(
    start: Start, program: Run, connection: psycopg.Connection[tuple[object, ...]], until: Until
) -> None:
    """It has left as it was told, which is no death: it is not started again, and all else goes on."""
    with start("absurd", "up", "--json", "--no-web") as up:
        first = first_said(up)
        assert "web_server" not in first
        until(lambda: connection.execute("select from worker").fetchall())
        assert program("absurd", "worker", "drain", "--all", "--wait").code == 0
        until(lambda: not alive(first["worker"]))
        wait_until_said(up, "The worker has left, as it was told; it is not started again.\n")
        assert alive(first["scheduler"])
        up.send_signal(signal.SIGINT)
        _, said = up.communicate(timeout=60)

    assert 0 == up.returncode, said
    assert connection.execute("select count(*) from worker").fetchall() == [(1,)]


def test_up_killed_takes_its_processes_along(start: Start, embedded: EmbeddedServer, until: Until) -> None:
    """Nothing tells its worker and scheduler that it was killed, and yet they leave."""
    embedded.start()
    up = start("absurd", "up", "--json")
    first = first_said(up)

    up.kill()
    up.communicate(timeout=60)

    until(lambda: not any(alive(first[each]) for each in ("worker", "scheduler", "web_server")))


async def test_a_process_that_does_not_start_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is not left for good where for a while there is no memory or, here, no program; and it is told."""
    monkeypatch.setattr(children, "FIRST_PAUSE", 0.0)
    program = tmp_path / "program"
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) == 3:
            write(0)

    def write(code: int) -> None:
        program.write_text(f"#!/bin/sh\nrm {program}\nexit {code}\n")
        program.chmod(0o755)

    write(3)
    child = children.Child("worker", [str(program)])
    await child.start()
    await child.watch(say)

    assert ("ended with exit code 3" in said[0], "does not start" in said[1]) == (True, True)
    assert said[-1] == "The worker has left, as it was told; it is not started again."


def test_up_leaves_a_server_alone_that_ran_before(start: Start, embedded: EmbeddedServer) -> None:
    """What others use goes on."""
    embedded.start()
    with start("absurd", "up") as up:
        assert up.stdout is not None
        assert up.stdout.readline().startswith("Up: database at ")
        up.send_signal(signal.SIGINT)
        assert 0 == up.wait(timeout=60)

    assert "running" == embedded.status().state
