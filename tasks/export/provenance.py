"""What a manifest tells of how a file was made: the database, and the options that another file would come of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row

from absurd.tasks.export.arrow_types import registered_types

if TYPE_CHECKING:
    from psycopg import Connection

    from absurd.tasks.export.query import Options

_MAY_ASK = "select has_function_privilege(to_regprocedure('pg_catalog.pg_control_system()'), 'execute')"
_CLUSTER = "select system_identifier::text from pg_catalog.pg_control_system()"
_DATABASE = "select oid::int8, datname::text from pg_catalog.pg_database where datname = current_database()"


def identity_of(connection: Connection[Any]) -> dict[str, Any]:
    """Which database it is, wherever it is reached: number and name, and the server's own number if one may ask for it.

    A standby is its primary, a restored dump another database.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        may_ask = cursor.execute(_MAY_ASK).fetchone()
        cluster = cursor.execute(_CLUSTER).fetchone() if may_ask and may_ask[0] else None
        oid, name = cursor.execute(_DATABASE).fetchone() or (None, None)
    return {"system_identifier": cluster and cluster[0], "oid": oid, "name": name}


def recorded(options: Options) -> dict[str, Any]:
    """The options that change what is in the files, as JSON has them; neither their speed nor their place.

    Types that the process has registered are among those of `type_map`, as if each export had wished for them.
    """
    types = registered_types() | dict(options.type_map)
    return {
        "row_group_size": options.row_group_size,
        "compression": options.compression,
        "on_unfit": options.on_unfit,
        "decimal": None if options.decimal is None else list(options.decimal),
        "type_map": {str(known): str(arrow) for known, arrow in types.items()},
        "partition_by": list(options.partition_by),
        "max_rows_per_file": options.max_rows_per_file,
    }
