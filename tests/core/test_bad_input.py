"""What is too much or wrong is refused with a clear word and leaves nothing behind; what met another is made again."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from absurd import AbsurdClient, SyncAbsurdClient, TaskSpec
from absurd.call import Call, one_value
from absurd.config import Settings
from absurd.errors import ConflictError, InvalidOptionError, InvalidParamsError, PayloadTooLargeError

Connection = psycopg.Connection[Any]
MIB = 1 << 20


@pytest.mark.parametrize("how", ["params", "headers"])
def test_oversized_json_is_refused_by_sql(connection: Connection, how: str) -> None:
    """More than 1 MiB that comes by plain SQL raises AB009 with the limit and advice; just as much is taken."""

    def spawn(size: int) -> None:
        text = json.dumps({"a": "x" * size})
        params, options = (text, None) if how == "params" else ("{}", f'{{"headers": {text}}}')
        connection.execute("select spawn_task('default', 'bare.add', %s, %s)", (params, options))

    spawn(MIB - 20)
    with pytest.raises(psycopg.Error, match="the 1048576 that are stored; put it in a file") as caught:
        spawn(MIB + 1)
    assert caught.value.sqlstate == "AB009"
    assert connection.execute("select count(*) from task").fetchone() == (1,)


@pytest.mark.parametrize("params", ["{", '{"a": "\\u0000"}', '{"a": NaN}'], ids=["broken", "nul", "nan"])
def test_what_is_no_json_is_refused_by_sql(connection: Connection, params: str) -> None:
    """Broken JSON, NUL and NaN leave no task."""
    with pytest.raises(psycopg.DataError):
        connection.execute("select spawn_task('default', 'bare.add', %s)", (params,))
    assert connection.execute("select count(*) from task").fetchone() == (0,)


def test_bad_options_are_named(settings: Settings) -> None:
    """NUL, negative delays, lists that are too long: the error names what and says what holds."""
    with SyncAbsurdClient(settings=settings) as client:
        with pytest.raises(InvalidParamsError, match="NUL"):
            client.spawn("bare.add", {"a": "\0"})
        with pytest.raises(PayloadTooLargeError, match="1048576"):
            client.spawn("bare.add", {"a": "x" * MIB})
        with pytest.raises(InvalidOptionError, match="delay is -1"):
            client.spawn("bare.add", delay=-1)
        with pytest.raises(InvalidOptionError, match="depends_on has 1,000,000 entries"):
            client.spawn("bare.add", depends_on=["x"] * 1_000_000)
        assert client.list_tasks() == []


def test_a_million_specs_are_refused_before_anything_is_spawned(settings: Settings) -> None:
    """A list is refused by its length and an endless generator at the limit, so that memory stays bounded."""
    with SyncAbsurdClient(settings=settings) as client:
        with pytest.raises(InvalidOptionError, match="in parts"):
            client.spawn_many([TaskSpec("bare.add")] * 1_000_000)
        with pytest.raises(InvalidOptionError, match="in parts"):
            client.spawn_many(TaskSpec("bare.add") for _ in range(1_000_000))
        assert client.list_tasks() == []


def test_a_million_by_sql_is_refused(connection: Connection) -> None:
    """Long arrays of tasks and of parents raise AB001 with the limit."""
    for sql in (
        "select spawn_tasks(i, '{}', '{}', '{}')"
        " from (select array_agg(new_task_id()) from generate_series(1, 100001)) g (i)",
        "select spawn_task('q', 'n', '{}', jsonb_build_object('depends_on', d))"
        " from (select jsonb_agg(new_task_id()) from generate_series(1, 100001)) g (d)",
    ):
        with pytest.raises(psycopg.Error, match="at most 100000") as caught:
            connection.execute(sql)
        assert caught.value.sqlstate == "AB001"


@pytest.mark.parametrize("state", ["40P01", "40001"])
async def test_a_call_that_met_another_is_made_again(settings: Settings, connection: Connection, state: str) -> None:
    """Both clients repeat what a deadlock or serialization failure rolled back, a few times and no more."""
    connection.execute(
        "create sequence public.meetings;"
        " create function public.meet(p_times bigint) returns bigint language plpgsql as"
        f" $$ begin if nextval('public.meetings') <= p_times then raise 'met' using errcode = '{state}'; end if;"
        " return currval('public.meetings'); end $$"
    )

    def meet(times: int) -> Call[Any]:
        return Call("select public.meet($1::bigint) as n", (times,), one_value("n"), repeatable=False)

    with SyncAbsurdClient(settings=settings) as plain:
        assert plain.run(meet(2)) == 3
    async with AbsurdClient(settings=settings) as client:
        assert await client.run(meet(5)) == 6
        with pytest.raises(ConflictError):
            await client.run(meet(1000))
    assert connection.execute("select last_value from public.meetings").fetchone() == (11,)
