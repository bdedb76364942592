"""From the options of a command to an open database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from absurd.cli.output import settings_of

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient
    from absurd.database_sync import SyncDatabase


@contextmanager
def database_of(ctx: click.Context) -> Iterator[SyncDatabase]:
    """The database the settings name, open and checked; the embedded one is started if need be."""
    settings = settings_of(ctx)
    from absurd.database_sync import SyncDatabase
    from absurd.resolve import resolve_database

    with SyncDatabase(
        resolve_database(settings), schema=settings.schema, prepared_statements=settings.prepared_statements
    ) as database:
        yield database


@contextmanager
def client_of(ctx: click.Context) -> Iterator[SyncAbsurdClient]:
    """A client on that database, for commands that spawn or wait."""
    settings = settings_of(ctx)
    from absurd.client_sync import SyncAbsurdClient

    with SyncAbsurdClient(settings=settings) as client:
        yield client
