"""The catalogue of a data folder: what its files tell, derived from them, and made again from them alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.artifact import write_aside
from absurd.tasks.session.entries import COUNTS, Entry, files, read_entry
from absurd.tasks.session.errors import SessionNotFoundError
from absurd.tasks.session.place import CATALOG, existing_folder, place_of

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = f"{CATALOG}/catalog.parquet"
PROBLEMS = f"{CATALOG}/problems.json"
SQLITE = f"{CATALOG}/catalog.sqlite"
FORM = "1"
"""Version of what is derived from a file: of another nothing is kept."""

Writing = Callable[[str], Any]


@dataclass(slots=True)
class Catalog:
    """All files of a data folder."""

    data_dir: Path
    sessions: list[Entry] = field(default_factory=list)
    """By path."""
    problems: list[Entry] = field(default_factory=list)
    """Files that are damaged, foreign or a second one of a session, by path."""
    read: int = 0
    """How many files' heads were read; of the others what was known stands."""

    @property
    def entries(self) -> Iterable[Entry]:
        """Both."""
        return [*self.sessions, *self.problems]

    def counts(self) -> dict[str, int]:
        """How many files there are of each state."""
        made = dict.fromkeys(("sealed", "damaged", "foreign", "duplicate"), 0)
        for each in self.entries:
            made[each.state] += 1
        return made

    def table(self) -> pa.Table:
        """The sessions as Arrow; ``asdf_path`` is absolute."""
        import pyarrow as pa

        rows = [
            {**each.columns, "asdf_path": str(self.data_dir / each.path)}
            | {"path": each.path, "bytes": each.bytes, "changed_ns": each.changed_ns}
            for each in self.sessions
        ]
        return pa.Table.from_pylist(rows, schema=arrow_schema())


def arrow_schema() -> pa.Schema:
    """The columns of ``catalog.parquet``."""
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            pa.field("session_id", pa.string()),
            pa.field("session_type", pa.string()),
            pa.field("start_time", moment),
            pa.field("end_time", moment),
            pa.field("target", pa.string()),
            pa.field("purpose", pa.string()),
            pa.field("recovered", pa.bool_()),
            pa.field("duration_seconds", pa.float64()),
            *(pa.field(name, pa.int64()) for name in COUNTS),
            pa.field("schema_version", pa.string()),
            pa.field("meta", pa.string()),
            pa.field("asdf_path", pa.string()),
            pa.field("path", pa.string()),
            pa.field("bytes", pa.int64()),
            pa.field("changed_ns", pa.int64()),
        ],
        metadata={"absurd.catalog": FORM},
    )


def scan(data_dir: str | os.PathLike[str], known: Mapping[str, Entry] | None = None) -> Catalog:
    """Look at all files of a data folder; of those that are as `known` tells none is opened.

    Whatever is wrong with a file is told of in `problems`, and hides no other.
    Raises SessionNotFoundError if there is no such folder, as where a disk is not mounted.
    """
    made = Catalog(existing_folder(data_dir))
    found: list[Entry] = []
    for path, told in files(made.data_dir):
        if isinstance(told, OSError):
            found.append(Entry(path, 0, 0, "damaged", f"it cannot be read: {told}"))
            continue
        before = (known or {}).get(path)
        if before is None or (before.bytes, before.changed_ns) != (told.st_size, told.st_mtime_ns):
            before = read_entry(made.data_dir, path, told)
            made.read += 1
        found.append(before)
    _divide(made, found)
    return made


def _divide(made: Catalog, found: list[Entry]) -> None:
    """Of several files of one session's name the one that is where that session's belongs counts, else the first."""
    owners: dict[str, str] = {}
    for each in found:
        if each.columns:
            name = each.columns["session_id"]
            if name not in owners or each.path == _proper(name):
                owners[name] = each.path
    for each in found:
        if each.columns:
            owner = owners[each.columns["session_id"]]
            if owner != each.path:
                made.problems.append(replace(each, state="duplicate", reason=f"{owner} is of the same session"))
            else:
                made.sessions.append(replace(each, state="sealed", reason=None))
        else:
            made.problems.append(each)


def _proper(session_id: str) -> str | None:
    try:
        return place_of("", session_id).path.as_posix()
    except SessionNotFoundError:
        return None


def known_entries(data_dir: str | os.PathLike[str]) -> dict[str, Entry]:
    """What the catalogue of a data folder tells of its files now; nothing, where it is another's or cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = Path(data_dir)
    try:
        table = pq.read_table(folder / PARQUET, partitioning=None)
        problems = json.loads((folder / PROBLEMS).read_bytes())
        if (table.schema.metadata or {}).get(b"absurd.catalog") != FORM.encode() or problems["form"] != FORM:
            return {}
        entries = [Entry(**each) for each in problems["files"]]
        entries += [_entry(row) for row in table.to_pylist()]
        return {each.path: replace(each, columns=_timed(each.columns)) for each in entries}
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):  # derived: made again from the files
        return {}


def _entry(row: dict[str, Any]) -> Entry:
    fixed = {name: row.pop(name) for name in ("path", "bytes", "changed_ns")}
    del row["asdf_path"]
    return Entry(**fixed, state="sealed", columns=row)


def _timed(columns: dict[str, Any]) -> dict[str, Any]:
    """Of a duplicate, whose times were written as text."""
    from datetime import datetime

    times = {
        name: datetime.fromisoformat(columns[name])
        for name in ("start_time", "end_time")
        if isinstance(columns.get(name), str)
    }
    return columns | times


def write(made: Catalog, place: Writing | None = None) -> str:
    """Write ``catalog/catalog.parquet`` and ``catalog/problems.json``, each whole or not at all; gives the first path.

    `place` gives the path to write to in place of another, as ``ctx.artifact`` does.  Raises OSError.
    """
    import pyarrow.parquet as pq

    path = str(made.data_dir / PARQUET)
    problems = {"form": FORM, "files": [asdict(each) for each in made.problems]}
    with _aside(str(made.data_dir / PROBLEMS), place) as part:
        part.write_text(json.dumps(problems, indent=1, default=lambda each: each.isoformat()), encoding="utf-8")
    with _aside(path, place) as part:
        pq.write_table(made.table(), part, compression="zstd")
    return path


def _aside(path: str, place: Writing | None) -> Any:
    return write_aside(path) if place is None else write_aside(place(path), private=True)


def rebuild(data_dir: str | os.PathLike[str], *, full: bool = False) -> Catalog:
    """Bring the catalogue of a data folder up to date; with `full` all files are read again.  Raises OSError."""
    made = scan(data_dir, {} if full else known_entries(data_dir))
    write(made)
    return made


def build_catalog(data_dir: str | os.PathLike[str]) -> pa.Table:
    """All sessions of a data folder as an Arrow table, which ``polars.from_arrow`` takes; read from the files alone."""
    return scan(data_dir).table()


def build_index(data_dir: str | os.PathLike[str], db_path: str | os.PathLike[str]) -> int:
    """Write all sessions of a data folder to a SQLite file, table ``sessions``; gives how many there are.

    A file that is there is replaced, in one step.  Times are text in ISO 8601.  Raises OSError.
    """
    made = scan(data_dir, known_entries(data_dir))
    return write_sqlite(made, db_path)


def write_sqlite(made: Catalog, path: str | os.PathLike[str], place: Writing | None = None) -> int:
    """As `build_index`, of a catalogue that is there; `place` as in `write`."""
    import sqlite3
    from contextlib import closing

    names = arrow_schema().names
    rows = made.table().to_pylist()
    kinds = {**dict.fromkeys((*COUNTS, "recovered", "bytes", "changed_ns"), "INTEGER"), "duration_seconds": "REAL"}
    columns = ", ".join(f"{name} {kinds.get(name, 'TEXT')}" for name in names).replace(
        "session_id TEXT", "session_id TEXT PRIMARY KEY"
    )
    with _aside(os.fspath(path), place) as part, closing(sqlite3.connect(part)) as connection:
        connection.execute(f"CREATE TABLE sessions ({columns})")
        connection.executemany(
            f"INSERT INTO sessions VALUES ({', '.join('?' * len(names))})",
            [[_iso(row[name]) for name in names] for row in rows],
        )
        connection.execute("CREATE INDEX sessions_begun ON sessions (start_time)")
        connection.commit()
    return len(rows)


def _iso(value: Any) -> Any:
    return value.isoformat(timespec="microseconds").replace("+00:00", "Z") if hasattr(value, "isoformat") else value
