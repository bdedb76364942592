"""Tokens and the record of changes, by plain calls."""

from __future__ import annotations

import psycopg
import pytest
from sql_queue import Queue

HASH = "a" * 64


def refusal(queue: Queue, sql: str, *args: object) -> str | None:
    with pytest.raises(psycopg.Error) as caught:
        queue.call(sql, *args)
    return caught.value.sqlstate


def test_a_token_is_let_in_until_it_is_revoked(queue: Queue) -> None:
    """By its hash, with its scope; the row stays and tells when it went, and its name is free again."""
    assert queue.call("has_tokens()") is False
    made = queue.call("create_token('night', 'operator', %s)", HASH)

    assert ("night", "operator", None, False) == tuple(made[key] for key in ("name", "scope", "revoked_at", "expired"))
    assert {"name": "night", "scope": "operator"} == queue.call("check_token(%s)", HASH)
    assert queue.call("check_token(%s)", "b" * 64) is None
    queue.call("revoke_token('night')")
    assert (None, False) == (queue.call("check_token(%s)", HASH), queue.call("has_tokens()"))
    assert "AB020" == refusal(queue, "revoke_token('night')")
    queue.call("create_token('night', 'reader', %s)", "b" * 64)
    assert (1, 2) == (queue.call("count(*) from list_tokens()"), queue.call("count(*) from list_tokens(true)"))


def test_a_token_ends_by_itself(queue: Queue, connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """After its lifetime it is not let in; it still counts as made, so that nothing opens by the passing of time."""
    queue.call("create_token('short', 'reader', %s, 60)", HASH)
    assert queue.call("check_token(%s)", HASH) is not None

    connection.execute(
        "update token set created_at = created_at - interval '1 h', expires_at = expires_at - interval '1 h'"
    )

    assert queue.call("check_token(%s)", HASH) is None
    assert queue.call("has_tokens()") is True
    assert queue.call("(t ->> 'expired')::boolean from list_tokens() t") is True


def test_no_document_holds_the_hash(queue: Queue) -> None:
    """Neither what is told of a token that was made, nor of those that are listed or revoked."""
    told = [
        queue.call("create_token('night', 'reader', %s)::text", HASH),
        queue.call("t::text from list_tokens() t"),
        queue.call("revoke_token('night')::text"),
    ]

    assert [each for each in told if HASH in each] == []


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        (("", "reader", HASH, None), "AB007"),
        (("-n", "reader", HASH, None), "AB007"),
        (("x" * 65, "reader", HASH, None), "AB007"),
        ((None, "reader", HASH, None), "AB007"),
        (("n", "root", HASH, None), "AB001"),
        (("n", None, HASH, None), "AB001"),
        (("n", "reader", HASH, 0.0), "AB001"),
        (("n", "reader", HASH, 1e12), "AB001"),
        (("taken", "reader", HASH, None), "AB021"),
        (("n", "reader", "no hash", None), "23514"),
    ],
)
def test_what_is_not_valid_is_refused(queue: Queue, arguments: tuple[object, ...], sqlstate: str) -> None:
    """Names, scopes and lifetimes have limits, a name is one token's, and what is no hash is not stored."""
    queue.call("create_token('taken', 'reader', %s)", "f" * 64)

    assert sqlstate == refusal(queue, "create_token(%s, %s, %s, %s)", *arguments)


def test_the_use_of_a_token_is_noted_once_a_minute(queue: Queue) -> None:
    """A request costs a look; only one a minute costs a row."""
    queue.call("create_token('night', 'reader', %s)", HASH)

    queue.call("check_token(%s)", HASH)
    first = queue.call("(used_at, xmin) from token")
    queue.call("check_token(%s)", HASH)

    assert first == queue.call("(used_at, xmin) from token")


def test_a_change_names_its_actor_in_the_history_of_the_task(
    queue: Queue, connection: psycopg.Connection[tuple[object, ...]]
) -> None:
    """Behind the role, which nobody can feign, and only in the transaction that said who acts."""
    task = queue.spawn()
    with connection.transaction():
        queue.call("record_change('night-shift', 'cancel_task', %s, '192.0.2.1')", str(task))
        queue.call("cancel_task(%s, 'clouds')", task)
    queue.call("retry_task(%s)", task)

    role = queue.call("session_user::text")
    actors = connection.execute("select actor from audit where task_id = %s order by at", [task]).fetchall()
    assert [(f"{role}: night-shift",), (role,)] == actors
    (change,) = connection.execute("select list_changes()").fetchone() or ()
    assert isinstance(change, dict)
    assert ("night-shift", role, "cancel_task", str(task), "192.0.2.1") == tuple(
        change[key] for key in ("actor", "role", "action", "target", "address")
    )


def test_changes_are_listed_page_by_page(queue: Queue) -> None:
    """The latest first, from below a number, of all or of one actor."""
    for number in range(5):
        queue.call("record_change(%s, 'pause_queue', %s)", f"t{number % 2}", str(number))

    def listed(sql: str) -> list[str]:
        return [row["target"] for (row,) in queue.connection.execute(f"select list_changes({sql})")]

    assert ["4", "3"] == listed("p_limit => 2")
    last = queue.call("(list_changes(p_limit => 2) ->> 'id')::bigint order by 1 limit 1")
    assert ["2", "1", "0"] == listed(f"p_before => {last}")
    assert ["3", "1"] == listed("'t1'")
