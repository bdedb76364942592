"""Ways to run commands: in this process (fast), and as the processes users start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from absurd.cli import absurd
from absurd.cli.run import call


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


Run = Callable[..., Ended]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of the commands: the test's database, a home and a working directory of its own."""
    settings = {
        "ABSURD_DATABASE_URL": database_url,
        "ABSURD_HOME": str(tmp_path / "home"),
        "ABSURD_IMPORTS": "cli_executors",
        "ABSURD_WORKER_POLL_INTERVAL": "0.1",
        "ABSURD_WEB_PORT": "0",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(tmp_path)
    return os.environ | settings


@pytest.fixture
def run(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("queue", "list")`` runs ``absurd queue list`` in this process."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        code = call(absurd, "absurd", words)
        return Ended(code, *capsys.readouterr())

    return run


class _Program(subprocess.Popen[str]):
    """A program that does not outlive a test that failed around it: nobody would ever end it."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, value, trace)


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """``start("absurd-worker", "--burst")`` starts a console script of the environment.

    Programs inherit that SIGINT is ignored, as it is in a background job of a shell without job control, and SIGHUP
    under nohup.  What is handled here is back at its default in what is started, so that a Ctrl-C sent to it arrives.
    """

    def start(program: str, *words: str, **changes: str) -> subprocess.Popen[str]:
        script = Path(sys.executable).with_name(program)
        return _Program(
            [script, *words],
            env=environment | changes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, lambda *_: None),
    }
    yield start
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def program(start: Start) -> Run:
    """As `start`, and waits for the end."""

    def run(program: str, *words: str, **changes: str) -> Ended:
        process = start(program, *words, **changes)
        out, err = process.communicate(timeout=60)
        return Ended(process.returncode, out, err)

    return run
