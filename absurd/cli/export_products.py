"""``absurd export --products``: the product tables as a file for `absurd serve --products`."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from absurd.cli.connection import database_of
from absurd.cli.output import emit, plural, size
from absurd.errors import InvalidInputError


def export_products(
    ctx: click.Context, path: Path, since: datetime | None, until: datetime | None, *, as_json: bool
) -> None:
    """Write the file, of one moment of the database, and print how much is in it."""
    from absurd.product_file import write_product_file
    from absurd.product_rows import Document, Query, read_consistently, read_products

    with database_of(ctx) as database, database.transaction() as session:
        session.run(read_consistently())

        def read(query: Query) -> list[Document]:
            return session.run(read_products(query))

        try:
            counts = write_product_file(path, read, since=since, until=until)
        except (OSError, sqlite3.Error) as error:
            raise InvalidInputError(f"{path} cannot be written: {error}", path=str(path)) from None
    written = path.stat().st_size
    document: dict[str, Any] = {"path": str(path), "bytes": written, "rows": counts}
    told = f"{path}: {plural(sum(counts.values()), 'row')} of {plural(counts['product'], 'product')}, {size(written)}"
    emit(document, as_json=as_json, text=told)
