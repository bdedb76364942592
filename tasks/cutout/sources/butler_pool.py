"""Connections to one repository: opened when they are needed, lent to one thread at a time, and all errors one kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from lsst.daf.butler import Butler, ButlerUserError, DatasetNotFoundError, LabeledButlerFactory
from lsst.daf.butler.registry import CollectionError as NoSuchCollection
from lsst.daf.butler.registry import DatasetTypeError
from sqlalchemy.exc import SQLAlchemyError

from absurd.tasks.cutout.errors import (
    ButlerConnectionError,
    CollectionError,
    DataIdValidationError,
    PerformanceError,
    RippleError,
    SourceNotFoundError,
)
from absurd.tasks.said import first_line

_LABEL = "repository"


class Secret(Protocol):
    """A text that is not shown."""

    def reveal(self) -> str: ...


class ButlerPool:
    """Butlers of one repository, for several threads; each is read-only, and lent to one caller at a time.

    A direct repository or a server, whichever its configuration tells.  Of a direct one the Butlers are clones that
    share what is cached of the registry; of a server, they share its pool of connections.  `token` is asked
    whenever a Butler is made, so that it may be renewed; what it gives goes to that Butler, and is neither in the
    environment nor in what this object shows of itself.
    """

    def __init__(
        self, place: str, *, size: int, timeout: float, token: Callable[[], Secret | None] | None = None
    ) -> None:
        self.place = without_password(place)
        self.opened = 0
        """How many Butlers were made."""
        self._uri = place
        self._token = token
        self._timeout = timeout
        self._size = size
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[Butler] = []
        self._factory: LabeledButlerFactory | None = None
        self._age = 0

    def __repr__(self) -> str:
        return f"ButlerPool({self.place!r}, size={self._size})"

    @contextmanager
    def lease(self) -> Iterator[Butler]:
        """A Butler for this thread, until the block ends.

        Raises
        ------
        ButlerConnectionError
            The repository does not answer, or lets nobody in.
        PerformanceError
            All are lent, and none came back within the time-out.
        CollectionError, DataIdValidationError, SourceNotFoundError
            What the block's calls of the Butler found missing or wrong.
        """
        if not self._free.acquire(timeout=self._timeout):
            raise PerformanceError(
                f"all {self._size} connections to {self.place} are in use, and none was given back in "
                f"{self._timeout:g} s",
                advice="more max_connections, or fewer threads",
            )
        try:
            with butler_errors(self.place):
                age, butler = self._take()
            try:
                with butler_errors(self.place):
                    yield butler
            except ButlerConnectionError:  # this one, and those that idle, may be of a connection that is gone
                self.close()
                butler.close()
                raise
            except BaseException:
                self._give_back(age, butler)
                raise
            self._give_back(age, butler)
        finally:
            self._free.release()

    def close(self) -> None:
        """Close what idles; what is lent is closed when it comes back.  A closed pool opens again when it is asked."""
        with self._lock:
            idle, self._idle = self._idle, []
            factory, self._factory = self._factory, None
            self._age += 1
        for butler in idle:
            butler.close()
        if factory is not None:
            factory.close()

    def _take(self) -> tuple[int, Butler]:
        with self._lock:
            if self._idle:
                return self._age, self._idle.pop()
            if self._factory is None:
                self._factory = LabeledButlerFactory({_LABEL: self._uri})
            self.opened += 1
            secret = self._token() if self._token else None
            token = secret.reveal() if secret else None
            return self._age, self._factory.create_butler(_LABEL, access_token=token)

    def _give_back(self, age: int, butler: Butler) -> None:
        with self._lock:
            if age == self._age:
                self._idle.append(butler)
                return
        butler.close()


@contextmanager
def butler_errors(place: str) -> Iterator[None]:
    """What the Butler and what is below it raise, as this package's errors; `place` has no password in it."""
    try:
        yield
    except RippleError:
        raise
    except NoSuchCollection as error:
        raise CollectionError(f"{place}: {first_line(error)}") from error
    except (DatasetNotFoundError, DatasetTypeError) as error:
        raise SourceNotFoundError(f"{place}: {first_line(error)}", source=place) from error
    except ButlerUserError as error:  # a data ID or a query that means nothing
        raise DataIdValidationError(f"{place}: {first_line(error)}") from error
    except FileNotFoundError as error:
        raise ButlerConnectionError(
            f"there is no Butler repository {place}", advice="repo_path is a folder with a butler.yaml", source=place
        ) from error
    except (SQLAlchemyError, OSError) as error:
        raise ButlerConnectionError(f"{place} does not answer: {first_line(error)}", source=place) from error
    except ImportError as error:  # of what a server needs, or of a storage class that the repository names
        raise ButlerConnectionError(
            f"{place} needs what is not installed: {first_line(error)}", advice="install it", source=place
        ) from error
    except Exception as error:
        if isinstance(error, ValueError) and "ccess token" in str(error):
            raise ButlerConnectionError(
                f"{place} is a server that wants to know who asks", advice="give access_token", source=place
            ) from error
        if not type(error).__module__.startswith(_OF_SERVERS):
            raise
        status = getattr(error, "status_code", None)
        refused = status in (401, 403)
        raise ButlerConnectionError(
            f"{place} {'lets us not in' if refused else 'does not answer'}: {first_line(error)}"
            + (f" (status {status})" if status else ""),
            advice="see whether access_token is right and has not expired" if refused else "",
            source=place,
        ) from error


_OF_SERVERS = ("lsst.daf.butler.remote_butler", "httpx", "httpcore", "requests", "urllib3", "aiohttp")
"""Where the classes of errors are that a Butler server or the way to it causes."""


def without_password(place: str) -> str:
    """An address as it may be shown: without name and password, and without what follows a question mark."""
    if "://" not in place:
        return place
    parts = urlsplit(place)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
