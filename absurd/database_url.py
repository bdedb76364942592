"""Database addresses: any libpq URL or keyword DSN, for both drivers and for messages."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

from absurd.config import redact_url
from absurd.errors import ConfigurationError

CONNECT_TIMEOUT = 10.0
"""Seconds to wait for a connection where the address does not say (``connect_timeout``)."""

# Parameters of libpq that asyncpg knows.  Any other that it finds in a URL it sends to the server as a setting.
_ASYNCPG = frozenset({
    "application_name", "dbname", "gsslib", "host", "krbsrvname", "options", "passfile", "password", "port", "service",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslpassword", "sslrootcert", "target_session_attrs", "user",
})  # fmt: skip


_FORMS = {
    "port": re.compile(r"(\d{1,5})?(,(\d{1,5})?)*"),
    "connect_timeout": re.compile(r"-?\d{1,9}"),
    "sslmode": re.compile("disable|allow|prefer|require|verify-ca|verify-full"),
}


def parse(url: str) -> dict[str, str]:
    """The parameters of a libpq URL or keyword DSN.  Raises ConfigurationError without naming the password."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    shown = redact_url(url)
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value not in (None, "")}
    except ProgrammingError as error:
        # libpq repeats what it could not read, which may be a part of the password.
        reason = f": {str(error).strip()}" if shown == url else ""
        raise _unreadable(shown, reason) from None
    if _is_cut_short(url, given):
        raise _unreadable(
            shown if shown != url else "***",
            ": its host, or the name of its database, holds an @, so it may be a part of the password. In a URL, write "
            "%40 for each @ of a password or a name, and %2F for each /",
        )
    for name, form in _FORMS.items():  # each driver would find these in its own time and words
        if name in given and not form.fullmatch(given[name]):
            raise _unreadable(shown, f": {name} is {given[name]!r}" if shown == url else f": {name} is none")
    return given


def _is_cut_short(url: str, given: dict[str, str]) -> bool:
    """Whether a password may go on in the host or the database: in a URL it ends at the first ``@`` or ``/``."""
    if any("@" in host[1:] for host in given.get("host", "").split(",")):
        return True
    scheme, _, rest = url.strip().partition("://")
    if "@" in rest.partition("/")[0]:
        rest = rest.partition("@")[2]
    return scheme in ("postgresql", "postgres") and "@" in rest.partition("?")[0].partition("/")[2]


def _unreadable(shown: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"the database address {shown!r} cannot be read{reason}", setting="database_url")


def describe(url: str) -> str:
    """Where the server is, for messages: ``host:port``, or the folder of its socket.  Never the password."""
    try:
        given = parse(url)
    except ConfigurationError:
        return redact_url(url)
    return describe_parameters(given)


def describe_parameters(given: dict[str, str]) -> str:
    """As `describe`, from parsed parameters."""
    if "service" in given and not ({"host", "hostaddr"} & given.keys()):
        return f"service {given['service']}"
    hosts = given.get("host", given.get("hostaddr", "the local socket")).split(",")
    ports = given.get("port", "5432").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    return ", ".join(
        f"{host} (port {port})" if host.startswith(("/", "@")) or " " in host else f"{host}:{port}"
        for host, port in zip(hosts, ports, strict=False)
    )


def with_database(url: str, name: str) -> str:
    """The address of another database of the same server, as a URL that programs without libpq read, too."""
    given = parse(url) | {"dbname": name}
    place, path = "", quote(given.pop("dbname"), safe="")
    host = given.get("host", "/")
    if not host.startswith(("/", "@")) and "," not in host:  # else everything stands behind the question mark
        user = ":".join(quote(given.pop(each), safe="") for each in ("user", "password") if each in given)
        place = f"{user}@" * bool(user) + f"{given.pop('host')}:{given.pop('port', '5432')}"
    return f"postgresql://{place}/{path}?{urlencode(given, quote_via=quote)}".rstrip("?")


def for_psycopg(url: str) -> str:
    """The address as psycopg takes it, with our defaults."""
    from psycopg.conninfo import make_conninfo

    given = parse(url)
    given.setdefault("connect_timeout", f"{CONNECT_TIMEOUT:.0f}")
    given.setdefault("fallback_application_name", "absurd")
    return make_conninfo(**given)


def for_asyncpg(url: str) -> dict[str, Any]:
    """The address as keyword arguments of ``asyncpg.connect``, with our defaults."""
    given = parse(url)
    timeout = float(given.get("connect_timeout", CONNECT_TIMEOUT))
    name = given.get("application_name", given.get("fallback_application_name", "absurd"))
    if "hostaddr" in given and "host" not in given:
        given["host"] = given["hostaddr"]
    known = {key: value for key, value in given.items() if key in _ASYNCPG and key != "application_name"}
    return {
        "dsn": f"postgresql://?{urlencode(known)}" if known else "postgresql://",
        "timeout": timeout if timeout > 0 else None,
        "server_settings": {"application_name": name},
    }
