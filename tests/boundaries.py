"""Stops inside the functions of the schema: between any two of their statements a session can die or wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

_TOKEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|(?P<quote>\$\w*\$).*?(?P=quote)|\"[^\"]*\"|[A-Za-z_][\w$]*|[();]|\s+|.",
    re.DOTALL,
)

_STOP = """
create function _boundary() returns boolean language plpgsql volatile as $$
declare
    v_first constant bigint := current_setting('absurd_test.first')::bigint;
begin
    if nextval('_boundaries') - v_first = current_setting('absurd_test.stop')::bigint then
        if current_setting('absurd_test.act') = 'die' then
            perform pg_terminate_backend(pg_backend_pid());
            perform pg_sleep(60);
        end if;
        perform _stand();
    end if;
    return true;
end $$
"""

# Whoever stands there waits for the test, not for a lock of the function's own patience.  A function apart: one that
# sets something costs more to call, and the other one is called at each statement.
_STAND = """
create function _stand() returns void language plpgsql volatile set lock_timeout = 0 as $$
begin
    perform pg_advisory_lock_shared(4711);
    perform pg_advisory_unlock_shared(4711);
end $$
"""


def install(connection: Connection) -> None:
    """Put a stop before and behind each statement of every plpgsql function of the schema."""
    # Taken in blocks: a number drawn from the session's own stock gives its transaction no xid.
    connection.execute("create sequence _boundaries cache 100000")
    definitions = connection.execute(
        "select pg_get_functiondef(p.oid), p.prosrc from pg_proc p join pg_language l on l.oid = p.prolang"
        " where p.pronamespace = current_schema()::regnamespace and l.lanname = 'plpgsql'"
    ).fetchall()
    connection.execute(_STAND)
    connection.execute(_STOP)
    for definition, body in definitions:
        connection.execute(definition.replace(body, with_stops(body)))


def with_stops(body: str) -> str:
    """The body of a plpgsql function with a stop after each ``begin`` and each statement."""
    return "".join(_insert_stops(body))


def _insert_stops(body: str) -> Iterator[str]:
    declaring, depth, last = False, 0, ""
    for match in _TOKEN.finditer(body):
        token = match.group()
        word = token.lower()
        yield token
        if word == "declare":
            declaring = True
        elif token in "()":
            depth += 1 if token == "(" else -1
        elif (word == "begin" and depth == 0) or (token == ";" and depth == 0 and not declaring):
            declaring = False
            yield " assert _boundary();"  # PERFORM would set FOUND
        last = word if token.strip() else last


class Stops:
    """What a session does at its stops."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def arm(self, stop: int = 0, act: str = "die") -> None:
        """At stop number `stop` from now on (1 is the first; 0: at none) "die", or "wait" for `hold` to end."""
        self.connection.execute(
            "select set_config('absurd_test.first', nextval('_boundaries')::text, false),"
            " set_config('absurd_test.stop', %s, false), set_config('absurd_test.act', %s, false)",
            (str(stop), act),
        )

    def passed(self) -> int:
        """How many stops the session has passed since it was armed."""
        row = self.connection.execute(
            "select nextval('_boundaries') - current_setting('absurd_test.first')::bigint - 1"
        ).fetchone()
        assert row is not None
        return int(row[0])
