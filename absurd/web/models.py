"""What is answered, for the OpenAPI: the documents that the database makes, which may gain keys with any version."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from absurd.model import RunState, TaskState

EndState = Literal["running", "completed", "failed", "cancelled"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow")


class Error(_Document):
    """What a run failed with."""

    code: str | None = None
    type: str | None = None
    message: str | None = None


class Spawned(_Document):
    """A task that was handed in."""

    id: UUID
    created: bool = Field(description="False where the key was taken: the id is the first task's.")


class Standing(_Document):
    """Where something stands after a change."""

    id: UUID
    state: str


class TaskRow(_Document):
    """A task in a list."""

    id: UUID
    queue: str
    name: str
    state: TaskState
    priority: int
    attempts: int
    created_at: AwareDatetime
    tags: list[str]


class Run(_Document):
    """An attempt at a task."""

    attempt: int
    state: RunState
    worker: str | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    error: Error | None


class Artifact(_Document):
    """A file that a run published."""

    path: str
    kind: str
    sha256: str | None = Field(description="Its content is at `artifacts/{sha256}`.")
    bytes: int | None


class Task(_Document):
    """Everything about a task.  Values whose names tell of a secret are `***`."""

    id: UUID
    queue: str
    name: str
    state: TaskState
    priority: int
    params: Any
    headers: dict[str, Any]
    tags: list[str]
    key: str | None
    workflow_id: UUID | None
    depends_on: list[UUID]
    attempts: int
    max_attempts: int | None
    created_at: AwareDatetime
    run_at: AwareDatetime | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    result: Any
    error: Error | None
    progress: dict[str, Any] | None
    runs: list[Run]
    artifacts: list[Artifact]


class Why(_Document):
    """Why a task is where it is."""

    id: UUID
    why: str


class LogLine(BaseModel):
    """A line that a run has written."""

    attempt: int
    at: AwareDatetime
    stream: str = Field(description="stdout, stderr, log; worker is what the worker says of the log.")
    text: str
    worker: str | None
    run: str


class LogPage(BaseModel):
    """A piece of a task's log."""

    lines: list[LogLine]
    state: TaskState = Field(description="Of an ended task all is there that it wrote.")
    more: bool = Field(description="Whether there is more now, behind `next`.")
    next: str | None = Field(description="What to give as `after` to go on from here, also later.")


class WorkflowRow(_Document):
    """A workflow in a list."""

    id: UUID
    name: str
    state: EndState
    size: int
    remaining: int
    created_at: AwareDatetime
    ended_at: AwareDatetime | None
    reason: str | None


class Workflow(WorkflowRow):
    """A workflow, its nodes counted by state."""

    counts: dict[str, int]


class Node(_Document):
    """A task of a workflow."""

    node: str
    id: UUID
    name: str | None
    queue: str | None
    state: str
    when: str
    error: Error | None


class Edge(BaseModel):
    """Of two nodes, the second waits for the end of the first."""

    parent: UUID
    child: UUID


class Graph(BaseModel):
    """A workflow as a directed acyclic graph; a parent may stand outside the nodes."""

    nodes: list[Node]
    edges: list[Edge]
    complete: bool = Field(description="False where the workflow has more nodes than were asked for.")


class Again(_Document):
    """How many nodes run again."""

    id: UUID
    nodes: int


class QueueStats(_Document):
    """How many tasks of a queue are in each state."""

    blocked: int
    pending: int
    sleeping: int
    running: int
    completed: int
    failed: int
    cancelled: int


class Queue(QueueStats):
    """A queue."""

    name: str
    paused: bool
    oldest_pending_seconds: float | None
    limits: dict[str, Any]


class Paused(BaseModel):
    """Whether a queue is paused."""

    name: str
    paused: bool


class LetterRow(_Document):
    """A dead letter in a list."""

    id: UUID
    queue: str
    name: str
    died_at: AwareDatetime
    attempts: int
    fingerprint: str
    error: Error | None


class Letter(LetterRow):
    """All about a dead letter."""

    params: Any
    runs: list[Run]
    kept: bool = Field(description="Whether the task itself is still there.")


class LetterGroup(_Document):
    """Dead letters that look alike."""

    fingerprint: str
    count: int
    first: AwareDatetime
    last: AwareDatetime
    name: str
    queue: str
    sample: UUID = Field(description="The newest of them.")


class RequeuedLetter(_Document):
    """What became of a dead letter that was to be put back."""

    id: UUID
    requeued: bool
    reason: str | None = None


class Requeued(BaseModel):
    """What became of dead letters that were to be put back."""

    requeued: int
    dry_run: bool
    tasks: list[RequeuedLetter]


class Purged(BaseModel):
    """How many dead letters went, or would go."""

    purged: int
    dry_run: bool


class Tick(_Document):
    """What came of a time at which a schedule was due."""

    due_at: AwareDatetime
    fired_at: AwareDatetime
    task_id: UUID | None = None


class Schedule(_Document):
    """A schedule.  Params whose names tell of a secret are `***`."""

    name: str
    state: Literal["active", "paused"]
    trigger: str
    zone: str | None
    executor: str
    params: Any
    options: dict[str, Any]
    next_due: AwareDatetime | None
    last: Tick | None


class ScheduleChange(BaseModel):
    """What became of a schedule."""

    name: str
    change: Literal["created", "changed", "unchanged"]


class ScheduleState(BaseModel):
    """Whether a schedule is paused."""

    name: str
    paused: bool


class Due(BaseModel):
    """When a schedule is due next."""

    name: str
    due: list[AwareDatetime]


class Alert(_Document):
    """An alert, and how it stands.  What its measure takes stands beside."""

    name: str
    measure: str
    threshold: float
    unit: str = Field(description="Of threshold and value; `1` is a fraction.")
    below: bool = Field(description="Whether it fires below the threshold.")
    severity: Literal["warning", "critical"]
    targets: list[str]
    state: Literal["ok", "firing"]
    value: float | None = Field(description="What was measured last; null: nothing could be.")
    error: str | None = Field(description="Why nothing could be measured, if that failed.")
    measured_at: AwareDatetime | None
    silenced_until: AwareDatetime | None


class AlertChange(BaseModel):
    """What became of an alert."""

    name: str
    change: Literal["created", "changed", "unchanged"]


class AlertTrial(_Document):
    """What an alert sees now, and what became of the messages."""

    name: str
    value: float | None
    breached: bool | None
    message: str
    sent: list[dict[str, Any]] = Field(description="target, and the error or null.")


class AlertEvent(_Document):
    """An alert began to fire, or recovered."""

    id: int
    alert: str
    state: Literal["firing", "recovered"]
    at: AwareDatetime
    value: float | None
    message: str
    silenced: bool
    notices: list[dict[str, Any]] = Field(
        description="target, state, attempts, sent_at, due_at and error of each message."
    )


class Worker(_Document):
    """A worker."""

    id: int
    name: str
    host: str
    pid: int
    state: str
    queues: list[str]
    concurrency: int
    running: int
    started_at: AwareDatetime
    last_seen: AwareDatetime
    draining: bool


class WorkerState(BaseModel):
    """Where a worker stands after an order; one that is `stopped` or `lost` takes none."""

    id: int
    state: str


class Executor(_Document):
    """An executor that workers have registered."""

    name: str
    queue: str | None
    runs_in: str | None
    description: str | None
    max_attempts: int | None
    timeout: float | None
    params_schema: dict[str, Any] | None = Field(description="JSON schema of its params.")


class Change(_Document):
    """Something that was changed through the web interface."""

    id: int
    at: AwareDatetime
    actor: str = Field(description="Name of the token.")
    action: str
    target: str | None
    address: str | None


class Health(BaseModel):
    """That the interface answers, and its database too."""

    status: Literal["ok"]
    version: str
    time: AwareDatetime = Field(description="Of the database's clock.")


class Status(_Document):
    """Queues, workers, schedules, and problems with what to do about each."""

    queues: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    schedules: list[dict[str, Any]]
    problems: list[dict[str, Any]]
