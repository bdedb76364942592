"""Tasks whose runs go to a Dask cluster take nothing of the machine of the worker that claims them."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from packing import Site

NEEDS = {"dask": 1, "cpu": 4, "memory_gib": 64, "scratch_gib": 500, "gpu": 2}


@pytest.fixture
def site(connection: psycopg.Connection[Any]) -> Site:
    return Site(connection)


def test_they_leave_a_small_machine_to_others(site: Site) -> None:
    """However many there are; what a run is told of its needs is all of them."""
    worker = site.add({"cpu": 2, "dask": 8})
    away = [site.spawn(needs=NEEDS) for _ in range(9)]
    here = site.spawn(needs={"cpu": 2})

    assert site.take(worker, 20) == [*away[:8], here]
    assert site.holdings() == {"dask": 8, "cpu": 2}
    assert site.document(away[0])["needs"] == NEEDS
    assert site.take(site.add({"cpu": 64, "memory_gib": 640, "scratch_gib": 5000, "gpu": 8})) == []


def test_what_all_share_holds_for_them_too(site: Site) -> None:
    """A named token is none of a machine's."""
    site.call("set_resource('licence:casa', 1)")
    worker = site.add({"dask": 8})
    first, second = [site.spawn(needs={**NEEDS, "licence:casa": 1}) for _ in range(2)]

    assert site.take(worker) == [first]
    assert "licence:casa" in site.call("task_why(%s)", second)
    site.complete(site.lease, first)
    assert site.take(worker) == [second]


def test_it_is_so_wherever_they_come_from(site: Site) -> None:
    """After a delay, parents, a failure, a wait for others and a retry."""
    worker = site.add({"dask": 1})
    parent = site.spawn()
    child = site.spawn(needs=NEEDS, depends_on=[str(parent)])
    delayed = site.spawn(needs=NEEDS, delay=60)

    site.take(worker)
    site.complete(site.lease, parent)
    assert site.take(worker) == [child]
    site.fail(site.lease, child, 0)
    assert site.take(worker) == [child]
    awaits = json.dumps([{"task": str(child), "on": [str(parent)], "seconds": None}])
    site.call(
        "suspend_runs(array[%s], array[%s::uuid], '{0}', array[null::float8], '{tasks}', '{null}', null, %s)",
        site.lease, child, awaits,
    )  # fmt: skip
    site.call("sweep_late()")
    assert site.take(worker) == [child]
    site.fail(site.lease, child, None)
    site.call("retry_task(%s)", child)
    assert site.take(worker) == [child]
    site.complete(site.lease, child)

    site.pass_time(61)
    site.call("maintain()")
    assert site.take(worker) == [delayed]
