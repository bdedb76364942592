"""``absurd pipeline plan`` and ``convert``: what is told of sub-bands that are recorded, and of those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from subband_files import name_of, write_subband

from absurd import SyncAbsurdClient
from absurd.tasks.visibility.arrivals import Arrivals

Run = Callable[..., Any]


@pytest.fixture
def client(database_url: str) -> Iterator[SyncAbsurdClient]:
    with SyncAbsurdClient(database_url) as opened:
        yield opened


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    folder = tmp_path / "incoming"
    folder.mkdir()
    return folder


def test_plan_before_anything_is_recorded(run: Run, incoming: Path) -> None:
    """Files are grouped as they would be, with what is missing; those that would be in no group are told why."""
    for number in range(16):
        write_subband(incoming, number, jitter_s=number)
    for number in range(13):
        write_subband(incoming, number, tile=1, declination_deg=54.6)
    write_subband(incoming, 0, tile=2)
    write_subband(incoming, 16)
    (incoming / name_of(1, 2)).write_bytes(b"half")
    (incoming / "notes.txt").write_text("")

    ended = run("pipeline", "plan", str(incoming))

    assert ended.code == 0
    lines = [line.split() for line in ended.out.splitlines()]
    assert f"{incoming}: 32 files not recorded yet; 1 file with other names" in ended.out
    new = [" ".join(line[1:]) for line in lines if line[0] == "new"]
    assert new == [
        "2026-11-29T12:00:00 +16.10 16/16 would be complete, and converted",
        "2026-11-29T12:05:09 +54.60 13/16 would wait 300 s for sb13-sb15, and then be converted as it is",
        "2026-11-29T12:10:18 +16.10 1/16 would wait 300 s for sb01-sb15, and then fail: "
        "at least 12 sub-bands are converted",
    ]
    assert f"{name_of(16)}: it is sub-band 16, and there are 16, counted from 0" in ended.out
    assert f"{name_of(1, 2)}: " in ended.out
    missing = run("pipeline", "plan")
    assert (missing.code != 0, "name the FOLDER" in missing.err) == (True, True)


def test_plan_of_what_is_recorded(
    run: Run, incoming: Path, client: SyncAbsurdClient, connection: psycopg.Connection[Any]
) -> None:
    """Each state says what comes next; a file that would be late says so; nothing is changed by looking."""
    client.set_intake("incoming", subbands=4, min_subbands=3, timeout=300, params={"out": "/ms"})
    arrivals = Arrivals(client, "incoming", incoming, steady_s=0)
    for tile, numbers in ((0, (0, 1, 2, 3)), (1, (0, 1, 2)), (2, (0, 1, 2))):
        for number in numbers:
            write_subband(incoming, number, tile)
    arrivals.look()
    late, waiting = (each["id"] for each in client.list_subband_groups("incoming")[:2])
    client.convert_subband_group(late)
    client.begin_conversion(late, 1, client.get_subband_group(late)["task_id"])
    client.end_conversion(late, 1, {"path": "/ms/it.ms"})
    write_subband(incoming, 3, 2)
    (incoming / name_of(1, 2)).unlink()
    write_subband(incoming, 1, 2, declination_deg=16.11)

    found = run("pipeline", "plan", str(incoming), "--json").document

    told = {each["id"]: (each["state"], each["next"]) for each in found["groups"]}
    assert told[late] == ("converted", "/ms/it.ms without sb03")
    assert told[waiting][0] == "collecting"
    assert told[waiting][1].startswith("lacks sb03; in ")
    (foreseen,) = found["foreseen"]
    assert (foreseen["id"], foreseen["next"]) == (late, "sb03 would be late")
    arrivals.look()
    text = run("pipeline", "plan").out
    takes = f"`absurd pipeline convert {late}` takes that in"
    assert f"/ms/it.ms without sb03; sb03 came late: {takes}; sb01 changed since: {takes}" in text
    assert "late   the conversion of its group had begun" in text

    asked = run("pipeline", "convert", str(late), str(waiting))

    assert asked.code == 0
    assert [each["state"] for each in client.list_subband_groups("incoming")] == ["complete", "partial", "complete"]
    connection.execute("update subband_group set state = 'converting' where id = %s", [late])
    again = run("pipeline", "convert", str(late))
    assert (again.code != 0, "is being converted by task" in again.err) == (True, True)
    assert run("pipeline", "convert", "999", "--json").document["error"]["code"] == "recording_not_found"
