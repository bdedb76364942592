"""Files that arrive in a folder: each is recorded once it is whole, in its documented state; none is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from subband_files import name_of, write_subband

from absurd import SyncAbsurdClient, database_sync
from absurd.errors import DatabaseUnavailableError
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.arrivals import Arrivals, Look
from absurd.tasks.visibility.subband_header import read_header


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def states(client: SyncAbsurdClient) -> dict[str, str]:
    """How each recorded file stands, by name."""
    return {os.path.basename(each["path"]): each["state"] for each in client.list_subbands("incoming")}


def looker(client: Any, folder: Path, **options: Any) -> Arrivals:
    return Arrivals(client, "incoming", folder, **{"steady_s": 0} | options)


def test_a_file_is_read_once_it_has_been_steady(client: SyncAbsurdClient, incoming: Path) -> None:
    """One that grows waits, by the clock of the process alone; then it is recorded, and never read again."""
    clock = Clock()
    arrivals = looker(client, incoming, steady_s=5, clock=clock)
    whole = write_subband(incoming, 0)
    content = whole.read_bytes()
    for part in (100, 3000):
        whole.write_bytes(content[:part])
        clock.now += 4
        look = arrivals.look()
        assert (look.read, states(client)) == (0, {whole.name: "waiting"})
        assert arrivals.next_s == 5
    whole.write_bytes(content)
    os.utime(whole, (0, 0))  # however old the file says it is

    arrivals.look(())
    clock.now += 4.9
    assert arrivals.look(()).read == 0
    clock.now += 0.2
    assert [each["state"] for each in arrivals.look(()).recorded] == ["grouped"]

    assert (arrivals.waits, arrivals.next_s) == (0, None)
    clock.now += 100
    again = arrivals.look()
    assert (again.files, again.read, again.recorded) == (1, 0, [])


def test_a_file_that_stays_half_written(client: SyncAbsurdClient, incoming: Path, moved: Callable[[str], None]) -> None:
    """It is told why it waits, is unreadable once its time is out, and is taken when it is whole after all."""
    clock = Clock()
    arrivals = looker(client, incoming, clock=clock)
    whole = write_subband(incoming, 1)
    content = whole.read_bytes()
    whole.write_bytes(content[:-500])
    (incoming / name_of(2)).write_bytes(b"")
    with h5py.File(incoming / name_of(3), "w") as empty:
        empty.create_group("Header")

    arrivals.look()

    reasons = {os.path.basename(each["path"]): each["reason"] for each in client.list_subbands("incoming", ["waiting"])}
    assert "truncated file" in reasons[name_of(1)]
    assert "time_array" in reasons[name_of(3)]
    assert len(reasons) == 3
    moved("301 s")
    assert arrivals.look().read == 0  # not at each look
    assert set(states(client).values()) == {"unreadable"}
    look = looker(client, incoming).look()  # another process looks at them anew, and agrees
    assert (look.read, {each["state"] for each in look.recorded}) == (3, {"unreadable"})
    whole.write_bytes(content)
    arrivals.look()
    assert states(client)[whole.name] == "grouped"


def test_an_unreadable_file_that_can_be_read(
    client: SyncAbsurdClient, incoming: Path, moved: Callable[[str], None]
) -> None:
    """Though it has neither another size nor time, as when another machine's cache was late; after a pause."""
    clock = Clock()
    path = write_subband(incoming, 1)
    content, told = path.read_bytes(), path.stat()
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    arrivals = looker(client, incoming, clock=clock)
    arrivals.look()
    moved("301 s")
    arrivals.look()
    assert states(client) == {path.name: "unreadable"}
    path.write_bytes(content)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))

    assert arrivals.look().read == 0
    assert looker(client, incoming).look().read == 1

    assert states(client) == {path.name: "grouped"}


def test_a_watcher_that_was_away_reads_before_time_is_out(
    client: SyncAbsurdClient, incoming: Path, moved: Callable[[str], None]
) -> None:
    """Files that had only just come when it was killed are read before their group is given up."""
    clock = Clock()
    for number in (0, 1):
        write_subband(incoming, number)
    looker(client, incoming).look()
    for number in (2, 3):
        write_subband(incoming, number)
    looker(client, incoming, steady_s=5, clock=clock).look()
    assert sorted(states(client).values()) == ["grouped"] * 2 + ["waiting"] * 2
    moved("1 hour")

    arrivals = looker(client, incoming, steady_s=5, clock=clock)
    assert (arrivals.look().settled, arrivals.is_behind) == ([], True)
    clock.now += 6
    arrivals.look(())
    assert (arrivals.look().settled, arrivals.is_behind) == ([], False)

    assert [each["state"] for each in client.list_subband_groups("incoming")] == ["complete"]


def test_one_file_that_grows_holds_up_nothing_else(
    client: SyncAbsurdClient, incoming: Path, moved: Callable[[str], None]
) -> None:
    """Though it is not read: the database is told that it grows."""
    clock = Clock()
    for number in range(3):
        write_subband(incoming, number)
    looker(client, incoming).look()
    grows = incoming / name_of(0, 5)
    grows.write_bytes(b"1")
    moved("301 s")
    arrivals = looker(client, incoming, steady_s=5, clock=clock)
    assert arrivals.look().settled == []
    grows.write_bytes(b"12")
    clock.now += 6

    assert [each["state"] for each in arrivals.look().settled] == ["partial"]


def test_other_files_are_left_alone(client: SyncAbsurdClient, incoming: Path) -> None:
    """Temporary names, products, pipes and links to nowhere are passed by; links to files and folders below are not."""
    elsewhere = incoming.parent / "elsewhere"
    elsewhere.mkdir()
    (incoming / "deep" / "deeper").mkdir(parents=True)
    for folder in (".hidden", "a.ms", "b.zarr"):
        (incoming / folder).mkdir()
        write_subband(incoming / folder, 0)
    write_subband(elsewhere, 0)
    (incoming / name_of(0)).symlink_to(elsewhere / name_of(0))
    write_subband(incoming / "deep" / "deeper", 1)
    (incoming / "deep" / "again").symlink_to(incoming)
    (incoming / "loop").symlink_to(incoming / "loop")
    (incoming / name_of(2)).symlink_to(incoming / "nothing")
    (incoming / name_of(3)).mkdir()
    os.mkfifo(incoming / name_of(3, 1))
    (incoming / "readme.txt").write_text("")
    (incoming / f".{name_of(1)}.Xy12").write_text("")

    look = looker(client, incoming).look()

    assert states(client) == {name_of(0): "grouped", name_of(1): "grouped"}
    assert (look.files, look.problems) == (2, [])
    assert look.others >= 3


def test_unchanged_files_cost_no_call(client: SyncAbsurdClient, incoming: Path) -> None:
    """A look at known files reads none; with what the process remembers the database is asked one thing in all."""
    for tile in range(3):
        for number in range(4):
            write_subband(incoming, number, tile)
    calls: list[str] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(client, name)

    arrivals = looker(Counting(), incoming)
    arrivals.look()
    calls.clear()

    look = arrivals.look()
    assert calls == ["settle_subband_groups"]
    calls.clear()
    assert arrivals.look(()).files == 0
    assert calls == []

    fresh = looker(Counting(), incoming).look()
    assert calls == ["changed_subbands", "list_subbands", "settle_subband_groups"]
    assert look.read == fresh.read == 0


def test_files_that_go_and_move(client: SyncAbsurdClient, incoming: Path) -> None:
    """What is gone before its conversion is forgotten, and one that is moved takes its own place."""
    arrivals = looker(client, incoming)
    for number in range(4):
        write_subband(incoming, number)
    arrivals.look()
    (incoming / "sub").mkdir()
    (incoming / name_of(0)).rename(incoming / "sub" / name_of(0))
    (incoming / name_of(1)).unlink()

    look = arrivals.look()

    assert look.forgotten == 2
    (group,) = client.list_subband_groups("incoming")
    assert (group["state"], group["present"]) == ("partial", [0, 2, 3])
    client.begin_conversion(group["id"], 1, group["task_id"])
    shutil.rmtree(incoming)
    with pytest.raises(DataError, match="cannot be watched"):
        arrivals.look()
    incoming.mkdir()
    assert arrivals.look().forgotten == 0
    assert client.list_subband_groups("incoming")[0]["present"] == [0, 2, 3]


def test_a_disk_that_is_away_forgets_nothing(client: SyncAbsurdClient, incoming: Path) -> None:
    """Where there is no sub-band at all, those that a group collects stay."""
    arrivals = looker(client, incoming)
    path = write_subband(incoming, 0)
    arrivals.look()
    path.rename(incoming.parent / path.name)
    assert arrivals.look().forgotten == 0
    assert client.list_subband_groups("incoming")[0]["present"] == [0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to read as")
def test_a_file_that_may_not_be_read(client: SyncAbsurdClient) -> None:
    """It is unreadable with the reason, and taken once its rights allow, though it has not changed."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are nobody else's
        os.chown(folder, 65534, -1)
        _may_not_be_read(client, Path(folder))


def _may_not_be_read(client: SyncAbsurdClient, incoming: Path) -> None:
    path = write_subband(incoming, 0)
    path.chmod(0)
    clock = Clock()
    arrivals = looker(client, incoming, clock=clock, steady_s=1)
    arrivals.look()
    clock.now += 2

    with as_nobody():
        arrivals.look()
    assert "Permission denied" in client.list_subbands("incoming", ["unreadable"])[0]["reason"]
    path.chmod(0o644)
    clock.now += 10
    arrivals.look()

    assert states(client) == {path.name: "grouped"}


class as_nobody:  # noqa: N801 - reads as a word
    """Files are opened as another user inside."""

    def __enter__(self) -> None:
        os.seteuid(65534)

    def __exit__(self, *_: object) -> None:
        os.seteuid(0)


def test_an_answer_that_is_lost_loses_nothing(
    client: SyncAbsurdClient, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the database had recorded them or not, the next look goes on, and each file is there once."""
    for number in range(4):
        write_subband(incoming, number)
    real = database_sync.SyncDatabase.run
    lost = {"recorded": False}

    def run(self: Any, call: Any) -> Any:
        found = real(self, call)
        if "record_subbands" in call.sql and not lost["recorded"]:
            lost["recorded"] = True
            raise DatabaseUnavailableError("the answer was lost")
        return found

    monkeypatch.setattr(database_sync.SyncDatabase, "run", run)
    arrivals = looker(client, incoming)

    with pytest.raises(DatabaseUnavailableError):
        arrivals.look()
    arrivals.look()

    assert set(states(client).values()) == {"grouped"}
    (group,) = client.list_subband_groups("incoming")
    assert (group["state"], group["round"]) == ("complete", 1)


def test_what_a_header_tells(incoming: Path) -> None:
    """Declination, the first time and what the sub-bands of a recording share; not how many times one has."""
    header = read_header(write_subband(incoming, 3, declination_deg=54.57))

    assert header.declination_deg == pytest.approx(54.57)
    assert abs(header.begins_at.timestamp() - 1795953600) < 0.001
    assert header.content == "OVRO_MMA, 12.88 s, 2 channels, XX,YY"
    assert header.content == read_header(write_subband(incoming, 4, times=1)).content


def test_headers_of_real_files(shared: Path) -> None:
    """UVH5 of other arrays is understood; a declination that no file states is none."""
    folder = shared / "data" / "radio-visibilities"

    found = {path.name: read_header(path) for path in sorted(folder.glob("*.uvh5"))}

    assert {name: each.declination_deg is None for name, each in found.items()} == {
        "ata.LoA.C0352.uvh5_60647_62965_9760406_3c286_0001.uvh5": False,
        "simulated_bda_file.uvh5": True,
        "zen.2458043.40141.xx.HH.XRAA.uncalibrated.uvh5": True,
        "zen.2458043.40141.xx.HH.XRAA.uvh5": True,
        "zen.2458661.23480.HH.uvh5": True,
    }
    (ata,) = (each for name, each in found.items() if name.startswith("ata"))
    assert ata.declination_deg == pytest.approx(30.5, abs=0.1)


def test_nothing_is_locked(incoming: Path) -> None:
    """A header is read while another process has the file open to write."""
    path = write_subband(incoming, 0)
    text = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", text, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert read_header(path).declination_deg is not None
        writer.communicate()


def test_looks_tell_of_places_that_cannot_be_looked_at() -> None:
    """At most some twenty of them."""
    look = Look()
    for n in range(100):
        look.tell(str(n))
    assert len(look.problems) == 20
