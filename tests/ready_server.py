"""Servers that start from a copy of what another has made: making one and installing the queue takes seconds."""

from __future__ import annotations

import subprocess
from pathlib import Path

from absurd.config import load_settings
from absurd.database_sync import install
from absurd.embedded import EmbeddedServer
from absurd.embedded_place import Place


class ReadyServer:
    """A server that stands still, in `home`, with the queue installed."""

    def __init__(self, home: Path) -> None:
        self._server = EmbeddedServer(load_settings(environ={}, home=home))
        install(self._server.start())
        self._server.stop()
        record = Place(home).read()
        assert record is not None
        self._data = record.data

    def lay(self, home: Path) -> Path:
        """Give `home` a server of its own, as its first command would; returns `home`."""
        place = Place(home)
        with place.lock(10):
            record, _ = place.settle()
            subprocess.run(["cp", "-a", self._data, record.data], check=True)
        return home

    def destroy(self) -> None:
        """Remove what the copies were made of."""
        self._server.destroy()
