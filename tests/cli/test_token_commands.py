"""``absurd token`` as people type it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from absurd.tokens import PREFIX, Scope, token_hash

Run = Callable[..., Any]


def test_a_token_is_shown_once(run: Run, connection: psycopg.Connection[Any]) -> None:
    """Alone on stdout, so that it can be kept in a variable; the database has nothing but its hash."""
    made = run("token", "create", "night", "--scope", "operator")

    token = made.out.strip()
    assert made.code == 0
    assert token.startswith(PREFIX) and " " not in token
    assert token not in made.err
    assert [(token_hash(token), "operator")] == connection.execute("select hash, scope from token").fetchall()
    listed = run("token", "list")
    assert "night" in listed.out and "operator" in listed.out and "never" in listed.out
    assert token not in listed.out and token_hash(token) not in run("token", "list", "--json").out


def test_a_token_goes(run: Run) -> None:
    """By its name; it is listed with --all alone then, and cannot be revoked again."""
    run("token", "create", "night", "--lasts", "90d")
    assert "until" in run("token", "list").out

    gone = run("token", "revoke", "night", "--json")

    assert gone.document["revoked_at"] is not None
    assert run("token", "list", "--json").document == []
    assert "revoked" in run("token", "list", "--all").out
    assert run("token", "revoke", "night").code == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [(("night",), 5), (("no name!",), 2), (("other", "--scope", "root"), 2), (("other", "--lasts", "long"), 2)],
)
def test_what_cannot_be_made_is_refused(run: Run, words: tuple[str, ...], code: int) -> None:
    """A name that is taken is a conflict, all else a wrong call."""
    run("token", "create", "night")

    assert run("token", "create", *words).code == code


def test_the_scopes_are_those_of_the_core() -> None:
    """The command has its own list, so that help needs nothing else."""
    from absurd.cli.token import SCOPES

    assert tuple(Scope) == SCOPES
