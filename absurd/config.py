"""Settings: what they are, where they come from, and how they are merged.

A setting is taken from the first of these that names it: a flag, the environment (``ABSURD_*``), the file
(``absurd.toml``, or ``[tool.absurd]`` of ``pyproject.toml``, in the working directory), the default.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from absurd.errors import ConfigurationError
from absurd.setting_values import READERS

PREFIX = "ABSURD_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set.  Each field is also ``ABSURD_<NAME>`` and a key of the file, under the same name."""

    database_url: str | None = field(default=None, repr=False)
    """Where PostgreSQL is: a libpq URL or keyword DSN.  None: the embedded server, started on demand in `home`."""
    schema: str = "absurd"
    """The database schema that holds the queue: lower-case letters, digits and ``_``, at most 50 characters."""
    prepared_statements: bool = True
    """Whether statements are prepared once and used again; false for poolers in transaction mode that lose them."""
    home: Path = Path()
    """Folder of the embedded server.  Default: ``absurd`` in the platform's user data folder (``XDG_DATA_HOME``)."""
    pg_bin: Path | None = None
    """Folder of the PostgreSQL server's programs for the embedded server.  None: the best that is found."""
    queue_name: str = "default"
    """The queue a worker serves, and a task goes to, when nothing else names one."""
    imports: tuple[str, ...] = ()
    """Modules to import for their executors, beside the entry points.  In the environment: separated by commas."""
    spawn_middleware: tuple[str, ...] = ()
    """Functions (``module:function``) that every task goes through when it is spawned, the first one first."""
    run_middleware: tuple[str, ...] = ()
    """Functions (``module:function``) that a worker wraps around each run, the first one outermost."""
    call_middleware: tuple[str, ...] = ()
    """Context managers (``module:function``) around an executor's function, wherever that runs, the first outermost."""
    worker_concurrency: int = 4
    """How many runs a worker executes at once."""
    worker_prefetch: int | None = None
    """How many runs a worker claims ahead of those it executes.  None: chosen by the worker from what it measures."""
    worker_poll_interval: float = 1.0
    """Seconds between two looks of a worker that hears no notifications, or whose queues hold what it may not claim."""
    worker_heartbeat_interval: float = 5.0
    """Seconds between two signs of life of a worker; at most half of `worker_lease`."""
    worker_lease: float = 30.0
    """Seconds without a sign of life after which a worker is given up and its runs go to others."""
    worker_grace: float = 30.0
    """Seconds a stopping worker gives its runs to end before it hands them back; 0 hands them back at once."""
    worker_offers: Mapping[str, float] | None = field(default=None, hash=False)
    """What a worker offers to tasks that need it, as in ``cpu=8,memory_gib=64,gpu=1``, or a table in the file.
    None: ``cpu``, ``memory_gib``, ``scratch_gib`` and ``gpu`` as found on the machine; names given here go first."""
    worker_reserve_after: float = 30.0
    """For how many seconds smaller tasks may go before one that fits a worker and finds no room there; from then on the
    worker keeps room for it."""
    worker_warm: int = 1
    """How many child processes a worker starts ahead, if executors that it imports run in processes."""
    worker_child_idle: float = 300.0
    """Seconds after which a child process that executes nothing is ended; the next run starts another."""
    worker_recycle_runs: int | None = None
    """After how many runs a child process is replaced.  None (or 0): it is not, however many."""
    worker_recycle_memory_gib: float | None = 1.0
    """A child process that holds more memory than this after a run is replaced.  None (or 0): it is not."""
    worker_memory_limit: str = "auto"
    """How the memory that a task needs (``memory_gib``) becomes the limit of its run: ``cgroup`` by a control group,
    ``watch`` by looking at what its processes hold, ``rlimit`` by both a look and RLIMIT_DATA, ``auto`` by a control
    group where one can be made and else by looking, ``none`` not at all."""
    worker_scratch: Path | None = None
    """Folder for scratch folders of runs, on a disk with room.  None: the platform's folder for temporary files."""
    worker_min_free_gib: float = 0.0
    """Free space in GiB that must be left on the scratch disk before a run is started, beside what the run needs."""
    worker_dask: str | None = None
    """Address of the scheduler of a Dask cluster, as ``tcp://host:8786``, to which a worker sends the runs of executors
    with ``runs_in="dask"``.  None: such tasks are put aside until a worker that has one takes them."""
    worker_metrics: str | None = None
    """Where a worker answers scrapes of its metrics, as ``127.0.0.1:9465``, to whoever reaches that; each worker of a
    machine needs a port of its own.  None: nowhere."""
    task_timeout: float | None = None
    """Time limit of a run in seconds where neither task nor executor sets one.  None (or 0): no limit."""
    max_retries: int = 4
    """Attempts after the first one, where neither task nor executor sets them; 0: a task is tried once."""
    dlq_enabled: bool = True
    """Whether tasks that spent their attempts are kept as dead letters, to be looked at and put back."""
    scheduler_metrics: str | None = None
    """Where a scheduler answers scrapes of the metrics of the whole queue, as ``127.0.0.1:9464``.  None: nowhere."""
    session_folder: Path | None = None
    """Data folder of `absurd session`: where the files of sessions are.  None: it has to be named each time."""
    web_host: str = "127.0.0.1"
    """The address on which ``absurd serve`` listens.  One that other hosts reach needs a token to have been made."""
    web_port: int = 8714
    """The port on which ``absurd serve`` listens; 0: any that is free."""
    web_origins: tuple[str, ...] = ()
    """Origins, such as ``https://dashboard.example.org``, whose pages may call the web interface."""
    web_allow: tuple[str, ...] = ()
    """Addresses and networks from which the web interface may be called; all others are refused whatever they show.
    Empty: from everywhere."""
    web_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose word is taken for who is behind them (``X-Forwarded-For``)."""
    web_rate: float | None = 50.0
    """Requests a second of one token, or of one address without a good one, that are taken.  None (or 0): no limit."""
    web_body_limit: int = 4_194_304
    """Bytes of a request's body that the web interface reads at most."""
    web_secret: str | None = field(default=None, repr=False)
    """What logins to the dashboard are signed with, a long random text; several web interfaces behind one address
    share it.  None: made anew by each, so that a restart ends all logins."""
    web_login: float = 43_200.0
    """Seconds that a login to the dashboard lasts."""
    web_products: Path | None = None
    """A file that ``absurd export --products`` has written, for ``absurd serve`` to show instead of a database."""
    web_services: Mapping[str, str] | None = field(default=None, hash=False)
    """Services beside this one that the web interface asks whether they are up, as in
    ``grafana=https://host/api/health,archive=tcp://host:2049``, or a table in the file.  None: it asks none."""
    web_cache: int = 67_108_864
    """Bytes of pictures and counts that a web interface keeps, so as not to make them again; 0: none."""
    timeout_db_connection: float = 30.0
    """Seconds for which a request to the web interface may hold a connection to the database; then it is cut."""
    timeout_websocket_ping: float = 30.0
    """Seconds between two pings to a WebSocket, and for which the answer to one is waited for."""
    timeout_health_check: float = 2.0
    """Seconds that the database has to answer ``/health``, and each service of `web_services` to answer at all."""
    alert_targets: Mapping[str, str] | None = field(default=None, repr=False, hash=False)
    """Where messages about alerts go, by the names that alerts have for it: a table in the file, in the environment
    ``NAME=URL`` after ``NAME=URL``, parted by spaces.  ``https://`` and ``http://`` are webhooks, ``mailto:`` is
    e-mail, all else goes to apprise (extra ``alerts``)."""
    alert_smtp: str | None = field(default=None, repr=False)
    """The server that takes e-mail of alerts: ``smtps://user:password@host:465``, or ``smtp://`` with encryption if
    the server offers it.  None: e-mail cannot be sent."""
    alert_sender: str | None = None
    """From whom e-mail of alerts comes.  None: ``absurd@`` the name of the host."""
    alert_interval: float = 15.0
    """Seconds between two looks of the scheduler at what alerts measure."""
    log_level: str = "info"
    """The least severe log lines to write: debug, info, warning, error or critical."""
    log_format: str = "console"
    """How a log line looks: ``console`` for people, ``json`` for programs."""
    log_limit: int = 1_048_576
    """Bytes that are kept of what an attempt writes, its first half and its last; 0 keeps nothing."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What looked wrong while loading but does no harm; for the caller to show.  Not a setting."""

    def environment(self) -> dict[str, str]:
        """Where the database is, as environment variables: for processes that read the settings for themselves."""
        place = {f"{PREFIX}HOME": str(self.home), f"{PREFIX}SCHEMA": self.schema}
        return place if self.database_url is None else place | {f"{PREFIX}DATABASE_URL": self.database_url}

    @property
    def max_attempts(self) -> int:
        """`max_retries` as the total number of attempts."""
        return self.max_retries + 1


def load_settings(environ: Mapping[str, str] | None = None, cwd: Path | None = None, **flags: object) -> Settings:
    """Merge defaults, file, environment and flags; a flag that is None (or empty) counts as not given.

    Raises `ConfigurationError` that names the place and the value of the first setting that cannot be used.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    unknown_flags = flags.keys() - READERS.keys()
    if unknown_flags:
        raise TypeError(f"load_settings() got unknown settings: {', '.join(sorted(unknown_flags))}")
    found: dict[str, tuple[str, object]] = {}
    found.update(_from_file(cwd))
    found.update(_from_environment(environ))
    found.update({name: (_flag(name), value) for name, value in flags.items() if value not in (None, "", ())})
    values = {name: _read(name, source, value, cwd) for name, (source, value) in found.items()}
    values.setdefault("home", default_home(environ))
    settings = Settings(**values, warnings=tuple(_unknown_variables(environ)))
    if settings.worker_heartbeat_interval * 2 > settings.worker_lease:
        raise ConfigurationError(
            f"worker_heartbeat_interval is {settings.worker_heartbeat_interval:g} s; "
            f"it must be at most half of worker_lease, {settings.worker_lease:g} s",
            setting="worker_heartbeat_interval",
        )
    return settings


def merge_settings(database_url: str | None, settings: Settings | None) -> Settings:
    """The settings of a client: those given, else the environment's; a URL that is given goes before."""
    if settings is None:
        return load_settings(database_url=database_url)
    return replace(settings, database_url=database_url) if database_url else settings


def default_home(environ: Mapping[str, str]) -> Path:
    """``absurd`` in the folder where this platform keeps a user's data."""
    configured = Path(environ.get("XDG_DATA_HOME", ""))
    if configured.is_absolute():  # the XDG specification: anything else is to be ignored
        return configured / "absurd"
    try:
        user = Path(environ.get("HOME") or Path.home())
    except RuntimeError:  # a user without a home, who needs ABSURD_HOME should he want the embedded server
        user = Path("/")
    return user / ("Library/Application Support" if sys.platform == "darwin" else ".local/share") / "absurd"


_URL_PASSWORD = re.compile(r"(://[^:/?#@\s]*:)(?!\d{1,5}(?![^/?#\s])[^@/\s]*(?:/[^@?\s]*)?(?:[?\s]|$)).*@")
"""What stands behind a host is its port and not a password if no ``@`` comes before the parameters."""
_QUERY_PASSWORD = re.compile(r"([?&](?:ssl)?password=)[^&#\s]*", re.IGNORECASE)
_KEYWORD_PASSWORD = re.compile(
    r"((?<![?&\w])(?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'?|(?:\\.|[^\s\\])+)", re.IGNORECASE
)


def redact_url(text: str) -> str:
    """`text`, a database URL or keyword DSN or a message that holds one, with ``***`` for passwords.

    An address that is not well formed (an ``@`` or ``/`` in the password) loses rather too much than too little.
    """
    for pattern in (_QUERY_PASSWORD, _KEYWORD_PASSWORD):
        text = pattern.sub(r"\1***", text)
    return _URL_PASSWORD.sub(r"\1***@", text)


# Sources -----------------------------------------------------------------------------------------


def _from_file(cwd: Path) -> dict[str, tuple[str, object]]:
    """Settings of the file in `cwd`, each with the name of its place."""
    for name, table in (("absurd.toml", ()), ("pyproject.toml", ("tool", "absurd"))):
        try:
            content: Any = tomllib.loads((cwd / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            if table:  # a broken pyproject.toml is not ours to complain about
                continue
            raise ConfigurationError(f"{cwd / name} cannot be read: {error}", setting=name) from error
        for key in table:
            content = content.get(key, {})
        if not isinstance(content, dict):
            raise ConfigurationError(f"tool.absurd in {cwd / name} must be a table", setting="tool.absurd")
        for key in content.keys() - READERS.keys():
            raise ConfigurationError(
                f"{key} in {cwd / name} is not a setting{_did_you_mean(key, READERS)}", setting=key
            )
        if content or not table:
            return {key: (f"{key} in {cwd / name}", value) for key, value in content.items()}
    return {}


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, object]]:
    """Settings of the environment; an empty variable counts as unset."""
    named = {name: PREFIX + name.upper() for name in READERS}
    return {name: (variable, environ[variable]) for name, variable in named.items() if environ.get(variable)}


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {PREFIX + name.upper() for name in READERS}
    return [
        f"{variable} is not a setting of absurd and is ignored{_did_you_mean(variable, known)}"
        for variable in sorted(environ)
        if variable.startswith(PREFIX) and variable not in known
    ]


def _did_you_mean(name: str, known: Mapping[str, Any] | set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


_FLAG_NAMES = {
    "imports": "--import",
    "queue_name": "--queue",
    "scheduler_metrics": "--metrics",
    "task_timeout": "--timeout",
    "worker_concurrency": "--concurrency",
    "worker_dask": "--dask",
    "worker_grace": "--grace",
    "worker_metrics": "--metrics",
    "worker_offers": "--offers",
    "worker_prefetch": "--prefetch",
    "web_host": "--host",
    "web_port": "--port",
    "web_products": "--products",
}


def _flag(name: str) -> str:
    return _FLAG_NAMES.get(name, "--" + name.replace("_", "-"))


# Values ------------------------------------------------------------------------------------------

_SECRET = frozenset({"web_secret", "alert_targets", "alert_smtp"})
"""Settings whose values are not repeated."""


def _read(name: str, source: str, value: object, cwd: Path) -> Any:
    """`value` as the type of the setting `name`; `source` is what the error names."""
    read, wanted = READERS[name]
    try:
        result = read(value)
    except (AttributeError, OverflowError, RuntimeError, TypeError, ValueError):  # whatever it trips over
        shown = redact_url(repr(value)) if name == "database_url" else "***" if name in _SECRET else repr(value)
        raise ConfigurationError(f"{source} is {shown}; it must be {wanted}", setting=name) from None
    return cwd / result if isinstance(result, Path) else result
