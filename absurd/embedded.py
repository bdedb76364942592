"""The embedded PostgreSQL server: made and started on demand, shared by all processes of a user.

It is an ordinary server on a data folder of its own (see `absurd.embedded_place`), run by whatever programs are
found (see `absurd.embedded_binaries`).  It outlives the process that started it, and everything that makes
PostgreSQL durable is on: killed at any moment, it comes back with all that was committed.

It listens on a Unix socket only.  The folder of the socket can be entered by the caller alone (and by root), which
is why clients need no password there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from absurd.config import Settings
from absurd.disk import persist_names
from absurd.embedded_binaries import Installation, choose, executable_by
from absurd.embedded_place import PORT, Account, Place, Record, is_shared_between_machines
from absurd.embedded_process import Answer, alive, ask, end, end_orphans, postmaster, recorded_pid, wait_until
from absurd.errors import EmbeddedServerError

_START_LIMIT = 60.0  # seconds for a server to say anything
_RECOVERY_LIMIT = 900.0  # seconds for a server that says it is starting, such as after a crash
_STOP_LIMIT = 120.0

_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_CONFIGURATION = """
# Set by absurd when it made this data folder; yours to change from then on.
max_connections = 200
shared_buffers = 128MB
max_wal_size = 1GB
jit = off
fsync = on
synchronous_commit = on
full_page_writes = on
log_min_messages = warning
log_checkpoints = off
log_line_prefix = '%m [%p] '
search_path = 'public'  # not "$user": a table of yours would land in the queue's schema, which is called as the user is
"""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of an embedded server."""

    state: Literal["running", "starting", "stopped", "absent", "lost"]
    """`starting`: there and not letting clients in; `absent`: never made; `lost`: made, and its data folder is gone."""
    home: Path
    data: Path | None = None
    """The data folder, like all below None while `absent`."""
    log: Path | None = None
    url: str | None = None
    bin: Path | None = None
    """Folder of the programs that served it last."""
    version: str | None = None
    pid: int | None = None
    """The main process; None unless it runs."""
    bytes: int | None = None
    """Size of the data folder."""


class EmbeddedServer:
    """The server of one ``ABSURD_HOME``.  Any number of processes may use these methods at once."""

    def __init__(self, settings: Settings) -> None:
        self._place = Place(settings.home)
        self._pg_bin = settings.pg_bin

    def start(self) -> str:
        """Make sure that the server runs, and return its URL; where it does, this costs one connection to it.

        Raises `EmbeddedServerError`, which says what is in the way.
        """
        with _explained(self._place):
            record = self._place.read()
            if record and ask(record) is Answer.READY:
                return record.url
            with self._place.lock(_RECOVERY_LIMIT):
                record, account = self._place.settle()
                if not self._serves(record):
                    self._launch(record, account)
                return record.url

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> bool:
        """Stop the server and wait for its end; returns whether there was one to stop.

        ``fast`` ends the connections there are, ``smart`` waits for them, ``immediate`` crashes the server.
        """
        with _explained(self._place):
            if self._place.read() is None:
                return False
            with self._place.lock(_RECOVERY_LIMIT):
                record = self._place.read()
                return record is not None and self._stop(record, mode)

    def status(self) -> ServerStatus:
        """Look at the server and change nothing."""
        with _explained(self._place):
            record = self._place.read()
            if record is None or (record.major is None and record.version is None):
                return ServerStatus("absent", self._place.home)
            if record.major is None:
                return ServerStatus("lost", self._place.home, record.data)
            answer = ask(record)
            state: Literal["running", "starting", "stopped"] = "stopped"
            if answer is not Answer.NONE:
                state = "running" if answer is Answer.READY else "starting"
            return ServerStatus(
                state=state,
                home=self._place.home,
                data=record.data,
                log=self._place.log,
                url=record.url,
                bin=record.bin,
                version=record.version,
                pid=None if answer is Answer.NONE else postmaster(record.data),
                bytes=_size(record.data),
            )

    def destroy(self) -> bool:
        """Stop the server and remove its data for ever; returns whether there was any."""
        with _explained(self._place):
            if self._place.read() is None:
                return False
            with self._place.lock(_RECOVERY_LIMIT):
                record = self._place.read()
                if record is None:
                    return False
                self._stop(record, "fast")
                existed = record.data.exists()
                self._place.forget(record)
                return existed

    def _serves(self, record: Record) -> bool:
        """Wait while a server is starting or stopping; whether in the end one answers.  The lock is held."""
        if recorded_pid(record.data) is None:
            return False
        elsewhere = record.host is not None and record.host != socket.gethostname()
        if elsewhere and is_shared_between_machines(record.data) and ask(record) is Answer.NONE:
            # Two servers on one data folder destroy it, and neither would see the other's processes.
            raise EmbeddedServerError(
                f"the embedded server of {self._place.home} runs on the machine {record.host}, and can be used only "
                "there: stop it there (`absurd db stop`), or share a server with ABSURD_DATABASE_URL; if that machine "
                f"is gone for good, remove {record.data / 'postmaster.pid'}"
            )
        wait_until(lambda: ask(record) is not Answer.BUSY or not postmaster(record.data), _RECOVERY_LIMIT)
        answer = ask(record)
        if answer is Answer.NONE:
            # Should one run all the same, then its socket was removed, and only a new start brings it back.
            self._stop(record, "fast")
        return answer is Answer.READY

    def _stop(self, record: Record, mode: str) -> bool:
        pid = postmaster(record.data)
        if pid is None:
            return False
        end(pid, _STOP_SIGNALS[mode])
        if not wait_until(lambda: not alive(pid), _STOP_LIMIT):
            raise EmbeddedServerError(f"the server (process {pid}) does not stop; see {self._place.log}", pid=pid)
        return True

    def _launch(self, record: Record, account: Account) -> None:
        """Start the server, made first if need be, and wait until it lets clients in.  The lock is held."""
        found = choose(self._pg_bin, record.data, record.major, record.bin)
        programs = executable_by(found, account)
        if record.major is None:
            if record.version is not None:
                raise EmbeddedServerError(
                    f"the data folder {record.data} of the embedded server is gone: bring it back, or begin anew with "
                    "`absurd db reset`"
                )
            self._make(record, account, programs)
        self._place.write(replace(record, bin=found.bin, version=found.version, host=socket.gethostname()))
        cluster = "absurd-" + hashlib.sha256(os.fsencode(record.data)).hexdigest()[:12]
        end_orphans(record.data, cluster)
        for leftover in (record.socket, record.socket.with_name(record.socket.name + ".lock")):
            leftover.unlink(missing_ok=True)
        options = {
            "listen_addresses": "",
            "port": PORT,
            "unix_socket_directories": '"' + str(record.sockets).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            "cluster_name": cluster,  # by which its processes are known
        }
        command = [str(programs.bin / "postgres"), "-D", str(record.data)]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        environment = _environment()
        stale = recorded_pid(record.data)
        if stale is not None:
            # The server leaves postmaster.pid alone as long as any process of that number exists, even one that has
            # nothing to do with it or is only waiting to be cleared away.  By now we know that it is not a server;
            # this makes it take the number for that of an ancestor, and keeps its other guards in force.
            environment["PG_GRANDPARENT_PID"] = str(stale)
        with self._place.open_log() as log:
            start = log.seek(0, os.SEEK_END)
            # The shell is in between so that the server is nobody's child: no caller has to wait for its end.
            shell = ["/bin/sh", "-c", f"{shlex.join(command)} >&2 & echo $!"]
            answer = subprocess.run(
                shell,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                check=True,
                cwd="/",
                env=environment,
                start_new_session=True,
                **account.process_options(),
            )
        self._await_ready(record, int(answer.stdout), start)

    def _await_ready(self, record: Record, pid: int, log_start: int) -> None:
        begun = heard = time.monotonic()
        while (answer := ask(record)) is not Answer.READY:
            now = time.monotonic()
            if answer is Answer.BUSY:
                heard = now
            if not alive(pid) and postmaster(record.data) is None:
                raise self._failure("PostgreSQL does not start", log_start)
            if now - heard > _START_LIMIT or now - begun > _RECOVERY_LIMIT:
                raise self._failure(f"PostgreSQL (process {pid}) has not answered for {now - begun:.0f} s", log_start)
            time.sleep(0.02)

    def _failure(self, what: str, log_start: int) -> EmbeddedServerError:
        with self._place.log.open("rb") as log:
            log.seek(log_start)
            said = log.read()[-20_000:].decode(errors="replace")
        return EmbeddedServerError(f"{what}: {_essence(said)} (see {self._place.log})", log=said)

    def _make(self, record: Record, account: Account, programs: Installation) -> None:
        """Make the data folder with the database and the user `absurd`, whole or not at all."""
        base = record.data.parent
        for leftover in base.glob("data.new-*"):
            shutil.rmtree(leftover)
        staging = account.own(Path(tempfile.mkdtemp(prefix="data.new-", dir=base)))
        try:
            self._run(account, programs.bin / "initdb", "-D", staging, "--username=absurd", "--encoding=UTF8",
                      "--no-locale", "--data-checksums", "--auth-local=trust", "--auth-host=reject")  # fmt: skip
            with (staging / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.write(_CONFIGURATION)
            self._run(account, programs.bin / "postgres", "--single", "-D", staging, "template1",
                      given="CREATE DATABASE absurd OWNER absurd\n")  # fmt: skip
            staging.rename(record.data)
            persist_names(base)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _run(self, account: Account, program: Path, *words: str | Path, given: str = "") -> None:
        """Run one of PostgreSQL's programs to its end; its words go to the log."""
        done = subprocess.run(
            [program, *words],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            cwd="/",
            env=_environment(),
            **account.process_options(),
        )
        with self._place.open_log() as log:
            start = log.seek(0, os.SEEK_END)
            log.write(done.stdout.encode())
        if done.returncode != 0 or "ERROR:" in done.stdout:  # the single-user server ends well after an error
            raise self._failure(f"{program.name} cannot make the data folder in {self._place.home}", start)


def ensure_running(settings: Settings) -> str:
    """The URL of the embedded server of `settings`, which is started (and made) if need be."""
    return EmbeddedServer(settings).start()


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    """Turn what the operating system refuses into one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or place.home
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EmbeddedServerError(f"the disk of {where} is full") from error
        raise EmbeddedServerError(
            f"the embedded server cannot use {where}: {error.strerror or error}; set ABSURD_HOME to another folder, "
            "or ABSURD_DATABASE_URL to a server"
        ) from error


def _environment() -> dict[str, str]:
    """What the server sees of the caller's environment: nothing secret, and no setting of PostgreSQL's."""
    passed = ("PATH", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "NSS_WRAPPER_PASSWD", "NSS_WRAPPER_GROUP")
    return {name: os.environ[name] for name in passed if name in os.environ} | {"LC_ALL": "C"}


def _essence(said: str) -> str:
    """The lines of a server's log that say why it ended."""
    if "No space left on device" in said:
        return "the disk is full"
    lines = [re.sub(r"^[-\d]+ [\d:.]+ \w+ \[\d+\] ", "", line).strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"FATAL:|PANIC:|ERROR:|error:|HINT:|invalid|unrecognized", line)]
    return "; ".join((telling or lines)[-4:]) or "it said nothing"


def _size(folder: Path) -> int:
    """Bytes of the files below `folder`; they may come and go meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(path, name).lstat().st_size
    return total
