"""Sessions as the database knows them, their files and what is told to them: each function as a `Call`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from absurd.call import Call, Row, one_value
from absurd.encoding import decode, encode
from absurd.queue import moment_text

T = TypeVar("T")
Document = dict[str, Any]


def list_session_files(folder: str) -> Call[list[Document]]:
    """All files that are known in a data folder, in whatever state: path, state, bytes, changed_ns, sha256, session_id.

    `folder` is its absolute path, `path` that within it.
    """
    return Call("select r::text as document from {schema}.list_session_files($1::text) r", (folder,), _documents)


def list_sessions(
    folder: str | None = None,
    *,
    session_type: str | None = None,
    target: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    failed: bool = False,
    limit: int = 100,
) -> Call[list[Document]]:
    """Sessions, newest first: the rows of ``session_file``.

    `target` is a pattern as of SQL's LIKE; begun from `since` on and before `until`; with `failed` those with errors.
    """
    return Call(
        "select r::text as document from {schema}.list_sessions("
        "$1::text, $2::text, $3::text, $4::text::timestamptz, $5::text::timestamptz, $6::boolean, $7::integer) r",
        (folder, session_type, target, moment_text(since, "since"), moment_text(until, "until"), failed, limit),
        _documents,
    )


def tell_session(session_id: str, entries: Sequence[Document], missed: int = 0) -> Call[bool]:
    """Tell those who watch the feed what was told to a session; False: nobody watches.

    `missed` is how many entries before these are left out.  After a lost answer they may be told twice.
    """
    return Call(
        "select {schema}.tell_session($1::text, $2::text::jsonb, $3::bigint) as watched",
        (session_id, encode(list(entries), "entries", limit=None, replace=True), missed),
        one_value("watched"),
    )


class SessionFileMethods(ABC):
    """The part of `AbsurdClient` for sessions."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Make a call."""

    async def list_session_files(self, folder: str) -> list[Document]:
        """All files that are known in a data folder, see `session_files.list_session_files`."""
        return await self.run(list_session_files(folder))

    async def tell_session(self, session_id: str, entries: Sequence[Document], missed: int = 0) -> bool:
        """Tell those who watch what was told to a session, see `session_files.tell_session`."""
        return await self.run(tell_session(session_id, entries, missed))

    async def list_sessions(
        self,
        folder: str | None = None,
        *,
        session_type: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[Document]:
        """Sessions that are sealed, newest first; `target` is a pattern of LIKE, `failed` are those with errors."""
        return await self.run(
            list_sessions(
                folder, session_type=session_type, target=target, since=since, until=until, failed=failed, limit=limit
            )
        )


class SyncSessionFileMethods(ABC):
    """The part of `SyncAbsurdClient` for sessions, as `SessionFileMethods`."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Make a call."""

    def list_session_files(self, folder: str) -> list[Document]:
        """All files that are known in a data folder, see `session_files.list_session_files`."""
        return self.run(list_session_files(folder))

    def tell_session(self, session_id: str, entries: Sequence[Document], missed: int = 0) -> bool:
        """Tell those who watch what was told to a session, see `session_files.tell_session`."""
        return self.run(tell_session(session_id, entries, missed))

    def list_sessions(
        self,
        folder: str | None = None,
        *,
        session_type: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[Document]:
        """Sessions that are sealed, newest first; `target` is a pattern of LIKE, `failed` are those with errors."""
        return self.run(
            list_sessions(
                folder, session_type=session_type, target=target, since=since, until=until, failed=failed, limit=limit
            )
        )


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]
