"""``visibility.ingest`` and ``visibility.convert_group``: from files in a folder to Measurement Sets, once each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from memory_port import MemoryPort
from single_run import fail, run, run_to_end
from subband_files import name_of, write_subband

from absurd import SyncAbsurdClient
from absurd.outcome import Cancelled
from absurd.tasks.visibility.arrivals import Arrivals
from absurd.tasks.visibility.intake import prepare


@pytest.fixture(autouse=True)
def here(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executors find the test's database."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)


def ingest(folder: Path, **params: Any) -> dict[str, Any]:
    result, _ = run("visibility.ingest", {"folder": str(folder), "steady_s": 0, "subbands": 4} | params)
    return result


def groups(client: SyncAbsurdClient) -> list[dict[str, Any]]:
    return list(reversed(client.list_subband_groups("incoming")))


def conversion(connection: psycopg.Connection[Any], number: int) -> dict[str, Any]:
    """Params of the latest conversion of a group."""
    row = connection.execute(
        "select params from task t join subband_group g on g.task_id = t.id where g.id = %s", [number]
    ).fetchone()
    assert row is not None
    params: dict[str, Any] = row[0]
    return params


def test_a_folder_is_ingested_each_minute_and_spawns_each_conversion_once(
    client: SyncAbsurdClient, incoming: Path, connection: psycopg.Connection[Any]
) -> None:
    """What was found is counted by what became of it; known files are not read again."""
    for tile in range(2):
        for number in range(4):
            write_subband(incoming, number, tile, jitter_s=number * 15)
    (incoming / name_of(0, 5)).write_bytes(b"half")

    found = ingest(incoming, out=str(incoming.parent / "ms"))
    again = ingest(incoming)

    assert (found["files"], found["recorded"], found["settled"]) == (9, {"grouped": 8, "waiting": 1}, [])
    assert again["recorded"] == {"waiting": 1}
    assert [each["state"] for each in groups(client)] == ["complete", "complete"]
    assert connection.execute("select count(*) from task").fetchone() == (2,)
    assert conversion(connection, groups(client)[0]["id"])["out"] == str(incoming.parent / "ms")
    assert fail("visibility.ingest", {"folder": str(incoming / "none"), "subbands": 4})["code"] == "visibility_data"


def test_a_group_becomes_a_measurement_set(
    client: SyncAbsurdClient, incoming: Path, connection: psycopg.Connection[Any], moved: Callable[[str], None]
) -> None:
    """A partial one with the missing channels flagged; once more on request with what came late, in the same place."""
    from absurd.tasks.visibility.measurement_set import read_measurement_set
    from absurd.tasks.visibility.measurement_set_files import size_and_checksum

    for number in (0, 1, 3):
        write_subband(incoming, number, jitter_s=-20)
    ingest(incoming, min_subbands=3)
    moved("301 s")
    assert [each["state"] for each in ingest(incoming)["settled"]] == ["partial"]
    (group,) = groups(client)
    params = conversion(connection, group["id"])

    made, _ = run("visibility.convert_group", params)

    path = incoming.parent / "measurement_sets" / "incoming" / "2026-11-29T11:59:40.ms"
    assert (made["path"], made["subbands"], made["missing"]) == (str(path), [0, 1, 3], [2])
    assert (made["bytes"], made["checksum"]) == size_and_checksum(path)
    flags = read_measurement_set(path).flags
    assert flags.shape[1] == 8
    assert [bool(flags[:, channel].all()) for channel in range(8)] == [False] * 2 + [True] * 2 + [False] * 4
    lost, _ = run("visibility.convert_group", params)  # an attempt whose answer was lost
    assert lost == made | {"is_new": False}
    write_subband(incoming, 2)
    assert ingest(incoming)["recorded"] == {"late": 1}
    client.convert_subband_group(group["id"])
    assert isinstance(run_to_end("visibility.convert_group", params, MemoryPort()), Cancelled)

    again, _ = run("visibility.convert_group", conversion(connection, group["id"]))

    assert (again["path"], again["missing"]) == (str(path), [])
    assert not read_measurement_set(path).flags.all(axis=(0, 2)).any()
    assert again["checksum"] != made["checksum"]
    assert groups(client)[0]["state"] == "converted"
    assert groups(client)[0]["product"].items() <= again.items()
    assert os.listdir(path.parent) == [path.name]


def test_sub_bands_that_do_not_belong_together_fail_with_the_reason(
    client: SyncAbsurdClient, incoming: Path, connection: psycopg.Connection[Any]
) -> None:
    """Their names say one recording and their times another: no product, and no other attempt."""
    for number in range(3):
        write_subband(incoming, number)
    write_subband(incoming, 3, tile=7).rename(incoming / name_of(3))
    ingest(incoming)
    (group,) = groups(client)

    error = fail("visibility.convert_group", conversion(connection, group["id"]))

    assert "time" in json.dumps(error)
    assert error["code"] == "rejected"
    assert not (incoming.parent / "measurement_sets" / "incoming").exists()


def test_a_file_that_is_away_for_a_moment(
    client: SyncAbsurdClient, incoming: Path, connection: psycopg.Connection[Any]
) -> None:
    """Fails the attempt, and not the task: the next one has it, and those that changed meanwhile too."""
    for number in range(4):
        write_subband(incoming, number)
    ingest(incoming)
    (group,) = groups(client)
    params = conversion(connection, group["id"])
    away = incoming / name_of(2)
    away.rename(incoming.parent / "away")

    assert fail("visibility.convert_group", params)["code"] == "visibility_unreadable"

    (incoming.parent / "away").rename(away)
    os.utime(incoming / name_of(1))
    assert ingest(incoming)["recorded"] == {"grouped": 1}
    assert groups(client)[0]["changed"] == [1]
    assert run("visibility.convert_group", params)[0]["subbands"] == [0, 1, 2, 3]
    assert groups(client)[0]["changed"] == []


def test_files_that_are_lost_do_not_hold_up_the_others(
    client: SyncAbsurdClient, incoming: Path, connection: psycopg.Connection[Any]
) -> None:
    """One that was cut off since it was recorded may be whole soon; asked for again, a group goes without lost ones.

    A Measurement Set that has more sub-bands than are left stays.
    """
    from absurd.tasks.visibility.measurement_set_files import size_and_checksum
    from absurd.tasks.visibility.plan import what_next

    for number in range(4):
        write_subband(incoming, number)
    ingest(incoming)
    (group,) = groups(client)
    os.truncate(incoming / name_of(1), 3000)
    error = fail("visibility.convert_group", conversion(connection, group["id"]))
    assert (error["code"], "have changed since" in error["message"]) == ("visibility_unreadable", True)
    (incoming / name_of(2)).unlink()
    connection.execute("update subband_group set state = 'failed'")
    client.convert_subband_group(group["id"])

    made, _ = run("visibility.convert_group", conversion(connection, group["id"]))

    assert (made["subbands"], made["missing"]) == ([0, 3], [1, 2])
    assert [Path(each).name for each in made["lost"]] == [name_of(1), name_of(2)]
    (group,) = groups(client)
    assert f"{made['path']} without sb01-sb02" in what_next(group, datetime.now(UTC), 3)
    (incoming / name_of(3)).unlink()
    client.convert_subband_group(group["id"])
    assert "sb03.hdf5 is not there" in fail("visibility.convert_group", conversion(connection, group["id"]))["message"]
    assert size_and_checksum(made["path"])[1] == made["checksum"]


def test_ingest_after_a_pause_reads_before_time_is_out(
    client: SyncAbsurdClient, incoming: Path, moved: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that had only just come when the last one ended are read before their group is given up, by the next."""
    for number in range(2):
        write_subband(incoming, number)
    ingest(incoming)
    for number in (2, 3):
        write_subband(incoming, number)
    Arrivals(client, "incoming", incoming).look()
    moved("1 hour")

    with monkeypatch.context() as context:
        context.setattr("absurd.tasks.visibility.executors.LOOKS", 0)  # it ends before they are read
        assert ingest(incoming, steady_s=60)["settled"] == []
    assert ingest(incoming, steady_s=0.05)["settled"] == []

    assert [each["state"] for each in groups(client)] == ["complete"]


def test_a_file_by_itself(incoming: Path) -> None:
    """Is converted without a group; one that is not there, or holds something else, is told by its name."""
    from absurd.tasks.visibility.measurement_set import read_measurement_set

    source, made = write_subband(incoming, 3), incoming.parent / "made.ms"

    told, _ = run("visibility.convert", {"source": str(source), "ms": str(made)})

    assert (told["rows"], told["channels"], told["correlations"], told["flagged"]) == (12, 2, 2, 0.0)
    assert told["fields"] == [each.name for each in read_measurement_set(made).phase_centres]
    for name, code in (("none.uvfits", "visibility_unreadable"), ("text.uvfits", "visibility_data")):
        (incoming / "text.uvfits").write_text("nothing")
        error = fail("visibility.convert", {"source": str(incoming / name), "ms": str(made)})
        assert (error["code"], name in error["message"]) == (code, True)
    assert read_measurement_set(made).data.shape == (12, 2, 2)


def test_products_of_two_intakes_do_not_meet(client: SyncAbsurdClient, incoming: Path) -> None:
    """Of folders side by side, with recordings that began in the same second."""
    made = {prepare(client, name, str(incoming), {}, {}) for name in ("one", "two")}

    assert made == {"created"}
    folders = [each["params"]["out"] for each in client.list_intakes() if each["name"] in {"one", "two"}]
    assert folders == [str(incoming.parent / "measurement_sets" / name) for name in ("one", "two")]
