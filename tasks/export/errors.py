"""What can go wrong with an export, by what one does about it."""

from __future__ import annotations

from absurd.errors import ExecutionError, InvalidInputError


class ExportQueryError(InvalidInputError):
    """PostgreSQL refuses the query, or it gives no table that Parquet can hold."""

    code = "export_query_invalid"


class ExportConfigError(InvalidInputError, ValueError):
    """The description of an export, or of the database to export from, cannot be used."""

    code = "export_config_invalid"


class ExportFailedError(ExecutionError):
    """The query was accepted and ended with an error, or its rows could not be written."""

    code = "export_failed"


class SnapshotGoneError(ExecutionError):
    """The transaction that held the snapshot has ended, so nobody can look at it any more."""

    code = "export_snapshot_gone"


class UnfitValueError(ExecutionError):
    """A value cannot be kept exactly by the type its column has in Parquet."""

    code = "export_value_unfit"


class ManifestError(ExecutionError):
    """An export has no manifest, or is not what its manifest tells."""

    code = "export_manifest_mismatch"
