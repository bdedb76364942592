"""Runs and outcomes as the JSON lines between a worker and its child processes (pure)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from absurd.errors import AbsurdError
from absurd.model import Claim
from absurd.outcome import Cancelled, Completed, Failed, Outcome, PendingArtifact, Returned, Suspended

LINE_LIMIT = 64 * 1024 * 1024
"""Longest line in bytes; params and results are held to far less at spawn and at completion."""

CHANNEL_CLOSED = 76
"""Exit code of a child whose executor has closed the socket to the worker: EX_PROTOCOL of sysexits.h."""

_KINDS: dict[str, type[Any]] = {
    "completed": Completed,
    "failed": Failed,
    "suspended": Suspended,
    "returned": Returned,
    "cancelled": Cancelled,
}


def dump_claim(claim: Claim) -> dict[str, Any]:
    """A claim as JSON values."""
    fields = claim._asdict()
    plain = {name: dict(fields[name]) for name in ("headers", "parents", "needs")}
    return fields | plain | {"task_id": str(claim.task_id)}


def load_claim(fields: dict[str, Any]) -> Claim:
    """The claim that `dump_claim` dumped."""
    return Claim(**fields | {"task_id": UUID(fields["task_id"])})


def dump_outcome(outcome: Outcome | None) -> dict[str, Any] | None:
    """An outcome as JSON values; None for a lost claim."""
    if outcome is None:
        return None
    kind = next(name for name, each in _KINDS.items() if isinstance(outcome, each))
    fields = {name: getattr(outcome, name) for name in type(outcome).__dataclass_fields__}
    if isinstance(outcome, Completed):
        fields["artifacts"] = [
            {name: getattr(each, name) for name in PendingArtifact.__dataclass_fields__} for each in outcome.artifacts
        ]
    return {"kind": kind} | fields


def load_outcome(dumped: dict[str, Any] | None) -> Outcome | None:
    """The outcome that `dump_outcome` dumped."""
    if dumped is None:
        return None
    fields = dict(dumped)
    kind = fields.pop("kind")
    for name in ("awaits", "spawns", "products"):
        if name in fields:
            fields[name] = tuple(fields[name])
    if kind == "completed":
        fields["artifacts"] = tuple(PendingArtifact(**each) for each in fields["artifacts"])
    outcome: Outcome = _KINDS[kind](**fields)
    return outcome


def dump_error(error: AbsurdError) -> dict[str, str]:
    """An error of a context's call as JSON values."""
    return {"code": error.code, "message": error.message}


def load_error(dumped: dict[str, str]) -> AbsurdError:
    """The error that `dump_error` dumped, of the class that has its code."""
    kinds = [AbsurdError]
    for kind in kinds:  # grows meanwhile
        if kind.code == dumped["code"]:
            return kind(dumped["message"])
        kinds += kind.__subclasses__()
    return AbsurdError(dumped["message"])
