"""A folder in the machine's memory, for servers that live as long as the process of the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from absurd.config import load_settings
from absurd.embedded import EmbeddedServer

PLACE = Path("/dev/shm")
NAME = "absurd-tests-"
WANTED = 4 << 30
"""Bytes that must be free: a server takes a few hundred MB, the largest tests more, and there may be several."""


@contextmanager
def folder() -> Iterator[Path | None]:
    """The folder; None where there is no such place, or too little room in it, as in most containers."""
    if not PLACE.is_dir() or not os.access(PLACE, os.W_OK) or shutil.disk_usage(PLACE).free < WANTED:
        yield None
        return
    _clear_up()
    made = PLACE / f"{NAME}{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _clear_up() -> None:
    """End what tests that were killed have left, which would hold memory for ever."""
    for each in PLACE.glob(f"{NAME}*"):
        if each.stat().st_uid == os.geteuid() and not Path("/proc", each.name.removeprefix(NAME)).exists():
            for home in each.iterdir():
                EmbeddedServer(load_settings(environ={}, home=home)).destroy()
            shutil.rmtree(each, ignore_errors=True)  # another process may do the same
