"""``absurd task logs``: what a person and a program see of a log."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from absurd.cli.log_lines import show_lines
from absurd.logs import LogLine

AT = datetime(2027, 1, 31, 21, 30, tzinfo=UTC)


def line(text: str, attempt: int = 1, run: str = "1", **more: Any) -> LogLine:
    return LogLine(attempt, AT, more.pop("stream", "stdout"), text, "w:1", run, **more)


def test_runs_have_headings_where_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, so that stdout is what was written; a line without an end is ended before what follows."""
    show_lines([line("a\n"), line("b", run="2"), line("c\n", 2, "3"), line("[gap]\n", 2, "3", stream="worker")],
               as_json=False)  # fmt: skip

    shown = capsys.readouterr()
    assert shown.out == "a\nb\nc\n[gap]\n"
    when = "on w:1, 2027-01-31 21:30:00+0000"
    assert shown.err.splitlines() == [f"Attempt 1 {when}", f"Attempt 1 goes on {when}", f"Attempt 2 {when}"]

    show_lines([line("only"), line(" one")], as_json=False)
    assert capsys.readouterr() == ("only one\n", "")


def test_a_terminal_is_not_at_the_mercy_of_a_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours pass, what moves the cursor or sets the title does not; into a file everything goes as it is."""
    evil = "\x1b[31mred\x1b[0m\x1b[2J\x1b]0;title\x07\tend\n"
    show_lines([line(evil)], as_json=False)
    assert capsys.readouterr().out == evil
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    show_lines([line(evil)], as_json=False)

    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m]0;title\tend\n"


def test_a_log_from_a_worker_elsewhere(
    run: Callable[..., Any], start: Callable[..., Any], tmp_path: Path, until: Callable[[Callable[[], object]], None]
) -> None:
    """Followed while it runs, and read afterwards, by another process than the worker; Ctrl-C ends the reader alone."""
    task = run("spawn", "cli.print", f"release={tmp_path / 'release'}", "--json").document["id"]
    assert run("task", "logs", task).out == ""
    worker = start("absurd-worker", "--concurrency", "1")
    follower = start("absurd", "task", "logs", task, "--follow")
    assert follower.stdout.readline() == "before\n"
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=30)
    assert (follower.returncode, out) == (130, "")
    assert "Traceback" not in err
    follower = start("absurd", "task", "logs", task, "--follow", "--json")
    first = json.loads(follower.stdout.readline())
    assert (first["text"], first["stream"], first["attempt"]) == ("before\n", "stdout", 1)

    (tmp_path / "release").touch()
    rest, _ = follower.communicate(timeout=60)

    assert [json.loads(each)["text"] for each in rest.splitlines()] == ["after\n"]
    assert follower.returncode == 0
    assert run("task", "logs", task).out == "before\nafter\n"
    assert "13 B in 2 lines (absurd task logs)" in run("task", "show", task).out
    assert run("task", "logs", task, "--tail", "1").out == "after\n"
    assert run("task", "logs", task, "--attempt", "2", "--json").document == []
    assert run("task", "logs", "0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e").code == 3
    worker.send_signal(signal.SIGTERM)
    _, shown = worker.communicate(timeout=60)
    assert "before\nafter\n" in shown
