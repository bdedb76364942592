"""The journal: what was acknowledged is in it, whatever its end looks like, and the disk's refusal changes nothing."""

from __future__ import annotations

import errno
import os
import resource
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from absurd.tasks.session import SessionDamagedError, SessionStateError, SessionStorageError, journal
from absurd.tasks.session.journal import END, EVENT, LOG, MAGIC, record
from absurd.tasks.session.writer import JournalWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


def bodies(path: Path) -> list[bytes]:
    """What a journal tells."""
    return [each.body for each in journal.read(path)]


def test_a_torn_end_ends_the_journal(path: Path) -> None:
    """Wherever it is cut, and whatever stands behind the last whole record, all whole records before are read."""
    records = [record(LOG, number, 5, 6, b"%d" % number * number) for number in range(1, 4)]
    whole = MAGIC + b"".join(records)
    for length in range(len(MAGIC), len(whole) + 1):
        for rubbish in (b"", bytes(20), b"\xff" * 20):
            path.write_bytes(whole[:length] + rubbish)
            expected = [number for number in range(1, 4) if len(MAGIC + b"".join(records[:number])) <= length]

            found = list(journal.read(path))

            assert [each.number for each in found] == expected
            assert all(each.body == b"%d" % each.number * each.number for each in found)


def test_a_flipped_bit_is_no_record(path: Path) -> None:
    """A record whose bytes are not those of its checksum is not read."""
    data = MAGIC + record(LOG, 1, 2, 3, b"abc")
    for place in range(len(MAGIC), len(data)):
        for bit in (0, 7):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            path.write_bytes(broken)
            assert list(journal.read(path)) == []


def test_what_is_spoilt_hides_nothing_behind_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a byte between the first record and the last is another, all other records are read, in order; also
    where the search for the next one goes over more than one window.  What is older than what was read is none.
    """
    records = [record(LOG, number, 5, 6, b"%d" % number * 20) for number in range(1, 6)]
    whole = MAGIC + b"".join(records)
    ends = [len(MAGIC) + sum(map(len, records[:number])) for number in range(6)]
    for window in (journal._WINDOW, 20):
        monkeypatch.setattr(journal, "_WINDOW", window)
        for place in range(ends[1], ends[4]):
            broken = bytearray(whole)
            broken[place] ^= 0x55
            path.write_bytes(broken)
            hit = next(number for number in range(1, 6) if place < ends[number])

            assert [each.number for each in journal.read(path)] == [each for each in range(1, 6) if each != hit]
    path.write_bytes(whole + b"rest" + records[2])
    assert [each.number for each in journal.read(path)] == [1, 2, 3, 4, 5]


def test_another_file_is_no_journal(path: Path) -> None:
    """A file that does not begin as one is told."""
    path.write_bytes(b"something else altogether")

    with pytest.raises(SessionDamagedError, match="no journal"):
        list(journal.read(path))


def test_threads_go_to_the_disk_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each acknowledged record is in the file when its call returns, numbers go up, and one sync serves many."""
    synced: list[int] = []
    real = os.fdatasync

    def sync(file: int) -> None:
        synced.append(file)
        real(file)

    monkeypatch.setattr(os, "fdatasync", sync)
    writer = JournalWriter.create(path, "entry")

    def tell(name: int) -> None:
        for number in range(50):
            body = b"%d/%d" % (name, number)
            writer.append(LOG, body).result()
            assert body in path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tell, range(8)))
    writer.finish(END, b"{}")

    found = list(journal.read(path))
    assert sorted(each.body for each in found[:-1]) == sorted(b"%d/%d" % (n, m) for n in range(8) for m in range(50))
    assert [each.number for each in found] == list(range(1, 402))
    assert [each.elapsed_ns for each in found] == sorted(each.elapsed_ns for each in found)
    assert len(synced) < 400


def test_threads_do_not_stand_in_line(path: Path) -> None:
    """Ten threads that are acknowledged at once seldom wait for each other: not with each entry."""
    writer = JournalWriter.create(path, "second")

    def tell() -> None:
        for _ in range(5000):
            writer.append(LOG, b"{}").result()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    with ThreadPoolExecutor(10) as threads:
        for each in [threads.submit(tell) for _ in range(10)]:
            each.result()
    waits = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    writer.finish(END, b"{}")

    assert [each.number for each in journal.read(path)] == [*range(1, 50_002)]
    assert waits < 10_000, f"{waits} waits in 50,000 records"


def test_a_second_is_gathered(path: Path) -> None:
    """With sync="second" calls return at once, and all is in the file when the journal is flushed."""
    writer = JournalWriter.create(path, "second")

    for number in range(1000):
        assert writer.append(LOG, b"%d" % number).done()
    writer.flush()

    assert bodies(path) == [b"%d" % number for number in range(1000)]
    writer.finish(END, b"{}")


class Full:
    """A disk without room: a part of what is written gets onto it, and then no more, until there is room again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, file: int, data: Any, offset: int) -> int:
        if not self.is_full:
            return self._pwrite(file, data, offset)
        if len(data) > 10:
            return self._pwrite(file, data[:10], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("sync", ["entry", "second"])
def test_a_full_disk_is_told_and_loses_nothing(path: Path, sync: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is no room every call says so; what was acknowledged before and after is in the file, in order."""
    disk = Full(monkeypatch)
    writer = JournalWriter.create(path, sync)
    writer.append(LOG, b"before").result()
    writer.flush()

    disk.is_full = True
    acknowledged = []
    if sync == "second":
        writer.append(LOG, b"meanwhile").result()
        acknowledged.append(b"meanwhile")
    with pytest.raises(SessionStorageError, match="No space left"):
        writer.append(LOG, b"refused").result() if sync == "entry" else writer.flush()
    with pytest.raises(SessionStorageError, match="No space left"):
        writer.append(LOG, b"refused too").result()
    with pytest.raises(SessionStorageError, match="No space left"):
        writer.finish(END, b"{}")
    assert bodies(path) == [b"before"]

    disk.is_full = False
    if sync == "second":
        writer.flush()
    writer.append(EVENT, b"after").result()
    writer.finish(END, b"end")

    assert bodies(path) == [b"before", *acknowledged, b"after", b"end"]


@pytest.mark.parametrize("sync", ["entry", "second"])
def test_nothing_comes_behind_the_end(path: Path, sync: Any) -> None:
    """Threads that tell while the journal is finished are in it before the end, or are told that it has ended."""
    writer = JournalWriter.create(path, sync)
    told: list[bytes] = []
    begun = threading.Barrier(5)

    def tell(name: int) -> None:
        begun.wait()
        for number in range(10_000):
            body = b"%d/%d" % (name, number)
            try:
                writer.append(LOG, body).result()
            except SessionStateError:
                return
            told.append(body)

    threads = [threading.Thread(target=tell, args=(name,)) for name in range(4)]
    for each in threads:
        each.start()
    begun.wait()
    while not told:
        pass
    writer.finish(END, b"end")
    for each in threads:
        each.join()

    found = bodies(path)
    assert found[-1] == b"end"
    assert sorted(found[:-1]) == sorted(told)
    with pytest.raises(SessionStateError, match="has ended"):
        writer.finish(END, b"end")


def test_going_on_drops_what_is_torn(path: Path) -> None:
    """A journal that goes on after a crash begins behind its last whole record, with the next number."""
    whole = MAGIC + record(LOG, 7, 5, 6, b"abc")
    path.write_bytes(whole + record(LOG, 8, 5, 6, b"def")[:-1])

    writer = JournalWriter(path, "entry", size=len(whole), number=7, elapsed_ns=6)
    writer.append(LOG, b"next").result()
    writer.finish(END, b"end")

    assert [(each.number, each.body) for each in journal.read(path)] == [(7, b"abc"), (8, b"next"), (9, b"end")]
    assert zlib.crc32(path.read_bytes()[: len(whole)]) == zlib.crc32(whole)
