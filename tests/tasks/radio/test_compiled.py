"""Compiled loops: compiled once, however many processes want them at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LOOPS = """
from absurd.tasks.radio.compiled import kernel

@kernel
def half_of_all(values):
    found = 0.0
    for each in values:
        found += half(each)
    return found

@kernel
def half(value):
    return value / 2
"""
CALL = """
import sys
import numpy as np
import loops

values = np.array([3, 4], sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(loops.half_of_all(values), sum(loops.half_of_all.stats.cache_misses.values()))
"""


def start(kind: str, folder: Path) -> subprocess.Popen[str]:
    """A process that is about to halve numbers of `kind`."""
    command = [sys.executable, "-c", CALL, kind]
    return subprocess.Popen(command, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def all_at_once(kinds: Sequence[str], folder: Path) -> list[str]:
    """What a process of each kind says, when all begin together."""
    processes = [start(kind, folder) for kind in kinds]
    for each in processes:
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    return [each.communicate(timeout=120)[0].strip() for each in processes]


def test_each_is_compiled_once_and_stays_what_it_is(tmp_path: Path) -> None:
    """Processes that want a kernel at once, for two types: one compiles it for each, and all have the right numbers."""
    (tmp_path / "loops.py").write_text(LOOPS, encoding="utf-8")

    at_once = all_at_once(("i8", "f8", "i8", "f8"), tmp_path)
    later = all_at_once(("i8", "f8"), tmp_path)

    assert sorted(at_once) == ["3.5 0", "3.5 0", "3.5 1", "3.5 1"]
    assert later == ["3.5 0", "3.5 0"]
