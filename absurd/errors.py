"""Every error absurd raises, and the stable code each one carries.

Five families say what a caller can do about it; the command line turns them into exit codes and
the REST interface into statuses.  The SQL functions raise SQLSTATEs of class ``AB``; `BY_SQLSTATE`
says which class each becomes in Python.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AbsurdError(Exception):
    """Root of all errors of this package.

    `code` is stable and the same in Python, ``--json``, REST and logs.  `details` holds what the
    message names, for programs.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


# What went wrong, by what the caller can do ------------------------------------------------------


class InvalidInputError(AbsurdError):
    """The call itself is wrong; repeating it unchanged is useless."""

    code = "invalid_input"


class NotFoundError(AbsurdError):
    """What was named does not exist."""

    code = "not_found"


class DatabaseUnavailableError(AbsurdError):
    """The database cannot be reached; the same call may work later."""

    code = "database_unavailable"


class ConflictError(AbsurdError):
    """What was asked contradicts the present state."""

    code = "conflict"


class ExecutionError(AbsurdError):
    """Work was started and did not succeed."""

    code = "execution_failed"


# Calls that are wrong ----------------------------------------------------------------------------


class ConfigurationError(InvalidInputError):
    """A setting has a value that cannot be used."""

    code = "configuration_invalid"


class InvalidNameError(InvalidInputError):
    """A queue or executor name is empty, too long, or holds characters that are not allowed."""

    code = "invalid_name"


class InvalidOptionError(InvalidInputError):
    """A spawn option is unknown or its value cannot be used."""

    code = "invalid_option"


class InvalidParamsError(InvalidInputError):
    """The params of a task do not fit its executor's model, or are not JSON."""

    code = "invalid_params"


class PayloadTooLargeError(InvalidInputError):
    """Params, headers or a result are larger than the queue accepts."""

    code = "payload_too_large"


class UnknownExecutorError(InvalidInputError):
    """No executor of that name is registered here."""

    code = "unknown_executor"


class IsolationError(InvalidInputError):
    """A function of the worker's side was called in a transaction that is not READ COMMITTED."""

    code = "isolation_level"


class UnknownParentError(InvalidInputError):
    """`depends_on` names a task that does not exist, or the task itself."""

    code = "unknown_parent"


class MissingResultError(InvalidInputError):
    """Params refer to a parent's result that does not exist, or to a place that is not in it."""

    code = "result_missing"


class UnauthenticatedError(InvalidInputError):
    """The web interface was called without a token, or with one that is not let in."""

    code = "unauthenticated"


class ForbiddenError(InvalidInputError):
    """The token does not allow what was asked, or the call came from a page of another site."""

    code = "forbidden"


class UnsupportedServerError(InvalidInputError):
    """The PostgreSQL server is older than the oldest supported version."""

    code = "server_unsupported"


# Things that do not exist ------------------------------------------------------------------------


class TaskNotFoundError(NotFoundError):
    """No task has that id."""

    code = "task_not_found"


class WorkflowNotFoundError(NotFoundError):
    """No workflow has that id."""

    code = "workflow_not_found"


class QueueNotFoundError(NotFoundError):
    """No queue has that name."""

    code = "queue_not_found"


class ResourceNotFoundError(NotFoundError):
    """Nothing of that name is shared by all workers."""

    code = "resource_not_found"


class ScheduleNotFoundError(NotFoundError):
    """No schedule has that name."""

    code = "schedule_not_found"


class WorkerNotFoundError(NotFoundError):
    """No worker has that number, or none that is alive has that name."""

    code = "worker_not_found"


class ImageIndexNotFoundError(NotFoundError):
    """No index of images has that name."""

    code = "image_index_not_found"


class RecordingNotFoundError(NotFoundError):
    """No intake of recordings has that name, or no sub-band group that number."""

    code = "recording_not_found"


class GainSetNotFoundError(NotFoundError):
    """No gain set has that number."""

    code = "gain_set_not_found"


class ProductNotFoundError(NotFoundError):
    """No product has that number."""

    code = "product_not_found"


class TokenNotFoundError(NotFoundError):
    """No token of that name is in force."""

    code = "token_not_found"


class AlertNotFoundError(NotFoundError):
    """No alert has that name."""

    code = "alert_not_found"


# The database ------------------------------------------------------------------------------------


class AuthenticationError(DatabaseUnavailableError):
    """The server refused the user or the password."""

    code = "database_authentication"


class EmbeddedServerError(DatabaseUnavailableError):
    """The embedded PostgreSQL server could not be found, made or started."""

    code = "embedded_server"


# Contradictions of the present state -------------------------------------------------------------


class StaleClaimError(ConflictError):
    """The claim on a run was lost: the lease ended, or the task was cancelled or given away."""

    code = "stale_claim"


class TaskStateError(ConflictError):
    """The task's state does not allow what was asked."""

    code = "task_state"


class GainSetStateError(ConflictError):
    """The gain set is quarantined, and what was asked needs one that is not."""

    code = "gain_set_state"


class ProductStateError(ConflictError):
    """The product is quarantined, or another file has its path, and what was asked needs one of which neither is so."""

    code = "product_state"


class SchemaError(ConflictError):
    """The schema in the database does not fit this program."""

    code = "schema"


class SchemaMissingError(SchemaError):
    """The queue is not installed in this database."""

    code = "schema_missing"


class SchemaTooOldError(SchemaError):
    """The installed schema is older than this program needs."""

    code = "schema_too_old"


class SchemaTooNewError(SchemaError):
    """The installed schema is newer than this program knows."""

    code = "schema_too_new"


class SchemaBusyError(SchemaError):
    """An upgrade of the schema could not have its tables to itself."""

    code = "schema_busy"


class ForeignSchemaError(SchemaError):
    """A schema of that name exists and belongs to another product."""

    code = "schema_foreign"


class TokenExistsError(ConflictError):
    """A token of that name is in force."""

    code = "token_exists"


class RateLimitedError(ConflictError):
    """More requests came from there than are taken in a time; the same may be asked again a little later."""

    code = "rate_limited"


class PortInUseError(ConflictError):
    """The address to listen on is taken."""

    code = "port_in_use"


# Work that did not succeed -----------------------------------------------------------------------


class DeliveryError(ExecutionError):
    """A message about an alert did not reach its target."""

    code = "delivery_failed"


class TaskFailed(ExecutionError):
    """The task waited for ended as `failed`."""

    code = "task_failed"


class TaskCancelled(ExecutionError):
    """The task waited for ended as `cancelled`."""

    code = "task_cancelled"


class FilesMissing(ExecutionError):
    """The task waited for has completed, but files of it were not put in place for a long time."""

    code = "files_missing"


class WorkflowFailed(ExecutionError):
    """The workflow waited for ended as `failed`; the message names the failed nodes."""

    code = "workflow_failed"


class WorkflowCancelled(ExecutionError):
    """The workflow waited for ended as `cancelled`."""

    code = "workflow_cancelled"


class WaitTimeoutError(ExecutionError, TimeoutError):
    """The task waited for did not end in time; it goes on."""

    code = "wait_timeout"


class RunTimeoutError(ExecutionError):
    """A run took longer than its time limit."""

    code = "run_timeout"


class OutOfMemoryError(ExecutionError):
    """A run held more memory than its limit, with all the processes it had started."""

    code = "out_of_memory"


class NoScratchError(ExecutionError, OSError):
    """The scratch disk has no room, or cannot be used; a run that ends by it is put off, and spends no attempt."""

    code = "no_scratch"


class WorkerLostError(ExecutionError):
    """The worker that held the run stopped answering."""

    code = "worker_lost"


class ResultError(ExecutionError):
    """The executor returned something that cannot be stored as JSON."""

    code = "result_invalid"


BY_SQLSTATE: dict[str, type[AbsurdError]] = {
    "AB001": InvalidOptionError,
    "AB002": StaleClaimError,
    "AB003": TaskNotFoundError,
    "AB004": TaskStateError,
    "AB005": QueueNotFoundError,
    "AB006": IsolationError,
    "AB007": InvalidNameError,
    "AB008": UnknownParentError,
    "AB009": PayloadTooLargeError,
    "AB010": InvalidParamsError,
    "AB011": WorkflowNotFoundError,
    "AB012": ScheduleNotFoundError,
    "AB013": WorkerNotFoundError,
    "AB014": ImageIndexNotFoundError,
    "AB015": RecordingNotFoundError,
    "AB016": GainSetNotFoundError,
    "AB017": GainSetStateError,
    "AB018": ProductNotFoundError,
    "AB019": ProductStateError,
    "AB020": TokenNotFoundError,
    "AB021": TokenExistsError,
    "AB022": AlertNotFoundError,
}
