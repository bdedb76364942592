"""What can go wrong with a catalogue, by what one does about it."""

from __future__ import annotations

from absurd.errors import ExecutionError, InvalidInputError


class ButlerRepositoryError(InvalidInputError):
    """There is no such repository, collection or dataset type, or no dataset of it."""

    code = "butler_repository_invalid"


class FilterIdsError(InvalidInputError):
    """What a filter file holds are not all int64 ids."""

    code = "butler_filter_invalid"


class CatalogSchemaError(ExecutionError):
    """A dataset has columns that cannot be put under one schema with those of the others."""

    code = "butler_schema_unfit"


class CatalogReadError(ExecutionError):
    """A dataset cannot be read."""

    code = "butler_dataset_unreadable"
