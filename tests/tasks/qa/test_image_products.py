"""Images from the imager through their gate: rows and files are accepted together, or put away together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from imaged import drift

from absurd import SyncAbsurdClient
from absurd.executor import load_modules
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.visibility.measurement_set import write_measurement_set
from absurd.testing import drain_sync

SKY = ((31.0, 17.0, 1.0), (-43.0, 9.0, 0.5))
"""Arcminutes east and north, Jy."""
load_modules(list(EXECUTOR_MODULES), shipped=False)


def ended(client: SyncAbsurdClient, name: str, **params: Any) -> Any:
    task = client.spawn(name, params)
    drain_sync(source=client)
    return client.get_task(task)


def test_an_image_is_accepted_or_put_away(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that passes is accepted with its measures; one that does not is quarantined, row and all its files,
    also where its task makes the same again, until somebody accepts it.
    """
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    write_measurement_set(drift(SKY, noise_jy=0.05), tmp_path / "tile.ms")
    made = {
        "ms": str(tmp_path / "tile.ms"), "out": str(tmp_path / "night.fits"), "image_size": 256,
        "cell_size": "30arcsec", "threshold": "5mJy",
    }  # fmt: skip
    path = str(tmp_path / "night-image.fits")
    strict = {"dynamic_range": {"fail_below": 1e9, "warn_below": 1e9}}
    with SyncAbsurdClient(database_url) as client:
        assert ended(client, "imaging.image", **made).state == "completed"
        product = client.find_product(path)
        assert product is not None
        assert product["state"] == "candidate"
        judged = ended(client, "qa.image", image=path)
        assert judged.result["product"] == product["id"]
        accepted = client.get_product(product["id"])
        assert accepted is not None
        assert accepted["state"] == "accepted"
        assert {each["gate"]: each["value"] for each in accepted["qa"]} == {
            each["gate"]: pytest.approx(each["value"]) for each in judged.result["measures"]
        }

        refused = ended(client, "qa.image", image=path, limits=strict)
        assert (refused.state, refused.attempts, refused.error["code"]) == ("failed", 1, "quality_failed")
        put_away = client.get_product(product["id"])
        assert put_away is not None
        assert put_away["state"] == "quarantined"
        assert put_away["reason"].startswith("dynamic_range")
        assert {each["gate"]: each["verdict"] for each in put_away["qa"]}["dynamic_range"] == "fail"
        assert sorted(each.name for each in tmp_path.glob("night*")) == ["night-image.fits.quality.json"]
        there = {each.name for each in (tmp_path / "quarantine").glob("night*") if each.suffix != ".json"}
        assert there == {f"night-{kind}.fits" for kind in product["facts"]["paths"] if kind != "png"} | {"night.png"}

        assert ended(client, "imaging.image", **made).state == "completed"  # the same bits: no better than before
        same = client.find_product(path)
        assert same is not None
        assert (same["id"], same["state"]) == (product["id"], "quarantined")
        again = ended(client, "qa.image", image=path)
        assert again.state == "failed"
        assert "is quarantined: dynamic_range" in again.error["message"]
        assert not Path(path).exists()
