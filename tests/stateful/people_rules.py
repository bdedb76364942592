"""Rules of what people do: cancel, retry, requeue."""

from __future__ import annotations

import json
import random

from stateful.upkeep_rules import UpkeepRules


class PeopleRules(UpkeepRules):
    """Tasks, dead letters and workflows are seen to."""

    def cancel(self, chance: random.Random) -> None:
        """A task, or all that depends on it."""
        task, subtree = self.some_task(chance), chance.random() < 0.3
        if task is not None:
            state = self.call("cancel_task(%s, 'no', %s)", task, subtree)
            self.model.cancel(task, subtree=subtree)
            assert state == self.model.tasks[task].state

    def retry(self, chance: random.Random) -> None:
        """A task that has ended; any other is refused."""
        task = self.some_task(chance)
        if task is not None:
            may = self.model.may_retry(task)
            assert self.refused("retry_task(%s)", task) == (None if may else "AB004")
            if may:
                self.model.retry(task)

    def rerun(self, chance: random.Random) -> None:
        """A task that has ended, and all that depends on it."""
        task = self.some_task(chance)
        if task is None:
            return
        if self.model.may_rerun(task):
            assert self.call("rerun_task(%s)", task) == self.model.rerun(task)
        else:
            assert self.refused("rerun_task(%s)", task) == "AB004"

    def requeue(self, chance: random.Random) -> None:
        """Dead letters of some tasks or of some error, with changed params, at once or one after the other."""
        code = self._some_code(chance)
        letters = self.model.letters(code)
        if not letters:
            return
        patch, rate, delay = chance.choice((None, {"b": 1})), chance.choice((None, 0.1)), chance.choice((0, 0, 10))
        rows = self.rows(
            "r ->> 'id', (r ->> 'requeued')::boolean"
            " from requeue_dead_letters(%s, %s, null, %s, 1000, false, null, %s) r",
            json.dumps({"code": code} if code else {}), patch and json.dumps(patch), rate, delay,
        )  # fmt: skip
        went = self.model.requeue(letters, patch, rate, delay)
        assert rows == [(str(each), each in went) for each in letters]

    def _some_code(self, chance: random.Random) -> str | None:
        """The error of some dead letter, to choose by; None chooses all."""
        codes = {task.letter.code for task in self.model.tasks.values() if task.letter is not None}
        return chance.choice([None, *sorted(code for code in codes if code is not None)])

    def purge(self, chance: random.Random) -> None:
        """Dead letters of some error are forgotten."""
        code = self._some_code(chance)
        letters = self.model.letters(code)
        if letters:
            assert self.call("purge_dead_letters(%s)", json.dumps({"code": code} if code else {})) == len(letters)
            self.model.purge(letters)

    def cancel_workflow(self, chance: random.Random) -> None:
        """A workflow as a whole."""
        if self.workflows:
            name = chance.choice(self.workflows)
            state = self.call("cancel_workflow(%s)", name)
            self.model.cancel_workflow(name)
            assert state == self.model.workflows[name].state

    def retry_workflow(self, chance: random.Random) -> None:
        """What failed or was cancelled of a workflow."""
        if not self.workflows:
            return
        name = chance.choice(self.workflows)
        n = self.model.retry_workflow(name)
        if n:
            assert self.call("retry_workflow(%s)", name) == n
        else:
            assert self.refused("retry_workflow(%s)", name) == "AB004"
