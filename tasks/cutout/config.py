"""How a data fetcher works: where data come from, how hard it tries, what it keeps.

A configuration is made in a program, or read from a file (`ButlerConfig.from_file`) and the environment
(`ButlerConfig.from_env`, variables ``RIPPLE_<FIELD>``).
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from absurd.tasks.config_file import read_config_file
from absurd.tasks.cutout.errors import ButlerConfigError

PREFIX = "RIPPLE_"
"""Of variables of the environment; not ``ABSURD_``, which are the queue's settings."""

Auth = Literal["none", "token"]
C = TypeVar("C", bound="ButlerConfig")


class Secret:
    """A text that is not shown: not by repr or str, not in messages, not in `ButlerConfig.to_json`.

    No dataclass, for `dataclasses.asdict` would open it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class ButlerConfig:
    """Everything that can be set.  Raises ButlerConfigError that names the field, its value and what it must be.

    Change one with `dataclasses.replace`.  `repo_path` and `server_url` may both be given: the server is then asked
    first, and the repository where it does not answer.
    """

    repo_path: str | None = None
    """A Butler repository: a folder or the address of one, or a label in its index."""
    server_url: str | None = None
    """Address of a Butler server, ``https://...``."""
    collections: list[str] = field(default_factory=list, hash=False)
    """Searched in this order, the first that has a dataset wins; a repository has no usual one to go without."""
    instrument: str = "LSSTCam-imSim"
    """Short name, as in data IDs."""

    max_connections: int = 10
    """How many calls may be at a repository or a server at once, and at the addresses of files that a task or a command
    names; a `RemoteSource` of your own has `at_once`."""
    timeout: float = 30.0
    """Seconds that one attempt of a call may take."""
    retry_attempts: int = 3
    """Attempts of a call in all, where its error may pass."""
    retry_delay: float = 1.0
    """Longest pause after the first attempt, seconds; it doubles with each, and its length is random."""

    cache_size: int = 1000
    """How many values are kept in memory; 0: none."""
    enable_performance_monitoring: bool = True
    """Whether operations are timed and counted."""
    batch_size: int = 32
    """How many positions are cut and handed on at a time."""
    max_workers: int = 4
    """Threads that cut."""

    folder: str | None = None
    """A folder of FITS images, asked where neither server nor repository answers."""
    skymap: str | None = None
    """Name of the sky map in data IDs; None: the only one that there is."""
    datasets: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Dataset types in place of the usual ones, as in ``{"image": "deep_coadd", "object": "object"}``."""

    auth: Auth = "none"
    """How a server is told who asks: by nothing, or a token."""
    token: Secret | str | None = None
    """An access token; better in `token_file` or the environment.  Kept as a `Secret`."""
    token_file: str | None = None
    """A file whose text is the token, read whenever it is needed, so that it can be renewed."""
    token_env: str = "RIPPLE_TOKEN"  # noqa: S105 - its name, not its value
    """The variable of the environment with the token, where neither of the above is given."""

    cache_folder: str | None = None
    """Where values are kept on disk, for all processes that name it; None: nowhere."""
    cache_bytes: int = 256 << 20
    """What the values in memory may take."""
    cache_disk_bytes: int = 1 << 30
    """What the values in `cache_folder` may take, those of all processes together."""
    cache_ttl: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Seconds for which values of a kind count, as in ``{"availability": 60}``, in place of the usual ones."""
    memory_limit: int | None = None
    """Bytes; a process that holds more gives back what it has cached.  None: no limit."""

    failure_threshold: int = 5
    """Failures in a row after which a source is left alone."""
    cool_down: float = 30.0
    """Seconds for which it is."""
    slow_after: float | None = None
    """Seconds after which an answer counts as a failure; None: only `timeout` does."""
    min_free_bytes: int = 1 << 30
    """Free room on the disk of `cache_folder` below which the health is degraded."""

    def __post_init__(self) -> None:
        for each in fields(self):
            read, wanted = _READERS[each.name]
            value = getattr(self, each.name)
            try:
                kept = None if value is None and "None" in str(each.type) else read(value)
            except (AttributeError, OverflowError, TypeError, ValueError):
                raise ButlerConfigError(
                    f"{each.name} is {_shown(each.name, value)}; it must be {wanted}", field=each.name
                ) from None
            object.__setattr__(self, each.name, kept)
        if self.slow_after is not None and self.slow_after > self.timeout:
            raise ButlerConfigError(
                f"slow_after is {self.slow_after:g} s; it must be at most timeout, {self.timeout:g} s",
                field="slow_after",
            )

    def access_token(self, environ: Mapping[str, str] | None = None) -> Secret | None:
        """The token, if `auth` asks for one: `token`, else the text of `token_file`, else the variable `token_env`.

        Give it to the client that needs it and nowhere else: not into the environment, which every child sees.
        Raises ButlerConfigError if there is none.
        """
        if self.auth != "token":
            return None
        if isinstance(self.token, Secret):
            return self.token
        if self.token_file is not None:
            try:
                text = Path(self.token_file).expanduser().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                told = error.strerror if isinstance(error, OSError) else "it is no text"
                raise ButlerConfigError(f"token_file {self.token_file} cannot be read: {told}") from None
            where = f"token_file {self.token_file}"
        else:
            text = (os.environ if environ is None else environ).get(self.token_env, "").strip()
            where = f"{self.token_env} in the environment"
        if not text:
            raise ButlerConfigError(
                f"auth is 'token', but {where} holds none", advice="set it, or token or token_file, or auth = 'none'"
            )
        return Secret(text)

    def to_json(self) -> dict[str, Any]:
        """Every field, with ``***`` for a token: for logs and manifests."""
        return {
            each.name: str(value) if isinstance(value := getattr(self, each.name), Secret) else value
            for each in fields(self)
        }

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """The configuration in a TOML, JSON or YAML file, whose keys are the fields; or in its table ``butler``.

        Raises ButlerConfigError that names the file and the key.
        """
        file = Path(path)
        content = _parsed(file)
        if isinstance(content, Mapping) and set(content) == {"butler"}:
            content = content["butler"]
        if not isinstance(content, Mapping):
            raise ButlerConfigError(f"{file.name} must hold a table of fields, it holds a {type(content).__name__}")
        return _over(cls(), content, file.name)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, base: Self | None = None) -> Self:
        """The configuration in the environment, over `base` or the defaults; an empty variable counts as unset.

        Lists are separated by commas, mappings are ``name=value`` separated by commas.  Raises ButlerConfigError for a
        variable ``RIPPLE_*`` that is no field's, as it would be meant for something.
        """
        environ = os.environ if environ is None else environ
        base = cls() if base is None else base
        token = {base.token_env, environ.get(f"{PREFIX}TOKEN_ENV"), f"{PREFIX}TOKEN"}  # left where it is until needed
        found = {
            name.removeprefix(PREFIX).lower(): text
            for name, text in environ.items()
            if name.startswith(PREFIX) and text and name not in token
        }
        return _over(base, found, "the environment", PREFIX)


def _over(base: C, values: Mapping[str, Any], where: str, prefix: str = "") -> C:
    """`base` with `values` that were found at `where`."""
    for name in values:
        if name not in _READERS:
            close = difflib.get_close_matches(str(name), _READERS, n=1, cutoff=0.7)
            spelt = [prefix + each.upper() if prefix else each for each in (str(name), *close)]
            raise ButlerConfigError(
                f"{spelt[0]} in {where} is no field of the configuration"
                + (f"; did you mean {spelt[1]}?" if close else ""),
                field=str(name),
            )
    try:
        return replace(base, **values)
    except ButlerConfigError as error:
        raise ButlerConfigError(f"{where}: {error}", **error.details) from None


def _parsed(file: Path) -> Any:
    if file.suffix not in (".toml", ".json", ".yaml", ".yml"):
        raise ButlerConfigError(f"{file.name} is of no known kind", advice="its name must end in .toml, .json or .yaml")
    try:
        return read_config_file(file)
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise ButlerConfigError(f"{file} cannot be read: {told}") from None


def _shown(name: str, value: object) -> str:
    """`value` for a message; what may hold a secret is not shown."""
    return "***" if name == "token" or "@" in str(value) else repr(value)


# Values ------------------------------------------------------------------------------------------

_Reader = tuple[Callable[[Any], Any], str]
"""From what a program, a file or the environment gives to the field's value, or ValueError or TypeError; what it must
be, in words."""


def _require(good: object) -> None:
    if not good:
        raise ValueError


def _text(value: Any) -> str:
    text = os.fspath(value).strip()
    _require(isinstance(text, str) and text)
    return str(text)


def _place(value: Any) -> str:
    text = _text(value)
    _require(not re.match(r"[a-z0-9+]+://[^/]*@", text))  # a password would be in every log
    return text


def _url(value: Any) -> str:
    text = _place(value)
    _require(re.match(r"https?://[^\s/]+", text))
    return text


def _texts(value: Any) -> list[str]:
    found = [_text(each) for each in (value.split(",") if isinstance(value, str) else value)]
    _require(len(set(found)) == len(found))
    return found


def _pairs(of: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def read(value: Any) -> dict[str, Any]:
        pairs = [part.split("=") for part in value.split(",")] if isinstance(value, str) else value.items()
        return {_text(name): of(inner) for name, inner in pairs}

    return read


def _switch(value: Any) -> bool:
    word = str(value).strip().lower()
    _require(word in ("true", "yes", "on", "1", "false", "no", "off", "0"))
    return word in ("true", "yes", "on", "1")


def _number(value: Any) -> float:
    _require(not isinstance(value, bool))
    number = float(value)
    _require(math.isfinite(number) and number > 0)
    return number


def _pause(value: Any) -> float:
    return 0.0 if not isinstance(value, bool) and float(value) == 0 else _number(value)


def _count(low: int) -> _Reader:
    def read(value: Any) -> int:
        number = int(value)
        _require(not isinstance(value, bool | float) and number >= low)
        return number

    return read, f"a whole number of at least {low}"


def _word(value: Any) -> Any:
    _require(value in get_args(Auth))
    return value


def _secret(value: Any) -> Secret:
    return value if isinstance(value, Secret) else Secret(_text(value))


_SECONDS = (_number, "a number of seconds above 0")
_PATH = (_text, "the path of a file or folder")

_READERS: dict[str, _Reader] = {
    "repo_path": (_place, "the path or address of a Butler repository, without a password in it"),
    "server_url": (_url, "an address such as https://data.example.org/api/butler, without a password in it"),
    "collections": (_texts, "a list of names of collections, each once"),
    "instrument": (_text, "the name of an instrument"),
    "max_connections": _count(1),
    "timeout": _SECONDS,
    "retry_attempts": _count(1),
    "retry_delay": (_pause, "a number of seconds, 0 or more"),
    "cache_size": _count(0),
    "enable_performance_monitoring": (_switch, "true or false"),
    "batch_size": _count(1),
    "max_workers": _count(1),
    "folder": _PATH,
    "skymap": (_text, "the name of a sky map"),
    "datasets": (_pairs(_text), "names with dataset types, such as image=deepCoadd"),
    "auth": (_word, f"one of {', '.join(get_args(Auth))}"),
    "token": (_secret, "a text"),
    "token_file": _PATH,
    "token_env": (_text, "the name of a variable"),
    "cache_folder": _PATH,
    "cache_bytes": _count(0),
    "cache_disk_bytes": _count(0),
    "cache_ttl": (_pairs(_number), "kinds with seconds above 0, such as availability=60"),
    "memory_limit": _count(1),
    "failure_threshold": _count(1),
    "cool_down": _SECONDS,
    "slow_after": _SECONDS,
    "min_free_bytes": _count(0),
}
