"""Sub-bands in SQL: each file and group ends in the state that the rules say, whoever records what in which order."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from proof import amount, seed_of
from sql_queue import Queue

NIGHT = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)
TILE_S = 309.24
"""From one recording to the next."""
INTEGRATION_S = 12.884902


def file(number: int, tile: int = 0, *, jitter_s: float = 0.0, folder: str = "/in", **facts: Any) -> dict[str, Any]:
    """A whole file of a recording."""
    begins = NIGHT + timedelta(seconds=tile * TILE_S)
    stamp = (begins + timedelta(seconds=jitter_s)).replace(microsecond=0)
    return {
        "path": f"{folder}/{stamp:%Y-%m-%dT%H:%M:%S}_sb{number:02d}.hdf5",
        "version": "1",
        "state": "whole",
        "number": number,
        "stamp": stamp.isoformat(),
        "declination_deg": 16.1,
        "content": "XX,YY",
        "begins_at": begins.isoformat(),
        "integration_s": INTEGRATION_S,
    } | facts


def intake(queue: Queue, **policy: Any) -> None:
    queue.call("set_intake('incoming', %s)", json.dumps({"subbands": 4, "min_subbands": 3, "timeout": 300} | policy))


def record(queue: Queue, *files: dict[str, Any]) -> list[str]:
    """What became of each file, in the order of their paths."""
    rows = queue.connection.execute("select state from record_subbands('incoming', %s)", [json.dumps(files)]).fetchall()
    return [str(state) for (state,) in rows]


def settle(queue: Queue) -> list[str]:
    rows = queue.connection.execute("select state from settle_subband_groups('incoming')").fetchall()
    return [str(state) for (state,) in rows]


def groups(queue: Queue) -> list[dict[str, Any]]:
    """All groups, the earliest first."""
    rows = queue.connection.execute("select list_subband_groups('incoming', null, null, 10000)").fetchall()
    return [document for (document,) in reversed(rows)]


def group(queue: Queue) -> dict[str, Any]:
    (found,) = groups(queue)
    return found


def tasks(queue: Queue) -> list[dict[str, Any]]:
    """Params of the conversions that were spawned, in order."""
    rows = queue.connection.execute(
        "select params from task where executor_id = (select id from executor where name = 'visibility.convert_group')"
        " order by id"
    ).fetchall()
    return [params for (params,) in rows]


def begin(queue: Queue, found: dict[str, Any]) -> Any:
    return queue.call("begin_conversion(%s, %s, %s)", found["id"], found["round"], found["task_id"])


def test_the_file_that_completes_a_group_spawns_its_conversion_once(queue: Queue) -> None:
    """However often the files are recorded, in whatever order and parts, there is one group and one task."""
    intake(queue, params={"out": "/ms"}, options={"priority": 3, "tags": ["night"]})
    order = [2, 0, 3, 1]

    for number in order:
        assert record(queue, file(number)) == ["grouped"]
        assert (group(queue)["state"], len(tasks(queue))) == (("complete", 1) if number == 1 else ("collecting", 0))
    assert record(queue, *map(file, order)) == ["grouped"] * 4

    found = group(queue)
    assert (found["present"], found["missing"], found["round"]) == ([0, 1, 2, 3], [], 1)
    assert tasks(queue) == [{"out": "/ms", "group": found["id"], "round": 1}]
    task = queue.document(found["task_id"])
    assert (task["priority"], task["tags"], task["key"]) == (3, ["night"], f"convert_group:{found['id']}:1")


@pytest.mark.parametrize("seed", range(amount(4, 100)))
def test_jittered_stamps_in_any_order_give_the_recordings(queue: Queue, seed: int) -> None:
    """With stamps that are up to a minute off either way, each recording is one group of all its sub-bands."""
    chance = random.Random(seed_of(f"jitter {seed}"))
    intake(queue)
    files = [
        file(number, tile, jitter_s=chance.choice([-60, 60, chance.uniform(-60, 60)]), declination_deg=16.1 + tile % 2)
        for tile in range(8)
        for number in range(4)
    ]
    chance.shuffle(files)

    while files:
        some, files = files[: (size := chance.randint(1, 6))], files[size:]
        assert set(record(queue, *some)) == {"grouped"}

    assert [(each["state"], each["present"]) for each in groups(queue)] == [("complete", [0, 1, 2, 3])] * 8
    assert len(tasks(queue)) == 8


def test_other_declinations_and_contents_are_other_groups(queue: Queue) -> None:
    """At one time there may be recordings of several declinations or kinds; what tells no declination is one more."""
    intake(queue)
    kinds: list[dict[str, Any]] = [
        {},
        {"declination_deg": 54.6},
        {"declination_deg": None},
        {"content": "XX"},
        {"content": None},
    ]

    for n, kind in enumerate(kinds):
        record(queue, *(file(number, folder=f"/{n}", **kind) for number in range(4)))
    record(queue, file(0, folder="/near", declination_deg=16.15))

    assert len(groups(queue)) == len(tasks(queue)) == 5
    assert [each["duplicates"] for each in groups(queue)] == [1, 0, 0, 0, 0]
    names = [begin(queue, each)["name"] for each in groups(queue)]
    assert names[0] == "2026-11-29T12:00:00"
    assert len(set(names)) == 5


def test_a_file_that_comes_twice_is_a_duplicate(queue: Queue) -> None:
    """Under another path or a stamp a little off it is told as such, with the file that counts, and changes nothing."""
    intake(queue)
    record(queue, *(file(number) for number in (0, 1, 2)))

    assert record(queue, file(1, folder="/copy"), file(2, jitter_s=7)) == ["duplicate", "duplicate"]
    assert [each["state"] for each in groups(queue)] == ["collecting"]
    reason = queue.call("reason from list_subbands('incoming', '{duplicate}')")
    assert reason == "sub-band 1 of its group is /in/2026-11-29T12:00:00_sb01.hdf5"

    assert queue.call("forget_subbands('incoming', %s)", [file(1)["path"]]) == 1
    assert group(queue)["present"] == [0, 1, 2]
    assert group(queue)["duplicates"] == 1


def test_an_observation_that_is_started_anew_is_another_group(queue: Queue) -> None:
    """Where a sub-band is there and begins at another time, its file belongs to a recording of its own."""
    intake(queue)
    anew = (NIGHT + timedelta(seconds=100)).isoformat()
    record(queue, file(0), file(1))

    later = [file(number, jitter_s=100, begins_at=anew) for number in (0, 1, 2, 3)]
    assert set(record(queue, *later)) == {"grouped"}

    assert [each["present"] for each in groups(queue)] == [[0, 1], [0, 1, 2, 3]]


@pytest.mark.parametrize(("there", "state"), [(3, "partial"), (2, "failed")])
def test_time_out(queue: Queue, there: int, state: str) -> None:
    """Counted from the last file a group waits; then it is converted as it is, or fails where too little is there."""
    intake(queue)
    record(queue, *map(file, range(there)))
    queue.move_clock("299 s")
    assert settle(queue) == []
    record(queue, file(0, folder="/copy"))  # a duplicate is nothing to wait on for
    queue.move_clock("301 s")

    assert settle(queue) == [state]
    assert settle(queue) == []

    found = group(queue)
    assert (found["state"], found["missing"]) == (state, list(range(there, 4)))
    assert len(tasks(queue)) == (state == "partial")
    if state == "failed":
        assert found["reason"] == "2 of 4 sub-bands came, and no more for 300 s; at least 3 are converted"


def test_a_group_waits_for_its_files_that_are_being_written(queue: Queue) -> None:
    """As long as they grow; one that stays as it is, is unreadable when its time is out, and the group goes on."""
    intake(queue)
    record(queue, *map(file, range(3)))
    for moment in ("290 s", "580 s"):
        queue.move_clock(moment)
        record(queue, file(3, state="waiting", version=moment, reason="truncated"))
        assert settle(queue) == []
    queue.move_clock("881 s")

    assert settle(queue) == ["partial"]
    state, reason = queue.connection.execute(
        "select state, reason from list_subbands('incoming', '{unreadable}')"
    ).fetchall()[0]
    assert (state, reason) == ("unreadable", "not whole for 300 s: truncated")
    assert record(queue, file(3, state="waiting", version="580 s", reason="truncated")) == ["unreadable"]
    assert record(queue, file(3, version="2")) == ["grouped"]
    assert group(queue)["state"] == "complete"  # its conversion has not begun
    assert len(tasks(queue)) == 1


def test_what_comes_after_the_conversion_has_begun_is_late(queue: Queue) -> None:
    """It is told, and another conversion takes it in when it is asked for; the first one changes nothing then."""
    intake(queue)
    record(queue, *map(file, range(3)))
    queue.move_clock("301 s")
    settle(queue)
    first = group(queue)
    held = begin(queue, first)
    assert [each["number"] for each in held["files"]] == [0, 1, 2]

    assert record(queue, file(3)) == ["late"]
    assert record(queue, file(3, folder="/copy"), file(0, folder="/copy")) == ["duplicate", "duplicate"]
    assert record(queue, file(0, version="2")) == ["grouped"]
    assert (group(queue)["present"], group(queue)["changed"]) == ([0, 1, 2], [0])
    again = begin(queue, first)  # another attempt is of the same files, as they are now
    assert [each["number"] for each in again["files"] if each["state"] == "grouped"] == [0, 1, 2]
    assert again["changed"] == []
    assert record(queue, file(1, version="2")) == ["grouped"]
    with pytest.raises(psycopg.Error, match="is being converted by task"):
        queue.call("convert_subband_group(%s)", first["id"])
    assert queue.call("end_conversion(%s, 1, %s)", first["id"], '{"path": "/ms"}') is True
    assert (group(queue)["state"], group(queue)["late"], group(queue)["changed"]) == ("converted", [3], [1])

    task = queue.call("convert_subband_group(%s)", first["id"])
    assert queue.call("convert_subband_group(%s)", first["id"]) == task
    again = group(queue)
    assert (again["state"], again["round"], again["late"], str(task)) == ("complete", 2, [], again["task_id"])
    assert again["changed"] == []
    assert begin(queue, first) is None
    assert queue.call("end_conversion(%s, 1, '{}')", first["id"]) is False
    assert begin(queue, again)["name"] == held["name"]


def test_a_conversion_that_fails_fails_its_group_with_the_reason(queue: Queue) -> None:
    """Told at once to who looks, settled by the next look at the folder; a task that is tried again goes on with it."""
    intake(queue)
    record(queue, *map(file, range(4)))
    lease, (task,), _ = queue.claim()
    begin(queue, group(queue))
    queue.fail(lease, task, None)

    assert group(queue)["state"] == "failed"
    assert "it broke" in group(queue)["reason"]
    assert settle(queue) == ["failed"]
    assert record(queue, file(0, folder="/copy")) == ["duplicate"]
    queue.call("retry_task(%s)", task)
    assert begin(queue, group(queue))["state"] == "converting"
    assert settle(queue) == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_conversion_that_is_cancelled_or_gone(queue: Queue, gone: bool) -> None:
    """Its group has failed, and may be converted by another one."""
    intake(queue)
    record(queue, *map(file, range(4)))
    task = group(queue)["task_id"]
    queue.call("cancel_task(%s, 'no room')", task)
    if gone:
        queue.move_clock("1 hour")  # ids of spawned tasks are of the real time, and must be of these days
        queue.call("count(*) from prune_queue('default', 0)")

    assert settle(queue) == ["failed"]
    assert ("is gone" if gone else "was cancelled: no room") in group(queue)["reason"]
    assert str(queue.call("convert_subband_group(%s)", group(queue)["id"])) != task
    assert group(queue)["state"] == "complete"


def test_files_that_change_or_go_before_the_conversion(queue: Queue) -> None:
    """They leave their group, which is none without any; once it has begun they are kept as what it was made of."""
    intake(queue)
    record(queue, file(0))
    assert record(queue, file(0, version="2", declination_deg=33.0)) == ["grouped"]
    assert [each["declination_deg"] for each in groups(queue)] == [33.0]
    assert queue.call("forget_subbands('incoming', %s)", [file(0)["path"], "/unknown"]) == 1
    assert groups(queue) == []

    record(queue, *map(file, range(4)))
    assert queue.call("forget_subbands('incoming', %s)", [file(0)["path"]]) == 1
    assert (group(queue)["state"], group(queue)["missing"]) == ("partial", [0])
    assert record(queue, file(0)) == ["grouped"]
    assert (group(queue)["state"], len(tasks(queue))) == ("complete", 1)
    begin(queue, group(queue))
    assert queue.call("forget_subbands('incoming', %s)", [file(0)["path"]]) == 0


def test_refusals(queue: Queue) -> None:
    """What cannot be meant is said, and nothing of the call is kept."""
    intake(queue)
    for call, code in (
        (("set_intake('-', '{}')",), "AB007"),
        (("set_intake('incoming', '{\"subband\": 3}')",), "AB001"),
        (("set_intake('incoming', '{\"min_subbands\": 5}')",), "AB001"),
        (('set_intake(\'incoming\', \'{"options": {"key": "k"}}\')',), "AB001"),
        (("count(*) from record_subbands('none', '[]')",), "AB015"),
        (("count(*) from record_subbands('incoming', '[{\"path\": \"/a\"}]')",), "AB001"),
        (("count(*) from record_subbands('incoming', %s)", json.dumps([file(0), file(0)])), "AB001"),
        (
            ("count(*) from record_subbands('incoming', %s)", json.dumps([file(0), file(1, declination_deg=91)])),
            "AB001",
        ),
        (("convert_subband_group(17)",), "AB015"),
        (("begin_conversion(17, 1, null)",), "AB015"),
        (("get_subband_group(17)",), "AB015"),
        (("count(*) from list_subband_groups('none')",), "AB015"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            queue.call(*call)
        assert caught.value.sqlstate == code, call
    assert groups(queue) == []
    assert record(queue, file(4)) == ["unreadable"]
    assert queue.call("set_intake('incoming', '{\"subbands\": 8}')") == "changed"
    assert queue.call("min_subbands from list_intakes()") == 6
    assert queue.call("set_intake('incoming', '{\"subbands\": 8}')") == "unchanged"
    assert queue.call("remove_intake('incoming')") is True
    assert queue.call("remove_intake('incoming')") is False
    assert queue.call("count(*) from subband") == 0


def test_watchers_that_race_for_the_same_files_make_each_group_once(queue: Queue, database_url: str) -> None:
    """Several sessions record all files in orders of their own, while another settles: no group or task comes twice."""
    chance = random.Random(seed_of("racing watchers"))
    intake(queue, timeout=3600)
    tiles = amount(12, 100)
    files = [file(n, tile, jitter_s=chance.uniform(-60, 60)) for tile in range(tiles) for n in range(4)]

    def watch(seed: int) -> None:
        order = random.Random(seed).sample(files, len(files))
        with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as session:
            for at in range(0, len(order), 5):
                session.execute("select record_subbands('incoming', %s)", [json.dumps(order[at : at + 5])])
                session.execute("select settle_subband_groups('incoming')")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(watch, seed) for seed in range(4)]:
            done.result()

    assert [each["state"] for each in groups(queue)] == ["complete"] * tiles
    assert _sorted(tasks(queue)) == _sorted({"group": each["id"], "round": 1} for each in groups(queue))
    assert queue.call("count(*) from subband where state <> 'grouped'") == 0


def _sorted(params: Iterable[dict[str, Any]]) -> list[tuple[int, int]]:
    return sorted((each["group"], each["round"]) for each in params)
