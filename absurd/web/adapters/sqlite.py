"""The product tables in a file that ``absurd export --products`` has written."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absurd.errors import DatabaseUnavailableError
from absurd.product_file import document, open_product_file
from absurd.product_rows import TABLES, Document, Query, plain, with_image

MOST = 10_000
"""Rows at once, as in the database."""


class SqliteAdapter:
    """Reads in threads, one query at a time; the file is never written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    async def connect(self) -> None:
        """Open the file.  Raises InvalidInputError for what is none of products."""
        if self._connection is None:
            self._connection = open_product_file(self._path)
            self._connection.execute("pragma case_sensitive_like = on")
            self._connection.create_function("arcsec_between", 4, arcsec_between, deterministic=True)

    async def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def fetch_all(self, query: Query) -> list[Document]:
        sql, values = select(query)
        table = TABLES[query.table]
        return [document(table, each) for each in await asyncio.to_thread(self._fetch, sql, values)]

    async def fetch_around(self, ra: float, declination: float, radius_arcsec: float, limit: int) -> list[Document]:
        reach = radius_arcsec / 3600 + 1e-9
        sql = (
            "select * from (select *, arcsec_between(?, ?, ra, declination) as arcsec from source"
            " where declination between ? and ?) where arcsec <= ? order by arcsec, id limit ?"
        )
        values = [ra, declination, declination - reach, declination + reach, radius_arcsec, _most(limit)]
        rows = await asyncio.to_thread(self._fetch, sql, values)
        return [document(TABLES["source"], each) | {"arcsec": each["arcsec"]} for each in rows]

    async def fetch_latest(self, kind: str | None, state: str | None, limit: int) -> list[Document]:
        sql = (
            "select * from product where (?1 is null or kind = ?1) and (?2 is null or state = ?2)"
            " order by observed_from desc, id desc limit ?3"
        )
        rows = await asyncio.to_thread(self._fetch, sql, [kind, state, _most(limit)])
        return [with_image(document(TABLES["product"], each)) for each in rows]

    async def fetch_changing(self, product: int, limit: int) -> list[Document]:
        sql = (
            "select v.*, s.name, s.ra, s.declination from variability v join source s on s.id = v.source_id"
            " where v.product_id = ? order by v.eta desc, v.source_id limit ?"
        )
        rows = await asyncio.to_thread(self._fetch, sql, [product, _most(limit)])
        told = ("name", "ra", "declination")
        return [document(TABLES["variability"], each) | {name: each[name] for name in told} for each in rows]

    async def count(self, table: str, by: Sequence[str] = ()) -> list[Document]:
        columns = ", ".join(by)
        sql = f"select {columns}, count(*) as count from {table} group by {columns} order by {columns}"
        if not by:
            sql = f"select count(*) as count from {table}"
        return [dict(each) for each in await asyncio.to_thread(self._fetch, sql, [])]

    def _fetch(self, sql: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        with self._turn:
            if self._connection is None:
                raise DatabaseUnavailableError(f"{self._path} is not open", address=str(self._path))
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise DatabaseUnavailableError(
                    f"{self._path} cannot be read: {error}", address=str(self._path)
                ) from None


def select(query: Query) -> tuple[str, list[Any]]:
    """A query in SQLite's words, with its values; the names are those of the tables, none comes from a caller."""
    table = TABLES[query.table]
    parts, values = ["true"], []
    for column, operator, value in query.where:
        _known(column, table.columns)
        if operator == "in":
            parts.append(f"{column} in ({', '.join('?' * len(value))})")
            values += [_bound(table.columns[column], each) for each in value]
        else:
            parts.append(f"{column} {operator} ?" + (" escape '\\'" if operator == "like" else ""))
            values.append(_bound(table.columns[column], value))
    if query.after is not None:
        sign = "<" if query.descending else ">"
        parts.append(f"({', '.join(table.key)}) {sign} ({', '.join('?' * len(table.key))})")
        values += [_bound(table.columns[c], each) for c, each in zip(table.key, query.after, strict=True)]
    order = ", ".join(f"{each}{' desc' if query.descending else ''}" for each in table.key)
    sql = f"select * from {query.table} where {' and '.join(parts)} order by {order} limit ?"
    return sql, [*values, _most(query.limit)]


def arcsec_between(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    """Angle between two positions, degrees, in arcseconds, as ``_arcsec_between`` in the database (haversine)."""
    across = math.cos(math.radians(dec1)) * math.cos(math.radians(dec2)) * math.sin(math.radians(ra2 - ra1) / 2) ** 2
    half = math.sqrt(math.sin(math.radians(dec2 - dec1) / 2) ** 2 + across)
    return 7200 * math.degrees(math.asin(min(1.0, half)))


def _known(column: str, columns: Any) -> None:
    assert column in columns, f"there is no column {column}"


def _bound(kind: str, value: Any) -> Any:
    return value if kind in ("integer", "real") else int(value) if kind == "boolean" else plain(value)


def _most(limit: int) -> int:
    return max(1, min(limit, MOST))
