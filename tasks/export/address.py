"""Addresses of databases to export from, checked such that no message repeats a piece of a password."""

from __future__ import annotations

from absurd.tasks.export.errors import ExportConfigError


def check_address(dsn: str) -> None:
    """Raise ExportConfigError for a URL or keyword DSN that cannot be read, or whose host holds a part of a password.

    In a URL a password ends at the first ``@`` or ``/``, whatever was meant: what follows is taken for the host or the
    database, which libpq repeats when it does not find them.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        host = str(conninfo_to_dict(dsn).get("host") or "")
    except ProgrammingError:
        raise ExportConfigError(
            "the address of the database is neither a libpq URL nor a keyword DSN: "
            "in a URL, special characters are escaped, as @ by %40 and / by %2F"
        ) from None
    if any("@" in each[1:] for each in host.split(",")) or "@" in _path(dsn):
        raise ExportConfigError(
            "the host, or the name of the database, in its address holds an @, so it may be a part of the password: "
            "in a URL, write %40 for each @ of a password or a name, and %2F for each /"
        )


def _path(dsn: str) -> str:
    """What libpq takes for the name of the database in a URL."""
    scheme, _, rest = dsn.strip().partition("://")
    if scheme not in ("postgresql", "postgres"):
        return ""
    if "@" in rest.partition("/")[0]:
        rest = rest.partition("@")[2]
    return rest.partition("?")[0].partition("/")[2]
