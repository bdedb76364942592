"""Watchers of a folder, as the processes people start: whatever happens to them, each group is converted once."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from proof import amount, seed_of
from subband_files import name_of, write_subband

from absurd import SyncAbsurdClient
from absurd.errors import DatabaseUnavailableError
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.arrivals import Arrivals, Look
from absurd.tasks.visibility.watching import watch

Start = Callable[..., "subprocess.Popen[str]"]
Until = Callable[..., None]


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Start]:
    """``start(folder, ...)`` starts ``absurd pipeline watch``; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def launch(folder: Path, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "absurd", "pipeline", "watch", str(folder), "--json", "--steady", "0.05s"]
        environment = os.environ | {"ABSURD_DATABASE_URL": database_url, "ABSURD_HOME": str(tmp_path / "home")}
        with (tmp_path / f"{len(running)}.out").open("w") as out:
            running.append(subprocess.Popen([*command, *options], env=environment, text=True, stdout=out, stderr=out))
        return running[-1]

    yield launch
    for each in running:
        each.kill()
        each.wait()


def told(folder: Path, number: int = 0) -> list[dict[str, Any]]:
    """What a watcher has said so far, by its lines."""
    lines = (folder / f"{number}.out").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def groups(client: SyncAbsurdClient) -> list[dict[str, Any]]:
    return list(reversed(client.list_subband_groups("incoming", limit=1000)))


def spawned(connection: psycopg.Connection[Any]) -> list[tuple[int, int]]:
    """Groups and rounds of all conversions."""
    rows = connection.execute("select params from task").fetchall()
    return sorted((params["group"], params["round"]) for (params,) in rows)


def test_watchers_that_are_killed_while_sub_bands_arrive(
    client: SyncAbsurdClient, incoming: Path, start: Start, until: Until, connection: psycopg.Connection[Any]
) -> None:
    """Two watch one folder and are killed now and then; files come out of order, off by a minute, twice, in parts."""
    chance = random.Random(seed_of("killed watchers"))
    tiles = amount(3, 40)
    pieces = [(tile, number) for tile in range(tiles) for number in range(4)]
    chance.shuffle(pieces)
    options = ("--every", "0.3s")
    watchers = [start(incoming, *options), start(incoming, *options, "--no-events")]
    aside = incoming.parent / "aside"
    (incoming / "copies").mkdir()
    aside.mkdir()

    for at, (tile, number) in enumerate(pieces):
        jitter = chance.choice([-60, 60, chance.uniform(-60, 60)])
        path = write_subband(aside, number, tile, jitter_s=jitter)
        content = path.read_bytes()
        place = incoming / path.name
        with place.open("wb") as file:  # in parts, under its own name, as a copy is written
            for part in (content[:1000], content[1000:5000], content[5000:]):
                file.write(part)
                file.flush()
                time.sleep(0.01)
        if chance.random() < 0.2:
            shutil.copy(path, incoming / "copies" / path.name)
        if at % 7 == 3:
            victim = chance.randrange(2)
            watchers[victim].send_signal(signal.SIGKILL)
            watchers[victim].wait()
            watchers[victim] = start(incoming, *options)

    until(lambda: sum(each["state"] == "complete" for each in groups(client)) == tiles)
    copies = len(list((incoming / "copies").iterdir()))
    until(lambda: len(client.list_subbands("incoming", ["duplicate"])) == copies)
    assert len(groups(client)) == tiles
    assert spawned(connection) == sorted((each["id"], 1) for each in groups(client))
    assert client.list_subbands("incoming", ["waiting", "late", "unreadable"]) == []


def test_a_watch_from_arrival_to_late(
    client: SyncAbsurdClient, incoming: Path, start: Start, until: Until, tmp_path: Path, moved: Callable[[str], None]
) -> None:
    """Each state is told as it comes: a group that is partial when its time is out, a late file, a duplicate."""
    watcher = start(incoming, "--every", "0.2s", "--out", str(tmp_path / "ms"), "--timeout", "200s")
    for number in (2, 0, 1):
        write_subband(incoming, number)
    until(lambda: groups(client) and len(groups(client)[0]["present"]) == 3)
    moved("201 s")
    until(lambda: groups(client)[0]["state"] == "partial")
    (group,) = groups(client)
    client.begin_conversion(group["id"], 1, group["task_id"])
    write_subband(incoming, 3)
    shutil.copy(incoming / name_of(0), incoming / name_of(0, jitter_s=3))
    until(lambda: len(client.list_subbands("incoming", ["late", "duplicate"])) == 2)
    until(lambda: {each.get("state") for each in told(tmp_path)} >= {"late", "duplicate", "partial"})

    watcher.send_signal(signal.SIGTERM)

    assert watcher.wait(60) == 0
    lines = told(tmp_path)
    assert lines[0] == {"event": "watching", "folder": str(incoming), "intake": "incoming", "policy": "changed"}
    late = next(each for each in lines if each.get("state") == "late")
    assert (late["event"], late["path"], late["reason"]) == (
        *("file", str(incoming / name_of(3))),
        "the conversion of its group had begun",
    )
    assert client.list_intakes()[0]["params"] == {"out": str(tmp_path / "ms")}


def test_a_watch_goes_on_when_the_database_or_the_folder_comes_back(client: SyncAbsurdClient, incoming: Path) -> None:
    """Both are told once and tried again; nothing is lost."""
    write_subband(incoming, 0)
    troubles: list[str] = []
    looks: list[Look] = []
    errors = [DatabaseUnavailableError("no database"), DatabaseUnavailableError("no database"), DataError("no folder")]
    real = Arrivals(client, "incoming", incoming, steady_s=0)

    class Away:
        folder = incoming
        next_s = None

        def look(self, paths: Any = None) -> Look:
            if errors:
                raise errors.pop(0)
            return real.look(paths)

    class Hurried(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(0)

    stop = Hurried()

    def note(look: Look) -> None:
        looks.append(look)
        stop.set()

    watch(Away(), stop, events=False, told=note, trouble=troubles.append)

    assert troubles == ["no database", "no folder", "it goes on"]
    assert [each["state"] for each in looks[0].recorded] == ["grouped"]


def test_events_of_a_link_and_of_products_below(client: SyncAbsurdClient, incoming: Path, until: Until) -> None:
    """A folder is known by the name it is watched by; what lies in products below is not taken by events."""
    link = incoming.parent / "link"
    link.symlink_to(incoming)
    (incoming / "a.ms").mkdir()
    stop = threading.Event()
    arrivals = Arrivals(client, "incoming", link, steady_s=0)
    watcher = threading.Thread(target=watch, args=(arrivals, stop), kwargs={"every_s": 3600})
    watcher.start()
    try:
        number = 0

        def arrived() -> bool:
            nonlocal number  # the watch may not listen yet
            write_subband(incoming / "a.ms", number % 4, 9)
            write_subband(incoming, number % 4)
            number += 1
            time.sleep(0.2)
            return len(client.list_subbands("incoming")) > 0

        until(arrived)
    finally:
        stop.set()
        watcher.join()
    assert {os.path.dirname(each["path"]) for each in client.list_subbands("incoming")} == {str(link)}
