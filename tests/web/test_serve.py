"""``absurd serve`` as a process."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from absurd.cli import absurd
from absurd.cli.run import call
from absurd.product_file import write_product_file
from absurd.tokens import new_token, token_hash
from absurd.web.server import listening

PROGRAM = Path(sys.executable).with_name("absurd")


@contextmanager
def served(url: str, folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the URL it tells."""
    environment = os.environ | {"ABSURD_DATABASE_URL": url, "ABSURD_HOME": str(folder), "ABSURD_LOG_FORMAT": "json"}
    with subprocess.Popen(
        [PROGRAM, "serve", "--port", "0", "--json", *words],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            yield process, json.loads("".join(lines))["url"]
        finally:
            process.kill()


def get(url: str, path: str, token: str | None = None) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    found = connection.getresponse()
    answer = found.status, json.loads(found.read()), {name.lower(): value for name, value in found.getheaders()}
    connection.close()
    return answer


def test_it_serves_until_it_is_told_to_stop(database_url: str, tmp_path: Path) -> None:
    """It tells where it is, asks for a token once one was made, leaves with 0, and has none in its log."""
    with served(database_url, tmp_path) as (process, url):
        assert 200 == get(url, "/api/v1/tasks")[0]
        token = new_token()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("select absurd.create_token('probe', 'reader', %s)", [token_hash(token)])
        assert 401 == get(url, "/api/v1/tasks")[0]
        status, found, headers = get(url, "/api/v1/tasks", token)
        assert (200, {"items": [], "next": None}) == (status, found)
        assert "server" not in headers
        assert "ok" == get(url, "/api/v1/health")[1]["status"]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)

    assert (0, "") == (process.returncode, out), err
    events = [json.loads(line) for line in err.splitlines()]
    assert ["web_started", "request_served", "web_stopped"] == list(dict.fromkeys(each["event"] for each in events))
    assert token not in err


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """``run("--port", "0")`` serves from this process, for what is refused before it does; gives the exit code."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    monkeypatch.setenv("ABSURD_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda *words: call(absurd, "absurd", ["serve", *words])


def test_it_is_not_open_to_other_hosts_without_a_token(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what to do and leaves with 2."""
    assert 2 == run("--host", "192.0.2.7", "--port", "0")
    assert "absurd token create" in capsys.readouterr().err


def test_a_port_that_is_taken_is_a_conflict(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """Told with its number; exit code 5."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert 5 == run("--port", str(taken.getsockname()[1]), "--json")

    assert "port_in_use" == json.loads(capsys.readouterr().out)["error"]["code"]


def test_an_answer_is_not_held_back(unused_tcp_port: int) -> None:
    """Connections send at once what is written: its body would else wait for the acknowledgement of its headers."""
    with listening("127.0.0.1", unused_tcp_port) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


@pytest.mark.parametrize("words", [["--host", "no.such.host.invalid"], ["--port", "70000"]])
def test_an_address_that_cannot_be_had_is_refused(run: Callable[..., int], database_url: str, words: list[str]) -> None:
    """As a wrong call."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("select absurd.create_token('first', 'reader', repeat('a', 64))")

    assert 2 == run(*words)


def test_what_it_needs_is_told(run: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra it names the command that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert 2 == run()


def test_a_file_of_products_is_served_without_a_database(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """None is asked for, started or reached; it is not served to other hosts, and nothing that is no such file."""
    path = tmp_path / "night.sqlite"
    write_product_file(path, lambda _: [])
    with served("postgresql://nobody@192.0.2.7/none", tmp_path, "--products", str(path)) as (process, url):
        assert (200, {"items": [], "next": None}) == get(url, "/api/v1/images")[:2]
        assert (200, 404) == (get(url, "/api/v1/health")[0], get(url, "/api/v1/images/1")[0])
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(60), process.stderr

    assert 2 == run("--products", str(path), "--host", "192.0.2.7", "--port", "0")
    assert "this machine alone" in capsys.readouterr().err
    path.write_bytes(b"nothing of ours")
    assert 2 == run("--products", str(path), "--port", "0")
    assert "no file of products" in capsys.readouterr().err
