"""Exchanging the functions of a schema: what stays, what goes, and what would make calls ambiguous."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import psycopg
import pytest

from absurd.schema.functions import Function, exchange

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[Connection]:
    """A connection to an empty database."""
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        yield connection


def made(name: str, *arguments: str, returns: str = "int", value: str = "1") -> str:
    """A script that makes a function."""
    return (
        f"create or replace function {name}({', '.join(arguments)}) returns {returns}"
        f" language sql as $$ select {value} $$;"
    )


def exchanged(connection: Connection, old: list[str], new: list[str], *, keep: bool = False) -> dict[str, int]:
    """The functions after `new` took the place of `old`, by signature, and their identities."""
    for text in old:
        connection.execute(text)
    with connection.transaction():
        exchange(connection, new, keep=keep)
    return functions(connection)


def functions(connection: Connection) -> dict[str, int]:
    """Signatures and identities of all functions."""
    return dict(
        connection.execute(
            "select oid::regprocedure::text, oid from pg_proc where pronamespace = 'public'::regnamespace"
        ).fetchall()
    )


@pytest.mark.parametrize("keep", [True, False])
def test_what_can_be_replaced_keeps_its_identity(connection: Connection, keep: bool) -> None:
    """A new body, and a default more, leave the views that people built on a function alone."""
    connection.execute(made("f", "a int", value="1"))
    connection.execute("create view seen as select f(1)")
    before = functions(connection)

    after = exchanged(connection, [], [made("f", "a int default 0", value="2")], keep=keep)

    assert before == after
    assert (2,) == connection.execute("select * from seen").fetchone()


@pytest.mark.parametrize(
    "new",
    [
        made("f", "a int", returns="text", value="'x'"),
        made("f", "b int"),
        made("f", "a int", returns="setof int"),
        "create or replace function f(a int, out b int, out c int) language sql as $$ select 1, 2 $$",
        "create or replace procedure f(a int) language sql as $$ select 1 $$",
    ],
)
@pytest.mark.parametrize("keep", [True, False])
def test_what_cannot_be_replaced_is_made_anew(connection: Connection, new: str, keep: bool) -> None:
    """A changed result, kind or argument name needs no line in any script."""
    after = exchanged(connection, [made("f", "a int default 0")], [new], keep=keep)

    assert {"f(integer)"} == set(after)


def test_default_taken_away(connection: Connection) -> None:
    """An argument may lose its default."""
    exchanged(connection, [made("f", "a int default 0")], [made("f", "a int")])

    with pytest.raises(psycopg.errors.UndefinedFunction):
        connection.execute("select f()")


def test_old_functions_stay_for_old_programs(connection: Connection) -> None:
    """What is no longer defined stays while it is kept, save where a call would fit both old and new; then it goes."""
    old = [made("gone"), made("grew", "a int"), made("typed", "a int"), made("same")]
    new = [made("grew", "a int", "b int default 0", value="2"), made("typed", "a text"), made("same"), made("added")]

    assert {"gone()", "grew(integer,integer)", "typed(integer)", "typed(text)", "same()", "added()"} == set(
        exchanged(connection, old, new, keep=True)
    )
    assert (2, 1) == connection.execute("select grew(1), typed(1)").fetchone()
    assert {"grew(integer,integer)", "typed(text)", "same()", "added()"} == set(exchanged(connection, [], new))


def test_type_that_private_functions_share(connection: Connection) -> None:
    """A type that the code makes anew takes its functions along, and they are made again."""
    use = made("_use", "p pair", value="(p).a")

    after = exchanged(
        connection,
        ["create type pair as (a int)", use, made("_also", "p pair", value="1")],
        ["drop type pair cascade; create type pair as (b int, a int)", use],
    )

    assert {"_use(pair)"} == set(after)
    assert (7,) == connection.execute("select _use(row(0, 7)::pair)").fetchone()


def test_functions_of_an_extension_are_not_ours(connection: Connection) -> None:
    """An extension that somebody put into the schema stays."""
    connection.execute("create extension pg_trgm")
    before = functions(connection)

    assert before == {
        name: oid for name, oid in exchanged(connection, [made("old")], [made("new")]).items() if name != "new()"
    }


def test_clashes_are_those_that_the_server_refuses(connection: Connection) -> None:
    """For every pair of overloads of up to two arguments, with and without defaults, the server agrees."""
    signatures = [
        (types, required)
        for length in range(3)
        for types in product(("integer", "text"), repeat=length)
        for required in range(length + 1)
    ]
    value = {"integer": "1", "text": "'1'::text"}
    calls = [", ".join(value[each] for each in types) for n in range(3) for types in product(value, repeat=n)]
    for pair in combinations(signatures, 2):
        if pair[0][0] == pair[1][0]:
            continue
        ours = [Function("", "f", types, required, "") for types, required in pair]
        connection.execute("begin")
        for types, required in pair:
            arguments = (f"{each} default null" if n >= required else each for n, each in enumerate(types))
            connection.execute(made("f", *arguments))
        refused = False
        for call in calls:
            try:
                with connection.transaction():
                    connection.execute(f"explain select f({call})")
            except psycopg.errors.AmbiguousFunction:
                refused = True
            except psycopg.errors.UndefinedFunction:
                continue
        connection.execute("rollback")

        assert (pair, refused) == (pair, ours[0].clashes(ours[1]))
        assert refused == ours[1].clashes(ours[0])
