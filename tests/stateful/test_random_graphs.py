"""Random graphs worked on by many sessions at once: every node ends, none starts too early, the counts agree."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from proof import amount, seed_of

Connection = psycopg.Connection[Any]

CONDITIONS = ("all_success", "all_success", "all_done", "any_success", "any_failed", "quorum(1)")
REPEATED = frozenset({"AB004"})
"""What a session that meddles at random must expect: the task has moved, or has not ended."""


class Party:
    """Sessions in threads: spawners, workers, and those who cancel and retry what they please."""

    def __init__(self, url: str, seed: int, *, graphs: int) -> None:
        self.url = url
        self.seed = seed
        self.graphs = graphs
        self.tasks: list[UUID] = []
        self.workflows: list[UUID] = []
        self.errors: Counter[str] = Counter()
        self.early: list[str] = []
        self.offspring = self.lost = 0
        self.spawning = True
        self._lock = threading.Lock()

    def connect(self) -> Connection:
        return psycopg.connect(self.url, autocommit=True, options="-c search_path=absurd,public")

    def run(self, *roles: Callable[[random.Random], None]) -> None:
        threads = [
            threading.Thread(target=self._play, args=(role, random.Random(self.seed * 1000 + n)))
            for n, role in enumerate(roles)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(amount(180, 3600))
            assert not thread.is_alive(), "a session hangs"
        assert not self.errors, self.errors

    def _play(self, role: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            role(chance)
        except Exception as error:
            self.note(f"{role.__name__} died: {type(error).__name__}: {error}")
            raise

    def note(self, error: str) -> None:
        with self._lock:
            self.errors[error] += 1

    def call(self, connection: Connection, sql: str, *args: Any) -> Any:
        row = connection.execute(f"select {sql}", args).fetchone()
        return row[0] if row else None

    def try_call(self, connection: Connection, sql: str, *args: Any) -> None:
        try:
            self.call(connection, sql, *args)
        except psycopg.Error as error:
            if error.sqlstate not in REPEATED:
                self.note(f"{error.sqlstate} {sql}: {str(error).splitlines()[0]}")

    # Roles --------------------------------------------------------------------------------------

    def spawner(self, chance: random.Random) -> None:
        """Spawn graphs whole, some of whose nodes wait for tasks of earlier graphs too."""
        with self.connect() as connection:
            for _ in range(self.graphs):
                workflow = self.call(connection, "new_task_id()")
                ids = sorted(self.call(connection, "new_task_id()") for _ in range(chance.randint(1, 15)))
                options = []
                for n in range(len(ids)):
                    option: dict[str, Any] = {"workflow": str(workflow)}
                    parents = set(chance.sample(ids[:n], min(n, chance.randint(0, 3))))
                    if self.tasks and chance.random() < 0.1:
                        parents.add(chance.choice(self.tasks))
                    if parents:
                        option |= {"depends_on": [str(each) for each in parents], "when": chance.choice(CONDITIONS)}
                    options.append(json.dumps(option))
                with connection.transaction():
                    connection.execute(
                        "insert into workflow (id, name, created_at, nodes, remaining)"
                        " values (%s, 'graph', clock_time(), 0, 0)",
                        [workflow],
                    )
                    connection.execute(
                        "select * from spawn_tasks(%s::uuid[], %s, %s, %s::jsonb[], %s::jsonb[])",
                        (ids, ["default"] * len(ids), ["node"] * len(ids), ["{}"] * len(ids), options),
                    )
                with self._lock:
                    self.workflows.append(workflow)
                    self.tasks.extend(ids)
        self.spawning = False

    def worker(self, chance: random.Random) -> None:
        """Claim batches and end their runs at random, until nothing is left; now and then be lost with a batch."""
        register = "register_worker('t', 'h', 1, '{default}', 1, '{}', '{}', 3000)"
        with self.connect() as connection:
            worker = self.call(connection, register)
            queue = self.call(connection, "id from queue where name = 'default'")
            lease = worker << 32
            while True:
                lease += 1
                row = connection.execute(
                    "select task_ids from claim_runs(%s, %s, %s, '{}', '{}')", (lease, queue, chance.choice((1, 5, 20)))
                ).fetchone()
                tasks = (row[0] if row else None) or []
                if not tasks:
                    if not self.spawning and self._nothing_left(connection):
                        return
                    self.try_call(connection, "sweep_late()")
                    time.sleep(0.002)
                    continue
                self.check(connection, tasks)
                lost = chance.random() < 0.03
                if lost:
                    self.try_call(connection, "give_up_worker(%s)", worker)
                self._report(connection, chance, lease, tasks)  # of one that was given up it changes nothing
                if lost:
                    with self._lock:
                        self.lost += len(tasks)
                    worker = self.call(connection, register)
                    lease = worker << 32

    def _report(self, connection: Connection, chance: random.Random, lease: int, tasks: list[UUID]) -> None:
        """Complete most runs, fail some, put some to wait for tasks; some of them have spawned."""
        chance.shuffle(tasks)
        kinds = [chance.choices(("complete", "fail", "wait"), (80, 20, 5))[0] for _ in tasks]
        done, bad, waiting = (
            [t for t, k in zip(tasks, kinds, strict=True) if k == kind] for kind in ("complete", "fail", "wait")
        )
        if done:
            spawns = [
                each for task in done if chance.random() < 0.03 for each in self._offspring(connection, chance, task)
            ]
            self.try_call(
                connection,
                "complete_runs(%s::bigint[], %s, %s::integer[], %s::text[], null, %s::jsonb)",
                [lease] * len(done), done, [0] * len(done), [None] * len(done), json.dumps(spawns) if spawns else None,
            )  # fmt: skip
        if bad:
            self.try_call(
                connection,
                "fail_runs(%s::bigint[], %s, %s::integer[], %s::text[], %s::float8[])",
                [lease] * len(bad), bad, [0] * len(bad), ["{}"] * len(bad),
                [None if chance.random() < 0.6 else 0.0 for _ in bad],
            )  # fmt: skip
        if waiting:
            spawns, awaits = [], []
            for task in waiting:
                made = self._offspring(connection, chance, task)
                spawns += made
                # A task of somebody else may come after this one: a circle, which ends it.
                others = [
                    str(other) for other in [chance.choice(self.tasks)] if other != task and chance.random() < 0.2
                ]
                awaits.append({"task": str(task), "on": [each["id"] for each in made] + others, "seconds": None})
            n = len(waiting)
            self.try_call(
                connection,
                "suspend_runs(%s::bigint[], %s, %s::integer[], %s::float8[], %s::text[], %s::text[], %s::jsonb,"
                " %s::jsonb)",
                [lease] * n, waiting, [0] * n, [None] * n, ["wait"] * n, [None] * n,
                json.dumps(spawns), json.dumps(awaits),
            )  # fmt: skip

    def _offspring(self, connection: Connection, chance: random.Random, task: UUID) -> list[dict[str, Any]]:
        """What a run of `task` spawns: a few tasks, the last of them after the others."""
        made: list[dict[str, Any]] = []
        for n in range(chance.randint(1, 3)):
            id_ = str(self.call(connection, "new_task_id()"))
            options = {"depends_on": [made[0]["id"]], "when": chance.choice(CONDITIONS)} if n == 2 else {}
            made.append(
                {"task": str(task), "id": id_, "queue": "default", "name": "node", "checkpoint": f"spawn {n} {id_}"}
                | ({"options": json.dumps(options)} if options else {})
            )
        with self._lock:
            self.offspring += len(made)
        return made

    def _nothing_left(self, connection: Connection) -> bool:
        return bool(
            self.call(
                connection,
                "not exists (select from ready) and not exists (select from lease) and not exists (select from late)",
            )
        )

    def check(self, connection: Connection, tasks: list[UUID]) -> None:
        """Overridden where no retry can make a parent unfinished again."""

    def canceller(self, chance: random.Random) -> None:
        """Cancel tasks, subtrees and workflows."""
        with self.connect() as connection:
            while self.spawning:
                if not self.tasks:
                    continue
                match chance.randrange(4):
                    case 0:
                        self.try_call(connection, "cancel_workflow(%s)", chance.choice(self.workflows[-20:]))
                    case kind:
                        self.try_call(
                            connection, "cancel_task(%s, 'm', %s)", chance.choice(self.tasks[-100:]), kind == 1
                        )
                time.sleep(0.004)

    def retrier(self, chance: random.Random) -> None:
        """Retry and rerun tasks and workflows."""
        with self.connect() as connection:
            while self.spawning:
                if not self.tasks:
                    continue
                match chance.randrange(4):
                    case 0:
                        self.try_call(connection, "retry_workflow(%s)", chance.choice(self.workflows[-40:]))
                    case 1:
                        self.try_call(connection, "rerun_task(%s)", chance.choice(self.tasks[-300:]))
                    case _:
                        self.try_call(connection, "retry_task(%s)", chance.choice(self.tasks[-300:]))
                time.sleep(0.002)


class StrictParty(Party):
    """Also sees that no claimed node stands before its condition."""

    def check(self, connection: Connection, tasks: list[UUID]) -> None:
        for task, condition, holds in connection.execute(
            "select t.id, t.condition,"
            " _verdict(_condition_name(t.condition), _quorum(t.condition, p.parents), p.open, p.succeeded, p.failed)"
            " from task t cross join lateral ("
            "   select count(*)::integer as parents,"
            "          count(*) filter (where s.state not in ('completed', 'failed', 'cancelled'))::integer as open,"
            "          count(*) filter (where s.state = 'completed')::integer as succeeded,"
            "          count(*) filter (where s.state = 'failed')::integer as failed"
            "   from get_states(t.depends_on) s) p"
            " where t.id = any (%s) and t.depends_on is not null",
            [tasks],
        ).fetchall():
            if not holds:
                self.early.append(f"{task} ({condition})")


def consistent(connection: Connection) -> None:
    """Nothing is left, each end was counted once, and each workflow has counted its nodes."""
    facts = connection.execute(
        "select (select count(*) from blocked), (select count(*) from ready), (select count(*) from timer),"
        " (select count(*) from lease), (select count(*) from late),"
        " (select count(*) from task where get_state(id) not in ('completed', 'failed', 'cancelled'))"
    ).fetchone()
    assert facts == (0, 0, 0, 0, 0, 0)
    counted = connection.execute("select completed, failed, cancelled from get_queue_stats('default')").fetchone()
    recount = connection.execute(
        "select count(*) filter (where state = 'completed'), count(*) filter (where state = 'failed'),"
        " count(*) filter (where state = 'cancelled') from (select get_state(id) as state from task) t"
    ).fetchone()
    assert counted == recount
    open_workflows = connection.execute(
        "select count(*) from workflow where ended_at is null or remaining <> 0"
    ).fetchone()
    assert open_workflows == (0,)


@pytest.fixture
def graphs() -> int:
    """How many graphs each spawner makes."""
    return amount(120, 3000)


def test_random_graphs_end(database_url: str, connection: Connection, graphs: int) -> None:
    """With failures and cancels every node ends in a state its parents explain, and starts only when they let it."""
    connection.execute("select create_queue('default')")
    party = StrictParty(database_url, seed_of("random graphs"), graphs=graphs)

    party.run(party.spawner, party.worker, party.worker, party.worker, party.canceller)

    assert [] == party.early
    consistent(connection)
    assert party.offspring > 0 < party.lost
    unexplained = connection.execute(
        "select t.id, t.condition, get_state(t.id), p.succeeded, p.failed, p.parents"
        " from task t cross join lateral ("
        "   select count(*)::integer as parents,"
        "          count(*) filter (where s.state = 'completed')::integer as succeeded,"
        "          count(*) filter (where s.state = 'failed')::integer as failed from get_states(t.depends_on) s) p"
        " where t.depends_on is not null and _ended_upstream(t.id)"
        " and _verdict(_condition_name(t.condition), _quorum(t.condition, p.parents), 0, p.succeeded, p.failed)"
    ).fetchall()
    assert [] == unexplained


def test_random_graphs_survive_meddling(database_url: str, connection: Connection, graphs: int) -> None:
    """Retries, reruns and cancels at random leave no node behind, none in two places, and no deadlock (B109)."""
    connection.execute("select create_queue('default')")
    party = Party(database_url, seed_of("meddling"), graphs=graphs)

    party.run(party.spawner, party.worker, party.worker, party.worker, party.canceller, party.retrier)

    consistent(connection)
