"""What can go wrong with sessions, by what one does about it."""

from __future__ import annotations

from absurd.errors import ConflictError, ExecutionError, InvalidInputError, NotFoundError


class SessionValueError(InvalidInputError, ValueError):
    """A type, name or value that a session cannot hold; nothing of the call was stored."""

    code = "session_value"


class SessionNotFoundError(NotFoundError):
    """No session of that name is in the data folder, sealed or not."""

    code = "session_not_found"


class SessionFolderBusyError(ConflictError):
    """Another manager has the data folder; the message names it."""

    code = "session_folder_busy"


class SessionStateError(ConflictError):
    """The session has ended, or has not, and what was asked needs the other."""

    code = "session_state"


class SessionStorageError(ExecutionError, OSError):
    """The disk refused, for want of room or otherwise; what was acknowledged before is safe."""

    code = "session_storage"


class SessionDamagedError(ExecutionError):
    """A journal or a session's file is not what was written."""

    code = "session_damaged"


class SessionForeignError(SessionDamagedError):
    """A whole ASDF file that is no session's."""

    code = "session_foreign"


class SessionQueryError(InvalidInputError):
    """A query of the catalogue that cannot be answered; the message tells why."""

    code = "session_query"
