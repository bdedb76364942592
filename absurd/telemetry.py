"""What the daemons write to their logs, and how: one table of events, one configuration, nothing secret.

A line is an `Event` with values: ``log.warning(Event.STALE_CLAIM, task_id=...)``, or the event's name as text.  A
program that embeds absurd configures structlog itself; the command line calls `configure_logging`.
"""

from __future__ import annotations

import logging
import math
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from datetime import date
from enum import StrEnum
from typing import Any, Protocol

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from absurd.config import Settings
from absurd.redaction import HIDDEN, SECRET_KEYS, hide_in_text, is_secret

__all__ = ["SECRET_KEYS", "Event", "configure_logging", "redact", "redact_exception"]


class Event(StrEnum):
    """Every event that the daemons log; the names are stable, for programs that read logs."""

    ALERT_GIVEN_UP = "alert_given_up"
    """A message about an alert could not be delivered for so often that it is not tried again."""
    ALERT_NOT_SENT = "alert_not_sent"
    """A message about an alert could not be delivered; it is tried again."""
    ALERT_SENT = "alert_sent"
    """A message about an alert was delivered; it says of which, to which target."""
    BEAT_FAILED = "beat_failed"
    """A sign of life could not be given; it is tried again soon."""
    BLOCK_FAILED = "block_failed"
    """A stage of a block failed; it says which, and why."""
    BLOCK_PROCESSED = "block_processed"
    """All that was to be done with a block was done."""
    CALIBRATION_REFUSED = "calibration_refused"
    """A calibration did not pass its gates; it says which, and what is quarantined."""
    CALIBRATION_REMARK = "calibration_remark"
    """Gains were solved or judged, and something about them is to be known."""
    CATALOG_UNIFIED = "catalog_unified"
    """Datasets of a catalogue differ in a way that one schema can hold; it says what was made of it."""
    CHILD_KILLED = "child_killed"
    """A run's process did not end when it was asked to, and was killed."""
    CHILD_NOT_READY = "child_not_ready"
    """A process for a run did not start; the next is tried after a pause, and runs that need one are put off."""
    CHILD_NOT_WARM = "child_not_warm"
    """A child process could not be started ahead; the run that needs one tries again, and fails if that fails."""
    CHILD_RETIRED = "child_retired"
    """A child process is not used again: after so many runs, for its memory, or for what a run has left in it."""
    CLAIM_LOST = "claim_lost"
    """A run's claim was lost while it was at work; it is told to stop."""
    CLUSTER_AWAY = "cluster_away"
    """The scheduler of the Dask cluster cannot be reached; the worker tries again, and goes on with other runs."""
    CLUSTER_CONNECTED = "cluster_connected"
    """The scheduler of the Dask cluster was reached."""
    CLUSTER_UNANNOUNCED = "cluster_unannounced"
    """The database could not be told that the Dask cluster was reached: tasks put aside for it wake a little later."""
    CUTOUTS_MADE = "cutouts_made"
    """A batch of cut-outs has its manifest."""
    DASK_WORKER_LOST = "dask_worker_lost"
    """A Dask worker with runs of this worker is gone, or does not answer."""
    DATABASE_AWAY = "database_away"
    """The database does not answer; the call is repeated until it does."""
    DATABASE_BACK = "database_back"
    """The database answers again."""
    DATABASE_BACKED_UP = "database_backed_up"
    """A dump was made, and restored for a look if that was asked for."""
    EXECUTORS_MISSING = "executors_missing"
    """An entry point's executors cannot be used here, mostly because an extra is not installed."""
    FILES_PRUNED = "files_pruned"
    """Files that were too old were deleted."""
    FLAGS_RESTORED = "flags_restored"
    """A Measurement Set has the flags of an earlier version of its record."""
    FOLDER_INGESTED = "folder_ingested"
    """A folder of sub-bands was looked at; it counts its files by what became of them."""
    GAINS_NOT_FRESH = "gains_not_fresh"
    """Gains were applied that are aging or worse; it tells their age."""
    GAINS_SOLVED = "gains_solved"
    """Gains were solved and stored as a gain set."""
    GROUP_CONVERTED = "group_converted"
    """The sub-bands of a group became a Measurement Set."""
    GUARD_SILENT = "guard_silent"
    """The guard of a run's process did not answer before the run had begun, on a machine that is too busy; the run is
    put off."""
    HEART_DIED = "heart_died"
    """The process that gives signs of life in a worker's stead has died; another is started."""
    HEART_MISSING = "heart_missing"
    """The process that gives signs of life in a worker's stead could not be started; the worker goes on without."""
    IMAGE_MADE = "image_made"
    """Visibilities became an image; it says where it is, why cleaning stopped, and its noise."""
    IMAGE_REFUSED = "image_refused"
    """An image or mosaic did not pass its gates; it says which."""
    IMAGE_REMARK = "image_remark"
    """An image or mosaic passed its gates, and something about it is to be known."""
    IMAGES_INDEXED = "images_indexed"
    """The headers of image files were read into an index."""
    LEASE_OVER = "lease_over"
    """No sign of life was taken for a whole lease: this worker stops its runs by itself."""
    LOG_DELAYED = "log_delayed"
    """What runs write cannot be stored now; they go on, and it is tried again."""
    LOG_DROPPED = "log_dropped"
    """What runs have written could not be stored for so long that some of it was dropped."""
    LOG_REFUSED = "log_refused"
    """The database will never take something that runs have written; that is dropped, and the log says how much."""
    LOOP_FAILED = "loop_failed"
    """A round of a background loop failed; it is tried again."""
    LOOP_RECOVERED = "loop_recovered"
    """A background loop works again."""
    MAINTENANCE_DONE = "maintenance_done"
    """A round of upkeep took back lost runs, woke sleepers, or counted late children."""
    MAINTENANCE_FAILED = "maintenance_failed"
    """A part of the regular upkeep failed; the others were done, and it is tried again with the next round."""
    MEMORY_LIMIT_WATCHED = "memory_limit_watched"
    """A control group could not be used for a run's memory limit; what its processes hold is watched instead."""
    METRICS_FAILED = "metrics_failed"
    """A page of metrics could not be made; the daemon's work goes on."""
    METRICS_STARTED = "metrics_started"
    """The daemon answers scrapes; it says where."""
    MOSAIC_REMARK = "mosaic_remark"
    """Images were combined, and something about them is to be known."""
    OUTCOME_REFUSED = "outcome_refused"
    """The database will never take the outcome of a run, its products or what it has spawned; it fails for good."""
    PARTS_KEPT = "parts_kept"
    """What parts of a batch of cut-outs had made was to be removed, and another batch is at work with it."""
    PROBLEM_FOUND = "problem_found"
    """A health check found something wrong."""
    PUBLICATION_FAILED = "publication_failed"
    """A file of a completed run could not be given its final name; it will be tried again."""
    QUERY_EXPORTED = "query_exported"
    """An export wrote its file."""
    RECEIPTS_DELIVERED = "receipts_delivered"
    """Outcomes that a dead worker had left on disk were handed to the database."""
    RECEIPTS_FAILED = "receipts_failed"
    """Receipts cannot be written or read; the worker goes on without."""
    RECEIPTS_WRITTEN = "receipts_written"
    """The database is away, and finished outcomes were written to disk."""
    RECEIPT_DAMAGED = "receipt_damaged"
    """A file of receipts has lines that cannot be read; the others were delivered, the file was put aside."""
    RECEIPT_REFUSED = "receipt_refused"
    """The database will never take the outcome in a receipt; its file was put aside."""
    RELOAD_WAITS = "reload_waits"
    """Changed code cannot be loaded; the worker waits for the next change."""
    RETRY_POLICY_INVALID = "retry_policy_invalid"
    """A task carries a retry policy that cannot be read; its executor's is used."""
    RUN_ABANDONED = "run_abandoned"
    """A run on a Dask worker was ended, because the worker that had sent it is gone."""
    RUN_BROKEN = "run_broken"
    """The worker itself failed to execute a run."""
    RUN_STOPPED = "run_stopped"
    """A run's process was ended, by the signal named: out of time, cancelled, or its claim lost."""
    REQUEST_FAILED = "request_failed"
    """The web interface failed to answer a request, by a mistake of its own."""
    REQUEST_SERVED = "request_served"
    """The web interface has answered a request; it says whose, what and how."""
    SCHEDULER_LEADS = "scheduler_leads"
    """This scheduler goes first from now on."""
    SCHEDULER_STANDS_BY = "scheduler_stands_by"
    """Another scheduler goes first from now on."""
    SCHEDULER_STARTED = "scheduler_started"
    """A scheduler makes its rounds."""
    SCHEDULER_STOPPED = "scheduler_stopped"
    """A scheduler has ended."""
    SCHEDULE_FAILED = "schedule_failed"
    """When a schedule is due cannot be reckoned; nothing comes of it until it is changed, or another scheduler can."""
    SCRATCH_DATABASES_REMOVED = "scratch_databases_removed"
    """What a backup that was killed had left behind is gone."""
    SCRATCH_FULL = "scratch_full"
    """The scratch disk has no room for a run; it is put off, without an attempt spent."""
    SCRATCH_LEFT = "scratch_left"
    """A scratch folder could not be removed with all that is in it."""
    SCRATCH_SWEPT = "scratch_swept"
    """Scratch folders of a worker that was killed were removed."""
    SCRATCH_UNKNOWN = "scratch_unknown"
    """How much room the scratch disk has cannot be told; the run is started, unless it needs room on one that hangs."""
    SESSION_CATALOG = "session_catalog"
    """The catalogue of a folder of sessions is as its files are."""
    SESSION_MASTER = "session_master"
    """Frames of a session became a master frame."""
    SESSION_RETIRED = "session_retired"
    """Files of sessions whose time was over are gone, or would be."""
    SESSION_SEALED = "session_sealed"
    """A session's journal and frames became its file."""
    STALE_CLAIM = "stale_claim"
    """A run's outcome came after its claim was lost, and changed nothing."""
    SUSPECT_IN_WORKER = "suspect_in_worker"
    """A suspect runs in the worker itself, because no child process finds its executor."""
    TASKS_PRUNED = "tasks_pruned"
    """Ended tasks that were too old were removed."""
    THREAD_LEFT_BEHIND = "thread_left_behind"
    """A run in a thread did not end when it was told to; threads cannot be killed."""
    TRACES_NOT_EXPORTED = "traces_not_exported"
    """The exporter of traces that was asked for is none of those known; spans go nowhere."""
    VISIBILITIES_CONVERTED = "visibilities_converted"
    """A file of visibilities became a Measurement Set."""
    VISIBILITIES_FLAGGED = "visibilities_flagged"
    """The flags of a Measurement Set grew."""
    WEB_STARTED = "web_started"
    """The web interface takes requests; it says where, and whether tokens are asked for."""
    WEB_STOPPED = "web_stopped"
    """The web interface has answered what was underway, and left."""
    WORKER_DRAINING = "worker_draining"
    """A worker was ordered to drain: it claims no more, lets its runs end, and leaves."""
    WORKER_GIVEN_UP = "worker_given_up"
    """The database gave this worker up, because no sign of life arrived in time."""
    WORKER_HELD_UP = "worker_held_up"
    """Something in a worker holds up everything; what it holds is kept, or why not is told."""
    WORKER_LEFT_UNHEARD = "worker_left_unheard"
    """A worker could not tell the database that it ends; its lease will tell."""
    WORKER_RELOADING = "worker_reloading"
    """Files of executors have changed: the worker stops, and begins anew with them."""
    WORKER_RESIZED = "worker_resized"
    """A worker was ordered to run more or fewer at a time."""
    WORKER_RESUMED = "worker_resumed"
    """The order to drain was taken back: the worker claims again."""
    WORKER_STARTED = "worker_started"
    """A worker is registered and begins to claim."""
    WORKER_STOPPED = "worker_stopped"
    """A worker has ended; what it held has ended too or was handed back."""
    WORKER_STOPPING = "worker_stopping"
    """A worker was asked to stop: it claims no more, and what it runs ends or is handed back."""
    WORKER_SUCCEEDED = "worker_succeeded"
    """A worker on this machine had died; its receipts were delivered, and its runs were taken back at once."""


def configure_logging(settings: Settings) -> None:
    """Send structlog's and the standard library's log lines to stderr as `settings` say; may be called again."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer = _renderer(settings.log_format)
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    whose: list[Processor] = [structlog.contextvars.merge_contextvars, _of_run]
    finish: list[Processor] = [structlog.processors.format_exc_info, redact, renderer]
    structlog.configure(
        processors=[*whose, structlog.processors.add_log_level, stamp, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_stderr_logger,
    )
    handler = _StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *whose,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                stamp,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    for earlier in [one for one in root.handlers if isinstance(one, _StderrHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: values become plain ones, without secrets.  It goes before the one that makes text."""
    return {key: HIDDEN if is_secret(key) else _plain(value) for key, value in event.items()}


def redact_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: an exception becomes text, so that `redact`, which comes next, sees what it says."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["traceback"] = "".join(traceback.format_exception(error))
    return event


def safe(processors: Sequence[Processor], secrets: Sequence[str] = ()) -> list[Processor]:
    """`processors`, whose last makes text, with `redact` before that one, which takes out `secrets` too.

    The text goes to the run's log as well, where the logger at the end does not see to that.
    """

    def without(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: _without(value, secrets) for key, value in event.items()}

    told = [] if structlog.get_config()["logger_factory"] is _stderr_logger else [_tell_line]
    return [*processors[:-1], redact_exception, redact, *([without] if secrets else []), *processors[-1:], *told]


def _without(value: Any, secrets: Sequence[str]) -> Any:
    match value:
        case str():
            return hide_in_text(value, secrets)
        case dict():
            return {key: _without(inner, secrets) for key, inner in value.items()}
        case list():
            return [_without(inner, secrets) for inner in value]
    return value


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)  # JSON has no word for the others
        case Mapping():
            return {str(key): HIDDEN if is_secret(key) else _plain(inner) for key, inner in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return _plain(value._asdict())
        case list() | tuple() | set() | frozenset():
            return [_plain(inner) for inner in value]
        case date():
            return value.isoformat()
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _plain({each.name: getattr(value, each.name) for each in fields(value) if each.repr})
        case _:
            return hide_in_text(str(value))


def _renderer(log_format: str) -> Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    # Not rich's tracebacks: they print local variables, and with them secrets.
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )


class _Sink(Protocol):
    def write(self, claim: Any, stream: str, data: bytes, /) -> None: ...


LINES: ContextVar[tuple[_Sink, Any] | None] = ContextVar("absurd_lines", default=None)
"""Within a run that shares its process with others: what takes its log lines too, and its claim."""


def _of_run(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: which run it is that logs, for those that share their process with others."""
    if (lines := LINES.get()) is not None:
        claim = lines[1]
        for name, value in (("task_id", str(claim.task_id)), ("task", claim.name), ("attempt", claim.attempt)):
            event.setdefault(name, value)
    return event


def _tell(line: str | bytes) -> None:
    if (lines := LINES.get()) is not None:
        sink, claim = lines
        data = line.encode(errors="replace") if isinstance(line, str) else line
        sink.write(claim, "log", data + b"\n")


def _tell_line(_logger: WrappedLogger, _method: str, line: Any) -> Any:
    """A structlog processor behind the one that makes text: the run's log gets the line too."""
    if isinstance(line, str | bytes):
        _tell(line)
    return line


@contextmanager
def telling_records() -> Iterator[None]:
    """Have the logs of runs get what is logged within them by `logging`, whoever has configured that."""
    root = logging.getLogger()
    if any(isinstance(each, _StderrHandler) for each in root.handlers):
        yield
        return
    handler = _RunHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _write(line: str) -> None:
    """Write a line to what stderr is now; a log that cannot be written must not end the work."""
    _tell(line)
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # a pipe that nobody reads any more; a file that was closed
        return


class _StderrLogger:
    """The end of structlog's chain."""

    def msg(self, line: str) -> None:
        _write(line)

    debug = info = warning = error = critical = exception = log = msg


def _stderr_logger(*_: Any) -> _StderrLogger:
    return _StderrLogger()


class _RunHandler(logging.Handler):
    """For programs that have configured logging otherwise."""

    def emit(self, record: logging.LogRecord) -> None:
        if LINES.get() is not None:
            _tell(self.format(record))


class _StderrHandler(logging.Handler):
    """The same end for the standard library's loggers."""

    def emit(self, record: logging.LogRecord) -> None:
        _write(self.format(record))
