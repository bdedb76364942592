"""``absurd demo``: from nothing to pictures, and again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("astropy")


def run_demo(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "absurd", "demo", "--out", str(out), "--cutouts", "3", *options]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, cwd="/", env=os.environ | {"NO_COLOR": "1"}
    )


def test_the_demo_makes_its_products_twice(tmp_path: Path) -> None:
    """Export, cut-outs, previews and the page are there; a second run in the same folder succeeds as well."""
    from pyarrow import parquet

    from absurd.tasks.simulate import simulate_sky

    out = tmp_path / "demo"
    first = run_demo(out, "--json")
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    second = run_demo(out)
    assert second.returncode == 0, second.stderr

    assert document["tasks"] == 4
    assert all(Path(product).stat().st_size > 0 for product in document["products"])
    sky = simulate_sky(tmp_path / "sky", seed=12)
    assert parquet.read_table(out / "sources.parquet").num_rows == len(sky.sources)
    page = (out / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "<svg" in page
    assert "Nothing is wrong" in second.stdout
    left = [each for each in out.rglob("*.part*") if each.is_file()]
    assert left == []


def test_the_demo_leaves_no_process(tmp_path: Path) -> None:
    """Worker and database are stopped at the end."""
    out = tmp_path / "demo"
    assert run_demo(out).returncode == 0

    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(out) not in listed
