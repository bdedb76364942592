"""Watch a folder in which sub-bands arrive: at once where the system tells of changes, elsewhere from time to time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from absurd.errors import ConflictError, DatabaseUnavailableError
from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.arrivals import Look

EVERY_S = 30.0
"""Between two looks at all of the folder, whatever the system tells."""
GATHERED_S = 0.2
"""What the system tells within so long is looked at together."""
LONGEST_PAUSE_S = 30.0
"""Between two tries while the database or the folder is away."""


class Looks(Protocol):
    """What is asked of `Arrivals`."""

    folder: Any

    @property
    def next_s(self) -> float | None: ...
    def look(self, paths: Any = None) -> Look: ...


def watch(
    arrivals: Looks,
    stop: threading.Event,
    *,
    every_s: float = EVERY_S,
    events: bool = True,
    told: Callable[[Look], None] = lambda _: None,
    trouble: Callable[[str], None] = lambda _: None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Look at a folder until `stop` is set: at all of it each `every_s` seconds, at what changes at once.

    What the system tells is a hint, never the truth: network file systems tell nothing of what other machines write.
    While the database or the folder is away the watch goes on trying, and tells so by `trouble`, once each time.

    Raises AbsurdError: what another try would not change.
    """
    hints = _Hints(str(arrivals.folder), trouble) if events else None
    trying, said = 0, ""
    full = 0.0
    paths: set[str] = set()
    try:
        while not stop.is_set():
            alive()
            now = time.monotonic()
            try:
                told(arrivals.look(None if now >= full else paths))
            except (DatabaseUnavailableError, ConflictError, DataError) as error:
                if isinstance(error, ConflictError) and not error.details.get("sqlstate", "").startswith("40"):
                    raise
                trying += 1
                if error.message != said:
                    trouble(error.message)
                    said = error.message
                stop.wait(min(2.0**trying, LONGEST_PAUSE_S))
                full = 0.0
                continue
            if said:
                trouble("it goes on")
            trying, said = 0, ""
            if now >= full:
                full = time.monotonic() + every_s
            pause = max(0.0, full - time.monotonic())
            if (soon := arrivals.next_s) is not None:
                pause = min(pause, max(soon, 0.05))
            paths = hints.wait(pause, stop) if hints is not None else _wait(pause, stop)
    finally:
        if hints is not None:
            hints.close()


def _wait(pause: float, stop: threading.Event) -> set[str]:
    stop.wait(pause)
    return set()


class _Hints:
    """Paths that have changed, as the system tells."""

    def __init__(self, folder: str, trouble: Callable[[str], None]) -> None:
        self._folder = folder
        self._trouble = trouble
        self._paths: queue.SimpleQueue[set[str]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="absurd-folder-events", daemon=True)
        self._thread.start()

    def wait(self, pause: float, stop: threading.Event) -> set[str]:
        """Those of the next `pause` seconds; sooner as soon as there are some, and soon when it is to stop."""
        deadline = time.monotonic() + pause
        found: set[str] = set()
        while not found and not stop.is_set() and (left := deadline - time.monotonic()) > 0:
            with suppress(queue.Empty):
                found |= self._paths.get(timeout=min(left, 0.5))
        with suppress(queue.Empty):
            while True:
                found |= self._paths.get_nowait()
        return found

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)

    def _listen(self) -> None:
        try:
            from watchfiles import watch as changes
        except ImportError:
            self._trouble("watchfiles is not installed (absurd[radio]): the folder is looked at from time to time only")
            return
        while not self._stop.is_set():
            try:
                for some in changes(
                    self._folder,
                    watch_filter=None,
                    debounce=int(GATHERED_S * 1000),
                    rust_timeout=500,
                    yield_on_timeout=True,
                    stop_event=self._stop,
                    raise_interrupt=False,
                    ignore_permission_denied=True,
                ):
                    if some:
                        self._paths.put({path for _, path in some})
            except (OSError, RuntimeError) as error:  # too many watches, or the folder went
                if self._stop.wait(LONGEST_PAUSE_S):
                    return
                self._trouble(
                    f"the system tells of no changes ({error}): the folder is looked at from time to time only"
                )
