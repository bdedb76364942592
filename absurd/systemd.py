"""The service manager's protocol (sd_notify): when a daemon is ready, what it does, and that it still does it.

Works without systemd's library, and is silent where no service manager listens.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STATUS_SECONDS = 10.0
"""How often a daemon that is not watched looks whether its status has changed."""
LEAVE_SECONDS = 20.0
"""What a daemon may need beyond its grace: the database's last answer, the ends of processes."""

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """Speaks to the service manager that started this process, if one did."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog(environ) if self._address else None
        """Within how many seconds it wants a sign of life, else it restarts this process; None: it does not."""
        self.variables = {name: environ[name] for name in _VARIABLES if name in environ}
        """What the environment said of it."""
        self._said: str | None = None

    @classmethod
    def take(cls, environ: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """As the environment says, of which it is taken: what is started from here must not speak in our name."""
        manager = cls(environ)
        for name in _VARIABLES:
            environ.pop(name, None)
        return manager

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return self._address is not None

    def tell(self, **values: object) -> None:
        """Send values, as in ``tell(READY=1)``.  That nobody listens any more is no reason to fail."""
        if self._address is None:
            return
        text = "\n".join(f"{name}={str(value).replace(chr(10), ' ')}" for name, value in values.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
            speaker.setblocking(False)  # a full queue must not hold up the loop
            speaker.sendto(text.encode(), self._address)

    def status(self, text: str) -> None:
        """Say in a line what this daemon does, for ``systemctl status``; what was said last is not repeated."""
        if text != self._said:
            self._said = text
            self.tell(STATUS=text)

    def stopping(self, grace: float) -> None:
        """Say that it stops now, and how long that may take."""
        self.tell(STOPPING=1, EXTEND_TIMEOUT_USEC=int((grace + LEAVE_SECONDS) * 1_000_000))

    @asynccontextmanager
    async def attended(self, status: Callable[[], str] | None = None) -> AsyncIterator[None]:
        """Keep its status told, and the watchdog quiet for as long as the present loop turns."""
        if not self.listens:
            yield
            return
        pause = STATUS_SECONDS if self.watchdog_seconds is None else min(STATUS_SECONDS, self.watchdog_seconds / 2)

        async def attend() -> None:
            while True:
                if self.watchdog_seconds is not None:
                    self.tell(WATCHDOG=1)
                if status is not None:
                    self.status(status())
                await asyncio.sleep(pause)

        job = asyncio.create_task(attend(), name="absurd-service-manager")
        try:
            yield
        finally:
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)


def stop_signals() -> list[signal.Signals]:
    """What tells a daemon to stop; not the end of its terminal, where that was made to be ignored (``nohup``)."""
    wanted = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    return wanted[:2] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else wanted


def _address(text: str) -> str | None:
    """The address of the socket: a path, or ``@`` before a name that is in no file system."""
    if text[:1] not in ("/", "@") or len(text) < 2:
        return None
    return "\0" + text[1:] if text.startswith("@") else text


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """The time of the watchdog in seconds, if it waits for this very process."""
    period, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not period.isdecimal() or int(period) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(period) / 1_000_000
