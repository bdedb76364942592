"""Gains in a folder: what is written is read, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from gain_examples import T0, make_gains
from house import ROOT

from absurd.tasks.calibration.gain_table import GainSet, read_gains, write_gains
from absurd.tasks.calibration.gains import Gains
from absurd.tasks.radio.errors import CalibrationError

MADE = {"solver": "embedded", "settings": {"refant": ["pad001"], "minsnr": 3.0}, "inputs": ["a.ms"]}


def a_set(seed: int = 1) -> GainSet:
    return GainSet(
        (
            make_gains("delay", seed=seed, times=1),
            make_gains("bandpass", seed=seed, times=1, flagged=0.1),
            make_gains("gain", seed=seed, flagged=0.2),
            make_gains("gain", seed=seed + 1),
        ),
        MADE,
    )


def same(one: Gains, other: Gains) -> bool:
    """To the bit, but for angles, which are kept to 1e-9 degrees."""

    def alike(name: str) -> bool:
        before, after = getattr(one, name), getattr(other, name)
        if isinstance(before, np.ndarray | float):
            return bool(np.allclose(before, after, rtol=0, atol=1e-11 if name.endswith("rad") else 0, equal_nan=True))
        return bool(before == after)

    return all(alike(name) for name in Gains.__slots__)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """All numbers to the bit, with the order of the tables and the provenance."""
    stored = write_gains(tmp_path / "a.gains", a_set())

    found = read_gains(tmp_path / "a.gains", checksum=stored.checksum)

    assert all(same(one, other) for one, other in zip(found.tables, a_set().tables, strict=True))
    assert found.provenance == MADE
    assert stored.path == str(tmp_path / "a.gains")
    assert stored.bytes == sum(each.stat().st_size for each in tmp_path.rglob("*") if each.is_file())


def test_the_same_gains_are_the_same_bits(tmp_path: Path) -> None:
    """File by file, and the same checksum; other gains or another provenance have another."""
    for name in "ab":
        write_gains(tmp_path / name, a_set())
    one, other = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()} for n in "ab"
    )

    assert one == other
    assert a_set().checksum == a_set().checksum != a_set(2).checksum
    assert a_set().checksum != GainSet(a_set().tables, MADE | {"solver": "casa"}).checksum


def test_a_field_without_direction(tmp_path: Path) -> None:
    """Several fields have none: it is not-a-number again when read."""
    gains = make_gains()
    object.__setattr__(gains, "ra_rad", math.nan)
    write_gains(tmp_path / "a", GainSet((gains,)))

    assert math.isnan(read_gains(tmp_path / "a").tables[0].ra_rad)


def test_nothing_is_written_over_other_gains(tmp_path: Path) -> None:
    """What is there stays, and the same again is no harm; other gains only if they are to replace gains."""
    path = tmp_path / "a"
    write_gains(path, a_set())
    before = {each: each.stat().st_mtime_ns for each in path.rglob("*")}

    write_gains(path, a_set())
    with pytest.raises(CalibrationError, match="holds something else"):
        write_gains(path, a_set(2))

    assert {each: each.stat().st_mtime_ns for each in path.rglob("*")} == before
    write_gains(path, a_set(2), replace=True)
    assert read_gains(path).checksum == a_set(2).checksum
    (path / "notes").write_text("mine")
    with pytest.raises(CalibrationError, match="holds notes, which is of no gain set"):
        write_gains(path, a_set(), replace=True)
    assert (path / "notes").read_text() == "mine"
    (tmp_path / "b").write_text("a file")
    with pytest.raises(CalibrationError, match="something else"):
        write_gains(tmp_path / "b", a_set())


def test_damage_is_noticed(tmp_path: Path) -> None:
    """A chunk that is missing or changed, attributes that were edited, and what is no gain set."""
    path, told = tmp_path / "a", tmp_path / "a/zarr.json"
    write_gains(path, a_set())
    for damage, said in (
        (lambda: shutil.rmtree(path / "gain/gain/c"), "damaged"),
        (
            lambda: (path / "zarr.json").write_text((path / "zarr.json").read_text().replace("pad001", "pad002")),
            "damaged",
        ),
        (lambda: told.write_text("{"), "cannot be read"),
        (lambda: shutil.rmtree(path), "there are no gains"),
        (path.mkdir, "there are no gains"),
    ):
        damage()
        with pytest.raises(CalibrationError, match=said):
            read_gains(path)
        if said != "there are no gains":
            write_gains(path, a_set(), replace=True)
    write_gains(path, a_set())
    with pytest.raises(CalibrationError, match="not those that were registered"):
        read_gains(path, checksum="0" * 64)


def test_times_are_told_as_xarray_reads_them(tmp_path: Path) -> None:
    """Names of axes on every array, and times with units from which xarray makes UTC."""
    write_gains(tmp_path / "a", a_set())

    told = json.loads((tmp_path / "a/gain/time/zarr.json").read_text())

    assert told["dimension_names"] == ["time"]
    assert told["attributes"]["units"] == "seconds since 1858-11-17T00:00:00"
    moment = datetime.fromtimestamp(T0 - 40587 * 86400, UTC)
    axes = json.loads((tmp_path / "a/gain/gain/zarr.json").read_text())["dimension_names"]
    assert axes == ["time", "antenna", "channel", "polarisation"]
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    opened = xarray.open_zarr(tmp_path / "a", group="gain", consolidated=False)
    assert opened.gain.dims == ("time", "antenna", "channel", "polarisation")
    assert opened.time.values[0] == np.datetime64(moment.replace(tzinfo=None), "ns")


WRITER = """
import sys
from gain_examples import make_gains
from absurd.tasks.calibration.gain_table import GainSet, write_gains
number = int(sys.argv[2])
gains = GainSet((make_gains("bandpass", seed=number, antennas=5, channels=64), make_gains("gain", seed=number)))
print("ready", flush=True)
sys.stdin.readline()
write_gains(sys.argv[1], gains, replace=True)
print("done", flush=True)
"""


def files_aside(folder: Path) -> int:
    """How many files there are beside the set that stands, in what is written now or was left."""
    return sum(len(names) for place, _, names in os.walk(folder) if ".part" in place)


def test_killed_at_any_time_it_is_whole_or_absent(tmp_path: Path) -> None:
    """Kill -9 at random moments: the older set or the new one, to the bit, and the next leaves no rest."""
    seed = int(time.time())
    print(f"seed {seed}")
    chance = random.Random(seed)
    path = tmp_path / "gains"
    sums = [
        GainSet((make_gains("bandpass", seed=n, antennas=5, channels=64), make_gains("gain", seed=n))).checksum
        for n in (0, 1)
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}

    def writer(number: int) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        return started

    def go(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    with writer(0) as first:
        go(first)
        first.wait()
    many = sum(1 for _ in path.rglob("*"))
    standing = sums[0]
    for _ in range(3):
        number = 1 - sums.index(standing)
        moment = chance.randint(0, many + 1)  # of files beside the older set; the last never comes: it has ended then
        with writer(number) as process:
            go(process)
            while process.poll() is None and files_aside(tmp_path) < moment:
                pass
            process.send_signal(signal.SIGKILL)
        found = read_gains(path).checksum
        assert found in {standing, sums[number]}
        standing = found
    number = 1 - sums.index(standing)
    with writer(number) as last:
        go(last)
        last.wait()
    assert read_gains(path).checksum == sums[number]
    assert os.listdir(tmp_path) == ["gains"]


def test_gains_of_two_antennas_of_one_name_are_refused() -> None:
    """One would get the other's."""
    gains = make_gains()
    with pytest.raises(CalibrationError, match="several antennas called 'pad001'"):
        replace(gains, antennas=("pad001", "pad001", *gains.antennas[2:]))
