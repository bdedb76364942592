"""Files of the tasks that a run comes after, waited for.

A task has completed a moment before its files have their names: they get them once the completion is committed.  What
comes after it may begin in that moment.
"""

from __future__ import annotations

from absurd.client_sync import SyncAbsurdClient
from absurd.context import RunContext

PATIENCE_SECONDS = 900.0
"""More than a worker takes that finishes what another one has left."""


def await_files(ctx: RunContext) -> None:
    """Wait until the files of the tasks that this run comes after are in place.

    Raises FilesMissing where nobody puts them there, WaitTimeoutError.
    """
    if not ctx.parents:
        return
    with SyncAbsurdClient.from_env() as client:
        for each in ctx.parents:
            client.wait(each, timeout=PATIENCE_SECONDS)
