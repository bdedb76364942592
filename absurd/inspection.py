"""The reads that command line and interfaces make: each as a `Call`.

Lists come as JSON documents (dicts with ISO times), ready to be printed; a task as `model.Task`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from absurd.call import Call, Row
from absurd.encoding import decode, encode
from absurd.errors import TaskNotFoundError, WorkflowNotFoundError
from absurd.model import Artifact, Run, RunState, Task, TaskState
from absurd.queue import moment_text, task_uuid

Document = dict[str, Any]


def get_task(task_id: UUID | str) -> Call[Task]:
    """Everything about a task.  Raises TaskNotFoundError."""
    document = get_task_document(task_id)
    return Call(document.sql, document.args, lambda rows: read_task(document.decode(rows)))


def get_task_document(task_id: UUID | str) -> Call[Document]:
    """Everything about a task as the document that ``absurd task show --json`` prints.  Raises TaskNotFoundError."""
    task_id = task_uuid(task_id)

    def known(rows: Sequence[Row]) -> Document:
        if rows[0]["document"] is None:
            raise TaskNotFoundError(f"there is no task {task_id}", id=str(task_id))
        return dict(decode(rows[0]["document"]))

    return Call("select {schema}.get_task($1::uuid)::text as document", (task_id,), known)


def read_task(document: Document) -> Task:
    """A Task from its document; keys that are newer than this program are left out."""
    fields: dict[str, Any] = {name: document.get(name) for name in Task.__dataclass_fields__}
    for name in ("created_at", "run_at", "started_at", "finished_at"):
        fields[name] = _time(fields[name])
    workflow_id = fields["workflow_id"]
    return Task(
        **fields
        | {
            "id": UUID(document["id"]),
            "state": TaskState(document["state"]),
            "workflow_id": UUID(workflow_id) if workflow_id else None,
            "depends_on": [UUID(each) for each in fields["depends_on"] or ()],
            "children": [UUID(each) for each in fields["children"] or ()],
            "runs": [
                Run(
                    attempt=run["attempt"],
                    state=RunState(run["state"]),
                    worker=run["worker"],
                    started_at=_time(run["started_at"]),
                    finished_at=_time(run["finished_at"]),
                    error=run["error"],
                )
                for run in fields["runs"] or ()
            ],
            "artifacts": [
                Artifact(path=each["path"], kind=each["kind"], sha256=each["sha256"], bytes=each["bytes"])
                for each in fields["artifacts"] or ()
            ],
        }
    )


def list_tasks(
    *,
    queue: str | None = None,
    state: TaskState | str | None = None,
    name: str | None = None,
    tag: str | None = None,
    after: UUID | str | None = None,
    limit: int = 50,
    since: datetime | None = None,
    until: datetime | None = None,
    params: Mapping[str, Any] | None = None,
    look: int | None = None,
) -> Call[list[Document]]:
    """Tasks, newest first, at most 1000: id, queue, name, state, priority, attempts, created_at, tags.

    None means any; `after` is the last id of the page before.  `since` and `until` bound the time of the
    spawn; `params` are paths such as ``a.b`` with the values that all must have.  With `look` only about so many
    tasks are looked through; where that did not fill the page the last document is ``{"next": id}``, what to give
    as `after` to go on.
    """
    return Call(
        "select t.document::text as document from {schema}.list_tasks($1::text, $2::text, $3::text, $4::text, $5::uuid,"
        " $6::integer, $7::text::timestamptz, $8::text::timestamptz, $9::text::jsonb, $10::integer) as t (document)",
        (
            queue,
            None if state is None else str(state),
            name,
            tag,
            None if after is None else task_uuid(after),
            limit,
            moment_text(since, "since"),
            moment_text(until, "until"),
            encode(dict(params), "params") if params else None,
            look,
        ),
        _documents,
    )


def get_workflow(workflow_id: UUID | str, *, nodes: int = 1000) -> Call[Document]:
    """A workflow, its nodes counted by state, and up to `nodes` of them, failed ones first.

    Raises WorkflowNotFoundError.
    """
    workflow_id = task_uuid(workflow_id)

    def known(rows: Sequence[Row]) -> Document:
        if rows[0]["document"] is None:
            raise WorkflowNotFoundError(f"there is no workflow {workflow_id}", id=str(workflow_id))
        return dict(decode(rows[0]["document"]))

    sql = "select {schema}.get_workflow($1::uuid, $2::integer)::text as document"
    return Call(sql, (workflow_id, nodes), known)


def list_workflows(
    *,
    state: str | None = None,
    name: str | None = None,
    after: UUID | str | None = None,
    limit: int = 50,
    look: int | None = None,
) -> Call[list[Document]]:
    """Workflows, newest first, at most 1000: id, name, state, size, remaining, created_at, ended_at, reason.

    None means any; `after` is the last id of the page before; `look` as in `list_tasks`.
    """
    return Call(
        "select w.document::text as document from {schema}.list_workflows("
        "$1::text, $2::text, $3::uuid, $4::integer, $5::integer) as w (document)",
        (state, name, None if after is None else task_uuid(after), limit, look),
        _documents,
    )


def list_queues() -> Call[list[Document]]:
    """Queues by name: paused, counts per state, oldest_pending_seconds, limits."""
    return _listing("list_queues()")


def list_workers(*, all: bool = False) -> Call[list[Document]]:
    """Workers that are alive and those lost within the hour; with `all` every one that ever was."""
    return _listing("list_workers($1::boolean)", all)


def list_executors() -> Call[list[Document]]:
    """Executors that workers have registered, with the schema of their params."""
    return _listing("list_executors()")


def get_status() -> Call[Document]:
    """Queues, workers, schedules, and problems with what to do about each."""
    return Call("select {schema}.get_status()::text as document", (), lambda rows: dict(decode(rows[0]["document"])))


def get_metrics() -> Call[Document]:
    """Counters of queues, of which none ever falls; overdue schedules, alerts, rows of tables, the oldest snapshot."""
    return Call("select {schema}.get_metrics()::text as document", (), lambda rows: dict(decode(rows[0]["document"])))


def task_why(task_id: UUID | str) -> Call[str]:
    """What a task waits for, or how it ended, in a sentence.  Raises TaskNotFoundError."""
    task_id = task_uuid(task_id)

    def known(rows: Sequence[Row]) -> str:
        if rows[0]["why"] is None:
            raise TaskNotFoundError(f"there is no task {task_id}", id=str(task_id))
        return str(rows[0]["why"])

    return Call("select {schema}.task_why($1::uuid) as why", (task_id,), known)


def _listing(function: str, *args: Any) -> Call[list[Document]]:
    return Call(f"select to_jsonb(r)::text as document from {{schema}}.{function} r", args, _documents)


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
