"""Names and groups of sub-bands: the rules, and that the database keeps the very same ones."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof import amount, seed_of

from absurd.tasks.visibility.subband_groups import TAKING, Group, Groups, Policy, Subband
from absurd.tasks.visibility.subband_name import SubbandName, parse_name

NIGHT = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)
BEGIN = datetime.now(UTC).replace(microsecond=0)
"""Of the clock that the test sets: ids of tasks have the machine's, and a day apart they are refused."""
TILE_S = 309.24
POLICY = Policy(subbands=3, min_subbands=2, timeout_s=100)


@given(st.integers(-30_000_000_000, 250_000_000_000), st.integers(0, 9999), st.sampled_from([".hdf5", ".uvh5"]))
def test_names_are_read_as_they_are_written(seconds: int, number: int, suffix: str) -> None:
    """The text of a name tells the same name, wherever it lies."""
    name = SubbandName(NIGHT + timedelta(seconds=seconds), number, suffix)

    assert parse_name(f"/some/where/{name}") == name


@pytest.mark.parametrize(
    "name",
    [
        ".2026-11-29T12:00:00_sb00.hdf5.x1y2",
        ".2026-11-29T12:00:00_sb00.hdf5",
        "2026-11-29T12:00:00_sb00.hdf5.part",
        "2026-11-29T12:00:00_sb0.hdf5",
        "2026-11-29T12:00:00.hdf5",
        "2026-11-29 12:00:00_sb00.hdf5",
        "2026-02-30T12:00:00_sb00.hdf5",
        "2026-11-29T25:00:00_sb00.hdf5",
        "٢٠٢٦-11-29T12:00:00_sb00.hdf5",
        "2026-11-29T12:00:00_sb00.hdf5\n",
        "beam.hdf5",
    ],
)
def test_other_names_are_none(name: str) -> None:
    """Files under temporary names, other files and impossible times are left alone."""
    assert parse_name(name) is None


@given(st.data())
def test_the_order_in_which_files_come_is_of_no_account(data: st.DataObject) -> None:
    """Stamps up to a minute off either way: each recording is one group, and no file is in two."""
    tiles = data.draw(st.integers(1, 5))
    jitter = st.integers(-60, 60)
    files = [
        Subband(f"/{tile}/{number}", number, NIGHT + timedelta(seconds=tile * TILE_S + data.draw(jitter)), 16.1)
        for tile in range(tiles)
        for number in range(3)
        if number == 0 or data.draw(st.booleans())
    ]
    groups = Groups(POLICY)

    for file in data.draw(st.permutations(files)):
        assert groups.add(file)[1] == "grouped"

    found = {frozenset(each.path for each in group.grouped.values()) for group in groups.groups}
    assert found == {
        frozenset(each.path for each in files if each.path.startswith(f"/{tile}/")) for tile in range(tiles)
    }


@pytest.fixture
def session(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A database whose clock the test sets, with an intake of the policy."""
    connection.execute("create table _clock as select %s::timestamptz as now", [BEGIN])
    connection.execute(
        "create or replace function clock_time() returns timestamptz language sql stable set search_path from current"
        " as 'select now from _clock'"
    )
    connection.execute(
        "select set_intake('incoming', %s)", [json.dumps({"subbands": 3, "min_subbands": 2, "timeout": 100})]
    )
    return connection


@pytest.mark.parametrize("run", range(amount(6, 200)))
def test_the_database_keeps_the_same_rules(session: psycopg.Connection[Any], run: int) -> None:
    """Whatever arrives, changes, goes, waits and is converted, in any order: both tell the same after each step."""
    chance = random.Random(seed_of(f"rules {run}"))
    play = _Play(session, chance)

    for _ in range(80):
        play.step()
        assert play.of_database() == play.of_rules(), play.told


class Rules(Groups):
    """What the database does beside taking files in: forgets, settles and asks for conversions."""

    def forget(self, path: str) -> bool:
        """Drop a file that is gone; not one that a conversion has begun with, or that was late for one."""
        known = self.find(path)
        if known is None or (known[0].state not in TAKING and known[1] != "duplicate"):
            return False
        self._take_out(known[0], path)
        return True

    def settle(self, now_s: float, waiting: Iterable[datetime] = ()) -> list[Group]:
        """The groups that have waited long enough: partial or failed now.  Those of which files are `waiting` go on."""
        stamps = list(waiting)
        settled = []
        for group in self.groups:
            if group.state == "collecting" and group.due_s <= now_s:
                first, last = group.stamps
                if any(last - self.policy.span <= each <= first + self.policy.span for each in stamps):
                    continue
                if len(group.grouped) < self.policy.min_subbands:
                    group.state, group.due_s = "failed", math.inf
                else:
                    self._ask(group, "partial")
                settled.append(group)
        return settled

    def ask(self, group: Group) -> None:
        """Ask for a conversion of a group as it is now, with what came late; a no-op while one is to come."""
        if group.state in ("complete", "partial"):
            return
        group.grouped |= group.late
        group.late.clear()
        group.measure()
        self._ask(group, "partial" if group.missing else "complete")


class _Play:
    """The same steps on the database and on the rules."""

    def __init__(self, session: psycopg.Connection[Any], chance: random.Random) -> None:
        self.session = session
        self.chance = chance
        self.groups = Rules(POLICY)
        self.now_s = 0.0
        self.version = 0
        self.unreadable: set[str] = set()
        self.told: list[str] = []
        """Steps so far, for a failure."""

    def call(self, sql: str, *args: Any) -> Any:
        row = self.session.execute(f"select {sql}", args).fetchone()
        return row[0] if row else None

    def step(self) -> None:
        weights = {self.arrive: 12, self.go: 3, self.time: 3, self.begin: 3, self.end: 2, self.ask: 1}
        (kind,) = self.chance.choices(list(weights), list(weights.values()))
        kind()

    def arrive(self) -> None:
        tile, number = self.chance.randrange(3), self.chance.choice([0, 0, 1, 1, 2, 2, 3])
        begins = NIGHT + timedelta(seconds=tile * TILE_S + self.chance.choice([0, 0, 0, 0, 90, 3]))
        stamp = NIGHT + timedelta(seconds=tile * TILE_S + self.chance.randint(-60, 60))
        file = Subband(
            f"/{self.chance.randrange(2)}/{tile}_{number}",
            number,
            stamp.replace(microsecond=0),
            self.chance.choice([16.1, 16.1, 16.15, 33.0, None]),
            self.chance.choice(["XX", "XX", "XX,YY"]),
            self.chance.choice([begins, begins, begins, None]),
            12.9,
        )
        self.version += 1
        self.told.append(f"arrive {file}")
        group, _ = self.groups.add(file, self.now_s)
        (self.unreadable.add if group is None else self.unreadable.discard)(file.path)
        document = {
            "path": file.path,
            "version": str(self.version),
            "state": "whole",
            "number": number,
            "stamp": file.stamp.isoformat(),
            "declination_deg": file.declination_deg,
            "content": file.content,
            "begins_at": file.begins_at and file.begins_at.isoformat(),
            "integration_s": 12.9,
        }
        self.call("count(*) from record_subbands('incoming', %s)", json.dumps([document]))

    def go(self) -> None:
        paths = sorted({each[0] for each in self.files()} | self.unreadable)
        if paths:
            path = self.chance.choice(paths)
            self.told.append(f"go {path}")
            gone = self.groups.forget(path) or path in self.unreadable
            self.unreadable.discard(path)
            assert self.call("forget_subbands('incoming', %s)", [path]) == gone

    def time(self) -> None:
        self.now_s += self.chance.choice([1, 50, 100])
        self.session.execute("update _clock set now = %s::timestamptz + make_interval(secs => %s)", [BEGIN, self.now_s])
        self.told.append(f"time {self.now_s}")
        settled = self.groups.settle(self.now_s)
        assert self.call("count(*) from settle_subband_groups('incoming')") == len(settled)

    def some(self, *states: str) -> tuple[Group, int] | None:
        """A group in one of these states, and its number in the database, which one of its files tells."""
        groups = [each for each in self.groups.groups if each.state in states and (each.grouped or each.late)]
        if not groups:
            return None
        group = self.chance.choice(groups)
        file = next(iter((group.grouped | group.late).values()))
        self.told.append(f"{states} {file.path}")
        return group, self.call("group_id from subband where path = %s", file.path)

    def begin(self) -> None:
        if (found := self.some("complete", "partial")) is not None:
            group, number = found
            assert self.call(
                "begin_conversion(%s, %s, task_id) from subband_group where id = %s", number, group.round, number
            )
            group.state = "converting"

    def end(self) -> None:
        if (found := self.some("converting")) is not None:
            group, number = found
            assert self.call("end_conversion(%s, %s, '{}')", number, group.round)
            group.state = "converted"

    def ask(self) -> None:
        if (found := self.some("collecting", "complete", "partial", "converted", "failed")) is not None:
            group, number = found
            self.call("convert_subband_group(%s)", number)
            self.groups.ask(group)

    def files(self) -> list[tuple[str, str, int]]:
        """Of the rules: path, state, and which group by its number among them."""
        return [(each.path, state, at) for at, group in enumerate(self.groups.groups) for state, each in group.files]

    def of_rules(self) -> tuple[Any, ...]:
        parts: dict[int, list[tuple[str, str]]] = {}
        for path, state, at in self.files():
            parts.setdefault(at, []).append((path, state))
        return (
            sorted(
                (self.groups.groups[at].state, self.groups.groups[at].round, sorted(files))
                for at, files in parts.items()
            ),
            sorted(self.unreadable),
            sum(each.round for each in self.groups.groups),
        )

    def of_database(self) -> tuple[Any, ...]:
        rows = self.session.execute(
            "select g.state, g.round, array_agg(row_to_json(row(s.path, s.state)) order by s.path)"
            " from subband_group g join subband s on s.group_id = g.id group by g.id"
        ).fetchall()
        unreadable = self.session.execute(
            "select path from subband where state = 'unreadable' order by path"
        ).fetchall()
        return (
            sorted(
                (state, number, sorted((each["f1"], each["f2"]) for each in files)) for state, number, files in rows
            ),
            [path for (path,) in unreadable],
            self.call("count(*) from task"),
        )
