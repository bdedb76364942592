"""Products by both clients and by the context: each method of the one client gives what that of the other gives."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_port import MemoryPort, claim_of
from pydantic import BaseModel

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.context import RunContext, run_here
from absurd.errors import (
    InvalidOptionError,
    PayloadTooLargeError,
    ProductNotFoundError,
    ProductStateError,
    ResultError,
)
from absurd.executor import executor
from absurd.outcome import Completed
from absurd.testing import drain
from absurd.workers.runs.wire import dump_outcome, load_outcome

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Params(BaseModel):
    """Where it goes, and whether the run tells of a file that it has not written."""

    out: str
    flux: float = 0.05
    wrong: bool = False


@executor("products.make")
async def make(ctx: RunContext, params: Params) -> str:
    """An image, and a source that was measured in it."""
    Path(ctx.artifact(params.out)).write_text("pixels")
    table = params.out + ".parquet"
    Path(ctx.artifact(table)).write_text("rows")
    path = "/nowhere/none.fits" if params.wrong else params.out
    ctx.product("image", {"path": path, "ra": 10.0, "declination": 50.0, "observed_from": NOON, "rms_jy": 0.001})
    ctx.product("table", {"path": table, "inputs": [{"path": params.out, "role": "image"}]})
    ctx.product("source", {"name": "A", "ra": 10.0, "declination": 50.0, "radius_arcsec": 3.0})
    told = {"image": params.out, "observed_at": NOON, "flux_jy": params.flux, "snr": float("nan")}
    ctx.product("photometry", {"name": "A", "detected": True, "flags": 0} | told)
    change = {"kind": "steady", "epochs": 1, "detections": 1, "reference": False}
    ctx.product("variability", {"name": "A"} | change)
    return path


async def test_both_clients(database_url: str, tmp_path: Path) -> None:
    """What a task has made is found, accepted and quarantined by either; errors are those of the house."""
    out = str(tmp_path / "a.fits")
    async with AbsurdClient(database_url) as client:
        task = await client.spawn(make, Params(out=out))
        await drain(source=client)
        assert (await client.get_task(task)).state == "completed"
        with SyncAbsurdClient(database_url) as other:
            product = await client.find_product(out)
            assert product is not None
            number = product["id"]
            assert (product["state"], product["task_id"]) == ("candidate", str(task))
            assert other.find_product(out) == product
            assert await client.find_product("/none") is other.find_product("/none") is None
            assert await client.get_product(number) == other.get_product(number)
            assert await client.get_product(77) is other.get_product(77) is None
            for listed in (
                await client.list_products("image", state="candidate", since=NOON),
                other.list_products("image", limit=1),
            ):
                assert [each["id"] for each in listed] == [number]
            (source,) = await client.find_sources(10, 50, 1)
            assert other.find_sources(10, 50.0001, 1)[0]["id"] == source["id"]
            (point,) = await client.get_light_curve(source["id"])
            assert [point] == other.get_light_curve(source["id"])
            assert (point["flux_jy"], point["snr"], point["image_id"]) == (0.05, None, number)
            table = other.find_product(out + ".parquet")
            assert table is not None
            (change,) = await client.list_variability(table["id"])
            assert [change] == other.list_variability(table["id"], kind="steady")
            assert (change["name"], change["kind"]) == ("A", "steady")

            assert await client.accept_product(number) == "accepted"
            measures = [{"gate": "noise_mjy", "value": 20.0, "verdict": "fail"}]
            assert other.quarantine_product(number, "noise", measures) is True
            assert await client.quarantine_product(number, "noise") is False
            with pytest.raises(ProductStateError, match="is quarantined: noise"):
                other.accept_product(number)
            assert other.accept_product(number, again=True) == "accepted"
            with pytest.raises(ProductNotFoundError, match="there is no product 77"):
                await client.accept_product(77)


async def test_what_cannot_be_stored_fails_the_run(database_url: str, tmp_path: Path) -> None:
    """A product that is no file of the run is refused with its completion; nothing of the run is kept."""
    async with AbsurdClient(database_url) as client:
        task = await client.spawn(make, Params(out=str(tmp_path / "a.fits"), wrong=True), max_attempts=1)
        await drain(source=client)
        ended = await client.get_task(task)
        assert ended.state == "failed"
        assert "none.fits' is no file that the run has written" in json.dumps(ended.error)
        assert await client.list_products() == []
        assert await client.find_sources(10, 50, 10) == []


def test_the_context_refuses_what_can_never_be(tmp_path: Path) -> None:
    """Other kinds, rows without a JSON form, and more than is passed on; numbers of numpy are numbers."""
    ctx = RunContext(claim_of("products.make", {}), MemoryPort(), run_here)
    with pytest.raises(InvalidOptionError, match="no products of kind 'picture': take image, mosaic"):
        ctx.product("picture", {})  # type: ignore[arg-type]
    with pytest.raises(ResultError, match="product source"):
        ctx.product("source", {"name": object()})
    ctx.product("source", {"name": "A", "ra": np.float64(3), "declination": np.float32(4), "radius_arcsec": np.nan})
    assert ctx.products == [
        {"kind": "source", "row": {"name": "A", "ra": 3.0, "declination": 4.0, "radius_arcsec": None}}
    ]
    long: dict[str, Any] = {"name": "A" * 900_000}
    with pytest.raises(PayloadTooLargeError, match="products of the run"):
        for _ in range(60):
            ctx.product("source", long)


def test_products_cross_from_a_process() -> None:
    """As its outcome does, and as a receipt keeps it; one of a version that knew none has none."""
    outcome = Completed("1", products=({"kind": "source", "row": {"name": "A"}},))
    dumped = json.loads(json.dumps(dump_outcome(outcome)))
    assert load_outcome(dumped) == outcome
    del dumped["products"]
    assert load_outcome(dumped) == Completed("1")
