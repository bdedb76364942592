"""The pytest plugin: a sample project outside the checkout tests its executors with it alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from absurd.embedded_binaries import choose

EXECUTORS = """
from absurd import AbsurdClient, executor

@executor("sky.add")
def add(ctx, params):
    ctx.log.info("adding", token="geheim")
    return params["a"] + params["b"]

@executor("sky.later")
async def later(ctx, params):
    await ctx.sleep(3600)
    return "late"

async def hand_in():
    async with AbsurdClient.from_env() as client:
        return await client.spawn("sky.add", {"a": 1, "b": 2})
"""

TESTS = """
import asyncio
from datetime import UTC, datetime

from absurd.testing import assert_not_spawned, assert_spawned
from sky import executors

def test_add(absurd_sync_client, absurd_sync_drain):
    task_id = absurd_sync_client.spawn("sky.add", {"a": 1, "b": 2})
    assert [3] == [ran.result for ran in absurd_sync_drain("default")]
    assert absurd_sync_client.get_task(task_id).result == 3

def test_each_test_has_its_own_database(absurd_database_url):
    assert_not_spawned("sky.add")

def test_clock(absurd_sync_client, absurd_sync_drain, absurd_clock):
    absurd_clock.freeze(datetime(2027, 1, 31, 21, 30, tzinfo=UTC))
    absurd_sync_client.spawn("sky.later")
    assert ["suspended"] == [ran.state for ran in absurd_sync_drain()]
    absurd_clock.advance(3600)
    assert ["late"] == [ran.result for ran in absurd_sync_drain()]

def test_program_finds_the_database(absurd_database_url):
    asyncio.run(executors.hand_in())
    assert_spawned("sky.add", params={"a": 1}, count=1)

def test_client_in_loops_of_ones_own(absurd_client):
    async def use():
        return await absurd_client.spawn("sky.add", {"a": 1, "b": 2})
    assert asyncio.run(use()) != asyncio.run(use())
"""

ASYNC_TESTS = """
import pytest
from sky import executors

@pytest.mark.asyncio
async def test_async(absurd_client, absurd_drain):
    task_id = await absurd_client.spawn("sky.add", {"a": 2, "b": 2})
    assert [4] == [ran.result for ran in await absurd_drain("default", check=True)]
    assert (await absurd_client.wait(task_id, timeout=120)).result == 4
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package with executors and tests, and nothing else."""
    (tmp_path / "sky").mkdir()
    (tmp_path / "sky" / "__init__.py").touch()
    (tmp_path / "sky" / "executors.py").write_text(EXECUTORS, encoding="utf-8")
    (tmp_path / "test_sky.py").write_text(TESTS, encoding="utf-8")
    return tmp_path


def pytest_in(project: Path, *words: str) -> str:
    """Run pytest there, warnings as errors; gives what it says."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ABSURD_", "PYTEST"))}
    environ |= {"ABSURD_PG_BIN": str(choose(None, project / "home", None).bin), "PYTHONPATH": str(project)}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:cov",
            *words,
            *(() if "no:asyncio" in words else ("-o", "asyncio_default_fixture_loop_scope=function")),
        ],
        cwd=project,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "geheim" not in done.stdout + done.stderr
    return done.stdout


def test_a_project_outside_the_checkout(project: Path) -> None:
    """Its tests pass with and without pytest-asyncio, each on a database of its own, and nothing warns."""
    assert "5 passed" in pytest_in(project, "-p", "no:asyncio", "-rA")

    (project / "test_async.py").write_text(ASYNC_TESTS, encoding="utf-8")
    assert "6 passed" in pytest_in(project)


def test_the_plugin_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    """A test that uses no fixture of it loads neither drivers nor workers, and starts no server."""
    (tmp_path / "test_plain.py").write_text(
        "import sys\n"
        "def test_plain():\n"
        "    assert 'absurd.testing_plugin' in sys.modules\n"
        "    loaded = {'asyncpg', 'psycopg', 'pydantic', 'absurd.workers', 'absurd.testing', 'absurd.client'}\n"
        "    assert not loaded & sys.modules.keys()\n",
        encoding="utf-8",
    )

    assert "1 passed" in pytest_in(tmp_path)
