"""Rules of the spawner's side."""

from __future__ import annotations

import json
import random
from typing import Any
from uuid import UUID

from stateful.machine import Base
from stateful.model import SECOND, Task

CONDITIONS = ("all_success", "all_success", "all_done", "any_success", "any_failed", "quorum(1)", "quorum(2)")

NEEDS = (None, None, None, None, {"cpu": 1}, {"cpu": 2}, {"token": 1}, {"cpu": 1, "token": 1})


class SpawnRules(Base):
    """Tasks and workflows are spawned."""

    family: float = 0.2
    """How many of the tasks have parents."""

    def _drawn(self, chance: random.Random, parents: list[UUID]) -> tuple[Task, dict[str, Any]]:
        """A task as the model has it, and its options."""
        condition = chance.choice(CONDITIONS)
        if not parents or (condition == "quorum(2)" and len(parents) < 2):
            condition = "all_success"
        options: dict[str, Any] = {
            "priority": chance.choice((-1, 0, 0, 0, 7)),
            "delay": chance.choice((None, None, None, 10)),
            "max_attempts": chance.choice((None, None, 1, 2)),
            "lane": chance.choice((None, "a", "b", "c")),
            "needs": chance.choice(NEEDS),
            "start_within": chance.choice((None, None, None, 20)),
            "finish_within": chance.choice((None, None, None, 31)),
        }
        if parents:
            options |= {"depends_on": [str(each) for each in parents], "when": condition}
        options = {name: value for name, value in options.items() if value is not None}
        now = self.model.now
        made = Task(
            self.new_id(chance),
            priority=options["priority"],
            parents=tuple(sorted(parents)),
            condition=condition,
            max_attempts=options.get("max_attempts"),
            run_at=now + options["delay"] * SECOND if "delay" in options else None,
            lane=options.get("lane"),
            needs=options.get("needs"),
            params={"n": chance.randrange(9)},
            deadlines={
                kind: now + options[f"{kind}_within"] * SECOND
                for kind in ("start", "finish")
                if f"{kind}_within" in options
            },
        )
        return made, options

    def _some(self, chance: random.Random, tasks: list[UUID], most: int) -> list[UUID]:
        return chance.sample(tasks, min(len(tasks), chance.randint(1, most)))

    def spawn(self, chance: random.Random) -> None:
        """One task, perhaps under a key, which may be free again after a time or an end."""
        parents = self._some(chance, self.tasks, 3) if chance.random() < self.family else []
        made, options = self._drawn(chance, parents)
        key = chance.choice((None, None, "a", "b"))
        period = chance.choice((None, None, None, 20)) if key else None
        scope = chance.choice((None, "unfinished", "unfinished")) if key else None
        options |= {
            name: value
            for name, value in {"key": key, "key_period": period, "key_scope": scope}.items()
            if value is not None
        }
        got = self.call(
            "task_id from spawn_tasks(array[%s::uuid], '{default}', '{x}', array[%s]::jsonb[], array[%s]::jsonb[])",
            made.id, json.dumps(made.params), json.dumps(options),
        )  # fmt: skip
        expected = self.model.spawn(made, key, period=period and period * SECOND, until_ended=scope == "unfinished")
        assert got == expected
        if got == made.id:
            self.tasks.append(got)

    def spawn_workflow(self, chance: random.Random) -> None:
        """A graph of tasks, some of which depend on tasks that were there before."""
        name = self.new_id(chance)
        nodes: list[Task] = []
        options = []
        for _ in range(chance.choice((1, 3, 3, 4, 5))):
            parents = self._some(chance, [each.id for each in nodes], 2) if nodes and chance.random() < 0.7 else []
            if self.tasks and chance.random() < 0.2:
                parents.append(chance.choice(self.tasks))
            made, its = self._drawn(chance, parents)
            nodes.append(made)
            options.append(json.dumps(its))
        n = len(nodes)
        self.rows(
            "* from spawn_workflow(%s, 'w', %s::uuid[], %s::text[], %s::text[], %s::jsonb[], %s::jsonb[])",
            name, [each.id for each in nodes], ["default"] * n, ["x"] * n,
            [json.dumps(each.params) for each in nodes], options,
        )  # fmt: skip
        self.model.spawn_workflow(name, nodes)
        self.workflows.append(name)
        self.tasks += [each.id for each in nodes]

    def emit(self, chance: random.Random) -> None:
        """An event."""
        event = chance.choice("xyz")
        assert self.call("emit_event(%s)", event) == self.model.emit(event)
