"""The daemons and the service manager: readiness, status, watchdog, leave; heard on a NOTIFY_SOCKET of our own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from absurd.systemd import ServiceManager

if TYPE_CHECKING:
    from cli.conftest import Start

Connection = psycopg.Connection[tuple[object, ...]]
Until = Callable[[Callable[[], object]], None]


class Manager:
    """The manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(30)

    def until(self, text: str) -> list[str]:
        """All that is heard up to a line with `text`, within 30 s."""
        heard: list[str] = []
        deadline = time.monotonic() + 30
        while not any(text in line for line in heard):
            assert time.monotonic() < deadline, f"no {text} in {heard}"
            heard += self._socket.recv(4096).decode().split("\n")
        return heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """One that listens at a path, and one at an abstract address."""
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@absurd-test-{os.getpid()}")
    yield made
    made.close()


def test_a_worker_tells_when_it_is_ready_and_when_it_leaves(
    start: Start, manager: Manager, until: Until, connection: Connection
) -> None:
    """READY once it is registered and claims; then its load, signs of life in time, and how long its leave may take."""
    connection.execute("select spawn_task('q', 'cli.sleep', '{}', null)")
    watched = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "600000"}
    with start("absurd-worker", "--queue", "q", "--grace", "0.3", **watched) as process:
        before = manager.until("READY=1")
        assert connection.execute("select state from worker").fetchall() == [("running",)]
        assert "STATUS=connecting to the database" in before
        manager.until("STATUS=1 of 4 slots busy, queues q")
        beats = [manager.until("WATCHDOG=1") for _ in range(3)]
        process.terminate()
        heard = manager.until("STOPPING=1")
        _, said = process.communicate(timeout=30)

    assert 0 == process.returncode, said
    assert not any("READY" in line or "STOPPING" in line for beat in beats for line in beat)
    assert "EXTEND_TIMEOUT_USEC=20300000" in heard


def test_a_scheduler_speaks_too(start: Start, tmp_path: Path) -> None:
    """READY once it makes its rounds, then signs of life, and STOPPING at the end."""
    manager = Manager(str(tmp_path / "notify"))
    with start("absurd-scheduler", NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="600000") as process:
        manager.until("READY=1")
        manager.until("WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        manager.until("STOPPING=1")
        _, said = process.communicate(timeout=30)
    manager.close()

    assert 0 == process.returncode, said


def test_a_worker_whose_loop_hangs_gives_no_sign_of_life(
    start: Start, until: Until, connection: Connection, tmp_path: Path
) -> None:
    """The loop that works is what is watched: once it is held up, silence; SIGABRT then logs where it was."""
    manager = Manager(str(tmp_path / "notify"))
    connection.execute("select spawn_task('q', 'cli.hang', '{}', null)")
    watched = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    with start("absurd-worker", "--queue", "q", **watched) as process:
        manager.until("READY=1")
        until(lambda: connection.execute("select from lease").fetchall())
        manager._socket.settimeout(2)
        with pytest.raises(TimeoutError):  # twenty times what it has to be heard in
            while True:
                manager._socket.recv(4096)
        process.send_signal(signal.SIGABRT)  # as the service manager does
        _, said = process.communicate(timeout=30)
    manager.close()

    assert -signal.SIGABRT == process.returncode
    assert "in hang" in said


def test_a_drained_worker_is_not_stopping(start: Start, until: Until, connection: Connection, tmp_path: Path) -> None:
    """Its runs may take longer than a unit may need to stop: it says so as its status, and leaves when it can."""
    manager = Manager(str(tmp_path / "notify"))
    with start("absurd-worker", "--queue", "q", NOTIFY_SOCKET=manager.address) as process:
        manager.until("READY=1")
        until(lambda: connection.execute("select from listener").fetchall())
        connection.execute("select drain_worker(id) from worker")
        process.communicate(timeout=30)
    manager._socket.settimeout(0)
    heard = []
    with pytest.raises(BlockingIOError):
        while True:
            heard.append(manager._socket.recv(4096).decode())
    manager.close()

    assert 0 == process.returncode
    assert not any("STOPPING" in text for text in heard)


def test_what_is_started_does_not_speak_for_the_daemon(start: Start, connection: Connection, tmp_path: Path) -> None:
    """Executors and their children see nothing of the socket: a program in them would be taken for the worker."""
    manager = Manager(str(tmp_path / "notify"))
    connection.execute("""select spawn_task('q', 'cli.environment', '{"name": "NOTIFY_SOCKET"}', null)""")
    with start("absurd-worker", "--queue", "q", "--burst", NOTIFY_SOCKET=manager.address) as process:
        _, said = process.communicate(timeout=60)
    manager.close()

    assert 0 == process.returncode, said
    assert connection.execute("select result from run").fetchall() == [(None,)]


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_may_be_another_ones(environ: dict[str, str], seconds: float | None) -> None:
    """It is served if it waits for this very process, and only where somebody listens."""
    assert ServiceManager({"NOTIFY_SOCKET": "@nobody", **environ}).watchdog_seconds == seconds
    assert ServiceManager(environ).watchdog_seconds is None


def test_a_manager_that_has_gone_is_no_harm(tmp_path: Path) -> None:
    """A socket that nobody reads, or that is no socket, changes nothing; the variables are taken all the same."""
    for address in (str(tmp_path / "gone"), "@nobody", "vsock:2:1", "@", ""):
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_PID": "1", "PATH": "/bin"}
        manager = ServiceManager.take(environ)
        manager.tell(READY=1)
        assert environ == {"PATH": "/bin"}


def test_lines_stay_lines(tmp_path: Path) -> None:
    """A status of two lines does not become an assignment of its own."""
    manager = Manager(str(tmp_path / "notify"))
    ServiceManager({"NOTIFY_SOCKET": manager.address}).status("busy\nSTOPPING=1")

    assert ["STATUS=busy STOPPING=1"] == manager.until("STATUS")
    manager.close()


def test_the_system_says_the_same(tmp_path: Path) -> None:
    """The system's own systemd-notify, where there is one, sends the messages that are read here."""
    manager = Manager(str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": manager.address}
    words = ["systemd-notify", "--no-block", "--ready", "--status=busy"]
    try:
        subprocess.run(words, env=os.environ | environ, check=False)
    except FileNotFoundError:
        pytest.skip("systemd-notify is not on this machine")
    theirs = manager.until("READY=1")
    ServiceManager(environ).tell(READY=1, STATUS="busy")

    assert sorted(theirs) == sorted(manager.until("READY=1"))
    manager.close()
