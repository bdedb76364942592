"""The schedules of upkeep that come along."""

from __future__ import annotations

import single_run  # noqa: F401  registers the executors

from absurd import SyncAbsurdClient
from absurd.executor import registry
from absurd.inspection import Document
from absurd.schedules import get_schedule


def test_their_params_fit(database_url: str) -> None:
    """Each names an executor that is shipped, with params that it takes: once resumed it works."""
    with SyncAbsurdClient(database_url) as client:
        found: list[Document] = [client.run(get_schedule(name)) for name in ("backup", "health", "prune")]

    for each in found:
        registry.require(each["executor"]).load_params(each["params"])
    assert [each["executor"] for each in found] == ["maintenance.backup", "maintenance.health", "maintenance.prune"]
