"""Sub-band files that arrive in a folder: seen, waited for until they are whole, and recorded once each."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.subband_header import read_header
from absurd.tasks.visibility.subband_name import SubbandName, parse_name

STEADY_S = 5.0
"""For so long a file must not change before it is read."""
ASKED_AT_ONCE = 2_000
RECORDED_AT_ONCE = 100
LISTED_AT_ONCE = 1_000
LONGEST_PAUSE_S = 600.0
"""Between two tries to read a file that is not whole or may not be read."""
NOT_ENTERED = (".ms", ".zarr")
"""Suffixes of folders that are products, full of files of their own."""
MOST_PROBLEMS = 20

Document = dict[str, Any]


class Client(Protocol):
    """What is asked of a `SyncAbsurdClient`."""

    def changed_subbands(self, intake: str, files: Iterable[tuple[str, str]]) -> list[int]: ...
    def record_subbands(self, intake: str, files: Sequence[Document]) -> list[Document]: ...
    def forget_subbands(self, intake: str, paths: Iterable[str]) -> int: ...
    def settle_subband_groups(self, intake: str) -> list[Document]: ...
    def list_subbands(
        self,
        intake: str,
        states: Iterable[str] = (),
        *,
        open: bool = False,
        after: str | None = None,
        limit: int = 1000,
    ) -> list[Document]: ...


@dataclass(slots=True)
class Look:
    """What one look at a folder has found."""

    files: int = 0
    """Sub-band files that are there."""
    others: int = 0
    """Files with other names, which are left alone."""
    read: int = 0
    """Whose header was read."""
    recorded: list[Document] = field(default_factory=list)
    """What became of those that are new or have changed: path, state, group_id, reason."""
    settled: list[Document] = field(default_factory=list)
    """Groups that time has changed: id, state, reason."""
    forgotten: int = 0
    """Files that are gone, and that no conversion had begun with."""
    problems: list[str] = field(default_factory=list)
    """Places that could not be looked at, with the reason; the first of them."""

    def tell(self, problem: str) -> None:
        """Note a place that could not be looked at."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


@dataclass(slots=True)
class _Young:
    """A file that is not recorded as whole."""

    version: str
    since: float
    """When this version was seen first, on the clock of this process, which nobody sets."""
    told: tuple[str, str] | None = None
    """Version and reason that the database knows."""
    next_try: float = 0.0
    tries: int = 0


class Arrivals:
    """Looks at a folder and all below it, again and again; remembers what it has seen, so that little is left to do.

    Several of them, in whatever processes, may look at one folder: the database takes each file once.
    """

    def __init__(
        self,
        client: Client,
        intake: str,
        folder: str | os.PathLike[str],
        *,
        steady_s: float = STEADY_S,
        clock: Callable[[], float] = time.monotonic,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._client = client
        self._intake = intake
        self._steady_s = steady_s
        self._clock = clock
        self._alive = alive
        self._settled: dict[str, str] = {}
        self._young: dict[str, _Young] = {}
        self._unread: set[str] | None = None
        """Files that the first look has found and that are yet to be read; None: it is to come."""
        self._is_due = True
        """Whether recorded files may be gone: what went while nobody looked, and what this process misses."""

    @property
    def waits(self) -> int:
        """Files that are not recorded as whole, and may become so."""
        return len(self._young)

    @property
    def is_behind(self) -> bool:
        """Whether files that were there at first are yet to be read: what may be theirs has not waited in vain."""
        return self._unread is None or bool(self._unread)

    @property
    def next_s(self) -> float | None:
        """Seconds until `look` with no paths but () finds something to do; None: not by itself."""
        now = self._clock()
        due = (max(each.since + self._steady_s, each.next_try) for each in self._young.values())
        return max(0.0, min(due) - now) if self._young else None

    def look(self, paths: Iterable[str] | None = None) -> Look:
        """Look at all of the folder, or at `paths` in it and at those files that are waited for.

        Files that have not changed since the last look cost their stat, and nothing of the database.

        Raises
        ------
        DataError
            The folder is not there or may not be listed.
        AbsurdError
            What the client raises; nothing is lost, the next look goes on.
        """
        look = Look()
        some = set() if paths is None else {*paths, *self._young}
        seen = dict(files_below(str(self.folder), look) if paths is None else self._some(some, look))
        look.files = len(seen)
        for path in some - seen.keys():  # gone: it is new when it comes again
            self._lose(path)
            self._is_due = True
        fresh = [(path, version) for path, version in seen.items() if self._settled.get(path) != version]
        self._note([each for each in fresh if each[0] not in self._young])
        self._grow([each for each in fresh if each[0] in self._young])
        if paths is None and self._unread is None:
            self._unread = set(self._young)
        self._record(seen, look)
        if paths is None:
            self._forget(seen, look)
            if not self.is_behind:
                look.settled = self._client.settle_subband_groups(self._intake)
        return look

    # What is there --------------------------------------------------------------------------------

    def _some(self, paths: set[str], look: Look) -> Iterator[tuple[str, str]]:
        for path in sorted(paths):
            if parse_name(path) is not None and (path in self._young or self._is_entered(path)):
                yield from _version(path, look)

    def _is_entered(self, path: str) -> bool:
        """Whether a look at all would come upon it."""
        try:
            between = Path(path).relative_to(self.folder).parts[:-1]
        except ValueError:
            return False
        return not any(each.startswith(".") or each.endswith(NOT_ENTERED) for each in between)

    # What is new ----------------------------------------------------------------------------------

    def _note(self, fresh: list[tuple[str, str]]) -> None:
        """Of files that this process does not know, take those as young that the database does not know either."""
        for at in range(0, len(fresh), ASKED_AT_ONCE):
            some = fresh[at : at + ASKED_AT_ONCE]
            changed = set(self._client.changed_subbands(self._intake, some))
            now = self._clock()
            for number, (path, version) in enumerate(some):
                if number in changed:
                    self._young[path] = _Young(version, now)
                else:
                    self._settled[path] = version
            self._alive()

    def _grow(self, fresh: list[tuple[str, str]]) -> None:
        """Young files that have changed since they were seen begin anew."""
        for path, version in fresh:
            young = self._young[path]
            if young.version != version:
                self._young[path] = _Young(version, self._clock(), young.told)
                self._is_read(path)  # the database is told that it grows

    def _record(self, seen: dict[str, str], look: Look) -> None:
        """Record young files: those that are whole for good, others as waiting, once for each version."""
        ready: list[Document] = []
        for path in sorted(self._young.keys() & seen.keys(), key=_in_time):
            file = self._file(path, look)
            if file is not None:
                ready.append(file)
            if len(ready) >= RECORDED_AT_ONCE:
                self._put(ready, look)
                ready = []
            self._alive()
        self._put(ready, look)

    def _file(self, path: str, look: Look) -> Document | None:
        """A young file as it is recorded; None where the database knows as much."""
        young = self._young[path]
        name = parse_name(path)
        assert name is not None
        now = self._clock()
        state, reason, facts = "waiting", "it has only just come, or changed", {}
        if now - young.since >= self._steady_s:
            if now < young.next_try:
                return None
            look.read += 1
            young.tries += 1
            young.next_try = now + min(max(self._steady_s, 1.0) * 2.0 ** min(young.tries, 20), LONGEST_PAUSE_S)
            try:
                facts = _facts(path)
                state, reason = "whole", ""
            except FileNotFoundError:
                return None
            except OSError as error:
                state, reason = "unreadable", f"it cannot be opened: {error.strerror}"
            except DataError as error:
                reason = error.message
            except Exception as error:  # no file, however odd, may keep the others out
                reason = f"{type(error).__name__}: {error}"
            if not self._is_still(path, young.version):
                return None  # it was being written while it was read
            self._is_read(path)
        if state != "whole" and young.told == (young.version, reason):
            return None
        return {
            "path": path,
            "version": young.version,
            "state": state,
            "number": name.number,
            "stamp": name.stamp.isoformat(),
            "reason": reason or None,
            **facts,
        }

    def _is_read(self, path: str) -> None:
        if self._unread is not None:
            self._unread.discard(path)

    def _is_still(self, path: str, version: str) -> bool:
        return dict(_version(path, Look())).get(path) == version

    def _put(self, files: list[Document], look: Look) -> None:
        if not files:
            return
        told = {each["path"]: each for each in self._client.record_subbands(self._intake, files)}
        for file in files:
            path, version = file["path"], file["version"]
            found = told.get(path)
            if file["state"] == "whole":
                self._young.pop(path, None)
                self._settled[path] = version
            elif path in self._young:
                self._young[path].told = (version, file["reason"])
            if found is not None:
                look.recorded.append(found)

    # What is gone ---------------------------------------------------------------------------------

    def _lose(self, path: str) -> None:
        self._young.pop(path, None)
        self._settled.pop(path, None)
        self._is_read(path)

    def _forget(self, seen: dict[str, str], look: Look) -> None:
        """Forget files that are gone; nothing where there is no sub-band file at all: its disk may not be mounted."""
        lost = (self._settled.keys() | self._young.keys()) - seen.keys()
        for path in lost:
            self._lose(path)
        self._is_due |= bool(lost)
        if not seen or not self._is_due:
            return
        below = os.path.join(self.folder, "")
        gone: list[str] = []
        after: str | None = None
        while True:
            page = [
                each["path"]
                for each in self._client.list_subbands(self._intake, open=True, after=after, limit=LISTED_AT_ONCE)
            ]
            gone += [path for path in page if path.startswith(below) and path not in seen and _is_gone(path)]
            if len(page) < LISTED_AT_ONCE:
                break
            after = page[-1]
        if gone:
            look.forgotten = self._client.forget_subbands(self._intake, gone)
        self._is_due = False


def files_below(folder: str, look: Look) -> Iterator[tuple[str, str]]:
    """Each sub-band file in a folder and below it, with its version; a folder that links lead to twice is entered once.

    Raises DataError: the folder is not there or may not be listed.
    """
    entered: set[tuple[int, int]] = set()
    folders, links = [folder], list[str]()
    while folders or links:
        place = folders.pop() if folders else links.pop()  # links last: a folder in here is entered by its own name
        try:
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(place) as entries:
                for entry in entries:
                    if parse_name(entry.name) is not None:
                        yield from _version(entry.path, look)
                    elif entry.name.startswith("."):
                        continue
                    elif _is_folder(entry):
                        if not entry.name.endswith(NOT_ENTERED):
                            (links if entry.is_symlink() else folders).append(entry.path)
                    else:
                        look.others += 1
        except OSError as error:
            if place == folder:
                raise DataError(f"{folder} cannot be watched: {error.strerror}", source=folder) from error
            look.tell(f"{place}: {error.strerror}")


def version_of(status: os.stat_result) -> str:
    """What tells one version of a file from another: its size, and the time of its last change."""
    return f"{status.st_size}:{status.st_mtime_ns}"


def _version(path: str, look: Look) -> Iterator[tuple[str, str]]:
    """A file with its size and the time of its last change; nothing where there is no file."""
    try:
        status = os.stat(path)
        path.encode()
    except FileNotFoundError:  # gone meanwhile, or a link that leads nowhere
        return
    except OSError as error:
        look.tell(f"{path}: {error.strerror}")
        return
    except UnicodeEncodeError:
        look.tell(f"{path.encode(errors='surrogateescape').decode(errors='replace')}: its name is not UTF-8")
        return
    if stat.S_ISREG(status.st_mode):
        yield path, version_of(status)
    else:
        look.others += 1


def _facts(path: str) -> Document:
    header = read_header(path)
    return {
        "declination_deg": header.declination_deg,
        "content": header.content,
        "begins_at": header.begins_at.isoformat(),
        "integration_s": header.integration_s,
    }


def _in_time(path: str) -> tuple[SubbandName | None, str]:
    """In the order of stamps, so that groups are complete one after the other."""
    return parse_name(path), path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
