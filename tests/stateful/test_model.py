"""The functions of the schema against a model in plain Python, in whatever order chance brings them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import recount
from proof import amount, seed_of
from stateful.machine import Base
from stateful.people_rules import PeopleRules
from stateful.play import play

ALWAYS = {
    "spawn": 12, "claim": 20, "complete": 7, "fail": 12, "suspend": 4, "give_back": 4, "cancel_runs": 1, "save": 1,
    "wait": 6, "promote": 3, "sweep": 4, "cancel": 2, "retry": 2, "emit": 1,
}  # fmt: skip


class Queues(PeopleRules):
    """Claims and their limits, losses and their suspects, deadlines, dead letters; few tasks have parents."""

    weights = ALWAYS | {
        "limit": 6, "pause": 1, "beat": 6, "silence": 4, "recover": 4, "give_up": 2, "leave": 1, "maintain": 6,
        "overdue": 3, "requeue": 6, "purge": 4,
    }  # fmt: skip


class Graphs(PeopleRules):
    """Parents and conditions, workflows, what runs spawn and wait for."""

    family = 0.8
    batches = (2, 4, 8)
    weights = ALWAYS | {
        "spawn": 6, "spawn_workflow": 6, "await_tasks": 6, "end_waits": 2, "rerun": 3, "cancel_workflow": 2,
        "retry_workflow": 4, "complete": 12, "fail": 4, "sweep": 8, "give_up": 2, "overdue": 1,
    }  # fmt: skip


@pytest.fixture
def prepared(connection: psycopg.Connection[Any]) -> Iterator[None]:
    recount.freeze(connection)
    Base.connection = connection
    Base.saved = recount.Saved(connection)
    yield
    del Base.connection, Base.saved


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("machine", [Queues, Graphs])
def test_the_functions_do_what_the_model_does(machine: type[PeopleRules]) -> None:
    """States, attempts, suspects, stale reports, order of claims, letters, counts are the model's after every call."""
    plays, steps = amount(12, 800), 150
    acted = play(machine, seed_of(machine.__name__), plays=plays, steps=steps)

    print(dict(acted))
    assert acted.total() > plays * steps / 2, "it hardly did anything"
