"""Plugin of pytest: a throwaway database for each test that asks for one, and what goes with it.

Loaded wherever pytest and absurd are installed together, so it imports nothing until a fixture is used.
Works without pytest-asyncio, and with it: the client of `absurd_client` belongs to the loop that uses it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from absurd.client import AbsurdClient
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import Settings
    from absurd.testing import FakeClock, ThrowawayServer


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of pytest's command line and its configuration file."""
    about = "URL of a PostgreSQL server for throwaway databases; without it an embedded one is started"
    parser.getgroup("absurd").addoption("--absurd-server", metavar="URL", help=about)
    parser.addini("absurd_server", about)
    parser.addini("absurd_imports", "modules whose executors the tests run", type="args", default=[])


@pytest.fixture(scope="session")
def absurd_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ThrowawayServer]:
    """The session's server: an embedded one, or that of ``--absurd-server``."""
    from absurd.testing import ThrowawayServer

    url = request.config.getoption("--absurd-server") or request.config.getini("absurd_server") or None
    with ThrowawayServer(tmp_path_factory.mktemp("absurd"), url) as server:
        yield server


@pytest.fixture
def absurd_database_url(absurd_server: ThrowawayServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a database of the test's own, with the queue installed; ``ABSURD_DATABASE_URL`` names it meanwhile."""
    with absurd_server.database() as url:
        monkeypatch.setenv("ABSURD_DATABASE_URL", url)
        monkeypatch.delenv("ABSURD_SCHEMA", raising=False)
        yield url


@pytest.fixture
def absurd_settings(absurd_database_url: str, request: pytest.FixtureRequest) -> Settings:
    """Settings for the test's database; the ini option ``absurd_imports`` names the modules with executors."""
    from absurd.config import load_settings

    imports = tuple(request.config.getini("absurd_imports"))
    return load_settings(database_url=absurd_database_url, imports=imports, worker_poll_interval=0.1)


@pytest.fixture
def absurd_client(absurd_settings: Settings) -> Iterator[AbsurdClient]:
    """An `AbsurdClient` on the test's database; it connects when it is first used, and is closed after the test."""
    from absurd.testing.client import LoopClient

    client = LoopClient(settings=absurd_settings)
    yield client
    client.close_in_its_loop()


@pytest.fixture
def absurd_sync_client(absurd_settings: Settings) -> Iterator[SyncAbsurdClient]:
    """A `SyncAbsurdClient` on the test's database."""
    from absurd.client_sync import SyncAbsurdClient

    with SyncAbsurdClient(settings=absurd_settings) as client:
        yield client


@pytest.fixture
def absurd_clock(absurd_settings: Settings) -> Iterator[FakeClock]:
    """A `FakeClock` of the test's database; it runs truly until it is told otherwise."""
    from absurd.testing import FakeClock

    with FakeClock(absurd_settings) as clock:
        yield clock


@pytest.fixture
def absurd_drain(absurd_settings: Settings) -> Callable[..., Any]:
    """``await absurd_drain(queue)``: `absurd.testing.drain` on the test's database."""
    from absurd.testing import drain

    return lambda queue=None, **options: drain(queue, absurd_settings, **options)


@pytest.fixture
def absurd_sync_drain(absurd_settings: Settings) -> Callable[..., Any]:
    """``absurd_sync_drain(queue)``: `absurd.testing.drain_sync` on the test's database."""
    from absurd.testing import drain_sync

    return lambda queue=None, **options: drain_sync(queue, absurd_settings, **options)
