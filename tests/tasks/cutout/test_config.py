"""The configuration of a data fetcher: its fields, where they come from, what cannot be used, and what is not shown."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest

from absurd.errors import ConfigurationError
from absurd.tasks.cutout import RippleError
from absurd.tasks.cutout.cache import CacheManager
from absurd.tasks.cutout.config import ButlerConfig, Secret
from absurd.tasks.cutout.errors import ButlerConfigError
from absurd.tasks.cutout.resilience import breaker_for, policies_for

SEED: dict[str, Any] = {
    "repo_path": None, "server_url": None, "collections": [], "instrument": "LSSTCam-imSim",
    "max_connections": 10, "timeout": 30.0, "retry_attempts": 3, "retry_delay": 1.0,
    "cache_size": 1000, "enable_performance_monitoring": True, "batch_size": 32, "max_workers": 4,
}  # fmt: skip
TOKEN = "gt-SECRETSECRET"


def test_the_fields_of_the_design_and_their_defaults() -> None:
    """All twelve, first and in their order."""
    config = ButlerConfig()

    assert [each.name for each in fields(config)][:12] == list(SEED)
    assert {name: getattr(config, name) for name in SEED} == SEED


def test_every_field_can_be_set_in_a_program_a_file_and_the_environment(tmp_path: Path) -> None:
    """The same value from each of them."""
    values: dict[str, Any] = {
        "repo_path": "/repo", "server_url": "https://data.example.org/api/butler", "collections": ["u/me", "DP1"],
        "instrument": "LSSTComCam", "max_connections": 3, "timeout": 12.5, "retry_attempts": 5, "retry_delay": 0.0,
        "cache_size": 0, "enable_performance_monitoring": False, "batch_size": 7, "max_workers": 2, "folder": "/fits",
        "skymap": "lsst_cells_v1", "datasets": {"image": "deep_coadd"}, "auth": "token", "token": TOKEN,
        "token_file": "/run/token", "token_env": "MY_TOKEN", "cache_folder": "/cache",
        "cache_bytes": 10, "cache_disk_bytes": 20, "cache_ttl": {"availability": 60.0}, "memory_limit": 1 << 30,
        "failure_threshold": 2, "cool_down": 5.0, "slow_after": 4.0, "min_free_bytes": 0,
    }  # fmt: skip
    assert list(values) == [each.name for each in fields(ButlerConfig)]
    expected = ButlerConfig(**values)
    assert {name: getattr(expected, name) for name in values} == values | {"token": Secret(TOKEN)}
    (tmp_path / "butler.json").write_text(json.dumps(values))
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if not isinstance(value, dict)]
    tables = [f"[butler.{name}]\n{key} = {json.dumps(inner)}" for name in ("datasets", "cache_ttl")
              for key, inner in values[name].items()]  # fmt: skip
    (tmp_path / "butler.toml").write_text("\n".join(["[butler]", *lines, *tables]))
    (tmp_path / "butler.yaml").write_text("butler:\n" + "\n".join(f"  {n}: {json.dumps(v)}" for n, v in values.items()))
    environ = {f"RIPPLE_{name.upper()}": _as_text(value) for name, value in values.items()}

    assert ButlerConfig.from_file(tmp_path / "butler.json") == expected
    assert ButlerConfig.from_file(tmp_path / "butler.toml") == expected
    assert ButlerConfig.from_file(tmp_path / "butler.yaml") == expected
    assert ButlerConfig.from_env(environ) == replace(expected, token=None)  # read when it is needed, not before


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return ",".join(f"{name}={inner}" for name, inner in value.items()) if isinstance(value, dict) else str(value)


def test_the_environment_stands_over_a_file(tmp_path: Path) -> None:
    """What it names is taken from it, all else from the file; an empty variable names nothing."""
    (tmp_path / "butler.toml").write_text('repo_path = "/repo"\ncache_size = 5\ntimeout = 9')

    config = ButlerConfig.from_env(
        {"RIPPLE_CACHE_SIZE": "7", "RIPPLE_TIMEOUT": "", "HOME": "/me"},
        base=ButlerConfig.from_file(tmp_path / "butler.toml"),
    )

    assert (config.repo_path, config.cache_size, config.timeout) == ("/repo", 7, 9.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"repo_path": ""}, "repo_path is ''; it must be the path or address of a Butler repository"),
        (
            {"server_url": "data.example.org"},
            "server_url is 'data.example.org'; it must be an address such as https://",
        ),
        ({"collections": ["a", "a"]}, r"collections is \['a', 'a'\]; it must be a list of names of collections, each"),
        ({"collections": 5}, "collections is 5; it must be a list"),
        ({"instrument": None}, "instrument is None; it must be the name of an instrument"),
        ({"max_connections": 0}, "max_connections is 0; it must be a whole number of at least 1"),
        ({"timeout": 0}, "timeout is 0; it must be a number of seconds above 0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": True}, "timeout is True"),
        ({"retry_attempts": 0}, "retry_attempts is 0"),
        ({"retry_delay": -1}, "retry_delay is -1; it must be a number of seconds, 0 or more"),
        ({"cache_size": -1}, "cache_size is -1; it must be a whole number of at least 0"),
        ({"cache_size": 1.5}, "cache_size is 1.5"),
        (
            {"enable_performance_monitoring": "maybe"},
            "enable_performance_monitoring is 'maybe'; it must be true or fal",
        ),
        ({"batch_size": "many"}, "batch_size is 'many'"),
        ({"max_workers": 0}, "max_workers is 0"),
        ({"auth": "basic"}, "auth is 'basic'; it must be one of none, token"),
        ({"cache_ttl": {"availability": 0}}, "cache_ttl is {'availability': 0}; it must be kinds with seconds above 0"),
        ({"slow_after": 31.0}, "slow_after is 31 s; it must be at most timeout, 30 s"),
    ],
    ids=lambda wrong: next(iter(wrong)) if isinstance(wrong, dict) else None,
)
def test_what_cannot_be_used_is_told(wrong: dict[str, Any], message: str) -> None:
    """The field, its value and what it must be; a caller may catch it as any error of this package's tree."""
    with pytest.raises(ButlerConfigError, match=message) as caught:
        ButlerConfig(**wrong)

    assert isinstance(caught.value, RippleError)
    assert isinstance(caught.value, ConfigurationError)


def test_what_is_unknown_is_told_with_its_place(tmp_path: Path) -> None:
    """A misspelt field is not passed over, wherever it stands."""
    (tmp_path / "butler.toml").write_text("cachesize = 5")
    with pytest.raises(ButlerConfigError, match=r"cachesize in butler\.toml is no field .* did you mean cache_size\?"):
        ButlerConfig.from_file(tmp_path / "butler.toml")
    with pytest.raises(ButlerConfigError, match=r"RIPPLE_TIME_OUT in the environment .* did you mean RIPPLE_TIMEOUT\?"):
        ButlerConfig.from_env({"RIPPLE_TIME_OUT": "5"})
    with pytest.raises(ButlerConfigError, match="the environment: max_workers is 'x'; it must be a whole number"):
        ButlerConfig.from_env({"RIPPLE_MAX_WORKERS": "x"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "x = ", r"a\.toml cannot be read: "),
        ("a.json", "[1]", r"a\.json must hold a table of fields, it holds a list"),
        ("a.yaml", "a: [", r"a\.yaml cannot be read: "),
        ("a.ini", "", r"a\.ini is of no known kind: its name must end in \.toml, \.json or \.yaml"),
        ("a.json", None, r"a\.json cannot be read: No such file or directory"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    """Are named, with the reason."""
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ButlerConfigError, match=message):
        ButlerConfig.from_file(tmp_path / name)


# Secrets ----------------------------------------------------------------------------------------------


SHOWN: dict[str, Callable[[ButlerConfig], str]] = {
    "repr": repr,
    "str": str,
    "format": "{0.token} {0.token!r} {0}".format,
    "json": lambda config: json.dumps(config.to_json()),
    "asdict": lambda config: str(asdict(config)),
    "error": lambda config: _error_of(lambda: replace(config, timeout=-1)),
    "wrong token": lambda _: _error_of(lambda: ButlerConfig(token=[TOKEN])),  # type: ignore[arg-type]
    "address": lambda _: _error_of(lambda: ButlerConfig(server_url=f"https://me:{TOKEN}@example.org")),
    "path": lambda _: _error_of(lambda: ButlerConfig(repo_path=f"s3://me:{TOKEN}@example.org/repo")),
}


def _error_of(call: Callable[[], object]) -> str:
    with pytest.raises(ButlerConfigError) as caught:
        call()
    return f"{caught.value!r} {caught.value.details}"


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_a_token_is_not_shown(show: Callable[[ButlerConfig], str]) -> None:
    """Whatever the configuration is turned into, and whatever is wrong with it."""
    assert TOKEN not in show(ButlerConfig(auth="token", token=TOKEN))


def test_a_token_reaches_another_process() -> None:
    """Pickled, as for a process slot, it is still there and still hidden."""
    config = pickle.loads(pickle.dumps(ButlerConfig(auth="token", token=TOKEN)))  # noqa: S301

    token = config.access_token()

    assert token.reveal() == TOKEN
    assert str(token) == "***"


def test_where_the_token_comes_from(tmp_path: Path) -> None:
    """The field, else the file as it is now, else the environment; asked for and nowhere: an error."""
    file = tmp_path / "token"
    file.write_text("first\n")
    environ = {"RIPPLE_TOKEN": "of the environment", "RSP": "other"}

    def revealed(**given: Any) -> str:
        token = ButlerConfig(**{"auth": "token", **given}).access_token(environ)
        assert token is not None
        return token.reveal()

    assert revealed(token="given", token_file=str(file)) == "given"
    assert revealed(token_file=str(file)) == "first"
    file.write_text("renewed\n")
    assert revealed(token_file=str(file)) == "renewed"
    assert revealed() == "of the environment"
    assert revealed(token_env="RSP") == "other"
    assert ButlerConfig(auth="none", token="given").access_token(environ) is None
    with pytest.raises(ButlerConfigError, match="auth is 'token', but RIPPLE_TOKEN in the environment holds none: set"):
        ButlerConfig(auth="token").access_token({})
    with pytest.raises(ButlerConfigError, match=r"token_file .* cannot be read: No such file"):
        ButlerConfig(auth="token", token_file=str(tmp_path / "none")).access_token({})


# What it sets -----------------------------------------------------------------------------------------


def test_the_cache_is_the_one_asked_for(tmp_path: Path) -> None:
    """Entries, bytes, folder and times to live; a time for what is not cached is an error."""
    cache = CacheManager.of(
        ButlerConfig(
            cache_size=5, cache_bytes=6000, cache_folder=str(tmp_path), cache_disk_bytes=7000, memory_limit=8000,
            cache_ttl={"availability": 9.0},
        )
    )  # fmt: skip

    assert (cache.max_entries, cache.max_bytes, cache.memory_limit) == (5, 6000, 8000)
    assert cache.disk is not None
    assert (cache.disk.folder, cache.disk.max_bytes) == (tmp_path, 7000)
    assert cache.policies["availability"].ttl == 9.0
    assert CacheManager.of(ButlerConfig()).disk is None
    with pytest.raises(ButlerConfigError, match="cache_ttl names 'wsc', which is not cached: there are cutout, wcs"):
        CacheManager.of(ButlerConfig(cache_ttl={"wsc": 1}))


def test_retries_and_breakers_are_those_asked_for() -> None:
    """Attempts, delay and time-out; threshold, cool-down and what counts as slow."""
    config = ButlerConfig(
        retry_attempts=7, retry_delay=0.5, timeout=3.0, failure_threshold=2, cool_down=9.0, slow_after=1.0
    )

    policy = policies_for(config)["query"]
    breaker = breaker_for("butler", config)

    assert (policy.attempts, policy.delay, policy.timeout) == (7, 0.5, 3.0)
    assert (breaker.name, breaker.threshold, breaker.cool_down, breaker.slow_after) == ("butler", 2, 9.0, 1.0)
