"""Fixtures every test can use: a real PostgreSQL server, and a database of its own for each test."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import in_memory
import psycopg
import pytest
from ready_server import ReadyServer

from absurd.config import Settings, load_settings
from absurd.embedded import EmbeddedServer
from absurd.testing import ThrowawayServer

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Real data and harnesses beside the checkout; tests that need them skip where they are absent."""

DEAR = (
    "test_types.py",
    "stateful/test_pairs.py",
    "test_packaging.py",
    "scheduler/test_siege.py",
    "faults/test_total_queue.py",
    "cli/test_demo.py",
)
"""Files whose tests take half a minute or more: begun late, one would go on alone when all else is done."""

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background jobs ignore it, and so would all that they start: tests that interrupt would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hundreds of processes are started here: each would compile all that it imports where nothing may be kept compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long something takes tells how busy the machine is, and nothing of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The dear ones first, all else as it stands."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(DEAR)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """Millions of objects, of thousands of tests and all they import, are no garbage until the end: none to walk."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine the tests run on reaches them, and none that a test makes reaches the next."""
    for name in list(os.environ):
        if name.startswith("ABSURD_") and name != "ABSURD_PG_BIN":
            monkeypatch.delenv(name)
    kept = dict(os.environ)
    yield
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]


@pytest.fixture(scope="session")
def quick_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For servers that need not outlive anything: most of a test's time would be the disk's."""
    with in_memory.folder() as memory:
        folder = memory or tmp_path_factory.mktemp("quick")
        folder.chmod(0o711)  # root's server is another user's
        yield folder


@pytest.fixture(scope="session")
def server(quick_folder: Path) -> Iterator[EmbeddedServer]:
    """One embedded server for the whole session, and for each process of one that has several.

    Servers that a test kills are its own, and wait for the disk.
    """
    embedded = EmbeddedServer(load_settings(environ={}, home=quick_folder / "server"))
    with psycopg.connect(embedded.start(), autocommit=True) as connection:
        connection.execute("alter system set fsync = off")
        connection.execute("select pg_reload_conf()")
    yield embedded
    embedded.stop("immediate")
    embedded.destroy()


@pytest.fixture(scope="session")
def ready_server(quick_folder: Path) -> Iterator[ReadyServer]:
    """``ready_server.lay(home)`` gives `home` a server in which the queue is installed, with all that is durable on."""
    made = ReadyServer(quick_folder / "ready")
    yield made
    made.destroy()


@pytest.fixture(scope="session")
def server_url(server: EmbeddedServer) -> str:
    """URL of the session's server; its database is only there to connect to."""
    return server.start()


@pytest.fixture(scope="session")
def databases(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThrowawayServer]:
    """Makes databases on the session's server, as it does for users' tests."""
    with ThrowawayServer(tmp_path_factory.mktemp("unused"), server_url) as made:
        yield made


@pytest.fixture(scope="session")
def template(databases: ThrowawayServer) -> str:
    """Name of a database in which the queue is installed, to be cloned."""
    return databases.template


@pytest.fixture
def empty_database_url(databases: ThrowawayServer) -> Iterator[str]:
    """A fresh database without the queue."""
    with databases.database("template1") as url:
        yield url


@pytest.fixture
def database_url(databases: ThrowawayServer) -> Iterator[str]:
    """A fresh database with the queue installed."""
    with databases.database() as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(databases: ThrowawayServer) -> Iterator[str]:
    """As `database_url`, shared by the tests of a module."""
    with databases.database() as url:
        yield url


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings for the test's own database, with a short poll so that no test waits for one, and nothing ahead."""
    return load_settings(
        environ={}, database_url=database_url, home=tmp_path / "home", worker_poll_interval=0.1, worker_warm=0
    )


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A plain connection to the test's database, in autocommit mode, with the queue's schema on its path."""
    with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as opened:
        yield opened


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """``until(condition)`` waits for a condition to hold, for two minutes at most: enough on a busy machine."""

    def wait(condition: Callable[[], object], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"still not so after {seconds} s"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the folder shared/ with real data is not beside this checkout")
    return SHARED
