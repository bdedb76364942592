"""The programs that dump and restore: which ones fit a server, and how they are run."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from absurd.tasks.maintenance.errors import BackupError, BackupProgramError

TOLD_SECONDS = 0.5
"""How often is told how far a program is."""
STOP_SECONDS = 1.0
"""What a program gets to end by itself when the run is stopped; a worker gives the whole run three."""
LONGEST_ERROR = 400
"""Characters of a program's own words in an error."""

# pg_restore sets what its own version knows.  An older server refuses that and nothing is lost by it.
_HARMLESS = '"transaction_timeout"'


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with pg_dump and pg_restore, and their version (such as ``18.6``)."""

    bin: Path
    version: str

    @property
    def major(self) -> int:
        """What decides which servers it can dump."""
        return int(self.version.partition(".")[0])

    @classmethod
    def at(cls, folder: Path) -> Programs | None:
        """The programs in `folder`; None if they are not there or do not run here."""
        if not (folder / "pg_restore").is_file():
            return None
        try:
            answer = subprocess.run(
                [folder / "pg_dump", "--version"], capture_output=True, text=True, check=True, timeout=30, cwd="/"
            )
        except (OSError, subprocess.SubprocessError):
            return None
        match = re.search(r"\) (\d+(?:\.\d+)?)", answer.stdout)
        return cls(folder, match[1]) if match else None


def choose(folders: Iterable[Path], server_major: int) -> Programs:
    """The programs for a server: of its own version if there are any, else of the nearest newer one.

    Of several in the same version those of the first folder.  A dump of a newer pg_dump than the server's own can be
    restored by that newer version only, so the nearest is the best.  Raises BackupProgramError.
    """
    found = [each for each in map(Programs.at, dict.fromkeys(folders)) if each is not None]
    fit = [each for each in found if each.major >= server_major]
    if fit:
        return min(fit, key=lambda each: each.major)
    told = ", ".join(f"{each.version} in {each.bin}" for each in found)
    raise BackupProgramError(
        f"the server is PostgreSQL {server_major} and "
        f"{f'the newest pg_dump is older ({told})' if found else 'no pg_dump is found'}: install the package "
        f"postgresql-client-{server_major}, or name the folder of its programs with ABSURD_PG_BIN",
        server_major=server_major,
    )


def compression(programs: Programs, text: str | None) -> list[str]:
    """The arguments for a compression such as ``zstd:9``; none for pg_dump's own choice.

    Raises BackupProgramError where pg_dump knows gzip only, before version 16.
    """
    if text is None:
        return []
    method, _, level = text.partition(":")
    if programs.major >= 16:
        return [f"--compress={text}"]
    if method not in ("gzip", "none"):
        raise BackupProgramError(f"compress is {text!r}, and pg_dump {programs.version} knows gzip and none only")
    return ["--compress=0" if method == "none" else f"--compress={level or 6}"]


def conninfo(address: Mapping[str, str], database: str | None = None, *, password: bool = False) -> str:
    """The address, with another database if one is named.

    Without the `password` it may be an argument of a program: those are there for all to read.
    """
    shown = {key: value for key, value in address.items() if password or key != "password"}
    if database is not None:
        shown["dbname"] = database
    return " ".join(f"{key}='{_escaped(value)}'" for key, value in shown.items())


def environment(address: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program: ours, the password if the address holds one, and messages in English."""
    password = {"PGPASSWORD": address["password"]} if "password" in address else {}
    return os.environ | password | {"LC_ALL": "C", "PGCLIENTENCODING": "UTF8"}


def run(command: Sequence[str | Path], environ: Mapping[str, str], told: Callable[[], None]) -> None:
    """Run a program to its end, and call `told` now and then.  When that raises, or anything else does, it is stopped.

    Raises BackupError with the program's first error.
    """
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=words, env=dict(environ)
        )
        try:
            while True:
                try:
                    code = process.wait(TOLD_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    told()
        except BaseException:
            _stop(process)
            raise
        words.seek(0)
        said = words.read().decode(errors="replace")
    if code:
        problem = _problem(said)
        if problem is None:
            return
        raise BackupError(f"{Path(command[0]).name} failed: {problem or f'exit code {code}'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # pg_restore takes its own children along then
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _problem(said: str) -> str | None:
    """The first thing that counts of what a program said, empty if it said none; None if all of it is harmless."""
    errors = re.findall(r"^\w+: (?:error|fatal): (.*(?:\n(?:DETAIL|HINT):.*)*)", said, re.MULTILINE)
    if not errors:
        return " ".join(said.split())[-LONGEST_ERROR:]
    counting = [each for each in errors if _HARMLESS not in each]
    return " ".join(counting[0].split())[:LONGEST_ERROR] if counting else None


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
