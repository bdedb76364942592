"""Files of keys and values that people write, as JSON, TOML or YAML: no key stands in a table twice.

Parsers of JSON and YAML take the last of two silently, and nobody can tell which was meant.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_YAML_MERGE = "tag:yaml.org,2002:merge"


def read_config_file(path: str | os.PathLike[str]) -> Any:
    """What a file in UTF-8 holds; its ending tells its format, YAML where that is neither ``.json`` nor ``.toml``.

    An empty YAML file holds None.  Raises ValueError, which tells in one line what is wrong and repeats no line of
    the file, where a secret may stand; OSError.
    """
    file = Path(path)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8, as byte {error.start + 1} shows; save it as that") from None
    match file.suffix:
        case ".json":
            return json.loads(text, object_pairs_hook=_table)
        case ".toml":
            return tomllib.loads(text)
    try:
        return load_yaml(text, yaml_loader())
    except ModuleNotFoundError:
        raise ValueError("it is YAML, for which PyYAML is not installed: install it, or write JSON or TOML") from None


def yaml_loader() -> Any:
    """A new class of loaders, to which tags may be added, that construct plain values and refuse a key twice.

    Raises ModuleNotFoundError without PyYAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)  # as it is written: what is merged into it comes later
            own = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _YAML_MERGE]
            _refuse_twice(own, f" in line {node.start_mark.line + 1}")
            return node

    return Loader


def load_yaml(text: str, loader: Any) -> Any:
    """What a document of YAML holds, by a class of `yaml_loader`.  Raises ValueError, as `read_config_file`."""
    import yaml

    try:
        return yaml.load(text, loader)  # noqa: S506 - it is a safe one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = " ".join(each for each in (error.context, error.problem) if each)
        raise ValueError(told if mark is None else f"{told} in line {mark.line + 1}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _table(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    _refuse_twice([key for key, _ in pairs])
    return dict(pairs)


def _refuse_twice(keys: Sequence[Any], where: str = "") -> None:
    """Raise ValueError for a key that stands there twice."""
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise ValueError(f"the table{where} has the key {key!r} more than once")
