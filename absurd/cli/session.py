"""``absurd session``: begin, tell and end sessions by hand, look at their files, and find them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from absurd.cli.group import LazyGroup
from absurd.cli.output import settings_of

if TYPE_CHECKING:
    from absurd.tasks.session.manager import SessionManager

Command = TypeVar("Command", bound=Callable[..., Any])

TYPES = ("observation", "alignment", "experiment", "maintenance", "idle")

SECTIONS = {
    "Tell": {
        "start": "absurd.cli.session_telling:start",
        "log": "absurd.cli.session_telling:log",
        "end": "absurd.cli.session_telling:end",
    },
    "Look": {
        "list": "absurd.cli.session_files:list_",
        "show": "absurd.cli.session_files:show",
        "open": "absurd.cli.session_files:open_",
        "frames": "absurd.cli.session_frames:frames",
        "plot": "absurd.cli.session_frames:plot",
        "tail": "absurd.cli.session_tail:tail",
        "export-fits": "absurd.cli.session_frames:export_fits",
        "verify": "absurd.cli.session_files:verify",
    },
    "Find": {
        "query": "absurd.cli.session_catalog:query",
        "rebuild-catalog": "absurd.cli.session_catalog:rebuild_catalog",
    },
    "Keep": {
        "hold": "absurd.cli.session_retire:hold",
        "release": "absurd.cli.session_retire:release",
        "retire": "absurd.cli.session_retire:retire",
    },
}


@click.command(cls=LazyGroup, sections=SECTIONS)
def session() -> None:
    """Sessions: every moment of a telescope belongs to one, and each becomes one ASDF file.

    A session that is begun here stays open until `absurd session end`; a program that has the folder meanwhile goes
    on with it.
    """


def data_option(command: Command) -> Command:
    """Give `command` the option for the data folder, passed as `data`."""
    text = "Data folder.  [ABSURD_SESSION_FOLDER]"
    return click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help=text)(command)


def folder_of(data: Path | None) -> Path:
    """The data folder of this call."""
    folder = data or settings_of(click.get_current_context()).session_folder
    if folder is None:
        raise click.UsageError("Name the data folder with --data, or set ABSURD_SESSION_FOLDER")
    return folder


def existing_folder_of(data: Path | None) -> Path:
    """The data folder of this call, which is there: of one that was misspelt nothing is said to be well."""
    from absurd.tasks.session.place import existing_folder

    folder = folder_of(data)
    existing_folder(folder)
    return folder


def anywhere(data: Path | None, name: str) -> Path:
    """The data folder, which a path of a file can do without."""
    return Path() if name.endswith(".asdf") else folder_of(data)


@contextmanager
def manager_of(data: Path | None, client: Any = None) -> Iterator[SessionManager]:
    """A manager that goes on with what the last one left, and leaves it to the next."""
    from absurd.tasks.session.manager import SessionManager

    manager = SessionManager(folder_of(data), client)
    try:
        yield manager
    finally:
        manager.leave()
