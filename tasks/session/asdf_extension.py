"""What asdf learns from this package: the schemas of sessions, and their tag.

A session's file opens without it; asdf then says that it does not know the tag, and nothing is checked.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

NAME = "asdf://absurd"
VERSIONS = ("1.0.0", "1.1.0")
"""Of the schemas, all of which are read."""


def schema_uri(version: str = VERSIONS[-1]) -> str:
    """Where asdf finds the schema of a whole file, for ``asdf.open(path, custom_schema=...)``."""
    return f"{NAME}/schemas/session-{version}"


class SessionMeta(UserDict[str, Any]):
    """``meta`` of a session's file: a mapping that keeps its tag when it is written again."""


class SessionMetaConverter:
    """Between `SessionMeta` and its tag."""

    tags = (f"{NAME}/tags/session_meta-*",)
    types = (SessionMeta,)

    def select_tag(self, obj: SessionMeta, tags: Sequence[str], ctx: Any) -> str:
        """The tag of the version that the session is of, or the newest."""
        own = f"{NAME}/tags/session_meta-{obj.get('schema_version')}"
        return own if own in tags else f"{NAME}/tags/session_meta-{VERSIONS[-1]}"

    def to_yaml_tree(self, obj: SessionMeta, tag: str, ctx: Any) -> dict[str, Any]:
        """What is written."""
        return dict(obj)

    def from_yaml_tree(self, node: Any, tag: str, ctx: Any) -> SessionMeta:
        """What is read."""
        return SessionMeta(node)


def extensions() -> list[Any]:
    """For asdf's entry point."""
    from asdf.extension import Converter, Extension, TagDefinition

    class SessionExtension(Extension):  # type: ignore[misc]
        extension_uri = f"{NAME}/extensions/session-1.0.0"
        tags = [  # noqa: RUF012
            TagDefinition(f"{NAME}/tags/session_meta-{version}", schema_uris=[f"{NAME}/schemas/session_meta-{version}"])
            for version in VERSIONS
        ]
        converters = [type("Converter", (SessionMetaConverter, Converter), {})()]  # noqa: RUF012

    return [SessionExtension()]


def resource_mappings() -> list[dict[str, bytes]]:
    """For asdf's entry point: the schemas, by their names."""
    folder = files("absurd.tasks.session") / "schemas"
    return [
        {
            f"{NAME}/schemas/{name}-{version}": (folder / f"{name}-{version}.yaml").read_bytes()
            for name in ("session", "session_meta")
            for version in VERSIONS
        }
    ]
