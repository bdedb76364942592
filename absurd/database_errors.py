"""What the drivers raise, as errors of absurd.  Works on SQLSTATEs and needs neither driver."""

from __future__ import annotations

import random

from absurd.errors import (
    BY_SQLSTATE,
    AbsurdError,
    AuthenticationError,
    ConflictError,
    DatabaseUnavailableError,
    InvalidParamsError,
    SchemaMissingError,
    UnsupportedServerError,
)

OLDEST_SERVER = 15
"""The oldest major version of PostgreSQL that the schema works on."""

MEETINGS = 5
"""How often a transaction is tried in all that a deadlock or a serialization failure rolled back."""

_NOT_INSTALLED = {"3F000", "42P01", "42883", "42703", "42704"}
_BAD_JSON = {"22P02", "22P05", "22021"}

# libpq tells why it could not connect in words only.
_REFUSALS = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "pg_hba.conf": "28000",
    "authentication failed": "28000",
    "is not permitted to log in": "28000",
}


def check_server(version: int, address: str) -> None:
    """Raise UnsupportedServerError if `version` (as 150004) is too old."""
    if version < OLDEST_SERVER * 10_000:
        told = f"{version // 10_000}.{version % 10_000}" if version >= 100_000 else f"{version // 10_000}"
        raise UnsupportedServerError(
            f"the server at {address} is PostgreSQL {told}; absurd needs {OLDEST_SERVER} or newer",
            version=version,
        )


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of a driver's error, told or guessed from its words; None if it has none."""
    code = getattr(error, "sqlstate", None)
    if code:
        return str(code)
    words = str(error)
    if 'role "' in words and "does not exist" in words:
        return "28000"
    if 'database "' in words and "does not exist" in words:
        return "3D000"
    return next((code for phrase, code in _REFUSALS.items() if phrase in words), None)


def is_driver_error(error: BaseException) -> bool:
    """Whether asyncpg or psycopg raised `error`."""
    return type(error).__module__.partition(".")[0] in ("asyncpg", "psycopg", "psycopg_pool")


def is_lost(error: BaseException | None) -> bool:
    """Whether the connection broke, so that a call on a new one may succeed."""
    code = getattr(error, "sqlstate", None)
    if code:
        return str(code)[:2] == "08" or code in ("57P01", "57P02", "57P03")
    return isinstance(error, ConnectionError) or "closed" in str(error) or "connection" in str(error).lower()


def met_another(error: AbsurdError) -> bool:
    """Whether the transaction was rolled back whole because it met another, so that it can be made again."""
    return error.details.get("sqlstate") in ("40P01", "40001")


def pause_before(attempt: int) -> float:
    """Seconds to wait before the next of `MEETINGS` attempts, by chance, so that the two do not meet again."""
    return random.uniform(0.25, 1.0) * 0.02 * float(2**attempt)


def translate(error: BaseException, *, address: str, schema: str = "absurd") -> AbsurdError:
    """`error`, raised by a driver, as the error of absurd that tells what to do about it."""
    if isinstance(error, AbsurdError):
        return error
    words = _words(error)
    code = sqlstate_of(error)
    if code is None and any(each.__name__ == "DataError" for each in type(error).__mro__):  # it was not even sent
        return InvalidParamsError(f"the database cannot store a value: {words}")
    if code is None:
        return DatabaseUnavailableError(f"no database answers at {address}: {words}", address=address)
    if code in BY_SQLSTATE:
        return BY_SQLSTATE[code](words)
    if code in _NOT_INSTALLED:
        return SchemaMissingError(
            f"the queue in schema {schema!r} is not installed, or not as this program needs it ({words}): "
            "run `absurd db migrate`",
            schema=schema,
        )
    if code in _BAD_JSON:
        return InvalidParamsError(f"the database cannot store a value: {words}")
    if code == "42501":
        return AuthenticationError(
            f"the database role has no right to do this ({words}): the owner of the schema gives it with "
            "`absurd db grant ROLE --as spawner|worker|reader|admin`",
            sqlstate=code,
        )
    if code.startswith("28"):
        return AuthenticationError(
            f"the server at {address} refused the login: {words}", address=address, sqlstate=code
        )
    if code.startswith(("08", "53", "57P", "58")) or code in ("3D000", "25006"):
        return DatabaseUnavailableError(
            f"the database at {address} cannot be used: {words}", address=address, sqlstate=code
        )
    if code.startswith("40"):
        return ConflictError(f"the transaction met another and was rolled back, repeat it: {words}", sqlstate=code)
    return AbsurdError(f"the database reports {code}: {words}", sqlstate=code)


def _words(error: BaseException) -> str:
    """The server's message without what libpq puts around it, in one line."""
    if isinstance(error, TimeoutError) and not str(error):
        return "it did not answer in time"
    diagnosis = getattr(error, "diag", None)
    words = getattr(diagnosis, "message_primary", None) or str(error) or type(error).__name__
    lines = [line.strip() for line in str(words).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Multiple connection attempts", "Is the server running"))]
    line = lines[0] if lines else type(error).__name__
    for mark in ("FATAL:  ", "ERROR:  ", "failed: "):
        line = line.rpartition(mark)[2]
    return line.strip()
