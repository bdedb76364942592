"""Databases that live for a test: cloned from a template, on a server that lives for the session."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

from absurd.config import load_settings
from absurd.database_sync import connect, install
from absurd.embedded import EmbeddedServer

_numbers = itertools.count(1)


class ThrowawayServer:
    """A server for tests: an embedded one in `home` that goes with this object, or the one at `url`.

    A database on it is made in about 50 ms: the queue is installed once, in a template.  The embedded one does not
    wait for the disk, as nothing on it outlives it; how the one at `url` is set up is left as it is.
    """

    def __init__(self, home: Path, url: str | None = None, *, schema: str = "absurd") -> None:
        self._server = None if url else EmbeddedServer(load_settings(environ={}, home=home))
        self._url = url
        self._schema = schema
        self._template: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._template is not None and self._server is None:
            self._execute(f"drop database if exists {self._template} with (force)")
        if self._server is not None and self._url is not None:
            self._server.stop("immediate")
            self._server.destroy()

    @property
    def url(self) -> str:
        """URL of the server, started if need be; its database is only there to connect to."""
        if self._url is None:
            assert self._server is not None
            self._url = self._server.start()
            self._execute("alter system set fsync = off")  # nothing here has to outlive the session
            self._execute("select pg_reload_conf()")
        return self._url

    @property
    def template(self) -> str:
        """Name of a database in which the queue is installed, made when it is first asked for."""
        if self._template is None:
            name = f"absurd_template_{os.getpid()}_{next(_numbers)}"
            self._execute(f"create database {name}")
            install(database_at(self.url, name), self._schema)
            self._template = name
        return self._template

    @contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """The URL of a fresh database, with the queue unless another template is named; dropped afterwards."""
        name = f"absurd_test_{os.getpid()}_{next(_numbers)}"
        self._execute(f"create database {name} template {template or self.template} strategy {self._strategy}")
        try:
            yield database_at(self.url, name)
        finally:
            self._execute(f"drop database if exists {name} with (force)")

    @cached_property
    def _strategy(self) -> str:
        """How databases are cloned: as files is twice as quick, if its checkpoints do not wait for the disk."""
        with connect(self.url) as connection:
            row = connection.execute(b"show fsync").fetchone()
        return "file_copy" if row == ("off",) else "wal_log"

    def _execute(self, statement: str) -> None:
        with connect(self.url) as connection:
            connection.execute(statement.encode())


def database_at(url: str, name: str) -> str:
    """`url` with another database name."""
    head, mark, query = url.partition("?")
    scheme, _, rest = head.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{name}{mark}{query}"
