"""A repository on SQLite, and the same on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from absurd.testing import ThrowawayServer

pytest.importorskip("lsst.daf.butler", reason="the extra [butler] is not installed")

from scratch_butler import make_repository

RECORDS = "data/butler/registry_data/hsc-rc2-subset-v0.yaml"


@pytest.fixture(scope="package", params=["sqlite", "postgresql"])
def repository(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shared: Path, databases: ThrowawayServer
) -> Iterator[str]:
    """Path of a repository as `make_repository` makes it; no test changes it."""
    root = tmp_path_factory.mktemp("repository") / request.param
    if request.param == "sqlite":
        yield make_repository(root, shared / RECORDS)
        return
    with databases.database("template1") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create extension btree_gist")
        yield make_repository(root, shared / RECORDS, url)


@pytest.fixture(scope="package")
def pristine(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> str:
    """A repository on SQLite that is copied for `own_repository`."""
    return make_repository(tmp_path_factory.mktemp("pristine") / "repository", shared / RECORDS)


@pytest.fixture
def own_repository(tmp_path: Path, pristine: str) -> str:
    """A repository on SQLite that a test may change."""
    return str(shutil.copytree(pristine, tmp_path / "own"))
