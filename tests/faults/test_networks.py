"""Workers on hosts of their own around one database: what becomes of one whose network is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.networks import Host, Network, why_not

from absurd import SyncAbsurdClient
from absurd.config import load_settings
from absurd.errors import DatabaseUnavailableError

Until = Callable[[Callable[[], object]], None]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if reason := why_not():
        pytest.skip(reason)
    with Network(tmp_path).up(hosts=3) as made:
        yield made


@pytest.fixture
def client(network: Network, until: Until) -> Iterator[SyncAbsurdClient]:
    made = SyncAbsurdClient(settings=load_settings(environ={}, database_url=network.url))

    def answers() -> bool:
        try:
            made.connect()
        except DatabaseUnavailableError:
            return False
        return True

    until(answers)
    yield made
    made.close()


def test_a_host_that_is_cut_off_loses_its_work_and_comes_back(
    network: Network, client: SyncAbsurdClient, tmp_path: Path, until: Until
) -> None:
    """Its work is done elsewhere, what it did meanwhile is refused, and once healed it works under a new number."""

    def numbers() -> dict[str, int]:
        return {each["host"]: each["id"] for each in client.list_workers() if each["state"] == "running"}

    def params(key: str, seconds: float) -> dict[str, object]:
        return {"key": key, "seconds": seconds, "journal": str(tmp_path / "journal")}

    def journal() -> list[list[str]]:
        return [line.split() for line in (tmp_path / "journal").read_text().splitlines()]

    for host in network.hosts:
        host.run(
            "absurd.cli.worker", "--import", "faults.journal_executors", "--concurrency", "1", "--grace", "1",
            worker_lease=4, worker_heartbeat_interval=0.8,
        )  # fmt: skip
    until(lambda: len(numbers()) == 3)
    before = numbers()

    task = client.spawn("journal.process", params("cut", 1.0))
    until(lambda: client.get_task(task).state == "running")
    cut = _host_of(client, network, task)
    cut.unplug()
    done = client.wait(task, timeout=60)

    assert done.result == 2
    assert [(run.attempt, run.state) for run in done.runs] == [(1, "lost"), (2, "completed")]
    assert before.keys() - {cut.name} == numbers().keys()
    assert [entry[2] for entry in journal()] == ["1", "2"], (
        "it went on with its run, which nobody could tell it to stop"
    )

    cut.plug()
    until(lambda: numbers().get(cut.name, 0) > max(before.values()))
    until(lambda: "stale_claim" in cut.log)

    assert client.get_task(task) == done
    tasks = [client.spawn("journal.process", params(f"all-{n}", 2.0)) for n in range(3)]
    until(lambda: [client.get_task(each).state for each in tasks] == ["running"] * 3)
    assert {_host_of(client, network, each) for each in tasks} == set(network.hosts)
    for host in network.hosts:
        host.processes[0].terminate()
        assert host.processes[0].wait(30) == 0


def _host_of(client: SyncAbsurdClient, network: Network, task: object) -> Host:
    """Where a task runs."""
    worker = client.get_task(str(task)).runs[-1].worker
    return next(host for host in network.hosts if str(worker).startswith(f"{host.name}:"))
