"""Where the embedded server keeps its things, and the operating system's user it runs as.

Under ``ABSURD_HOME`` there is a folder ``postgres`` with what belongs to the caller:

- ``lock``         held while a server is made, started or stopped
- ``server.json``  the record: where data and sockets are, and which programs served them last
- ``server.log``   what the server says

Data and sockets are beside these files, in ``data`` and ``run``, with two exceptions.  When root calls, the server
runs as another user (PostgreSQL refuses to be root); if that user cannot enter ``ABSURD_HOME``, as is so below
``/root``, both lie in ``/var/lib/absurd/<hash of ABSURD_HOME>``.  And where the path is too long for the name of a
socket, the sockets lie in a private folder below ``XDG_RUNTIME_DIR`` or the folder of temporary files.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from absurd.disk import try_lock
from absurd.errors import EmbeddedServerError

SHARED_STATE = Path("/var/lib/absurd")
"""Where root puts what the server's user must be able to reach."""

PORT = 5432
"""There is no TCP port; the number is part of the socket's name."""

_NETWORK_FILE_SYSTEMS = frozenset({
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre",
    "nfs", "nfs4", "panfs", "smb3",
})  # fmt: skip

_LARGEST_LOG = 10_000_000  # bytes
_LONGEST_SOCKET = 103  # bytes of a socket's path: 107 on Linux, 103 on macOS


@dataclass(frozen=True, slots=True)
class Account:
    """The user of the operating system who runs the server; `switch`: it is another one than the caller."""

    name: str
    uid: int
    gid: int
    switch: bool

    @classmethod
    def serving(cls, data: Path) -> Account:
        """Who runs the server of the folder `data`, which need not exist yet.

        That is the caller; for root, the owner of `data`, else ``postgres``, else ``nobody``.
        """
        owner = data.stat().st_uid if data.exists() else None
        me = os.geteuid()
        if me != 0:
            if owner is not None and owner != me:
                raise EmbeddedServerError(f"{data} belongs to the user {_name(owner)}: use another ABSURD_HOME")
            return cls(_name(me), me, os.getegid(), switch=False)
        for candidate in (_name(owner or 0), "postgres", "nobody"):
            with suppress(KeyError):
                entry = pwd.getpwnam(candidate)
                if entry.pw_uid != 0:
                    return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
        raise EmbeddedServerError("PostgreSQL does not run as root, and there is no user postgres or nobody to run it")

    def process_options(self) -> dict[str, Any]:
        """Keywords for `subprocess` that start a process as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def own(self, path: Path) -> Path:
        """Give `path` to this user; returns it."""
        try:
            if self.switch:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)
        except OSError as error:  # as in a container that knows no user but root
            raise EmbeddedServerError(
                f"PostgreSQL does not run as root, and {path} cannot be given to the user {self.name} here "
                f"({error.strerror}): run as an ordinary user, or use a server with ABSURD_DATABASE_URL"
            ) from error
        return path

    def can_enter(self, folder: Path) -> bool:
        """Whether this user may pass through `folder` and all folders above it."""
        return not self.switch or all(self._may_enter(one.stat()) for one in (folder, *folder.parents))

    def _may_enter(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        return bool(status.st_mode & (stat.S_IXGRP if status.st_gid == self.gid else stat.S_IXOTH))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"


@dataclass(frozen=True, slots=True)
class Record:
    """Where a server's data and sockets are, and what served them last (None: nothing yet)."""

    data: Path
    sockets: Path
    bin: Path | None = None
    version: str | None = None
    host: str | None = None
    """The machine it was started on last."""

    @property
    def socket(self) -> Path:
        """The file that clients connect to."""
        return self.sockets / f".s.PGSQL.{PORT}"

    @property
    def url(self) -> str:
        """The address for clients: a libpq URL without a host name or password."""
        return f"postgresql://absurd@/absurd?host={quote(str(self.sockets), safe='')}&port={PORT}"

    @property
    def major(self) -> int | None:
        """The version of PostgreSQL that made the data folder; None if there is none."""
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            return None


class Place:
    """The folder ``postgres`` of one ``ABSURD_HOME``."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "postgres"
        self.log = self.folder / "server.log"
        self._record = self.folder / "server.json"

    def read(self) -> Record | None:
        """The record, None if no server was ever made here."""
        try:
            stored = json.loads(self._record.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise EmbeddedServerError(f"{self._record} is damaged: remove it ({error})") from error
        paths = {key: Path(stored[key]) for key in ("data", "sockets", "bin") if stored.get(key)}
        return Record(**paths, version=stored.get("version"), host=stored.get("host"))

    def write(self, record: Record) -> None:
        """Replace the record, whole or not at all; a full disk is no matter while nothing changes."""
        if record == self.read():
            return
        text = json.dumps(asdict(record), default=str, indent=2)
        staging = self._record.with_suffix(".new")
        with os.fdopen(self.open(staging.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        staging.rename(self._record)

    def open(self, name: str, flags: int) -> int:
        """Open a file of the folder; what root makes belongs to the folder's owner, so that he can go on alone."""
        descriptor = os.open(self.folder / name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.geteuid() == 0:
            owner = self.folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor

    def open_log(self) -> BinaryIO:
        """The log, open at its end; a large one is put aside first."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > _LARGEST_LOG:
                self.log.rename(self.log.with_suffix(".log.old"))
        return os.fdopen(self.open(self.log.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")

    def forget(self, record: Record) -> None:
        """Remove data, sockets and the record for ever.  Lock and log stay."""
        for folder in (record.sockets, record.data):
            if folder.exists():
                shutil.rmtree(folder)
        if record.data.parent != self.folder:
            record.data.parent.rmdir()
        self._record.unlink()

    @contextmanager
    def lock(self, patience: float) -> Iterator[None]:
        """Hold the place alone, across threads and processes; wait at most `patience` seconds for it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        descriptor = self.open("lock", os.O_RDWR | os.O_CREAT)
        try:
            deadline = time.monotonic() + patience
            while not try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"another process has been starting or stopping the server for {patience:g} s "
                        f"(it holds {self.folder / 'lock'})"
                    )
                time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def settle(self) -> tuple[Record, Account]:
        """The record and the user, with all folders but the data made; decides where they are the first time."""
        record = self.read()
        data = record.data if record else self.folder / "data"
        account = Account.serving(data)
        if record is None:
            base = self.folder
            if not account.can_enter(base):
                base = shared_folder(hashlib.sha256(os.fsencode(self.home.resolve())).hexdigest()[:16])
            record = Record(base / "data", base / "run")
            account = Account.serving(record.data)
        record = replace(record, sockets=_socket_folder(record.sockets, account))
        self.write(record)
        return record, account


def is_shared_between_machines(folder: Path) -> bool:
    """Whether `folder` is on a file system that other machines may have mounted too."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return False
    kinds = {mount[4]: mount[mount.index("-") + 1] for mount in mounts}  # of two mounts at one point the last counts
    real = folder.resolve()
    return next((kinds[str(one)] for one in (real, *real.parents) if str(one) in kinds), "") in _NETWORK_FILE_SYSTEMS


def shared_folder(name: str = "") -> Path:
    """A folder of `SHARED_STATE` (or that itself), which everybody may enter and only root may change."""
    folder = SHARED_STATE / name
    folder.mkdir(parents=True, exist_ok=True)
    for made in (SHARED_STATE, folder):
        made.chmod(0o755)  # whatever the umask was
    return folder


def _socket_folder(wanted: Path, account: Account) -> Path:
    """`wanted`, or a new private folder elsewhere if it cannot hold a socket or is somebody else's."""
    fits = len(os.fsencode(wanted)) + len(f"/.s.PGSQL.{PORT}") <= _LONGEST_SOCKET
    if fits and "," not in str(wanted) and wanted.parent.is_dir():  # in a URL the comma parts two hosts
        with suppress(FileExistsError):
            wanted.mkdir()
        status = wanted.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid in (account.uid, os.geteuid()):
            wanted.chmod(0o700)
            return account.own(wanted)
    for name in (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"):  # noqa: S108 - for a private folder
        usable = Path(name).is_absolute() and len(os.fsencode(name)) < 60 and os.access(name, os.W_OK)
        if usable and account.can_enter(Path(name)):
            return account.own(Path(tempfile.mkdtemp(prefix="absurd-", dir=name)))
    raise EmbeddedServerError(f"{wanted} is too long for a socket, and no folder of temporary files can be used")
