"""Catalogues, measurements and changes in the database: with the completion of the task, once, limits and all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from radio_skies import Field, draw, scattered, write

from absurd import SyncAbsurdClient
from absurd.executor import load_modules
from absurd.tasks import EXECUTOR_MODULES
from absurd.testing import drain_sync

SEED = 2
FIELD = Field(359.98, -30.0, side=200, cell_arcsec=3.0, noise=0.0003, attenuated=False)
"""Across right ascension 0."""
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
load_modules(list(EXECUTOR_MODULES), shipped=False)


def do(client: SyncAbsurdClient, name: str, **params: Any) -> Any:
    """The result of a task."""
    task = client.spawn(name, params, max_attempts=1)
    drain_sync(source=client)
    ended = client.get_task(task)
    assert ended.state == "completed", ended.error
    return ended.result


@pytest.fixture
def epochs(tmp_path: Path) -> list[str]:
    """Four images of twelve sources, the first of which goes after the second epoch."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    places = scattered(rng, FIELD.ra, FIELD.dec, 12, across=0.06, up=0.06, apart=0.015)
    peaks = rng.uniform(0.01, 0.1, 12)
    images = []
    for epoch in range(4):
        flux = np.where((np.arange(12) == 0) & (epoch > 1), 0.0, peaks)
        sky = [(*place, float(each)) for place, each in zip(places, flux, strict=True)]
        path = write(tmp_path / f"{epoch}.fits", FIELD, draw(FIELD, sky, rng), START + timedelta(minutes=5 * epoch))
        images.append(str(path))
    return images


def test_a_night_in_rows(database_url: str, epochs: list[str], tmp_path: Path) -> None:
    """Sources that were found in two images are the same ones; each has a row in each image, also where it is not seen;
    rows say the same as the files; running all of it again adds nothing.
    """
    with SyncAbsurdClient(database_url) as client:
        first = do(client, "photometry.detect", image=epochs[0], out=str(tmp_path / "first.parquet"))
        sources = client.find_sources(FIELD.ra, FIELD.dec, 1000)
        assert len(sources) == first["sources"] == 12
        do(client, "photometry.detect", image=epochs[1], out=str(tmp_path / "second.parquet"))
        assert client.find_sources(FIELD.ra, FIELD.dec, 1000) == sources

        for _ in range(2):
            rows = str(tmp_path / "night.parquet")
            do(client, "photometry.forced", images=epochs, positions=str(tmp_path / "first.parquet"), out=rows)
            changes, curves = str(tmp_path / "changes.parquet"), str(tmp_path / "curves.parquet")
            do(client, "photometry.variability", photometry=[rows], out=changes, light_curves=curves)

        assert client.find_sources(FIELD.ra, FIELD.dec, 1000) == sources
        by_name = {each["name"]: each["id"] for each in sources}
        written: dict[str, list[dict[str, Any]]] = {}
        for row in pq.read_table(rows).to_pylist():
            written.setdefault(row["source_id"], []).append(row)
        unseen = 0
        for name, expected in written.items():
            curve = client.get_light_curve(by_name[name])
            assert [each["image"] for each in curve] == epochs
            for one, other in zip(curve, expected, strict=True):
                assert one["flux_jy"] == pytest.approx(other["flux_jy"], rel=1e-8)
                assert (one["upper_limit_jy"] is None) == other["detected"]
                assert (one["upper_limit_jy"] or 0) == pytest.approx(other["upper_limit_jy"] or 0, rel=1e-8)
                assert (one["detected"], one["blend"], one["flags"]) == (
                    other["detected"],
                    other["group"],
                    other["flags"],
                )
                assert datetime.fromisoformat(one["observed_at"]) == other["observed"]
                unseen += one["upper_limit_jy"] is not None
        assert unseen == 2
        table = client.find_product(changes)
        assert table is not None
        told = {each["name"]: each for each in client.list_variability(table["id"])}
        for row in pq.read_table(changes).to_pylist():
            own = told[row["source_id"]]
            for column in ("eta", "v", "vs", "m", "ese_score"):
                assert own[column] == pytest.approx(row[column], rel=1e-8)
            assert own["kind"] == row["kind"]
        assert [each["kind"] for each in client.list_variability(table["id"], limit=2)] == ["variable", "steady"]
        document = client.get_product(table["id"])
        assert document is not None
        assert [(each["path"], each["role"]) for each in document["inputs"]] == [(rows, "photometry")]
        assert document["inputs"][0]["input_id"] is not None
        assert datetime.fromisoformat(document["observed_from"]) == START
        assert len(client.list_products("table", state="accepted")) == 5
