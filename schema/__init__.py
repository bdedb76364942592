"""The SQL core of the queue and its installer; knows nothing of its callers."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable

from absurd.errors import ConfigurationError

VERSION = 2
"""The schema this program installs and needs, as the row `version` of `meta` in sql/00_schema.sql has it."""

PRODUCT = "absurd-observatory"
"""The row `product` of the table `meta`: what tells our schema from another product's of the same name."""

_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,49}")  # leaves room for "_ready" in the 63 bytes of a channel's name


def root() -> Traversable:
    """The folder that holds ``sql/`` (the whole schema) and ``migrations/`` (from one version to the next)."""
    return files(__name__)


def scripts(source: Traversable | None = None) -> list[tuple[str, str]]:
    """Name and text of each file of the schema, in the order of installation."""
    found = [each for each in ((source or root()) / "sql").iterdir() if each.name.endswith(".sql")]
    return [(each.name, each.read_text(encoding="utf-8")) for each in sorted(found, key=lambda each: each.name)]


def code(source: Traversable | None = None) -> list[tuple[str, str]]:
    """Those of `scripts` that hold functions: numbered from 20 up, and run again by every upgrade."""
    return [(name, text) for name, text in scripts(source) if name >= "20"]


def quoted(schema: str) -> str:
    """`schema` as an SQL identifier; ConfigurationError if no schema of the queue may be called so."""
    if not _NAME.fullmatch(schema):
        raise ConfigurationError(
            f"schema name {schema!r} is not valid: 1 to 50 lower-case letters, digits or _, "
            "not beginning with a digit or pg_",
            schema=schema,
        )
    return f'"{schema}"'
