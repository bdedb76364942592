"""Debian's PgBouncer in transaction mode before a test's server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
import pytest

from absurd.database_url import parse

PORT = 6432


def program() -> str | None:
    """Where PgBouncer is, if it is installed."""
    return shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


@contextmanager
def pooler_before(url: str) -> Iterator[str]:
    """The address of a pooler that hands out a few connections to `url`, each for one transaction at a time."""
    found = program()
    if found is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    given = parse(url)
    owner = (Path(given["host"]) / f".s.PGSQL.{given.get('port', 5432)}").stat().st_uid
    folder = Path(tempfile.mkdtemp(prefix="pooler-"))  # not a test's own: the account must come to it
    shutil.chown(folder, owner)
    log = folder / "log"
    database, user = given["dbname"], given.get("user", "absurd")
    (folder / "users").write_text(f'"{user}" ""\n')
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{database} = host={given['host']} port={given.get('port', 5432)} dbname={database} user={user}\n"
        f"[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = {PORT}\nauth_type = trust\n"
        f"auth_file = {folder}/users\n"
        "pool_mode = transaction\ndefault_pool_size = 4\nmax_client_conn = 200\nserver_login_retry = 0.2\n"
        "ignore_startup_parameters = extra_float_digits\nlogfile =\n"
    )
    # It refuses to run as root, and the server's socket is its owner's alone.
    account = {"user": owner, "group": owner} if os.geteuid() == 0 else {}
    with log.open("wb") as file:
        process = subprocess.Popen([found, str(config)], stdout=file, stderr=file, **account)  # type: ignore[call-overload]
    address = f"postgresql:///{quote(database)}?{urlencode({'host': str(folder), 'port': PORT, 'user': user})}"
    try:
        deadline = time.monotonic() + 20
        while not _answers(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield address
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, prepare_threshold=None).close()
    except psycopg.OperationalError:
        return False
    return True
