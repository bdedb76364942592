"""Recordings in files of sub-bands: which have arrived, which groups they make, and what became of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from absurd.call import Call, Row, one_value
from absurd.encoding import decode, encode
from absurd.errors import InvalidOptionError
from absurd.queue import moment_text

T = TypeVar("T")
Document = dict[str, Any]


def set_intake(intake: str, **policy: Any) -> Call[str]:
    """Make an intake, or change how it groups from now on: created, changed or unchanged.

    `subbands` a group has when it is complete, and `min_subbands` with which it is converted once its time is out;
    `time_tolerance` (seconds) between a file's stamp and the time of its group, `declination_tolerance` (degrees);
    `timeout` (seconds) after the last file; of conversions `queue`, `params` and `options`.  None: as it is.
    Raises InvalidNameError, InvalidOptionError.
    """
    given = {name: value for name, value in policy.items() if value is not None}
    text = encode(given, "policy", error=InvalidOptionError)
    return Call("select {schema}.set_intake($1::text, $2::text::jsonb) as change", (intake, text), one_value("change"))


def remove_intake(intake: str) -> Call[bool]:
    """Forget an intake with all it knows of files and groups; false if there is none of that name."""
    return Call("select {schema}.remove_intake($1::text) as removed", (intake,), one_value("removed"))


def list_intakes() -> Call[list[Document]]:
    """All intakes, and how each groups."""
    return Call("select to_jsonb(r)::text as document from {schema}.list_intakes() r", (), _documents)


def record_subbands(intake: str, files: Sequence[Document]) -> Call[list[Document]]:
    """Record files as they are found; all or none, and each once for each version.

    A file is {path, version, state, number, stamp, declination_deg, content, begins_at, integration_s, reason}; its
    state is waiting (for the rest of it), whole or unreadable.  The file that completes a group spawns its conversion.
    Gives path, state, group_id and reason of each.  Raises RecordingNotFoundError, InvalidOptionError.
    """
    return Call(
        "select to_jsonb(r)::text as document from {schema}.record_subbands($1::text, $2::text::jsonb) r",
        (intake, encode(files, "files", limit=None, error=InvalidOptionError)),
        _documents,
    )


def forget_subbands(intake: str, paths: Iterable[str]) -> Call[int]:
    """Forget files that are gone, but for those that a conversion has begun with; how many.

    Raises RecordingNotFoundError.
    """
    sql = "select {schema}.forget_subbands($1::text, $2::text[]) as files"
    return Call(sql, (intake, list(paths)), one_value("files"))


def settle_subband_groups(intake: str) -> Call[list[Document]]:
    """Settle what time has brought: groups that have waited long enough, conversions that failed.

    Gives id, state and reason of those that stand otherwise.  Raises RecordingNotFoundError.
    """
    sql = "select to_jsonb(r)::text as document from {schema}.settle_subband_groups($1::text) r"
    return Call(sql, (intake,), _documents)


def convert_subband_group(group: int) -> Call[UUID]:
    """Have a group converted as it is now, or once more with the sub-bands that came late; gives the task.

    Raises RecordingNotFoundError, TaskStateError.
    """
    return Call("select {schema}.convert_subband_group($1::bigint)::text as task", (group,), _task)


def begin_conversion(group: int, round: int, task_id: UUID) -> Call[Document | None]:
    """The conversion of a group begins: the group with its files; None if another was asked for since.

    Raises RecordingNotFoundError.
    """
    sql = "select {schema}.begin_conversion($1::bigint, $2::integer, $3::text::uuid)::text as document"
    return Call(sql, (group, round, str(task_id)), _perhaps)


def end_conversion(group: int, round: int, product: Document) -> Call[bool]:
    """The conversion of a group has made its product; false if another was asked for since.

    Raises RecordingNotFoundError.
    """
    sql = "select {schema}.end_conversion($1::bigint, $2::integer, $3::text::jsonb) as is_wanted"
    return Call(sql, (group, round, encode(product, "product")), one_value("is_wanted"))


def changed_subbands(intake: str, files: Iterable[tuple[str, str]]) -> Call[list[int]]:
    """Of files (path, version) the numbers, from 0, of those that an intake does not know so, or not yet as whole.

    Raises RecordingNotFoundError.
    """
    some = list(files)
    return Call(
        "select n from {schema}.changed_subbands($1::text, $2::text[], $3::text[]) n",
        (intake, [path for path, _ in some], [version for _, version in some]),
        lambda rows: [row["n"] - 1 for row in rows],
    )


def list_subbands(
    intake: str, states: Iterable[str] = (), *, open: bool = False, after: str | None = None, limit: int = 1000
) -> Call[list[Document]]:
    """Files of an intake by path from `after` on: path, version, state, number, stamp, group_id, reason.

    With `open` only those that no conversion has begun with.  Raises RecordingNotFoundError.
    """
    return Call(
        "select to_jsonb(r)::text as document"
        " from {schema}.list_subbands($1::text, $2::text[], $3::boolean, $4::text, $5::integer) r",
        (intake, list(states) or None, open, after, limit),
        _documents,
    )


def list_subband_groups(
    intake: str, states: Iterable[str] = (), *, before: datetime | None = None, limit: int = 100
) -> Call[list[Document]]:
    """Groups of an intake, the latest first: stamps, sub-bands present, missing and late, task, product, reason.

    Raises RecordingNotFoundError.
    """
    return Call(
        "select r::text as document"
        " from {schema}.list_subband_groups($1::text, $2::text[], $3::text::timestamptz, $4::integer) r",
        (intake, list(states) or None, moment_text(before, "before"), limit),
        _documents,
    )


def get_subband_group(group: int) -> Call[Document]:
    """One group with its files.  Raises RecordingNotFoundError."""
    sql = "select {schema}.get_subband_group($1::bigint)::text as document"
    return Call(sql, (group,), lambda rows: _documents(rows)[0])


class RecordingMethods(ABC):
    """The part of `AbsurdClient` for recordings in sub-bands."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Make a call."""

    async def set_intake(self, intake: str, **policy: Any) -> str:
        """Make an intake of sub-bands, or change how it groups, see `recordings.set_intake`."""
        return await self.run(set_intake(intake, **policy))

    async def remove_intake(self, intake: str) -> bool:
        """Forget an intake with all it knows of files and groups; false if there is none of that name."""
        return await self.run(remove_intake(intake))

    async def list_intakes(self) -> list[Document]:
        """All intakes of sub-bands, and how each groups."""
        return await self.run(list_intakes())

    async def record_subbands(self, intake: str, files: Sequence[Document]) -> list[Document]:
        """Record files as they are found, see `recordings.record_subbands`."""
        return await self.run(record_subbands(intake, files))

    async def forget_subbands(self, intake: str, paths: Iterable[str]) -> int:
        """Forget files that are gone; how many.  Raises RecordingNotFoundError."""
        return await self.run(forget_subbands(intake, paths))

    async def settle_subband_groups(self, intake: str) -> list[Document]:
        """Settle what time has brought, see `recordings.settle_subband_groups`."""
        return await self.run(settle_subband_groups(intake))

    async def convert_subband_group(self, group: int) -> UUID:
        """Have a group converted now or once more, see `recordings.convert_subband_group`."""
        return await self.run(convert_subband_group(group))

    async def begin_conversion(self, group: int, round: int, task_id: UUID) -> Document | None:
        """The conversion of a group begins, see `recordings.begin_conversion`."""
        return await self.run(begin_conversion(group, round, task_id))

    async def end_conversion(self, group: int, round: int, product: Document) -> bool:
        """The conversion of a group has made its product, see `recordings.end_conversion`."""
        return await self.run(end_conversion(group, round, product))

    async def changed_subbands(self, intake: str, files: Iterable[tuple[str, str]]) -> list[int]:
        """Which of these files an intake does not know so, see `recordings.changed_subbands`."""
        return await self.run(changed_subbands(intake, files))

    async def list_subbands(
        self,
        intake: str,
        states: Iterable[str] = (),
        *,
        open: bool = False,
        after: str | None = None,
        limit: int = 1000,
    ) -> list[Document]:
        """Files of an intake by path from `after` on, see `recordings.list_subbands`."""
        return await self.run(list_subbands(intake, states, open=open, after=after, limit=limit))

    async def list_subband_groups(
        self, intake: str, states: Iterable[str] = (), *, before: datetime | None = None, limit: int = 100
    ) -> list[Document]:
        """Groups of an intake, the latest first, see `recordings.list_subband_groups`."""
        return await self.run(list_subband_groups(intake, states, before=before, limit=limit))

    async def get_subband_group(self, group: int) -> Document:
        """One group of sub-bands with its files.  Raises RecordingNotFoundError."""
        return await self.run(get_subband_group(group))


class SyncRecordingMethods(ABC):
    """The part of `SyncAbsurdClient` for recordings: each method does what the one of `RecordingMethods` does."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Make a call."""

    def set_intake(self, intake: str, **policy: Any) -> str:
        """Make an intake of sub-bands, or change how it groups, see `recordings.set_intake`."""
        return self.run(set_intake(intake, **policy))

    def remove_intake(self, intake: str) -> bool:
        """Forget an intake with all it knows of files and groups; false if there is none of that name."""
        return self.run(remove_intake(intake))

    def list_intakes(self) -> list[Document]:
        """All intakes of sub-bands, and how each groups."""
        return self.run(list_intakes())

    def record_subbands(self, intake: str, files: Sequence[Document]) -> list[Document]:
        """Record files as they are found, see `recordings.record_subbands`."""
        return self.run(record_subbands(intake, files))

    def forget_subbands(self, intake: str, paths: Iterable[str]) -> int:
        """Forget files that are gone; how many.  Raises RecordingNotFoundError."""
        return self.run(forget_subbands(intake, paths))

    def settle_subband_groups(self, intake: str) -> list[Document]:
        """Settle what time has brought, see `recordings.settle_subband_groups`."""
        return self.run(settle_subband_groups(intake))

    def convert_subband_group(self, group: int) -> UUID:
        """Have a group converted now or once more, see `recordings.convert_subband_group`."""
        return self.run(convert_subband_group(group))

    def begin_conversion(self, group: int, round: int, task_id: UUID) -> Document | None:
        """The conversion of a group begins, see `recordings.begin_conversion`."""
        return self.run(begin_conversion(group, round, task_id))

    def end_conversion(self, group: int, round: int, product: Document) -> bool:
        """The conversion of a group has made its product, see `recordings.end_conversion`."""
        return self.run(end_conversion(group, round, product))

    def changed_subbands(self, intake: str, files: Iterable[tuple[str, str]]) -> list[int]:
        """Which of these files an intake does not know so, see `recordings.changed_subbands`."""
        return self.run(changed_subbands(intake, files))

    def list_subbands(
        self,
        intake: str,
        states: Iterable[str] = (),
        *,
        open: bool = False,
        after: str | None = None,
        limit: int = 1000,
    ) -> list[Document]:
        """Files of an intake by path from `after` on, see `recordings.list_subbands`."""
        return self.run(list_subbands(intake, states, open=open, after=after, limit=limit))

    def list_subband_groups(
        self, intake: str, states: Iterable[str] = (), *, before: datetime | None = None, limit: int = 100
    ) -> list[Document]:
        """Groups of an intake, the latest first, see `recordings.list_subband_groups`."""
        return self.run(list_subband_groups(intake, states, before=before, limit=limit))

    def get_subband_group(self, group: int) -> Document:
        """One group of sub-bands with its files.  Raises RecordingNotFoundError."""
        return self.run(get_subband_group(group))


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]


def _perhaps(rows: Sequence[Row]) -> Document | None:
    text = rows[0]["document"]
    return None if text is None else decode(text)


def _task(rows: Sequence[Row]) -> UUID:
    return UUID(rows[0]["task"])
