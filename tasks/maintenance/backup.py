"""A dump of a database, and the proof that it can be restored."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from absurd.tasks.artifact import checksum, write_aside
from absurd.tasks.maintenance import contents, programs
from absurd.tasks.maintenance.contents import Position, Table
from absurd.tasks.maintenance.scratch import Connect, check_rights, remove_leftovers, scratch_database

Told = Callable[[float, float | None, str], None]
"""Called with steps done, steps in all, and what goes on."""

STAMP = r"\d{8}T\d{6}Z"


@dataclass(frozen=True, slots=True)
class Backup:
    """What was dumped."""

    bytes: int
    """Size of the file."""
    sha256: str
    tables: int
    rows: int | None
    """Rows of all tables; None where nobody counted them, that is without a restore."""
    verified: bool
    taken_at: str
    """Time of the snapshot, by the server's clock."""
    server_version: str
    pg_dump: str
    """Path of the program; the pg_restore beside it can read the dump, an older one cannot."""
    pg_dump_version: str
    seconds: float
    leftovers: Sequence[str]
    """Scratch databases of killed runs that were removed."""


class _Original(NamedTuple):
    objects: set[str]
    tables: Mapping[str, Table]
    before: Mapping[str, Position]
    after: Mapping[str, Position]


def back_up(
    connect: Connect,
    address: Mapping[str, str],
    path: str | os.PathLike[str],
    *,
    folders: Iterable[Path],
    schema: str | None = None,
    owner: str = "backup",
    compress: str | None = None,
    jobs: int = 1,
    verify: bool = True,
    told: Told | None = None,
) -> Backup:
    """Dump a database to `path`, in pg_dump's custom format, and restore it into a scratch database of the same server.

    `address` holds the parameters of libpq that `connect` uses.  `folders` are looked through for pg_dump.  `schema`
    is the one to dump, None for all.  `compress` is a method of pg_dump with its level, `jobs` how many connections
    the restore uses.  The file, readable by its owner alone, is written where it is named.

    The dump and what it is compared with are of one snapshot.  Compared are the names of relations, constraints,
    triggers and functions, the comments on relations and functions, the rows of each table by their number and a
    checksum of their values, and where the sequences stand.  Owners, privileges and large objects are dumped, but not
    compared.  The scratch database goes in the end; those that killed runs left go in the beginning.

    Raises
    ------
    BackupProgramError
        No pg_dump is new enough, or it does not know the compression.
    RestoreDeniedError
        The role may not create databases.
    BackupError
        pg_dump or pg_restore ended with an error.
    BackupDiffersError
        What was restored is not what was dumped.
    """
    begun = time.monotonic()
    told = told or _untold
    with connect(None) as session:
        (server,) = session.fetch(
            "select current_setting('server_version') as version,"
            " current_setting('server_version_num')::integer as number"
        )
        chosen = programs.choose(folders, server["number"] // 10_000)
        arguments = programs.compression(chosen, compress)
        if verify:
            check_rights(session)
        leftovers = remove_leftovers(session)
        contents.begin(session)
        (snapshot,) = session.fetch("select pg_export_snapshot() as id, to_json(now()) #>> '{}' as taken_at")
        tables = contents.tables_of(session, schema)
        contents.lock(session, tables)
        steps = _Steps(told, 2 * len(tables) + 2 if verify else 1)
        objects = contents.objects_of(session, schema) if verify else set()
        before = contents.sequences_of(session, schema) if verify else {}
        environ = programs.environment(address)
        with write_aside(path, private=True) as part:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))  # it holds all that tasks hold
            dump: list[str | Path] = [chosen.bin / "pg_dump", "--format=custom", "--no-password", *arguments]
            if schema is not None:
                dump.append(f"--schema={_pattern(schema)}")
            dump += [f"--snapshot={snapshot['id']}", f"--file={part}", f"--dbname={programs.conninfo(address)}"]
            programs.run(dump, environ, lambda: steps.tell(f"dumping: {part.stat().st_size / 1e6:,.1f} MB"))
            rows = None
            if verify:
                after = contents.sequences_of(session, schema)
                counted = contents.count(session, tables, steps.begin)
                rows = sum(each.rows for each in counted.values())
            session.fetch("commit")
            if verify:
                original = _Original(objects, counted, before, after)
                restore: list[str | Path] = [
                    *(chosen.bin / "pg_restore", "--no-owner", "--no-privileges", "--no-tablespaces"),
                    *("--no-publications", "--no-subscriptions", "--no-security-labels", "--no-password"),
                    *(f"--jobs={jobs}", str(part)),
                ]
                with scratch_database(connect, owner) as scratch:
                    steps.begin("restoring")
                    programs.run(
                        [*restore, f"--dbname={programs.conninfo(address, scratch)}"],
                        environ,
                        lambda: steps.tell("restoring"),
                    )
                    _compare(connect, scratch, schema, original, steps)
        steps.begin("verified" if verify else "dumped")
    return Backup(
        bytes=Path(path).stat().st_size,
        sha256=checksum(path),
        tables=len(tables),
        rows=rows,
        verified=verify,
        taken_at=snapshot["taken_at"],
        server_version=server["version"],
        pg_dump=str(chosen.bin / "pg_dump"),
        pg_dump_version=chosen.version,
        seconds=round(time.monotonic() - begun, 3),
        leftovers=leftovers,
    )


def dump_name(database: str, schema: str | None, stamp: str) -> str:
    """The file name of a dump taken at `stamp`, as ``20260401T030000Z``."""
    return f"{_stem(database, schema)}-{stamp}.dump"


def remove_old(folder: str | os.PathLike[str], database: str, schema: str | None, keep: int) -> list[str]:
    """Delete the dumps of a database that `dump_name` has named, but for the newest `keep`; gives the names of those.

    Other files stay, and so do links.
    """
    form = re.compile(rf"{re.escape(_stem(database, schema))}-{STAMP}\.dump")
    with os.scandir(folder) as entries:
        found = sorted(
            each.name for each in entries if form.fullmatch(each.name) and each.is_file(follow_symlinks=False)
        )
    old = found[: max(0, len(found) - keep)]
    for name in old:
        Path(folder, name).unlink(missing_ok=True)
    return old


class _Steps:
    """How far a backup is: a dump, a restore, and each table twice."""

    def __init__(self, told: Told, total: int) -> None:
        self._told = told
        self._total = total
        self._done = -1
        self.begin("dumping")

    def begin(self, what: str) -> None:
        """The step before is done, and the next is this."""
        self._done += 1
        self.tell(what)

    def tell(self, what: str) -> None:
        """Say it again."""
        self._told(self._done, self._total, what)


def _compare(connect: Connect, scratch: str, schema: str | None, original: _Original, steps: _Steps) -> None:
    with connect(scratch) as session:
        contents.begin(session)
        contents.check_objects(original.objects, contents.objects_of(session, schema))
        contents.check_sequences(original.before, original.after, contents.sequences_of(session, schema))
        counted = contents.count(session, list(original.tables), steps.begin)
        contents.check_tables(original.tables, counted)
        session.fetch("commit")


def _stem(database: str, schema: str | None) -> str:
    words = [database, *([] if schema is None else [schema])]
    return ".".join(re.sub(r"[^\w-]+", "_", each) for each in words)


def _pattern(schema: str) -> str:
    """A schema's name as pg_dump takes it literally."""
    quoted = schema.replace('"', '""')
    return f'"{quoted}"'


def _untold(done: float, total: float | None, message: str) -> None:
    pass
