"""Files of a group when its conversion begins: as they were recorded, changed since then, or lost."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from typing import Any

from absurd.tasks.radio.errors import DataError, UnreadableError
from absurd.tasks.visibility.arrivals import version_of
from absurd.tasks.visibility.uvh5 import read_subband_header

Document = dict[str, Any]


def changed(files: Iterable[Document]) -> list[str]:
    """Paths of those that are not as they were recorded, `version`: perhaps they are being written again."""
    return [each["path"] for each in files if _version(each["path"]) != each["version"]]


def lost(files: Iterable[Document]) -> dict[str, str]:
    """Paths of those that are gone or damaged, each with the reason.

    Raises UnreadableError for one that is there and cannot be opened now: that may be over in a moment.
    """
    found = {}
    for each in files:
        try:
            read_subband_header(each["path"])
        except UnreadableError as error:
            if os.path.lexists(each["path"]):
                raise
            found[each["path"]] = error.message
        except DataError as error:
            found[each["path"]] = error.message
    return found


def is_poorer(numbers: Container[int], product: Document | None) -> bool:
    """Whether a Measurement Set that is there has sub-bands beside these, so that it had better stay."""
    return product is not None and os.path.isdir(product["path"]) and any(n not in numbers for n in product["subbands"])


def _version(path: str) -> str | None:
    try:
        return version_of(os.stat(path))
    except OSError:
        return None
