"""The SQL functions for tokens of the web interface, each as a `Call`, and how a token is made and kept.

A token is 256 random bits in letters.  The database knows its SHA-256 alone: nobody guesses 256 bits, so a hash that
is slow on purpose, as for passwords, would protect nothing and let anybody keep the server busy.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from absurd.call import Call, Row, nothing, one_value
from absurd.encoding import decode

Document = dict[str, Any]

PREFIX = "absurd_"
"""What every token begins with: scanners for secrets find one that was left in a file."""


class Scope(StrEnum):
    """What a token allows; each allows what those before it do."""

    READER = "reader"
    """Looks at everything but tokens and the record of changes."""
    SPAWNER = "spawner"
    """Hands in work, and takes it back."""
    OPERATOR = "operator"
    """Pauses and limits queues, drains workers, keeps schedules, requeues and purges dead letters."""
    ADMIN = "admin"
    """Reads the record of changes too."""

    def allows(self, wanted: Scope) -> bool:
        """Whether who has this scope may do what needs `wanted`."""
        order = list(Scope)
        return order.index(self) >= order.index(wanted)


class Bearer(NamedTuple):
    """Whose a token is, and what it allows."""

    name: str
    scope: Scope


def new_token() -> str:
    """A token that nobody has seen."""
    return PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """SHA-256 of a token, in hexadecimal digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def create_token(name: str, scope: Scope | str, token: str, lifetime: float | None = None) -> Call[Document]:
    """Let `token` in for `lifetime` seconds (None: until it is revoked); only its hash leaves this process.

    Raises InvalidNameError, InvalidOptionError, TokenExistsError.
    """
    sql = "select {schema}.create_token($1::text, $2::text, $3::text, $4::double precision)::text as document"
    return Call(sql, (name, str(scope), token_hash(token), lifetime), _document, repeatable=False)


def revoke_token(name: str) -> Call[Document]:
    """Let a token in no more, from the next request on.  Raises TokenNotFoundError."""
    return Call("select {schema}.revoke_token($1::text)::text as document", (name,), _document, repeatable=False)


def list_tokens(*, all: bool = False) -> Call[list[Document]]:
    """Tokens by name: scope, times, who made it; with `all` also those that were revoked."""
    sql = "select d.document::text as document from {schema}.list_tokens($1::boolean) as d (document)"
    return Call(sql, (all,), _documents)


def check_token(token: str) -> Call[Bearer | None]:
    """Whose a token is; None if it is not let in."""
    return check_token_hash(token_hash(token))


def check_token_hash(token_hash: str) -> Call[Bearer | None]:
    """As `check_token`, for the hash of a token."""

    def read(rows: Sequence[Row]) -> Bearer | None:
        if rows[0]["document"] is None:
            return None
        found = decode(rows[0]["document"])
        return Bearer(found["name"], Scope(found["scope"]))

    return Call("select {schema}.check_token($1::text)::text as document", (token_hash,), read)


def has_tokens() -> Call[bool]:
    """Whether any token was made and not revoked; an expired one counts."""
    return Call("select {schema}.has_tokens() as found", (), one_value("found"))


def record_change(actor: str, action: str, target: str | None, address: str | None) -> Call[None]:
    """Say who makes the change that follows in this transaction."""
    sql = "select {schema}.record_change($1::text, $2::text, $3::text, $4::text)::text"
    return Call(sql, (actor, action, target, address), nothing, repeatable=False)


def list_changes(*, actor: str | None = None, before: int | None = None, limit: int = 50) -> Call[list[Document]]:
    """What was changed through the web interface, the latest first; `before` is the last id of the page before."""
    return Call(
        "select d.document::text as document"
        " from {schema}.list_changes($1::text, $2::bigint, $3::integer) as d (document)",
        (actor, before, limit),
        _documents,
    )


def _document(rows: Sequence[Row]) -> Document:
    return dict(decode(rows[0]["document"]))


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]
