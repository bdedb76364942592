"""Logs: one line per event, on stderr, without secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

from absurd.config import Settings
from absurd.model import Claim
from absurd.telemetry import LINES, Event, configure_logging, redact


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the logging of the other tests as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """In the JSON format each event is one JSON document on stderr, with level and time."""
    configure_logging(Settings(log_format="json"))

    structlog.get_logger().info("run_completed", task_id=UUID(int=7), seconds=float("inf"), path=Path("/a"))

    out, err = capsys.readouterr()
    line = json.loads(err)
    assert "" == out
    assert line.pop("timestamp").endswith("Z")
    expected = {
        "event": "run_completed",
        "level": "info",
        "task_id": str(UUID(int=7)),
        "seconds": "inf",
        "path": "/a",
    }
    assert expected == line


def test_level(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines below the level are not written, whether of structlog or of the standard library."""
    configure_logging(Settings(log_level="warning"))

    structlog.get_logger().info("run_started")
    logging.getLogger("library").info("quiet")
    structlog.get_logger().warning("database_away")
    logging.getLogger("library").warning("loud")

    err = capsys.readouterr().err
    assert "database_away" in err
    assert "loud" in err
    assert "run_started" not in err
    assert "quiet" not in err


def test_configured_twice_writes_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A second configuration replaces the first."""
    configure_logging(Settings())
    configure_logging(Settings(log_format="json"))

    logging.getLogger("library").warning("once")

    assert "once" == json.loads(capsys.readouterr().err)["event"]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_secrets(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    """Values of secret keys and passwords in addresses appear nowhere, tracebacks and libraries included."""
    configure_logging(Settings(log_format=log_format))
    log = structlog.get_logger()
    address = "postgresql://ada:geheim@host/db"

    log.info("worker_started", password="geheim", api_key="geheim", url=address)
    log.info("worker_started", headers={"Authorization": "Bearer geheim", "deep": [{"token": "geheim"}]})
    log.info(f"connecting to {address}")
    try:
        raise OSError(f"no answer from {address}")
    except OSError as error:
        log.exception("round_failed", error=error)
        logging.getLogger("library").exception("cannot use %s", "host=h password=geheim")

    err = capsys.readouterr().err
    assert "geheim" not in err
    assert "no answer from postgresql://ada:***@host/db" in err


def test_redact_keeps_what_is_plain() -> None:
    """Numbers, texts and their containers pass unchanged."""
    event = {"event": "run_completed", "count": 3, "share": 0.5, "done": True, "none": None, "names": ["a", "b"]}

    assert event == redact(None, "info", dict(event))


def test_log_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A closed stderr does not stop the work."""
    configure_logging(Settings())
    closed = (tmp_path / "log").open("w")
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)

    structlog.get_logger().info("run_started")
    logging.getLogger("library").warning("said to nobody")


def test_lines_of_a_run_tell_whose_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, by structlog and by logging, of a run that shares its process: id, executor and attempt of its task."""

    class Sink:
        def write(self, claim: Any, stream: str, data: bytes) -> None:
            kept.append((stream, data))

    kept: list[tuple[str, bytes]] = []
    configure_logging(Settings(log_format="json"))
    claim = Claim(1, UUID(int=7), 2, "demo.add", "q", {})
    token = LINES.set((Sink(), claim))
    try:
        structlog.get_logger().info("said")
        logging.getLogger("library").warning("said too")
    finally:
        LINES.reset(token)
    structlog.get_logger().info("outside")

    *inside, outside = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    whose = {"task_id": str(claim.task_id), "task": "demo.add", "attempt": 2}
    assert [whose] * 2 == [{name: line[name] for name in whose} for line in inside]
    assert not whose.keys() & outside.keys()
    assert 2 == len(kept)


def test_events_are_in_the_table() -> None:
    """The table holds the events that the sources log, by name or as text, each of them and no other."""
    root = Path(__file__).parents[2]
    call = re.compile(r'\blog\.(?:debug|info|warning|error|exception|critical)\(\s*(?:"(\w+)"|Event\.(\w+))')
    logged = {
        text or name.lower()
        for folder in ("absurd", "schema", "scheduler", "tasks", "workers")
        for file in (root / folder).rglob("*.py")
        if file.name != "telemetry.py"
        for text, name in call.findall(file.read_text(encoding="utf-8"))
    }

    assert logged == set(Event)
