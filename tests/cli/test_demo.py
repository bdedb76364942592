"""``absurd demo``: a small night, from the first file to the report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from absurd import SyncAbsurdClient, TaskSpec
from absurd.config import Settings

for needed in ("asdf", "casacore", "ducc0", "numba", "pyarrow"):
    pytest.importorskip(needed)


def run_demo(out: Path, *options: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "absurd", "demo", "--out", str(out), *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd="/",
        env=os.environ | {"NO_COLOR": "1"},
    )


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``absurd demo --size tiny --json`` told of its night, and its folder."""
    out = tmp_path_factory.mktemp("demo") / "night"
    done = run_demo(out, "--size", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document | {"out": out}


def test_flux_densities_are_those_that_were_put_in(night: dict[str, Any]) -> None:
    """Each source is found, its mean flux density is right within three of its errors, and nothing else is there."""
    sources = night["sources"]

    assert {each["name"] for each in sources} == {"3C286", "VAR 1", "NEW 1", *(f"S{n}" for n in range(1, 7))}
    assert all(each["epochs"] >= 3 for each in sources)
    off = {each["name"]: (each["measured_jy"] - each["injected_jy"]) / each["error_jy"] for each in sources}
    assert {name: each for name, each in off.items() if abs(each) > 3} == {}
    assert night["strange"] == []


def test_what_changes_is_told(night: dict[str, Any]) -> None:
    """The variable source and the new one are told as what they are, and most others as steady."""
    kinds = {each["name"]: each["kind"] for each in night["sources"]}

    assert kinds["VAR 1"] == "variable"
    assert kinds["NEW 1"] == "transient"
    assert sum(kinds[f"S{n}"] == "steady" for n in range(1, 7)) >= 5


def test_the_task_of_the_killed_worker_ran_again(night: dict[str, Any]) -> None:
    """A worker was killed at an image, and another one has made it."""
    report = Path(night["page"]).read_text(encoding="utf-8")

    assert night["killed"]["task"]
    assert "attempt 1: lost; attempt 2: completed" in report


def test_everything_the_night_is_to_leave_is_there(night: dict[str, Any]) -> None:
    """The report holds all its pictures, the export and the session are files, and nothing unfinished lies about."""
    out: Path = night["out"]
    report = Path(night["page"]).read_text(encoding="utf-8")

    assert [each.name for each in (out / "export").glob("*.parquet")] == ["photometry-2026-01-14.parquet"]
    assert len(night["sessions"]) == 1
    assert all(Path(each).stat().st_size > 0 for each in night["sessions"])
    assert report.count("data:image/png;base64,") >= 3  # a mosaic, gains, a bandpass
    assert report.count("<svg") == 6  # mosaic, two light curves, what was recovered, timeline, graph
    assert not re.search(r'(src|href)="(?!data:)', report)
    assert report.count("stopped answering at") == 1  # the killed worker, as an operator would be told of it
    assert [each for each in out.rglob("*.part*") if each.is_file()] == []


def test_no_process_is_left(night: dict[str, Any]) -> None:
    """Workers, scheduler and database are stopped at the end."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout

    assert str(night["out"]) not in listed


def test_tasks_are_told_however_many_there_are(settings: Settings) -> None:
    """The report of a long night has its first tasks too, each once and in their order."""
    from absurd.demo.night import all_tasks

    with SyncAbsurdClient(settings=settings) as client:
        made = client.spawn_many([TaskSpec("demo.any", {"n": n}) for n in range(5)])

        for page in (1, 2, 5, 1000):
            assert [each.id for each in all_tasks(client, page)] == list(made)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """What is not of a demo is not written over."""
    (tmp_path / "thesis.tex").write_text("all of it")

    done = run_demo(tmp_path, timeout=60)

    assert done.returncode == 2
    assert "no earlier demo has made it" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]
