"""``session.*``: sessions on the queue."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from absurd.context import RunContext
from absurd.executor import executor
from absurd.retry import ErrorRule, RetryPolicy

if find_spec("yaml") is None:  # not registered then: a worker that has it will serve the tasks
    raise ImportError("yaml is missing, install absurd[session]", name="yaml")

_IN_VAIN = tuple(ErrorRule(exception=name, action="reject") for name in ("SessionNotFoundError", "SessionStateError"))


class SealParams(BaseModel):
    """Which session."""

    model_config = ConfigDict(extra="forbid")

    data_dir: str = Field(description="The data folder, by its absolute path on the worker's machine.")
    session_id: str = Field(description="The session's name.")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not os.path.isabs(path):
            raise ValueError(f"{path!r} is not absolute")
        return path


@executor("session.seal", runs_in="process", retry=RetryPolicy(max_attempts=10, rules=_IN_VAIN))
def seal(ctx: RunContext, params: SealParams) -> dict[str, Any]:
    """Write the file of a session that has ended from its journal and frames, and let go of these once it is whole.

    The result tells session_id, path, sha256, bytes, whether it was recovered, and its metrics.  Of a session that is
    sealed already it tells the same.
    """
    from absurd.tasks.session.sealed import seal as seal_session

    done = seal_session(params.data_dir, params.session_id)
    ctx.log.info("session_sealed", session_id=done.session_id, path=done.path, bytes=done.bytes)
    return asdict(done)
