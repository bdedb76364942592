"""What can go wrong with upkeep, by what one does about it."""

from __future__ import annotations

from absurd.errors import ExecutionError, InvalidInputError


class BackupError(ExecutionError):
    """pg_dump or pg_restore ended with an error."""

    code = "backup_failed"


class BackupDiffersError(ExecutionError):
    """What a dump restores is not what was dumped."""

    code = "backup_differs"


class BackupProgramError(InvalidInputError):
    """No pg_dump on the worker's machine is new enough for the server, or it cannot do what was asked."""

    code = "backup_program"


class RestoreDeniedError(InvalidInputError):
    """The role may not create the database in which a dump is tried out."""

    code = "backup_restore_denied"


class UnsafeFolderError(InvalidInputError):
    """Files are not pruned in this folder, or not by this pattern: too much could go."""

    code = "prune_folder_unsafe"


class UnhealthyError(ExecutionError):
    """The health check found what it was told to fail on."""

    code = "unhealthy"
