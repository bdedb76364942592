"""The functions of ``fast-export`` as its users know them, over the export of this package."""

from __future__ import annotations

import os
from typing import Any

from absurd.tasks.export.address import check_address
from absurd.tasks.export.destination import beside, real_place
from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.export.pipeline import DEFAULT_BLOCK_SIZE
from absurd.tasks.export.query import ExportResult, export_query
from absurd.tasks.export.row_group import DEFAULT_ROW_GROUP_SIZE

_PLACES = ("host", "port", "dbname", "user")
_EXACT_FLOATS = "-c extra_float_digits=3"


def build_dsn(args: Any) -> str:
    """The DSN for parsed arguments, or anything with their attributes; all but one way to connect may be absent.

    `dsn` goes before `service`, that before `host`, `port` (5432), `dbname` and `user`; what is absent of these, and
    the service, is taken from the environment (PGSERVICE, PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD).
    `password` goes before any other.  A DSN may be a URL or keywords; its own ``options`` are kept.  Any value may
    hold blanks and quotes.

    Raises ExportConfigError (a ValueError) when host, dbname or user are missing, or the DSN cannot be read.
    """
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    dsn, service = getattr(args, "dsn", None), getattr(args, "service", None) or os.environ.get("PGSERVICE")
    named = {name: getattr(args, name, None) for name in ("host", "port", "dbname", "user", "password")}
    if dsn:
        check_address(dsn.strip())
        given = {name: str(value) for name, value in conninfo_to_dict(dsn.strip()).items() if value is not None}
    elif getattr(args, "service", None) or (service and not any(named[each] for each in _PLACES)):
        given = {"service": str(service)}
    else:
        variables = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER"}
        given = {name: str(named[name] or os.environ.get(variable, "")) for name, variable in variables.items()}
        given["port"] = given["port"] or "5432"
        given["password"] = os.environ.get("PGPASSWORD", "")
        missing = [name for name in ("host", "dbname", "user") if not given[name]]
        if missing:
            raise ExportConfigError(
                f"the database to export from is not known, {' and '.join(missing)} missing: give --service, --dsn, "
                "or --host, --dbname and --user, or set PGSERVICE or PGHOST, PGDATABASE and PGUSER"
            )
    if named["password"]:
        given["password"] = str(named["password"])
    options = given.get("options", "")
    if "extra_float_digits" not in options:
        given["options"] = f"{options} {_EXACT_FLOATS}".strip()
    return make_conninfo(**{name: value for name, value in given.items() if value})


def export_query_to_parquet(
    cur: Any,
    sql: str,
    parquet_out: str | os.PathLike[str],
    row_group_size: int = DEFAULT_ROW_GROUP_SIZE,
    block_size: int = DEFAULT_BLOCK_SIZE,
    keep_temp: bool = False,  # noqa: FBT002 - the name and place its callers know
) -> ExportResult:
    """Export a query through a psycopg cursor, in the transaction its connection is in.

    As `export_query`, which tells the rest.  There is no temporary CSV file: with `keep_temp` the unfinished file of
    an export that fails is kept, as `parquet_out` with ``.part`` behind it, and `block_size` bounds the bytes that
    are read ahead of what is written.  No manifest is written: its callers
    expect one file.
    """
    unfinished = beside(real_place(os.fspath(parquet_out)), ".part") if keep_temp else None
    return export_query(
        cur.connection,
        sql,
        parquet_out,
        row_group_size=row_group_size,
        block_size=block_size,
        unfinished=unfinished,
        manifest=False,
    )
