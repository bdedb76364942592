"""Reload in development: a worker that begins anew when the code it has imported changes.

The process replaces itself, so it keeps its number, its terminal and its place under whoever started it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import site
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import structlog

from absurd.config import Settings
from absurd.executor import load_modules
from absurd.systemd import stop_signals
from absurd.telemetry import Event

LOOK_SECONDS = 0.5
"""How often the files are looked at."""

Seen = dict[Path, tuple[int, int]]
"""When each file was changed last, and its size."""

log = structlog.get_logger("absurd.worker")


def load_or_wait(settings: Settings) -> Seen:
    """Import the modules of `settings`, and tell how their files were.

    If that fails, wait for a change and begin anew.  A signal to stop ends the wait, and the process well.
    """
    # Python takes what it has compiled for new if the file is as long as before and was written in the same second.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        load_modules(list(settings.imports))
        return look()
    except Exception as error:  # whatever their code does while it is imported
        seen = look() | look(of_traceback(error))
        for number in stop_signals():  # before it is told: who reads that it waits may ask it to stop
            signal.signal(number, _leave)
        told = "".join(traceback.format_exception_only(error)).strip()
        log.error(Event.RELOAD_WAITS, error=told, note="waiting for a change")
    while not changed_since(seen):
        time.sleep(LOOK_SECONDS)
    begin_anew(os.environ)
    raise AssertionError("replaced")


def _leave(*_: object) -> None:
    raise SystemExit(0)


async def watch(seen: Seen, reloading: Callable[[], None]) -> None:
    """Call `reloading` when a file is not as `seen`.

    One that cannot be compiled is told of, and the code before goes on.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if not (changed := changed_since(seen)):
            seen = look() | seen  # of modules imported meanwhile
            continue
        await asyncio.sleep(LOOK_SECONDS)  # an editor or a checkout may write more than one
        changed |= changed_since(seen)
        seen = look() | look(changed)
        if (error := first_error(changed)) is not None:
            log.error(Event.RELOAD_WAITS, error=error, note="the code before goes on")
            continue
        log.info(Event.WORKER_RELOADING, files=sorted(map(str, changed)))
        reloading()


def begin_anew(environ: Mapping[str, str]) -> None:
    """Replace this process by one that was started in the same way."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**environ})  # noqa: S606


def look(files: set[Path] | None = None) -> Seen:
    """How `files` are now; None: those of every module imported from outside the installed packages."""
    seen: Seen = {}
    for path in own_files() if files is None else files:
        try:
            found = path.stat()
        except OSError:  # gone, or not there yet
            seen[path] = (0, 0)
        else:
            seen[path] = (found.st_mtime_ns, found.st_size)
    return seen


def changed_since(seen: Seen) -> set[Path]:
    """Those of `seen` that are otherwise now."""
    now = look(set(seen))
    return {path for path, state in now.items() if state != seen[path]}


def own_files() -> set[Path]:
    """Files of imported modules that are somebody's own, and the other modules of their packages."""
    found: set[Path] = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or not file.endswith(".py") or file.startswith(_INSTALLED):
            continue
        path = Path(file)
        found.add(path)
        if path.name == "__init__.py" and name.partition(".")[0] != "absurd":
            found.update(path.parent.rglob("*.py"))  # what runs import in their own processes is not seen here
    return found


def of_traceback(error: BaseException | None) -> set[Path]:
    """Files that an exception and what caused it came through, of those that are somebody's own."""
    found: set[Path] = set()
    while error is not None:
        step: TracebackType | None = error.__traceback__
        while step is not None:
            found.add(Path(step.tb_frame.f_code.co_filename))
            step = step.tb_next
        if isinstance(error, SyntaxError) and error.filename:
            found.add(Path(error.filename))
        error = error.__cause__ or error.__context__
    return {path for path in found if path.suffix == ".py" and not str(path).startswith(_INSTALLED)}


def first_error(files: set[Path]) -> str | None:
    """What is wrong with the first of `files` that is no Python."""
    for path in sorted(files):
        try:
            compile(path.read_bytes(), str(path), "exec")
        except FileNotFoundError:
            continue
        except (OSError, SyntaxError, ValueError) as error:
            return f"{path}: {error}"
    return None


_INSTALLED = tuple(
    {
        *(str(Path(each)) + os.sep for each in (*site.getsitepackages(), site.getusersitepackages())),
        *(str(Path(sysconfig.get_path(name))) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
)
"""Where the standard library and installed packages are."""
