"""The disk level of the cache: whole files or none, a bound that holds, and any number of processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ticking import Clock

from absurd.tasks.cutout import cache_disk
from absurd.tasks.cutout.cache import MISSING, CacheKey, CacheManager
from absurd.tasks.cutout.cache_disk import DiskLevel, Stored


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk(tmp_path: Path, clock: Clock) -> DiskLevel:
    return DiskLevel(tmp_path / "cache", max_bytes=20_000, clock=clock)


def key_of(number: int) -> CacheKey:
    return CacheKey.of("wcs", number)


def entry_of(number: int, length: int = 800) -> Stored:
    return Stored(np.full(length, number, np.uint8), 1.0, ())


def files_of(disk: DiskLevel) -> list[Path]:
    return sorted(disk.folder.glob("*/??/*"))


def size_of(disk: DiskLevel) -> int:
    return sum(each.stat().st_size for each in files_of(disk))


def test_another_process_finds_what_one_stored(disk: DiskLevel) -> None:
    """A value is there for whoever opens the folder, after the process that stored it has gone."""
    code = """
import sys
import numpy as np
from absurd.tasks.cutout.cache import CacheKey, CacheManager
from absurd.tasks.cutout.cache_disk import DiskLevel
cache = CacheManager(disk=DiskLevel(sys.argv[1]))
cache.put(CacheKey.of("cutout", "a.fits", 10.0), {"image": np.arange(6, dtype=">f4").reshape(2, 3), "band": "g"})
"""
    subprocess.run([sys.executable, "-c", code, str(disk.folder)], check=True, timeout=60)

    found = CacheManager(disk=DiskLevel(disk.folder)).get(CacheKey.of("cutout", "a.fits", 10.0))

    assert found["band"] == "g"
    assert found["image"].dtype == ">f4"
    assert found["image"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_damage_is_a_miss_and_removed(disk: DiskLevel) -> None:
    """Wherever a bit is turned, and wherever the file ends: nothing is found, the file goes and the ledger knows."""
    disk.write(key_of(1), entry_of(1, 40))
    [path] = files_of(disk)
    whole = path.read_bytes()
    damaged = [whole[:end] for end in (0, 5, 8, 39, 40, 43, 44, len(whole) - 1)] + [whole + b"x"]
    damaged += [whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :] for place in range(0, len(whole), 7)]

    for content in damaged:
        path.write_bytes(content)
        assert disk.read(key_of(1)) is None
        assert not path.exists()

    assert disk.corrupt == len(damaged)
    path.write_bytes(whole)
    assert disk.read(key_of(1)) is not None


def test_a_file_of_another_key_is_no_answer(disk: DiskLevel) -> None:
    """A file that was copied to another name is whole, and still not the value of that name."""
    disk.write(key_of(1), entry_of(1))
    [path] = files_of(disk)
    other = disk.folder / "wcs" / key_of(2).digest[:2] / key_of(2).digest
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(path.read_bytes())

    assert disk.read(key_of(2)) is None
    assert disk.read(key_of(1)) is not None


def test_the_bound_holds_and_the_least_recently_used_goes(disk: DiskLevel, clock: Clock) -> None:
    """After every write all files together are within the bound; what was read lately stays."""
    for number in range(100):
        clock.tick()
        disk.read(key_of(0))
        disk.write(key_of(number), entry_of(number))
        assert size_of(disk) <= disk.max_bytes
        assert disk.used_bytes() == size_of(disk)

    assert disk.read(key_of(0)) is not None
    assert disk.read(key_of(1)) is None
    assert all(disk.read(key_of(number)) is not None for number in range(90, 100))
    assert disk.write(key_of(1), entry_of(1, 30_000)) is None


def test_writing_a_key_that_is_there_evicts_nobody(disk: DiskLevel, clock: Clock) -> None:
    """However often it is written: its old size is taken off the books."""
    while disk.used_bytes() < 18_500:
        disk.write(key_of(disk.entries()), entry_of(1))
        clock.tick()
    entries = disk.entries()

    for _ in range(50):
        assert disk.write(key_of(0), entry_of(1)) == {}

    assert disk.entries() == entries
    assert disk.used_bytes() == size_of(disk)


def test_several_processes_stay_within_one_bound(disk: DiskLevel) -> None:
    """Four processes that write, read and remove at once: each value is whole, and the ledger is right to the byte."""
    code = """
import sys
import numpy as np
from absurd.tasks.cutout.cache_disk import DiskLevel, Stored
from absurd.tasks.cutout.cache_key import CacheKey
disk = DiskLevel(sys.argv[1], max_bytes=20_000)
chance = np.random.default_rng(int(sys.argv[2]))
for number in chance.integers(0, 60, 150).tolist():
    key = CacheKey.of("wcs", number)
    found = disk.read(key)
    assert found is None or (found.value == number).all()
    if number % 10 == 9:
        disk.remove(key)
    else:
        disk.write(key, Stored(np.full(chance.integers(100, 900), number, np.uint8), 1.0, ()))
print(disk.corrupt)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(disk.folder), str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    told = [each.communicate(timeout=120)[0].strip() for each in started]

    assert told == ["0"] * 4
    assert 10_000 < size_of(disk) <= 20_000
    assert disk.used_bytes() == size_of(disk)
    assert list((disk.folder / "unfinished").iterdir()) == []


def test_a_killed_writer_leaves_whole_values_and_a_bound_that_holds(disk: DiskLevel, clock: Clock) -> None:
    """Killed at any point of its writes, again and again: nothing is damaged, and the ledger never says too little."""
    code = """
import sys
import numpy as np
from absurd.tasks.cutout.cache_disk import DiskLevel, Stored
from absurd.tasks.cutout.cache_key import CacheKey
disk = DiskLevel(sys.argv[1], max_bytes=20_000)
print("begun", flush=True)
number = 0
while True:
    number += 1
    disk.write(CacheKey.of("wcs", number % 50), Stored(np.full(800, number % 50, np.uint8), 1.0, ()))
"""
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", code, str(disk.folder)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        deadline = time.monotonic() + 60
        while disk.entries() < 5:
            assert writer.poll() is None
            assert time.monotonic() < deadline
        writer.send_signal(signal.SIGKILL)
        writer.communicate()

        assert size_of(disk) <= disk.used_bytes()
        for number in range(50):
            found = disk.read(key_of(number))
            assert found is None or (found.value == number).all()
        assert disk.corrupt == 0
        disk.remove_kind("wcs")

    for number in range(100):
        disk.write(key_of(number), entry_of(number))
        assert size_of(disk) <= disk.max_bytes


def test_what_a_killed_writer_left_goes_in_time(disk: DiskLevel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unfinished files are removed when room is made, once they are old enough to belong to nobody."""
    disk.write(key_of(0), entry_of(0))
    left = disk.folder / "unfinished" / "gone.1.0.0"
    left.write_bytes(b"half")

    def fill() -> None:
        for number in range(40):
            disk.write(key_of(number), entry_of(number))

    fill()
    assert left.exists()
    monkeypatch.setattr(cache_disk, "_ABANDONED", -1.0)
    fill()
    assert not left.exists()


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"999999999999\n"])
def test_a_lost_or_wrong_ledger_is_made_anew(disk: DiskLevel, content: bytes | None) -> None:
    """Missing, damaged or far too high: it is counted anew, and no value goes that need not."""
    for number in range(5):
        disk.write(key_of(number), entry_of(number))
    ledger = disk.folder / "ledger"
    ledger.unlink()
    if content is not None:
        ledger.write_bytes(content)

    disk.write(key_of(5), entry_of(5))

    assert disk.used_bytes() == size_of(disk)
    assert disk.entries() == 6


def test_files_removed_by_hand_are_only_misses(disk: DiskLevel) -> None:
    """Someone who empties the folder under a running process harms nothing."""
    for number in range(10):
        disk.write(key_of(number), entry_of(number))
    for path in files_of(disk)[:6]:
        path.unlink()

    for number in range(10, 40):
        disk.write(key_of(number), entry_of(number))
        assert size_of(disk) <= disk.max_bytes

    assert disk.used_bytes() == size_of(disk)


def test_invalidation_by_kind_and_tag_reaches_other_processes(tmp_path: Path) -> None:
    """What one manager forgets on disk, another that shares the folder does not find there."""
    one, other = (CacheManager(max_entries=0, disk=DiskLevel(tmp_path)) for _ in range(2))
    one.put(CacheKey.of("wcs", 1, tags=["run"]), 1)
    one.put(CacheKey.of("psf", 1), 1)
    one.put(CacheKey.of("psf", 2, tags=["run"]), 2)

    assert other.invalidate_tag("run") == 2
    assert one.get(CacheKey.of("wcs", 1)) is MISSING
    assert one.get(CacheKey.of("psf", 1)) == 1
    assert other.invalidate_kind("psf") == 1
    assert one.get(CacheKey.of("psf", 1)) is MISSING


@pytest.fixture
def held(disk: DiskLevel) -> Iterator[None]:
    """The lock of the folder is with another process, which has stopped."""
    disk.check()
    descriptor = os.open(disk.folder / "ledger", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


@pytest.mark.usefixtures("held")
def test_a_stopped_process_holds_up_nobody(disk: DiskLevel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot write in time goes on without, and the statistics tell of it."""
    monkeypatch.setattr(cache_disk, "_PATIENCE", 0.0)
    cache = CacheManager(disk=disk)

    assert cache.put(key_of(1), "text")

    assert cache.get(key_of(1)) == "text"
    assert disk.entries() == 0
    assert "another process keeps" in str(cache.statistics().disk_error)


@pytest.mark.usefixtures("held")
def test_nobody_waits_twice_for_a_stopped_process(disk: DiskLevel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it was waited for in vain, writes fail at once for a while, and not each after its own wait."""
    monkeypatch.setattr(cache_disk, "_PATIENCE", 0.0)
    with pytest.raises(TimeoutError):
        disk.write(key_of(1), entry_of(1))
    monkeypatch.setattr(cache_disk, "_PATIENCE", float("inf"))

    with pytest.raises(TimeoutError, match=r"another process keeps .*ledger locked"):
        disk.write(key_of(2), entry_of(2))


def test_a_failing_disk_costs_speed_only(tmp_path: Path) -> None:
    """Where the folder cannot be made, values come from memory or are loaded, and the statistics tell why."""
    (tmp_path / "file").write_text("in the way")
    cache = CacheManager(disk=DiskLevel(tmp_path / "file" / "cache"))

    assert cache.get_or_load(key_of(1), lambda: "loaded") == "loaded"
    assert cache.get(key_of(1)) == "loaded"
    cache.invalidate_kind("wcs")
    assert cache.get(key_of(1)) is MISSING
    assert "NotADirectoryError" in str(cache.statistics().disk_error)
    with pytest.raises(NotADirectoryError):
        DiskLevel(tmp_path / "file" / "cache").check()
