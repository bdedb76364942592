"""AOFlagger in a process of its own: what it is asked, and what becomes of its ways to fail."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from interference import KINDS, interfered, recording

from absurd.tasks.radio.errors import DependencyError, StageError, ValidationError
from absurd.tasks.visibility.flagging import aoflagger
from absurd.tasks.visibility.flagging.aoflagger import OUR_STRATEGY, aoflag, check, command, find_program
from absurd.tasks.visibility.flagging.flagger import flag
from absurd.tasks.visibility.flagging.strategy import AOFlagger, strategy_named
from absurd.tasks.visibility.flags import Reason

needs_it = pytest.mark.skipif(
    shutil.which("aoflagger") is None, reason="AOFlagger is not installed: apt-get install aoflagger"
)
HELP = "AOFlagger 3.9 (2030)\n  -j threads\n  -strategy <strategy>\n"


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str = HELP) -> Path:
    """A program of that name on PATH, which tells its options, and does something when it is given a set."""
    path = folder / "bin" / "aoflagger"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nif [ $# = 0 ]; then printf "{said}"; exit 0; fi\n{script}\n', encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}:/bin:/usr/bin")
    find_program.cache_clear()
    return path


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Each test looks for the program anew, and so do those that come after these."""
    find_program.cache_clear()
    yield
    find_program.cache_clear()


@needs_it
def test_the_program_tells_its_version_and_options() -> None:
    """Version and options are what the installed program says."""
    program = find_program()

    assert program.version[0].isdigit() and {"-j", "-strategy", "-column"} <= program.options
    words = command(program, AOFlagger(), Path("/data/some.ms"))
    assert words == [program.path, "-j", "1", "-strategy", str(OUR_STRATEGY), "-column", "DATA", "/data/some.ms"]


@needs_it
def test_what_is_flagged_before_takes_no_part() -> None:
    """Numbers far too large, NaN and flags of the input spoil nothing, and what AOFlagger finds has its reason."""
    some, truth = interfered(recording(antennas=5, channels=128), KINDS["bursts"])
    data, flags = some.data.copy(), some.flags.copy()
    random = np.random.default_rng(3)
    data[random.random(data.shape) < 0.005] = 1e36
    data[random.random(data.shape) < 0.005] = np.nan
    flags[:, 7] = True
    data[:, 7] = 1e6

    _, reasons, report = flag(some.with_(data=data, flags=flags), strategy_named("aoflagger"))

    found = (reasons & int(Reason.AOFLAGGER)) != 0
    others = (reasons & np.uint16(0xFFFF ^ int(Reason.AOFLAGGER))) != 0
    assert found[truth & ~others].all()
    assert found[~truth].mean() < 0.02 and report.reasons["input"] == flags.sum()


@needs_it
def test_fields_of_a_drift_scan_are_seen_as_one() -> None:
    """Where each integration is a field of its own, bursts are found all the same."""
    some, truth = interfered(recording(antennas=4, channels=128), KINDS["bursts"])
    _, field = np.unique(some.time_s, return_inverse=True)
    drifting = some.with_(field=field.astype(np.int32), phase_centres=some.phase_centres * 24)

    assert aoflag(drifting, AOFlagger())[truth].all()


@needs_it
def test_a_strategy_that_fails_is_told(tmp_path: Path) -> None:
    """What AOFlagger says of a strategy with a mistake is the reason of the failure."""
    lua = tmp_path / "mine.lua"
    lua.write_text("function execute(input)\n  no_such_function(input)\nend\n", encoding="utf-8")

    with pytest.raises(StageError, match="no_such_function"):
        aoflag(recording(antennas=3, channels=32), AOFlagger(lua=str(lua)))


def test_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, the error says how to get it, and it comes before anything is done."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(DependencyError, match="apt-get install aoflagger"):
        check(AOFlagger())


def test_a_strategy_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read is refused by name."""
    stand_in(tmp_path, monkeypatch, "exit 0")

    with pytest.raises(ValidationError, match=r"none\.lua"):
        check(AOFlagger(lua=str(tmp_path / "none.lua")))


def test_another_program_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not answer as AOFlagger does is not used."""
    stand_in(tmp_path, monkeypatch, "exit 0", said="hello\n")

    with pytest.raises(DependencyError, match="no AOFlagger that is known: hello"):
        check(AOFlagger())


def test_it_is_ended_when_its_time_is_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not end is killed with its children, even one that does not listen."""
    stand_in(tmp_path, monkeypatch, f'trap "" TERM; echo $$ >{tmp_path}/pid; while :; do sleep 0.05; done')
    monkeypatch.setattr(aoflagger, "STOP_SECONDS", 0.1)

    with pytest.raises(StageError, match=r"not ended after 0\.2 s"):
        aoflag(recording(antennas=2, channels=4, times=2), AOFlagger(seconds=0.2))

    pid = (tmp_path / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()


def test_its_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words are in the error, and its exit code."""
    stand_in(tmp_path, monkeypatch, "echo out of luck >&2; exit 3")

    with pytest.raises(StageError, match="out of luck") as caught:
        aoflag(recording(antennas=2, channels=4, times=2), AOFlagger())

    assert caught.value.details["exit_code"] == 3
