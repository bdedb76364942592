"""Gain sets: where solved gains of antennas lie, for what they hold, and whether they may be used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from absurd.call import Call, Row, one_value
from absurd.encoding import decode, encode
from absurd.errors import InvalidOptionError
from absurd.queue import moment_text

T = TypeVar("T")
Document = dict[str, Any]
GainSetState = Literal["candidate", "valid", "superseded", "quarantined"]


def register_gain_set(gain_set: Mapping[str, Any], state: Literal["candidate", "valid"] = "valid") -> Call[Document]:
    """Register a set whose folder is whole, as valid or as a candidate, which is not chosen until it is accepted.

    It is {telescope, path, checksum, bytes, kinds, source, ra, declination, strip (degrees, ICRS), lowest_hz,
    highest_hz, observed_from, observed_until, valid_from, valid_until (ISO), quality, provenance, task_id}.  Valid sets
    of the same recording are superseded.  A path and checksum that are known change nothing.  Gives {id, state,
    created, superseded}.  Raises InvalidOptionError.
    """
    return Call(
        "select to_jsonb(r)::text as document from {schema}.register_gain_set($1::text::jsonb, $2::text) r",
        (encode(dict(gain_set), "gain set", limit=None, error=InvalidOptionError), state),
        lambda rows: _documents(rows)[0],
    )


def accept_gain_set(number: int, quality: Mapping[str, Any] | None = None, *, again: bool = False) -> Call[str]:
    """Make a candidate valid, or superseded where a later one of the same recording is valid; gives its state.

    A set that is superseded or quarantined becomes valid only `again`.  `quality` is what gates have measured.
    Raises GainSetNotFoundError, GainSetStateError.
    """
    return Call(
        "select {schema}.accept_gain_set($1::bigint, $2::text::jsonb, $3::boolean) as state",
        (number, _json(quality), again),
        one_value("state"),
    )


def quarantine_gain_set(number: int, reason: str, quality: Mapping[str, Any] | None = None) -> Call[bool]:
    """Have a set never be chosen, for a reason; False if it is quarantined already.  Raises GainSetNotFoundError."""
    return Call(
        "select {schema}.quarantine_gain_set($1::bigint, $2::text, $3::text::jsonb) as done",
        (number, reason, _json(quality)),
        one_value("done"),
    )


def forget_gain_set(number: int) -> Call[bool]:
    """Remove a set from the database, not its folder; False if there is none of that number.

    The latest of those that it had superseded is valid again.
    """
    return Call("select {schema}.forget_gain_set($1::bigint) as done", (number,), one_value("done"))


def get_gain_set(number: int) -> Call[Document | None]:
    """A set in whatever state; None if there is none of that number."""
    return Call(
        "select r::text as document from {schema}.get_gain_set($1::bigint) r where r is not null",
        (number,),
        lambda rows: _documents(rows)[0] if rows else None,
    )


def get_stored_gain_set(path: str, checksum: str) -> Call[Document | None]:
    """The set of a folder, by its absolute path and the SHA-256 of what it holds; None if there is none."""
    return Call(
        "select r::text as document from {schema}.get_stored_gain_set($1::text, $2::text) r where r is not null",
        (path, checksum),
        lambda rows: _documents(rows)[0] if rows else None,
    )


def find_gain_sets(telescope: str, at: datetime, declination: float, *, limit: int = 3) -> Call[list[Document]]:
    """Valid sets of a telescope nearest to a time, the nearest first; which of them may be used, `choose` decides.

    Up to `limit` before and after it whose strip holds the declination (degrees), and as many of other strips.
    Raises InvalidOptionError.
    """
    return Call(
        "select r::text as document from {schema}.find_gain_sets("
        "$1::text, $2::text::timestamptz, $3::float8, $4::integer) r",
        (telescope, moment_text(at, "at"), float(declination), limit),
        _documents,
    )


def list_gain_sets(
    telescope: str | None = None,
    *,
    state: GainSetState | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 100,
) -> Call[list[Document]]:
    """Sets in any state, or in one, the latest recording first: those recorded from `since` on and before `until`."""
    return Call(
        "select r::text as document from {schema}.list_gain_sets("
        "$1::text, $2::text, $3::text::timestamptz, $4::text::timestamptz, $5::integer) r",
        (telescope, state, moment_text(since, "since"), moment_text(until, "until"), limit),
        _documents,
    )


class GainMethods(ABC):
    """The part of `AbsurdClient` for gain sets."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Make a call."""

    async def register_gain_set(
        self, gain_set: Mapping[str, Any], state: Literal["candidate", "valid"] = "valid"
    ) -> Document:
        """Register a gain set whose folder is whole, see `gains.register_gain_set`."""
        return await self.run(register_gain_set(gain_set, state))

    async def accept_gain_set(
        self, number: int, quality: Mapping[str, Any] | None = None, *, again: bool = False
    ) -> str:
        """Make a candidate gain set valid, see `gains.accept_gain_set`; gives its state."""
        return await self.run(accept_gain_set(number, quality, again=again))

    async def quarantine_gain_set(self, number: int, reason: str, quality: Mapping[str, Any] | None = None) -> bool:
        """Have a gain set never be chosen; False if it is quarantined already.  Raises GainSetNotFoundError."""
        return await self.run(quarantine_gain_set(number, reason, quality))

    async def forget_gain_set(self, number: int) -> bool:
        """Remove a gain set from the database, not its folder; False if there is none of that number."""
        return await self.run(forget_gain_set(number))

    async def get_gain_set(self, number: int) -> Document | None:
        """A gain set in whatever state; None if there is none of that number."""
        return await self.run(get_gain_set(number))

    async def get_stored_gain_set(self, path: str, checksum: str) -> Document | None:
        """The gain set of a folder, by its absolute path and the SHA-256 of what it holds; None if there is none."""
        return await self.run(get_stored_gain_set(path, checksum))

    async def find_gain_sets(
        self, telescope: str, at: datetime, declination: float, *, limit: int = 3
    ) -> list[Document]:
        """Valid gain sets of a telescope nearest to a time, on both sides, see `gains.find_gain_sets`."""
        return await self.run(find_gain_sets(telescope, at, declination, limit=limit))

    async def list_gain_sets(
        self,
        telescope: str | None = None,
        *,
        state: GainSetState | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[Document]:
        """Gain sets in any state, or in one, the latest recording first."""
        return await self.run(list_gain_sets(telescope, state=state, since=since, until=until, limit=limit))


class SyncGainMethods(ABC):
    """The part of `SyncAbsurdClient` for gain sets: each method does what the one of `GainMethods` does."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Make a call."""

    def register_gain_set(
        self, gain_set: Mapping[str, Any], state: Literal["candidate", "valid"] = "valid"
    ) -> Document:
        """Register a gain set whose folder is whole, see `gains.register_gain_set`."""
        return self.run(register_gain_set(gain_set, state))

    def accept_gain_set(self, number: int, quality: Mapping[str, Any] | None = None, *, again: bool = False) -> str:
        """Make a candidate gain set valid, see `gains.accept_gain_set`; gives its state."""
        return self.run(accept_gain_set(number, quality, again=again))

    def quarantine_gain_set(self, number: int, reason: str, quality: Mapping[str, Any] | None = None) -> bool:
        """Have a gain set never be chosen; False if it is quarantined already.  Raises GainSetNotFoundError."""
        return self.run(quarantine_gain_set(number, reason, quality))

    def forget_gain_set(self, number: int) -> bool:
        """Remove a gain set from the database, not its folder; False if there is none of that number."""
        return self.run(forget_gain_set(number))

    def get_gain_set(self, number: int) -> Document | None:
        """A gain set in whatever state; None if there is none of that number."""
        return self.run(get_gain_set(number))

    def get_stored_gain_set(self, path: str, checksum: str) -> Document | None:
        """The gain set of a folder, by its absolute path and the SHA-256 of what it holds; None if there is none."""
        return self.run(get_stored_gain_set(path, checksum))

    def find_gain_sets(self, telescope: str, at: datetime, declination: float, *, limit: int = 3) -> list[Document]:
        """Valid gain sets of a telescope nearest to a time, on both sides, see `gains.find_gain_sets`."""
        return self.run(find_gain_sets(telescope, at, declination, limit=limit))

    def list_gain_sets(
        self,
        telescope: str | None = None,
        *,
        state: GainSetState | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[Document]:
        """Gain sets in any state, or in one, the latest recording first."""
        return self.run(list_gain_sets(telescope, state=state, since=since, until=until, limit=limit))


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else encode(dict(value), "quality", limit=None, error=InvalidOptionError)


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]
