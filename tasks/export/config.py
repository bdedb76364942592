"""Files that list exports."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absurd.tasks.config_file import read_config_file
from absurd.tasks.export.destination import beside, is_address, name_of, place_to_write, real_place
from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.export.manifest import SUFFIX

UNFINISHED = ".part"
"""Behind the name of what is kept of an export that failed."""


def load_config(config_path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The exports that a JSON, YAML or TOML file lists: dicts with `sql`, `out` and maybe options of their own.

    The file's ending tells its format, YAML where there is none of the three.  A TOML file has the list as tables
    ``[[export]]``.

    Raises ExportConfigError (a ValueError) that names the entry at fault, OSError if the file cannot be read.
    """
    path = Path(config_path)
    try:
        listed = read_config_file(path)
    except ValueError as error:
        raise ExportConfigError(f"{path.name} cannot be read: {error}") from None
    if path.suffix == ".toml":
        listed = listed.get("export", [])
    if not isinstance(listed, list):
        raise ExportConfigError(f"{path.name} must hold a list of exports, it holds a {type(listed).__name__}")
    check_exports(listed, path.name)
    return listed


def check_exports(listed: Sequence[Any], source: str, *, keep_temp: bool = False) -> None:
    """Raise ExportConfigError for the first entry that cannot be used, and for two that write one file.

    A file in the folder of another export's dataset is refused too: each run would remove it.  So is one that is the
    manifest of another export, or with `keep_temp` its unfinished file.
    """
    if not listed:
        raise ExportConfigError(f"{source} lists no export")
    outputs: dict[str, int] = {}
    for number, entry in enumerate(listed, 1):
        _check(entry, f"export {number} of {source}")
        place = place_to_write(entry["out"])
        first = outputs.setdefault(place if is_address(place) else os.path.realpath(place), number)
        if first != number:
            raise ExportConfigError(f"exports {first} and {number} of {source} both write {entry['out']}")
    besides = {SUFFIX: "manifest"} | ({UNFINISHED: "unfinished file"} if keep_temp else {})
    for place, number in outputs.items():
        for suffix, what in besides.items():
            other = outputs.get(beside(place, suffix))
            if other is not None:
                told = f"export {other} of {source} writes {name_of(place)}{suffix}, which is the {what} of export"
                raise ExportConfigError(f"{told} {number}: give it another name")
        above = place.rpartition("/")[0]
        while above:
            if above in outputs:
                raise ExportConfigError(
                    f"export {number} of {source} writes into {above}, which is what export {outputs[above]} writes"
                )
            above = above.rpartition("/")[0]


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
    return options | ({"unfinished": beside(real_place(out), UNFINISHED)} if given.get("keep_temp") else {})
