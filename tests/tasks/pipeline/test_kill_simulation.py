"""kill -9 at random points of ``absurd pipeline simulate``: the same command again makes the same files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from proof import amount, seed_of

from absurd.cli import absurd
from absurd.cli.run import call

WORDS = ("pipeline", "simulate", "--antennas", "24", "--subbands", "3", "--channels", "16", "--integrations", "8")


def files_in(folder: Path) -> dict[str, bytes]:
    """All files under final names."""
    found = [(path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file()]
    return {
        str(name): path.read_bytes() for name, path in found if not any(part.startswith(".") for part in name.parts)
    }


def test_a_simulation_that_is_killed_ends_as_one_that_is_not(
    tmp_path: Path, until: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """After each of its changes files are whole or absent, the truth as a whole; in the end nothing is left beside."""
    chance = random.Random(seed_of("killed simulations"))
    assert call(absurd, "absurd", [*WORDS, str(tmp_path / "whole")]) == 0
    expected = files_in(tmp_path / "whole")
    truth = {name for name in expected if "_truth" in name}
    for turn in range(amount(2, 30)):
        folder = tmp_path / f"{turn}"
        victim = subprocess.Popen([sys.executable, "-m", "absurd", *WORDS, folder], stdout=subprocess.DEVNULL)
        watch = Watch(folder, victim)
        point = chance.randint(1, 8)
        print(f"turn {turn}: after change {point}")
        until(lambda at=point, seen=watch: seen.has_come_to(at))
        victim.kill()
        victim.wait(60)

        found = files_in(folder)
        assert found.items() <= expected.items()
        assert truth & found.keys() in (set(), truth)
        assert call(absurd, "absurd", [*WORDS, str(folder)]) == 0
        assert files_in(folder) == expected
        assert list(folder.rglob(".*")) == []


class Watch:
    """Counts how often that changes which a simulation writes."""

    def __init__(self, folder: Path, victim: subprocess.Popen[bytes]) -> None:
        self.folder, self.victim = folder, victim
        self._changes, self._last = 0, self._sizes()

    def has_come_to(self, changes: int) -> bool:
        """Whether so much has changed, or it is too late for that."""
        now = self._sizes()
        self._changes += now != self._last
        self._last = now
        return self._changes >= changes or self.victim.poll() is not None

    def _sizes(self) -> dict[str, int]:
        found = {}
        for place, _, names in os.walk(self.folder):
            for name in names:
                try:
                    found[os.path.join(place, name)] = os.lstat(os.path.join(place, name)).st_size
                except OSError:
                    continue
        return found
