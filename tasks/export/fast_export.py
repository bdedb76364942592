"""The functions of ``fast-export`` as its users know them, over the export of this package."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.export.query import ExportResult, export_query
from absurd.tasks.export.row_group import DEFAULT_ROW_GROUP_SIZE

_EXACT_FLOATS = "-c extra_float_digits=3"


def build_dsn(args: Any) -> str:
    """The DSN for parsed arguments, or anything with their attributes; all but one way to connect may be absent.

    `dsn` goes before `service`, that before `host`, `port` (5432), `dbname`, `user` and `password`; what is absent
    of these, and the service, is taken from the environment (PGSERVICE, PGHOST, PGPORT, PGDATABASE, PGUSER,
    PGPASSWORD).  A DSN may be a URL or keywords; its own ``options`` are kept.  Any value may hold blanks and quotes.

    Raises ExportConfigError (a ValueError) when host, dbname or user are missing, or the DSN cannot be read.
    """
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    dsn, service = getattr(args, "dsn", None), getattr(args, "service", None) or os.environ.get("PGSERVICE")
    named = {name: getattr(args, name, None) for name in ("host", "port", "dbname", "user", "password")}
    if dsn:
        try:
            given = {name: str(value) for name, value in conninfo_to_dict(dsn.strip()).items() if value is not None}
        except ProgrammingError:
            raise ExportConfigError("--dsn is neither a libpq URL nor a keyword DSN") from None
    elif getattr(args, "service", None) or (service and not any(named.values())):
        given = {"service": str(service)}
    else:
        variables = {"host": "PGHOST", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER"}
        given = {name: str(named[name] or os.environ.get(variable, "")) for name, variable in variables.items()}
        given["port"] = given["port"] or "5432"
        given["password"] = str(named["password"] or os.environ.get("PGPASSWORD", ""))
        missing = [name for name in ("host", "dbname", "user") if not given[name]]
        if missing:
            raise ExportConfigError(
                f"the database to export from is not known, {' and '.join(missing)} missing: give --service, --dsn, "
                "or --host, --dbname and --user, or set PGSERVICE or PGHOST, PGDATABASE and PGUSER"
            )
    options = given.get("options", "")
    if "extra_float_digits" not in options:
        given["options"] = f"{options} {_EXACT_FLOATS}".strip()
    return make_conninfo(**{name: value for name, value in given.items() if value})


def export_query_to_parquet(
    cur: Any,
    sql: str,
    parquet_out: str | os.PathLike[str],
    row_group_size: int = DEFAULT_ROW_GROUP_SIZE,
    block_size: int | None = None,
    keep_temp: bool = False,  # noqa: FBT002 - the name and place its callers know
) -> ExportResult:
    """Export a query through a psycopg cursor, in the transaction its connection is in.

    As `export_query`, which tells the rest.  There is no temporary CSV file, so that `block_size` and `keep_temp`
    have nothing to act on.
    """
    del block_size, keep_temp
    return export_query(cur.connection, sql, parquet_out, row_group_size=row_group_size)


def load_config(config_path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The exports that a JSON, YAML or TOML file lists: dicts with `sql`, `out` and maybe `row_group_size`.

    The file's ending tells its format, YAML where there is none of the three.  A TOML file has the list as tables
    ``[[export]]``.

    Raises ExportConfigError (a ValueError) that names the entry at fault, OSError if the file cannot be read.
    """
    path = Path(config_path)
    text = path.read_text(encoding="utf-8")
    listed = _parse(path, text)
    if not isinstance(listed, list):
        raise ExportConfigError(f"{path.name} must hold a list of exports, it holds a {type(listed).__name__}")
    outputs: dict[str, int] = {}
    for number, entry in enumerate(listed, 1):
        _check(entry, f"export {number} of {path.name}")
        first = outputs.setdefault(entry["out"], number)
        if first != number:
            raise ExportConfigError(f"exports {first} and {number} of {path.name} both write {entry['out']}")
    return listed


def _parse(path: Path, text: str) -> Any:
    try:
        if path.suffix == ".json":
            return json.loads(text)
        if path.suffix == ".toml":
            return tomllib.loads(text).get("export", [])
    except ValueError as error:
        raise ExportConfigError(f"{path.name} cannot be read: {error}") from None
    try:
        import yaml
    except ModuleNotFoundError:
        raise ExportConfigError(
            f"{path.name} is YAML, for which PyYAML is not installed: install it, or write the list as JSON or TOML"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ExportConfigError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from None


def _check(entry: Any, where: str) -> None:
    if not isinstance(entry, Mapping):
        raise ExportConfigError(f"{where} must be a table of keys and values, it is a {type(entry).__name__}")
    for key in ("sql", "out"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise ExportConfigError(f"{where} must have {key!r}, a text")
    unknown = entry.keys() - {"sql", "out", "row_group_size", "compression"}
    if unknown:
        raise ExportConfigError(f"{where} has unknown keys: {', '.join(sorted(map(str, unknown)))}")
    size = entry.get("row_group_size", DEFAULT_ROW_GROUP_SIZE)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ExportConfigError(f"row_group_size of {where} is {size!r}; it must be a whole number of rows, at least 1")
