"""Which database a test means."""

from __future__ import annotations

from typing import Protocol

from absurd.config import Settings, load_settings
from absurd.errors import ConfigurationError


class HasSettings(Protocol):
    """A client, of either kind."""

    @property
    def settings(self) -> Settings: ...


def settings_of(source: Settings | HasSettings | None) -> Settings:
    """The settings of a client, those given, or the environment's.

    Raises ConfigurationError where they name no database: the embedded one is the user's own, and no place for tests.
    """
    settings = load_settings() if source is None else source if isinstance(source, Settings) else source.settings
    if settings.database_url is None:
        raise ConfigurationError(
            "absurd.testing needs a database that is meant for tests: use the fixture absurd_database_url of its "
            "pytest plugin, pass a client or settings that name one, or set ABSURD_DATABASE_URL"
        )
    return settings
