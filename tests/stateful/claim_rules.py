"""Rules of the worker's side: claims, and what is reported of them."""

from __future__ import annotations

import json
import random
from uuid import UUID

from stateful.model import OFFERS, Task
from stateful.spawn_rules import SpawnRules

Claim = tuple[int, tuple[UUID, ...]]


class ClaimRules(SpawnRules):
    """Runs are claimed and reported."""

    batches: tuple[int, ...] = (1, 2, 3, 4)
    """How many a claim wants."""

    def new_worker(self, chance: random.Random) -> int:
        """One takes lost runs to have fewer attempts and no dead letters."""
        most, letters = chance.choice(((5, True), (5, True), (2, False)))
        worker: int = self.call(  # it never reserves anything
            "register_worker('t', 'h', 1, '{default}', 1, '{}', %s, 30, null, %s, p_reserve_after => 1e9)",
            json.dumps(OFFERS),
            json.dumps({"max_attempts": most, "dead_letters": letters}),
        )
        self.model.register(worker, most, dead_letters=letters)
        return worker

    def claim(self, chance: random.Random) -> None:
        """What comes first, as far as limits let it; a worker that was given up gets nothing, and comes back."""
        n, wanted = chance.randrange(2), chance.choice(self.batches)
        while len(self.workers) <= n:
            self.workers.append(self.new_worker(chance))
        if self.workers[n] not in self.model.workers:
            assert self._claim(self.workers[n], wanted)[1] is None
            self.workers[n] = self.new_worker(chance)
        lease, claimed, attempts, params, details, wait = self._claim(self.workers[n], wanted)
        claimed = claimed or []
        assert (claimed, wait) == self.model.claim(lease, wanted, claimed)
        if not claimed:
            return
        self.claims.append((lease, tuple(claimed)))
        tasks = [self.model.tasks[each] for each in claimed]
        assert attempts == [task.attempt for task in tasks]
        assert [json.loads(each) for each in params] == [task.params for task in tasks]
        suspects = [json.loads(each or "{}").get("suspect", False) for each in details]
        assert suspects == [task.suspect for task in tasks]

    def _claim(self, worker: int, wanted: int) -> tuple[int, list[UUID] | None, list[int], list[str], list[str], int]:
        self.leases += 1
        lease = (worker << 32) + self.leases
        sql = "task_ids, attempts, params, details, wait_ms from claim_runs(%s, %s, %s, '{}', '{}')"
        claimed, attempts, params, details, wait = self.row(sql, lease, self.queue_id, wanted)
        return lease, claimed, attempts, params, details, wait

    def pause(self, chance: random.Random) -> None:
        """A paused queue hands out nothing."""
        if not self.workers:
            return
        self.call("set_queue_paused('default', true)")
        assert self._claim(self.workers[0], 5)[1] is None
        self.call("set_queue_paused('default', false)")

    # Reports ------------------------------------------------------------------------------------

    def _reported(self, chance: random.Random) -> Claim | None:
        """A part of a claim, mostly of one that is still held."""
        held = [each for each in self.claims if self.model.held(each[0])]
        claims = held if held and chance.random() < 0.85 else self.claims
        if not claims:
            return None
        lease, tasks = chance.choice(claims)
        part = [each for each in tasks if chance.random() < 0.6] if chance.random() < 0.6 else list(tasks)
        return lease, tuple(part or tasks[:1])

    def complete(self, chance: random.Random) -> None:
        """Completed runs, some of which have spawned tasks."""
        report = self._reported(chance)
        if report is None:
            return
        lease, tasks = report
        n = len(tasks)
        children = self._children(chance, tasks) if chance.random() < 0.3 else []
        stale = self.call(
            "complete_runs(%s::bigint[], %s::uuid[], %s::int[], %s::text[], null, %s)",
            [lease] * n, list(tasks), [0] * n, ["1"] * n, self._spawns(children) if children else None,
        )  # fmt: skip
        assert set(stale or []) == self.model.complete(lease, tasks, children)
        self._know(children)

    def fail(self, chance: random.Random) -> None:
        """Failed runs: tried again at once or later, or not; some have killed their process."""
        report = self._reported(chance)
        if report is None:
            return
        lease, tasks = report
        n = len(tasks)
        delay, code = chance.choice((None, None, 0.0, 0.0, 0.0)), chance.choice((None, "child_died", "child_died"))
        letters = chance.random() < 0.8
        stale = self.call(
            "fail_runs(%s::bigint[], %s::uuid[], %s::int[], %s::text[], %s::float8[], %s)",
            [lease] * n, list(tasks), [0] * n, [json.dumps({"code": code} if code else {})] * n, [delay] * n, letters,
        )  # fmt: skip
        assert set(stale or []) == self.model.fail(lease, tasks, delay, code, dead_letters=letters)

    def suspend(self, chance: random.Random) -> None:
        """Runs that sleep or wait for an event."""
        report = self._reported(chance)
        if report is None:
            return
        lease, tasks = report
        n = len(tasks)
        delay, event = chance.choice(((10.0, None), (0.0, None), (10.0, "x"), (None, "y"), (None, "z")))
        stale = self.call(
            "suspend_runs(%s::bigint[], %s::uuid[], %s::int[], %s::float8[], %s::text[], %s::text[])",
            [lease] * n, list(tasks), [0] * n, [delay] * n, ["sleep"] * n, [event] * n,
        )  # fmt: skip
        assert set(stale or []) == self.model.suspend(lease, tasks, delay, event)

    def await_tasks(self, chance: random.Random) -> None:
        """Runs that wait for tasks, be it their own children, their parents or any."""
        report = self._reported(chance)
        if report is None:
            return
        lease, tasks = report
        n = len(tasks)
        children = self._children(chance, tasks) if chance.random() < 0.5 else []
        on: dict[UUID, list[UUID]] = {}
        for task in tasks:
            parents = [each for each in self.model.tasks[task].parents if chance.random() < 0.3]
            others = self._some(chance, self.tasks, 2) if chance.random() < 0.7 else []
            mine = [child.id for spawner, child in children if spawner == task]
            on[task] = [each for each in dict.fromkeys([*mine, *parents, *others]) if each != task]
        seconds = chance.choice((None, None, 10))
        awaits = [{"task": str(task), "on": [str(each) for each in on[task]], "seconds": seconds} for task in tasks]
        call = (
            "suspend_runs(%s::bigint[], %s::uuid[], %s::int[], %s::float8[], %s::text[], %s::text[], %s, %s)",
            [lease] * n, list(tasks), [0] * n, [None] * n, ["wait"] * n, [None] * n,
            self._spawns(children) if children else None, json.dumps(awaits),
        )  # fmt: skip
        if any(self._is_itself(lease, *each) for each in children):
            assert self.refused(*call) == "AB001"
            return
        stale = self.call(*call)
        assert set(stale or []) == self.model.await_tasks(lease, on, seconds, children)
        self._know(children)

    def _is_itself(self, lease: int, spawner: UUID, child: Task) -> bool:
        """Whether a run would wait for its own task, which has the key of the child."""
        holder = self.model.holder(child.key) if child.key else None
        return holder == spawner and self.model.tasks[spawner].lease == lease

    def _children(self, chance: random.Random, spawners: tuple[UUID, ...]) -> list[tuple[UUID, Task]]:
        """A child for each spawner, which it may depend on."""
        children = []
        for spawner in spawners:
            made = Task(self.new_id(chance), params={"n": chance.randrange(9)})
            made.parents = (spawner,) if chance.random() < 0.3 else ()
            made.key = chance.choice((None, None, None, "a", "c"))
            children.append((spawner, made))
        return children

    def _spawns(self, children: list[tuple[UUID, Task]]) -> str:
        documents = []
        for n, (spawner, child) in enumerate(children):
            options = {"key": child.key} if child.key else {}
            depends_on = {"depends_on": [str(each) for each in child.parents]} if child.parents else {}
            documents.append({
                "task": str(spawner), "checkpoint": f"spawn:{n}", "id": str(child.id), "queue": "default", "name": "x",
                "params": json.dumps(child.params), "options": json.dumps(options | depends_on),
            })  # fmt: skip
        return json.dumps(documents)

    def _know(self, children: list[tuple[UUID, Task]]) -> None:
        self.tasks += [child.id for _, child in children if child.id in self.model.tasks]

    def give_back(self, chance: random.Random) -> None:
        """Runs that are handed back; null tells that they never started."""
        report = self._reported(chance)
        if report is None:
            return
        lease, tasks = report
        n = len(tasks)
        age = chance.choice((None, 5))
        stale = self.call("return_runs(%s::bigint[], %s::uuid[], %s::int[])", [lease] * n, list(tasks), [age] * n)
        assert set(stale or []) == self.model.give_back(lease, tasks, started=age is not None)

    def cancel_runs(self, chance: random.Random) -> None:
        """Runs that have cancelled their own tasks."""
        report = self._reported(chance)
        if report is None:
            return
        lease, tasks = report
        n = len(tasks)
        stale = self.call(
            "cancel_runs(%s::bigint[], %s::uuid[], %s::int[], %s::text[])",
            [lease] * n,
            list(tasks),
            [0] * n,
            [None] * n,
        )
        assert set(stale or []) == self.model.cancel_runs(lease, tasks)

    def save(self, chance: random.Random) -> None:
        """A checkpoint under a claim that is held or lost."""
        report = self._reported(chance)
        if report is None:
            return
        lease, tasks = report
        held = self.model.tasks[tasks[0]].lease == lease
        assert self.refused("set_checkpoint(%s, %s, 's', '1')", lease, tasks[0]) == (None if held else "AB002")
