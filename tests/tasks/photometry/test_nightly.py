"""``photometry.export_night``: all measurements of a night in a file, whole, and the same whenever it is built anew."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from memory_port import MemoryPort
from single_run import fail, run, run_to_end, run_with_products
from sql_queue import Connection, Queue

from absurd import AbsurdClient
from absurd.executor import registry
from absurd.tasks.photometry.nightly import last_night, span_of_night
from absurd.testing import drain


@pytest.fixture
def night(connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Two sources in three images, of which the last is of another night; one source is not seen in the second."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    queue = Queue(connection)
    times = {"/a.fits": "2026-03-01T20:00:00Z", "/b.fits": "2026-03-02T19:59:59Z", "/c.fits": "2026-03-02T20:00:00Z"}
    for image, time in times.items():
        measured(queue, image, time, A=0.05, B=0.02 if image == "/a.fits" else None)
    return queue


def measured(queue: Queue, image: str, time: str, **fluxes: float | None) -> None:
    """A task has measured sources in an image."""
    task = queue.spawn()
    lease, _, _ = queue.claim()
    table = f"{image}.parquet"
    file = {"task": str(task), "path": table, "attempt_path": "/p", "kind": "k", "sha256": "1" * 64, "bytes": 9}
    rows: list[tuple[str, dict[str, Any]]] = [("table", {"path": table})]
    for number, (name, flux) in enumerate(fluxes.items()):
        rows.append(("source", {"name": name, "ra": 10 + number, "declination": 50, "radius_arcsec": 1}))
        told = {"name": name, "image": image, "observed_at": time, "flags": 0, "detected": flux is not None}
        rows.append(("photometry", told | {"flux_jy": flux, "upper_limit_jy": None if flux else 0.001}))
    products = [{"task": str(task), "kind": kind, "row": row} for kind, row in rows]
    sql = "complete_runs(array[%s::bigint], array[%s::uuid], '{0}', '{null}', %s, null, %s)"
    assert queue.call(sql, lease, task, json.dumps([file]), json.dumps(products)) is None


def test_a_night_is_written(night: Queue, tmp_path: Path) -> None:
    """Its rows in order of time and source, limits among them, with their units; of the next night none."""
    told, (product,) = run_with_products("photometry.export_night", {"folder": str(tmp_path), "night": "2026-03-01"})

    assert told == {
        "path": str(tmp_path / "photometry-2026-03-01.parquet"), "night": "2026-03-01", "rows": 4, "images": 2,
    }  # fmt: skip
    table = pq.read_table(told["path"])
    assert [(each["source"], each["image"], each["flux_jy"], each["upper_limit_jy"]) for each in table.to_pylist()] == [
        ("A", "/a.fits", 0.05, None), ("B", "/a.fits", 0.02, None),
        ("A", "/b.fits", 0.05, None), ("B", "/b.fits", None, 0.001),
    ]  # fmt: skip
    assert table.schema.metadata[b"absurd.since"] == b"2026-03-01T20:00:00+00:00"
    assert (product["kind"], product["row"]["facts"]) == ("table", {"of": "night", "night": "2026-03-01"})
    assert [each["path"] for each in product["row"]["inputs"]] == ["/a.fits", "/b.fits"]


def test_built_anew_it_is_the_same(night: Queue, tmp_path: Path) -> None:
    """The same rows give the same bits, later too; other rows give other ones, and an empty night has columns."""
    params = {"folder": str(tmp_path), "night": "2026-03-01"}
    path = tmp_path / "photometry-2026-03-01.parquet"
    run("photometry.export_night", params)
    first = path.read_bytes()
    path.unlink()
    night.spawn()
    run("photometry.export_night", params)
    assert path.read_bytes() == first
    measured(night, "/b.fits", "2026-03-02T19:59:59Z", A=0.06)
    run("photometry.export_night", params)
    assert [each["flux_jy"] for each in pq.read_table(path).to_pylist()] == [0.05, 0.02, 0.06, None]
    empty, _ = run("photometry.export_night", params | {"night": "2027-01-01"})
    assert (empty["rows"], len(pq.read_table(empty["path"]).column_names)) == (0, 18)


def test_which_night_it_is(night: Queue, tmp_path: Path) -> None:
    """Without a day the last night that has ended; a run that is tried again keeps to it."""
    assert span_of_night(date(2026, 3, 1), 20.0)[1] == datetime(2026, 3, 2, 20, tzinfo=UTC)
    assert last_night(datetime(2026, 3, 2, 19, 59, tzinfo=UTC), 20.0) == date(2026, 2, 28)
    assert last_night(datetime(2026, 3, 2, 20, tzinfo=UTC), 20.0) == date(2026, 3, 1)
    assert last_night(datetime(2026, 3, 2, tzinfo=UTC), 0.0) == date(2026, 3, 1)
    port = MemoryPort()
    outcome = run_to_end("photometry.export_night", {"folder": str(tmp_path)}, port)
    (saved,) = port.checkpoints.values()
    assert json.loads(outcome.result)["night"] == saved["night"]
    assert fail("photometry.export_night", {"folder": str(tmp_path), "begins": 24})["code"] == "invalid_params"


async def test_a_schedule_writes_it(night: Queue, database_url: str, tmp_path: Path) -> None:
    """A task of a schedule makes the file, and its row."""
    async with AbsurdClient(database_url) as client:
        params = {"folder": str(tmp_path)}
        await client.set_schedule("night", "every 1 d", registry.require("photometry.export_night"), params)
        await client.trigger_schedule("night")
        await drain(source=client)
        (product,) = await client.list_products("table", limit=1)
        assert product["facts"]["of"] == "night"
        assert Path(product["path"]).is_file()
