"""What each setting may be: how its value is read, from the text of a flag or variable or from the file's own types."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Reader = tuple[Callable[[Any], Any], str]
"""A function to the setting's type, which raises ValueError or TypeError; what a value must be, for the message."""


def _check(good: object) -> None:
    if not good:
        raise ValueError


def _database(value: str) -> str:
    scheme, separator, _ = value.partition("://")
    _check(scheme in ("postgresql", "postgres") if separator else "=" in value)
    return value


def _cluster(value: str) -> str:
    _check(re.fullmatch(r"[a-z][a-z0-9+]*://[^\s/]\S*", value))
    return value


def _listening(value: str) -> str:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):(\d{1,5})", value.strip())
    _check(found and int(found[2]) <= 65_535)
    return value.strip()


def _identifier(value: str) -> str:
    _check(re.fullmatch(r"(?!pg_)[a-z_][a-z0-9_]{0,49}", value))
    return value


def _name(value: str) -> str:
    name = value.strip()
    _check(name)
    return name


def _path(value: str | Path) -> Path:
    return Path(value).expanduser()


def _words(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value.replace(",", " ").split() if isinstance(value, str) else value)


def _modules(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    names = _words(value)
    _check(all(part.isidentifier() for name in names for part in name.split(".")))
    return names


def _origins(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(each.lower() for each in _words(value))
    _check(all(re.fullmatch(r"https?://[^\s/?#@*]+", each) for each in words))
    return words


def _networks(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    from ipaddress import ip_network

    return tuple(str(ip_network(str(each), strict=False)) for each in _words(value))


def _functions(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    names = _words(value)
    _check(all(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", name) for name in names))
    return names


def _switch(value: str | bool) -> bool:
    word = str(value).strip().lower()
    _check(word in ("true", "yes", "on", "1", "false", "no", "off", "0"))
    return word in ("true", "yes", "on", "1")


def _one_of(*words: str) -> Reader:
    def read(value: str) -> str:
        word = value.strip().lower()
        _check(word in words)
        return word

    return read, f"one of {', '.join(words)}"


def _seconds(low: float, high: float) -> Reader:
    def read(value: str | float) -> float:
        number = float(value)
        _check(not isinstance(value, bool) and low <= number <= high)  # also refuses NaN
        return number

    return read, f"a number of seconds from {low:g} to {high:g}"


def _count(low: int, high: int) -> Reader:
    def read(value: str | int) -> int:
        number = int(value)
        _check(not isinstance(value, bool | float) and low <= number <= high)
        return number

    return read, f"a whole number from {low} to {high}"


def _limit(value: str | float) -> float | None:
    seconds: float = _seconds(0, 31_536_000)[0](value)
    return seconds or None


def _optional_count(value: str | int) -> int | None:
    return _count(0, 1_000_000_000)[0](value) or None


def _amount(value: str | float) -> float:
    return float(_seconds(0, 1_000_000)[0](value))


def _optional_amount(value: str | float) -> float | None:
    return _amount(value) or None


def _amounts(value: str | Mapping[str, float]) -> dict[str, float]:
    pairs: Any = value.items() if isinstance(value, Mapping) else [part.split("=") for part in value.split(",")]
    amounts = {name.strip(): float(amount) for name, amount in pairs}
    _check(all(name and 0 <= amount < float("inf") for name, amount in amounts.items()))
    return amounts


def _addresses(value: str | Mapping[str, str]) -> dict[str, str]:
    pairs: Any = value.items() if isinstance(value, Mapping) else [part.split("=", 1) for part in value.split(",")]
    found = {name.strip(): address.strip() for name, address in pairs}
    for name, address in found.items():
        parts = urlsplit(address)
        _check(re.fullmatch(r"[\w.-]{1,100}", name) and parts.hostname and "@" not in parts.netloc)
        _check(parts.scheme in ("http", "https") or (parts.scheme == "tcp" and parts.port))
        _check(parts.port is None or parts.port > 0)
    return found


def _secret(value: str) -> str:
    _check(isinstance(value, str) and len(value) >= 32)
    return value


def _targets(value: str | Mapping[str, str]) -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else [part.split("=", 1) for part in value.split()]
    targets = {name: str(url) for name, url in pairs}
    _check(all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name) for name in targets))
    for url in targets.values():
        scheme, _, rest = url.partition(":")
        _check(re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) and re.fullmatch(r"\S+", rest))
        if scheme in ("http", "https"):
            _host(url)
    return targets


def _mail_server(value: str) -> str:
    _check(value.startswith(("smtp://", "smtps://")))
    return _host(value)


def _host(url: str) -> str:
    parts = urlsplit(url)
    _check(parts.hostname and parts.port != 0)  # a port that is no number raises ValueError
    return url


READERS: dict[str, Reader] = {
    "database_url": (_database, "a URL such as postgresql://user@host/database or a DSN such as 'host=... dbname=...'"),
    "schema": (_identifier, "lower-case letters, digits and _, at most 50, not beginning with a digit or pg_"),
    "prepared_statements": (_switch, "true or false"),
    "home": (_path, "the path of a folder"),
    "pg_bin": (_path, "the path of a folder"),
    "queue_name": (_name, "the name of a queue"),
    "imports": (_modules, "a list of module names such as mysite.executors"),
    "spawn_middleware": (_functions, "a list of functions such as mysite.tracing:traced"),
    "run_middleware": (_functions, "a list of functions such as mysite.tracing:traced"),
    "call_middleware": (_functions, "a list of functions such as mysite.tracing:traced"),
    "worker_concurrency": _count(1, 10_000),
    "worker_prefetch": _count(0, 100_000),
    "worker_poll_interval": _seconds(0.01, 3600),
    "worker_heartbeat_interval": _seconds(0.1, 3600),
    "worker_lease": _seconds(1, 86_400),
    "worker_grace": _seconds(0, 86_400),
    "worker_offers": (_amounts, "names with amounts of at least 0 such as cpu=8,memory_gib=64"),
    "worker_reserve_after": _seconds(0, 86_400),
    "worker_warm": _count(0, 1_000),
    "worker_child_idle": _seconds(0, 31_536_000),
    "worker_recycle_runs": (_optional_count, "a whole number, or 0 for never"),
    "worker_recycle_memory_gib": (_optional_amount, "an amount of memory in GiB, or 0 for never"),
    "worker_memory_limit": _one_of("auto", "cgroup", "watch", "rlimit", "none"),
    "worker_scratch": (_path, "the path of a folder"),
    "worker_min_free_gib": (_amount, "an amount in GiB, 0 or more"),
    "worker_dask": (_cluster, "the address of a Dask scheduler such as tcp://host:8786"),
    "worker_metrics": (_listening, "an address and a port such as 127.0.0.1:9465"),
    "task_timeout": (_limit, "a number of seconds up to a year, or 0 for no limit"),
    "max_retries": _count(0, 32_766),
    "dlq_enabled": (_switch, "true or false"),
    "scheduler_metrics": (_listening, "an address and a port such as 127.0.0.1:9464"),
    "session_folder": (_path, "the path of a folder"),
    "web_host": (_name, "an address or the name of a host"),
    "web_port": _count(0, 65_535),
    "web_origins": (_origins, "a list of origins such as https://dashboard.example.org, without a path"),
    "web_allow": (_networks, "a list of addresses or networks such as 10.0.0.1 or 10.0.0.0/8"),
    "web_proxies": (_networks, "a list of addresses or networks such as 10.0.0.1 or 10.0.0.0/8"),
    "web_rate": (_optional_amount, "a number of requests a second, or 0 for no limit"),
    "web_secret": (_secret, "a text of at least 32 characters"),
    "web_login": _seconds(60, 31_536_000),
    "web_body_limit": _count(1024, 1_073_741_824),
    "web_products": (_path, "the path of a file"),
    "web_services": (_addresses, "names with addresses such as grafana=http://host:3000/api/health,db=tcp://host:5432"),
    "web_cache": _count(0, 68_719_476_736),
    "timeout_db_connection": _seconds(0.1, 3600),
    "timeout_websocket_ping": _seconds(1, 3600),
    "timeout_health_check": _seconds(0.1, 60),
    "alert_targets": (
        _targets,
        "names with URLs, such as oncall=https://hooks.example.org/x team=mailto:a@example.org",
    ),
    "alert_smtp": (_mail_server, "a URL such as smtps://user:password@mail.example.org:465"),
    "alert_sender": (_name, "an address such as absurd@example.org"),
    "alert_interval": _seconds(0.1, 3600),
    "log_level": _one_of("debug", "info", "warning", "error", "critical"),
    "log_format": _one_of("console", "json"),
    "log_limit": _count(0, 1_073_741_824),
}
"""By the name of the setting."""
