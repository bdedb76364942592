"""Where the database is: the one that is set, or the embedded server, started and installed on demand."""

from __future__ import annotations

from absurd.config import Settings


def resolve_database(settings: Settings) -> str:
    """The URL of the database: the one that is set, else that of the embedded server.

    The embedded server is started if need be, and its database installed or upgraded; a server that
    was named is never changed.
    """
    if settings.database_url:
        return settings.database_url
    from absurd.database_sync import install
    from absurd.embedded import ensure_running

    url = ensure_running(settings)
    install(url, settings.schema)
    return url
