"""Images from the imager through their gate: rows and files are accepted together, or put away together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imaged import drift
from single_run import fail, run

from absurd import SyncAbsurdClient
from absurd.executor import load_modules
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.radio.sky_image import open_sky_image
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


def test_each_plane_of_a_cube_has_to_pass(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its own beam and the noise that is promised for it; the reason names the one that does not pass."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    seen = drift(SKY, noise_jy=0.05)
    made = {"image_size": 256, "cell_size": "30arcsec", "threshold": "5mJy", "planes": 2}
    write_measurement_set(seen, tmp_path / "right.ms")
    path = run("imaging.image", made | {"ms": str(tmp_path / "right.ms"), "out": str(tmp_path / "right")})[0]["paths"]
    told, _ = run("qa.image", {"image": path["image"]})
    planes = [open_sky_image(path["image"], plane=number) for number in range(2)]
    assert planes[0].beam is not None
    assert planes[1].beam is not None
    assert planes[0].beam.major_deg > planes[1].beam.major_deg
    ratios = {each["of"]: each["value"] for each in told["measures"] if each["gate"] == "thermal_ratio"}
    assert ratios == {"plane 0": pytest.approx(1, abs=0.1), "plane 1": pytest.approx(1, abs=0.1)}

    random = np.random.default_rng(5)
    upper = seen.data.copy()
    upper[:, 3:] += random.standard_normal((*upper[:, 3:].shape, 2), np.float32).view(np.complex64)[..., 0] * 0.3
    write_measurement_set(seen.with_(data=upper), tmp_path / "wrong.ms")
    path = run("imaging.image", made | {"ms": str(tmp_path / "wrong.ms"), "out": str(tmp_path / "wrong")})[0]["paths"]
    refused = fail("qa.image", {"image": path["image"]})
    assert "thermal_ratio of the plane 1" in refused["message"]
    assert "plane 0" not in refused["message"]
