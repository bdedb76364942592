"""``absurd pipeline run``, ``batch`` and ``health``: each command line of the driver, and what it exits with."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from block_executors import Stages
from live import soon, working
from structlog.testing import capture_logs

from absurd.config import load_settings

if TYPE_CHECKING:
    from cli.conftest import Run

DRIFT = ("drift_20230101T000000_00.ms", "drift_20230101T000500_00.ms")


@contextmanager
def worker(stages: Stages) -> Iterator[None]:
    """A worker beside the commands, in a loop of its own."""
    over = threading.Event()

    async def run() -> None:
        async with working(load_settings(imports=(), worker_warm=0), executors=stages.executors, concurrency=8):
            await soon(over.is_set)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    with capture_logs():  # they would stand between what the commands print
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(60)


@pytest.fixture
def site(tmp_path: Path) -> str:
    """A file of the development environment, by its name, with blocks of ten minutes and recordings of five."""
    path = tmp_path / "config" / "environments" / "development.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"paths: {{base_dir: {tmp_path}}}\n"
        "services: {mosaic_duration_min: 10, mosaic_overlap_min: 0, ms_chunk_duration_min: 5}\n"
        "logging: {console_output: false}\n"
    )
    return str(path)


def recorded(tmp_path: Path, minutes: range | list[int]) -> None:
    for each in minutes:
        at = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(minutes=each)
        (tmp_path / "data" / "ms_stage1" / f"drift_{at:%Y%m%dT%H%M%S}_00.ms").mkdir(parents=True)


def test_a_single_block(run: Run, site: str, tmp_path: Path) -> None:
    """The driver's command line for one: its block, by end and files, is worked on."""
    recorded(tmp_path, range(0, 10, 5))
    with worker(Stages()):
        ended = run(
            *("pipeline", "run", "--config", site, "--mode", "single", "--block-end-time", "2023-01-01T00:10:00"),
            *("--workflow", "target", "--json", "--ms-files", *DRIFT),
        )

    assert ended.code == 0, ended.err
    (block,) = ended.document["blocks"]
    assert (block["block_id"], block["success"]) == ("20230101T000000_20230101T001000", True)
    assert (block["ms_count"], block["image_count"]) == (2, 2)
    assert len(block["output_files"]) == 6


def test_a_batch_with_a_block_that_fails(run: Run, site: str, tmp_path: Path) -> None:
    """The rest is done, the exit code is 1, the cause is told; the same again does what failed."""
    recorded(tmp_path, [*range(0, 20, 5), *range(60, 80, 5)])
    broken = {"drift_20230101T001000_00"}
    stages = Stages(fails=lambda name, ms: name == "imaging.image" and ms in broken)
    words = ("pipeline", "run", "--config", site, "--mode", "batch", "--workflow", "quick-imaging")
    when = ("--start-time", "2023-01-01T00:00:00", "--end-time", "2023-01-01T12:00:00")
    with worker(stages):
        first = run(*words, *when)
        broken.clear()
        again = run("pipeline", "batch", "--config", site, "--workflow", "quick-imaging", *when, "--json")

    assert first.code == 1
    assert click.unstyle(first.out).count("  ok  ") == 3
    assert "imaging.image[drift_20230101T001000_00] failed: drift_20230101T001000_00 cannot be had" in first.out
    assert again.code == 0, again.err
    assert [each["success"] for each in again.document["blocks"]] == [True] * 4
    assert stages.runs["imaging.image", "drift_20230101T000000_00"] == 1


def test_who_does_not_wait(run: Run, site: str, tmp_path: Path) -> None:
    """--no-wait prints the workflow; a partial block and the want of a worker are told."""
    recorded(tmp_path, [0])

    ended = run("pipeline", "batch", "--config", site, "--workflow", "quick-imaging", "--no-wait", "--json")

    assert ended.code == 0
    assert "20230101T000000_20230101T001000 is partial: 1 recording missing" in ended.err
    shown = run("workflow", "show", ended.document["workflow"], "--json").document
    assert [each["name"] for each in shown["nodes"]] == [
        "visibility.flag",
        "calibration.apply",
        "imaging.image",
        "qa.image",
        "pipeline.report",
    ]


def test_health(run: Run, site: str) -> None:
    """The driver's mode, and the command, tell the same checks; without a worker all is not well."""
    one = run("pipeline", "run", "--config", site, "--mode", "health", "--json")
    other = run("pipeline", "health", "--config", site, "--json")

    for ended in (one, other):
        assert ended.code == 1
        found = {each["name"]: each for each in ended.document["checks"]}
        assert {"cpu", "memory", "disk.images_dir", "database", "workers", "queue"} <= found.keys()
        assert found["database"]["status"] != "unknown"
        assert found["workers"]["status"] == "unhealthy"
        assert ended.document["metrics"]["blocks"] == 0
    assert "No block has ended in the last 24 hours." in run("pipeline", "health", "--config", site).out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run"], "a block has an end (--block-end-time) and recordings (--ms-files)"),
        (["run", "--block-end-time", "soon", "--ms-files", "a.ms"], "'soon' is no time"),
        (["batch", "--start-time", "2023-01-01"], "cannot be looked at"),
        (["batch", "--environment", "producton"], "did you mean production?"),
        (["run", "--workflow", "usual"], "'usual' is not one of"),
    ],
)
def test_what_cannot_be_meant(run: Run, tmp_path: Path, words: list[str], told: Any) -> None:
    """Is an error with the value."""
    ended = run("pipeline", *words)

    assert ended.code != 0
    assert told in " ".join(ended.err.split())
