"""Settings: where they come from, what is refused, and what is never shown."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from absurd.config import Settings, load_settings, redact_url
from absurd.errors import ConfigurationError
from absurd.setting_values import READERS


def test_each_setting_can_be_read() -> None:
    """Every field of Settings but `warnings` has a reader, and no reader is left over."""
    assert {field.name for field in fields(Settings)} - {"warnings"} == READERS.keys()


def test_defaults(tmp_path: Path) -> None:
    """With nothing set, the documented defaults hold and the home is the user's data folder."""
    settings = load_settings({"HOME": "/home/ada"}, tmp_path)

    assert Settings(home=Path("/home/ada/.local/share/absurd")) == settings
    assert () == settings.warnings


def test_data_home_of_the_platform(tmp_path: Path) -> None:
    """XDG_DATA_HOME moves the default home; a relative one is ignored, as its specification says."""
    assert Path("/data/absurd") == load_settings({"HOME": "/h", "XDG_DATA_HOME": "/data"}, tmp_path).home
    assert Path("/h/.local/share/absurd") == load_settings({"HOME": "/h", "XDG_DATA_HOME": "data"}, tmp_path).home


def test_order_of_sources(tmp_path: Path) -> None:
    """A flag beats the environment, which beats the file, which beats the default."""
    (tmp_path / "absurd.toml").write_text('queue_name = "file"\nworker_concurrency = 2\nmax_retries = 1\n')
    environ = {"ABSURD_QUEUE_NAME": "environment", "ABSURD_WORKER_CONCURRENCY": "3"}

    settings = load_settings(environ, tmp_path, queue_name="flag")

    assert ("flag", 3, 1, 30.0) == (
        settings.queue_name,
        settings.worker_concurrency,
        settings.max_retries,
        settings.worker_lease,
    )


def test_not_given_is_not_a_value(tmp_path: Path) -> None:
    """A flag that is None or empty, and an empty variable, leave the setting to the next source."""
    (tmp_path / "absurd.toml").write_text('queue_name = "file"\nimports = ["one", "two.three"]\n')

    settings = load_settings({"ABSURD_QUEUE_NAME": ""}, tmp_path, queue_name=None, imports=())

    assert ("file", ("one", "two.three")) == (settings.queue_name, settings.imports)


def test_flag_that_is_false_or_zero_counts(tmp_path: Path) -> None:
    """False and 0 are values, and beat other sources."""
    settings = load_settings({"ABSURD_MAX_RETRIES": "9"}, tmp_path, max_retries=0, dlq_enabled=False)

    assert (0, 1, False) == (settings.max_retries, settings.max_attempts, settings.dlq_enabled)


def test_pyproject(tmp_path: Path) -> None:
    """[tool.absurd] of pyproject.toml is read where there is no absurd.toml."""
    (tmp_path / "pyproject.toml").write_text('[tool.absurd]\nschema = "queue"\n')

    assert "queue" == load_settings({}, tmp_path).schema

    (tmp_path / "absurd.toml").write_text('schema = "other"\n')

    assert "other" == load_settings({}, tmp_path).schema


def test_broken_files(tmp_path: Path) -> None:
    """A broken absurd.toml is an error; a broken or foreign pyproject.toml is not ours."""
    (tmp_path / "pyproject.toml").write_text("[tool.other\n")

    assert "absurd" == load_settings({}, tmp_path).schema

    (tmp_path / "absurd.toml").write_text("schema = \n")

    with pytest.raises(ConfigurationError, match=r"absurd\.toml cannot be read"):
        load_settings({}, tmp_path)


def test_paths_are_relative_to_the_working_directory(tmp_path: Path) -> None:
    """A relative home or pg_bin means one below the working directory."""
    settings = load_settings({"ABSURD_HOME": "state"}, tmp_path, pg_bin="/opt/pg/bin")

    assert (tmp_path / "state", Path("/opt/pg/bin")) == (settings.home, settings.pg_bin)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ABSURD_WORKER_CONCURRENCY", "many"),
        ("ABSURD_WORKER_CONCURRENCY", "0"),
        ("ABSURD_WORKER_CONCURRENCY", "2.5"),
        ("ABSURD_WORKER_LEASE", "nan"),
        ("ABSURD_WORKER_POLL_INTERVAL", "-1"),
        ("ABSURD_TASK_TIMEOUT", "1h"),
        ("ABSURD_DLQ_ENABLED", "perhaps"),
        ("ABSURD_LOG_LEVEL", "loud"),
        ("ABSURD_LOG_FORMAT", "xml"),
        ("ABSURD_SCHEMA", "Queue"),
        ("ABSURD_SCHEMA", "pg_queue"),
        ("ABSURD_SCHEMA", 'a"b'),
        ("ABSURD_SCHEMA", "a" * 51),
        ("ABSURD_IMPORTS", "not-a-module"),
        ("ABSURD_DATABASE_URL", "absurd"),
        ("ABSURD_QUEUE_NAME", "  "),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, variable: str, value: str) -> None:
    """A value that cannot be used is refused with its variable, the value, and what would do."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings({variable: value}, tmp_path)

    assert caught.value.message.startswith(f"{variable} is {value!r}; it must be ")


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"home", "pg_bin", "imports"}))
def test_values_of_another_type_are_refused(tmp_path: Path, name: str) -> None:
    """A flag or a key of the file of the wrong type is an error of configuration, never of Python."""
    with pytest.raises(ConfigurationError, match="it must be"):
        load_settings({}, tmp_path, **{name: [1]})


def test_source_is_named(tmp_path: Path) -> None:
    """The error names the file's key or the flag, as the user wrote it."""
    (tmp_path / "absurd.toml").write_text("worker_grace = true\n")

    with pytest.raises(ConfigurationError, match=r"^worker_grace in .*absurd\.toml is True"):
        load_settings({}, tmp_path)
    with pytest.raises(ConfigurationError, match=r"^--grace is 'soon'"):
        load_settings({}, tmp_path, worker_grace="soon")


def test_unknown_key_of_the_file(tmp_path: Path) -> None:
    """A key that is no setting is refused with the nearest name."""
    (tmp_path / "absurd.toml").write_text("worker_concurency = 3\n")

    with pytest.raises(ConfigurationError, match="did you mean worker_concurrency"):
        load_settings({}, tmp_path)


def test_unknown_variables_are_warned_of(tmp_path: Path) -> None:
    """An unknown ABSURD_* name does no harm, and is told with the nearest name and without its value."""
    environ = {"ABSURD_WORKER_POLL_INTERVAL_SEC": "geheim", "ABSURD_ZZZ": "1", "OTHER": "x"}

    near, far = load_settings(environ, tmp_path).warnings

    assert near.startswith("ABSURD_WORKER_POLL_INTERVAL_SEC is not a setting of absurd and is ignored; did you mean ")
    assert near.endswith("ABSURD_WORKER_POLL_INTERVAL?")
    assert "ABSURD_ZZZ is not a setting of absurd and is ignored" == far


def test_heartbeat_fits_the_lease(tmp_path: Path) -> None:
    """A heartbeat that could miss the lease is refused."""
    with pytest.raises(ConfigurationError, match="at most half of worker_lease"):
        load_settings({"ABSURD_WORKER_LEASE": "8"}, tmp_path)


def test_no_time_limit(tmp_path: Path) -> None:
    """0 takes a time limit away."""
    (tmp_path / "absurd.toml").write_text("task_timeout = 60\n")

    assert 60.0 == load_settings({}, tmp_path).task_timeout
    assert load_settings({"ABSURD_TASK_TIMEOUT": "0"}, tmp_path).task_timeout is None


def test_unknown_flag_is_a_mistake_in_the_program(tmp_path: Path) -> None:
    """A keyword that is no setting is a TypeError, like any wrong keyword."""
    with pytest.raises(TypeError, match="colour"):
        load_settings({}, tmp_path, colour="red")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://ada:geheim@host:5432/db", "postgresql://ada:***@host:5432/db"),
        ("postgresql://ada:ge/h@eim@host/db?x=1", "postgresql://ada:***@host/db?x=1"),
        ("postgresql://ada:ge heim@host/db", "postgresql://ada:***@host/db"),
        ("postgresql://ada@host/db?password=geheim&a=1", "postgresql://ada@host/db?password=***&a=1"),
        ("postgresql://:geheim@/db", "postgresql://:***@/db"),
        ("host=h password=geheim user=ada", "host=h password=*** user=ada"),
        ("host=h password = 'ge \\' heim' user=ada", "host=h password = *** user=ada"),
        ("host=h password=ge\\ heim user=ada", "host=h password=*** user=ada"),
        ("postgresql://absurd@/absurd?host=%2Ftmp&port=5432", "postgresql://absurd@/absurd?host=%2Ftmp&port=5432"),
        ("http://localhost:8000/ asks ada@host", "http://localhost:8000/ asks ada@host"),
        ("no url at all", "no url at all"),
    ],
)
def test_redact_url(given: str, shown: str) -> None:
    """Passwords are hidden in every form of address, and nothing else is."""
    assert shown == redact_url(given)


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    """Neither the settings' repr nor an error about the address shows the password."""
    settings = load_settings({"ABSURD_DATABASE_URL": "postgresql://ada:geheim@host/db"}, tmp_path)

    assert "geheim" not in repr(settings)
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"ABSURD_DATABASE_URL": "mysql://ada:geheim@host/db"}, tmp_path)
    assert "geheim" not in caught.value.message
