"""Tasks that PostgreSQL can keep and Python cannot read: they fail by themselves, and stop nobody."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest

from absurd import AbsurdClient, executor
from absurd.config import Settings
from absurd.workers import AbsurdWorker

Connection = psycopg.Connection[Any]

LONG = '{"n": 1e5000}'
DEEP = "[" * 501 + "]" * 501


@executor("unreadable.echo")
async def echo(ctx: Any, params: Any) -> Any:
    """Give the params back."""
    return params


def spawned(connection: Connection, params: str, options: str = "{}") -> UUID:
    row = connection.execute(
        "select task_id from spawn_task('default', 'unreadable.echo', %s::jsonb, %s::jsonb)", (params, options)
    ).fetchone()
    assert row is not None
    task: UUID = row[0]
    return task


async def test_what_cannot_be_read_fails_alone(
    settings: Settings, client: AbsurdClient, connection: Connection
) -> None:
    """A number of thousands of digits in params or headers is a dead letter; what was claimed with it completes."""
    before = [await client.spawn(echo, {"i": i}) for i in range(3)]
    poison = [spawned(connection, LONG), spawned(connection, "{}", f'{{"headers": {LONG}}}')]
    after = [spawned(connection, f'{{"i": {i}}}', '{"headers": {"h": 1}}') for i in range(3)]

    await AbsurdWorker(settings=settings).run("drain")

    for task in before + after:
        assert "completed" == (await client.get_task(task)).state
    for task in poison:
        shown = await client.get_task(task)
        assert "failed" == shown.state
        assert ["invalid_params"] == [run.error["code"] for run in shown.runs if run.error is not None]
        assert 1 == len(shown.runs)  # to repeat it is of no use
    assert {*poison} == {UUID(letter["id"]) for letter in await client.list_dead_letters()}
    assert "1" + "0" * 5000 == (await client.get_task(poison[0])).params["n"]  # its digits, as text


async def test_a_child_whose_parent_gave_what_cannot_be_read_fails(
    settings: Settings, client: AbsurdClient, connection: Connection
) -> None:
    """A result that another language's worker has written is no worker's end."""
    parent = await client.spawn(echo, {}, queue="other")
    child = await client.spawn(echo, {}, depends_on=[parent])
    connection.execute("select register_worker('w', 'h', 1, '{other}', 1, '{}', '{}', 30000)")
    connection.execute(
        "select claim_runs((w.id::bigint << 32) + 1, q.id, 1, '{}', '{}') from worker w, queue q where q.name = 'other'"
    )
    connection.execute("select complete_runs(array[l.id], l.task_ids, '{1}', array[%s]) from lease l", (LONG,))

    await AbsurdWorker(settings=settings).run("burst")

    assert "failed" == (await client.get_task(child)).state


@pytest.mark.parametrize(
    "statement",
    [
        "select spawn_task('default', 'x', %s::jsonb)",
        """select spawn_task('default', 'x', '{}', jsonb_set('{"headers": {}}', '{headers,h}', %s))""",
        "select * from spawn_tasks(array[new_task_id()], '{default}', '{x}', array[%s::jsonb])",
        "select emit_event('e', %s::jsonb)",
    ],
)
def test_what_is_nested_too_deeply_is_refused_at_once(statement: str, connection: Connection) -> None:
    """501 levels are refused where they are written, 500 are kept."""
    with pytest.raises(psycopg.errors.DatabaseError, match="nested more than 500 levels") as refused:
        connection.execute(statement, (DEEP,))
    connection.rollback()
    connection.execute(statement, (DEEP[2:-2],))

    assert "AB009" == refused.value.sqlstate
