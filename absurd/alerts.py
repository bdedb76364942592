"""The SQL functions of alerts: each as a `Call`, for clients and schedulers."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from absurd.call import Call, Row, one_value
from absurd.encoding import decode, encode
from absurd.errors import AlertNotFoundError, InvalidOptionError

Document = dict[str, Any]
Change = Literal["created", "changed", "unchanged"]


class Step(NamedTuple):
    """What a scheduler is handed: who leads, folders whose disks are looked at, and messages that are due."""

    leader: str
    folders: list[str]
    notices: list[Document]
    """Each with id, attempt and target, and what is told: alert, state, severity, measure, at, value, threshold,
    message."""
    next_seconds: float | None
    """In how many seconds another message is due."""


# Those who make alerts ---------------------------------------------------------------------------


def set_alert(name: str, alert: Document) -> Call[Change]:
    """Make or change an alert: ``measure``, ``threshold``, and ``for``, ``severity``, ``targets`` and options.

    Raises InvalidNameError, InvalidOptionError.
    """
    rule = encode(alert, "alert", error=InvalidOptionError)
    return Call("select {schema}.set_alert($1::text, $2::text::jsonb) as change", (name, rule), one_value("change"))


def remove_alert(name: str) -> Call[bool]:
    """Remove an alert with its history; gives whether there was one."""
    return Call("select {schema}.remove_alert($1::text) as removed", (name,), one_value("removed"))


def silence_alert(name: str, seconds: float, reason: str | None = None) -> Call[Document]:
    """Have nobody told that it fires, for `seconds`; 0 ends that.  Raises AlertNotFoundError, InvalidOptionError."""
    sql = "select {schema}.silence_alert($1::text, $2::double precision, $3::text)::text as document"
    return Call(sql, (name, seconds, reason), _document)


def list_alerts() -> Call[list[Document]]:
    """All alerts by name, with how each stands and what was measured last."""
    return Call("select d.document::text as document from {schema}.list_alerts() as d (document)", (), _documents)


def get_alert(name: str) -> Call[Document]:
    """One alert.  Raises AlertNotFoundError."""

    def read(rows: Sequence[Row]) -> Document:
        if not rows:
            raise AlertNotFoundError(f"there is no alert {name}", name=name)
        return _document(rows)

    sql = (
        "select d.document::text as document from {schema}.list_alerts() as d (document)"
        " where d.document ->> 'name' = $1::text"
    )
    return Call(sql, (name,), read)


def measure_alert(name: str, alert: Document | None = None, disks: Mapping[str, float] | None = None) -> Call[Document]:
    """What an alert sees now, or would as `alert` describes it: value, subject, breached, message.

    `disks` tells the shares of disks that are free, by folder; see `free_shares`.
    Raises AlertNotFoundError, InvalidNameError, InvalidOptionError.
    """
    rule = None if alert is None else encode(alert, "alert", error=InvalidOptionError)
    sql = "select {schema}.measure_alert($1::text, $2::text::jsonb, $3::text::jsonb)::text as document"
    return Call(sql, (name, rule, encode(dict(disks or {}), "disks", error=InvalidOptionError)), _document)


def list_alert_events(name: str | None = None, *, before: int | None = None, limit: int = 50) -> Call[list[Document]]:
    """When alerts began to fire and recovered, the latest first, and what became of each message.

    `before` is the last id of the page before.  Raises AlertNotFoundError.
    """
    return Call(
        "select d.document::text as document"
        " from {schema}.list_alert_events($1::text, $2::bigint, $3::integer) as d (document)",
        (name, before, limit),
        _documents,
    )


# Schedulers --------------------------------------------------------------------------------------


def step_alerts(holder: str, lease: float, disks: Mapping[str, float]) -> Call[Step]:
    """Measure all alerts, unless another holder leads, and take the messages that are due."""

    def read(rows: Sequence[Row]) -> Step:
        found = _document(rows)
        return Step(found["leader"], found["folders"], found["notices"], found.get("next_seconds"))

    sql = "select {schema}.step_alerts($1::text, $2::double precision, $3::text::jsonb)::text as document"
    return Call(sql, (holder, lease, encode(dict(disks), "disks", error=InvalidOptionError)), read)


def end_notice(number: int, attempt: int, error: str | None) -> Call[float | None]:
    """Note that a message was sent, or why not; gives the seconds after which it is tried again, None for never."""
    sql = "select {schema}.end_notice($1::bigint, $2::integer, $3::text) as wait"
    return Call(sql, (number, attempt, error), one_value("wait"))


def free_shares(folders: Iterable[str]) -> dict[str, float]:
    """Which share of its disk is free, for each folder of this machine that can be looked at."""
    found = {}
    for folder in folders:
        try:
            disk = shutil.disk_usage(folder)
        except OSError:  # nothing is known then, which is told as such
            continue
        found[folder] = disk.free / disk.total if disk.total else 0.0
    return found


def _document(rows: Sequence[Row]) -> Document:
    return dict(decode(rows[0]["document"]))


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]
