"""Tables to export while others write: a sum over three of them stays equal, and a gate holds queries back."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Self

import psycopg
import pyarrow.parquet as pq

TABLES = ("left_side", "right_side", "middle")
TOTAL = 3_000


def fill(url: str) -> None:
    """Make the tables as they are in the beginning."""
    with psycopg.connect(url) as connection:
        for table in TABLES:
            connection.execute(f"create table if not exists public.{table} (n int)")
            connection.execute(f"truncate public.{table}")
            connection.execute(f"insert into public.{table} values ({TOTAL // 3})")


def exports(folder: Path) -> list[dict[str, Any]]:
    """An export of each table."""
    return [{"sql": f"select n from public.{table}", "out": str(folder / f"{table}.parquet")} for table in TABLES]


def total(folder: Path) -> int:
    """The sum over the three files."""
    return sum(sum(pq.read_table(folder / f"{table}.parquet")["n"].to_pylist()) for table in TABLES)


class Mover(threading.Thread):
    """Another session that moves amounts from table to table, each time in one transaction."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.moved = 0
        self._url = url
        self._over = threading.Event()

    def run(self) -> None:
        """Move until told to stop."""
        with psycopg.connect(self._url) as connection:
            while not self._over.is_set():
                source, target = TABLES[self.moved % 3], TABLES[(self.moved + 1) % 3]
                connection.execute(f"insert into public.{source} values (-1)")
                connection.execute(f"insert into public.{target} values (1)")
                connection.commit()
                self.moved += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


class Gate:
    """Holds queries back that have its clause behind their FROM, until it is opened; `key` tells it from others."""

    def __init__(self, url: str, key: int = 7) -> None:
        self.clause = f", (select pg_advisory_lock_shared({key}) offset 0) as gate"
        self._key = key
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute("select pg_advisory_lock(%s)", (key,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def open(self) -> None:
        """Let all through."""
        self._connection.execute("select pg_advisory_unlock(%s)", (self._key,))

    def waiting(self) -> int:
        """How many stand before it."""
        found = self._connection.execute(
            "select count(*) from pg_locks where locktype = 'advisory' and objid = %s and not granted", (self._key,)
        ).fetchone()
        assert found is not None
        return int(found[0])


def writer_of(folder: Path) -> int:
    """The process that writes an unfinished file in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = [os.readlink(each) for each in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(each.startswith(f"{folder}/.") and ".part." in each for each in opened):
            return int(process.name)
    raise AssertionError(f"nobody writes a file in {folder}")
