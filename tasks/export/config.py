"""Files that list exports."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absurd.tasks.export.destination import beside, place_of, real_place
from absurd.tasks.export.errors import ExportConfigError


def load_config(config_path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The exports that a JSON, YAML or TOML file lists: dicts with `sql`, `out` and maybe options of their own.

    The file's ending tells its format, YAML where there is none of the three.  A TOML file has the list as tables
    ``[[export]]``.

    Raises ExportConfigError (a ValueError) that names the entry at fault, OSError if the file cannot be read.
    """
    path = Path(config_path)
    text = path.read_text(encoding="utf-8")
    listed = _parse(path, text)
    if not isinstance(listed, list):
        raise ExportConfigError(f"{path.name} must hold a list of exports, it holds a {type(listed).__name__}")
    check_exports(listed, path.name)
    return listed


def check_exports(listed: Sequence[Any], source: str) -> None:
    """Raise ExportConfigError for the first entry that cannot be used, and for two that write one file.

    A file in the folder of another export's dataset is refused too: each run would remove it.
    """
    if not listed:
        raise ExportConfigError(f"{source} lists no export")
    outputs: dict[str, int] = {}
    for number, entry in enumerate(listed, 1):
        _check(entry, f"export {number} of {source}")
        first = outputs.setdefault(place_of(entry["out"]), number)
        if first != number:
            raise ExportConfigError(f"exports {first} and {number} of {source} both write {entry['out']}")
    for place, number in outputs.items():
        above = place.rpartition("/")[0]
        while above:
            if above in outputs:
                raise ExportConfigError(
                    f"export {number} of {source} writes into {above}, which is what export {outputs[above]} writes"
                )
            above = above.rpartition("/")[0]


def _parse(path: Path, text: str) -> Any:
    try:
        if path.suffix == ".json":
            return json.loads(text)
        if path.suffix == ".toml":
            return tomllib.loads(text).get("export", [])
    except ValueError as error:
        raise ExportConfigError(f"{path.name} cannot be read: {error}") from None
    try:
        import yaml
    except ModuleNotFoundError:
        raise ExportConfigError(
            f"{path.name} is YAML, for which PyYAML is not installed: install it, or write the list as JSON or TOML"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ExportConfigError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from None


def _check(entry: Any, where: str) -> None:
    if not isinstance(entry, Mapping):
        raise ExportConfigError(f"{where} must be a table of keys and values, it is a {type(entry).__name__}")
    for key in ("sql", "out"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise ExportConfigError(f"{where} must have {key!r}, a text")
    unknown = entry.keys() - {"sql", "out"} - _CHECKS.keys()
    if unknown:
        raise ExportConfigError(f"{where} has unknown keys: {', '.join(sorted(map(str, unknown)))}")
    for key, (fits, wanted) in _CHECKS.items():
        if key in entry and not fits(entry[key]):
            raise ExportConfigError(f"{key} of {where} is {entry[key]!r}; it must be {wanted}")
    if "type_map" in entry:
        check_types(entry["type_map"], f"type_map of {where}: ")


def check_types(type_map: Mapping[int | str, Any], where: str = "") -> None:
    """Raise ExportConfigError for what is no OID and no Arrow type; without pyarrow, that is left to who exports."""
    try:
        from absurd.tasks.export.arrow_types import check_type_map
    except ModuleNotFoundError:
        return
    try:
        check_type_map(type_map)
    except ExportConfigError as error:
        raise ExportConfigError(f"{where}{error}") from None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, str) and each for each in value)


def _is_decimal(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(type(each) is int for each in value)


def _is_type_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, str) for each in value.values())


_COMPRESSIONS = ("zstd", "snappy", "gzip", "brotli", "lz4", "none")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "row_group_size": (_is_count, "a whole number of rows, at least 1"),
    "compression": (lambda value: value in _COMPRESSIONS, f"one of {', '.join(_COMPRESSIONS)}"),
    "connections": (_is_count, "a whole number, at least 1"),
    "on_unfit": (lambda value: value in ("error", "null", "text"), "error, null or text"),
    "decimal": (_is_decimal, "[digits in all, digits after the point]"),
    "type_map": (_is_type_map, "a table of PostgreSQL types, by name or OID, with Arrow types as text"),
    "limit_mib_per_second": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value > 0,
        "a number above 0",
    ),
    "block_size": (_is_count, "a whole number of bytes, at least 1"),
    "partition_by": (_is_names, "a list of columns"),
    "max_rows_per_file": (_is_count, "a whole number of rows, at least 1"),
}
"""What an export may have beside `sql` and `out`: a check, and what it asks for in words."""

OPTIONS = tuple(_CHECKS)
"""Names of the options that an export may have of its own."""


def options_of(given: Mapping[str, Any], out: str) -> dict[str, Any]:
    """The options of `export_query` that are given under the names of lists and params, for a file."""
    options = {name: given[name] for name in OPTIONS if given.get(name) is not None}
    if "decimal" in options:
        options["decimal"] = tuple(options["decimal"])
    return options | ({"unfinished": beside(real_place(out), ".part")} if given.get("keep_temp") else {})
