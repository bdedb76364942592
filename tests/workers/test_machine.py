"""Whether another worker's process is certainly gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from absurd.workers.host.machine import describe_process, is_gone

Until = Callable[[Callable[[], object]], None]


def described(home: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that lives until its input ends, and what it says of itself."""
    program = f"""
import sys
from pathlib import Path
from absurd.workers.host.machine import describe_process
print(describe_process(Path({str(home)!r})), flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_process_is_gone_once_it_has_ended(tmp_path: Path, until: Until) -> None:
    """Not while it lives; also while nobody has waited for it yet; and for good after that."""
    process, machine = described(tmp_path)
    with process:
        assert not is_gone(process.pid, machine)
        process.kill()
        until(lambda: is_gone(process.pid, machine))
    assert is_gone(process.pid, machine)


def test_a_number_that_was_taken_anew_is_not_the_process(tmp_path: Path) -> None:
    """The start tells them apart."""
    machine = describe_process(tmp_path)
    assert machine is not None

    assert not is_gone(os.getpid(), machine)
    assert is_gone(os.getpid(), machine + "0")


def test_processes_of_one_machine_and_home_differ_in_the_last_part_alone(tmp_path: Path) -> None:
    """Another home is another machine: its receipts are out of sight."""
    mine = describe_process(tmp_path)
    process, theirs = described(tmp_path)
    with process:
        process.kill()
    (tmp_path / "other").mkdir()
    elsewhere = describe_process(tmp_path / "other")
    assert mine is not None and elsewhere is not None

    assert mine.rpartition("/")[0] == theirs.rpartition("/")[0]
    assert mine != theirs
    assert mine.rpartition("/")[0] != elsewhere.rpartition("/")[0]


def test_a_machine_that_cannot_be_told_is_none(tmp_path: Path) -> None:
    """Then nobody is given up before its lease."""
    assert describe_process(tmp_path / "missing") is None
