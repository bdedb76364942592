"""What must not be seen: values under names that tell of a secret, in logs, in stored errors and on the screen (pure).

In structures a value is hidden by its key, whatever it is.  In text two things are hidden: what stands behind such
a name, and the very values that the params and headers at hand hold under one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from absurd.config import redact_url

SECRET_KEYS = re.compile(
    r"passw(or)?d|passphrase|secret|token|authorization|api_?key|cookie|credential|private_?key", re.IGNORECASE
)
"""Keys whose values are hidden."""
HIDDEN = "***"
SHORTEST = 4
"""Fewest characters of a secret that is looked for in text: a shorter one would be found everywhere."""

_NAMED = re.compile(
    rf"""(?P<name>(?:{SECRET_KEYS.pattern})[\w.-]{{0,40}}["']?\s?[:=]\s?)
         (?P<value>"(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|\{{[^{{}}]*\}}?|\[[^\[\]]*\]?|(?:Bearer|Basic|Digest)\s+\S+|(?=\S)[^\s,;&)\]}}"']+)""",
    re.IGNORECASE | re.VERBOSE,
)
_MAY_HOLD = re.compile(rf"://|{SECRET_KEYS.pattern}", re.IGNORECASE)

_BLOCK = 4096
_SIGNS = (
    "://", "passw", "passphrase", "secret", "token", "authorization", "apikey", "api_key", "cookie", "credential",
    "privatekey", "private_key",
)  # fmt: skip
"""One of these stands in every text in which `_MAY_HOLD` finds something."""


def is_secret(key: object) -> bool:
    """Whether the value under `key` is to be hidden."""
    return isinstance(key, str) and SECRET_KEYS.search(key) is not None


def hide(value: Any) -> Any:
    """JSON values with ``***`` for what stands under a secret's key, at any depth."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if is_secret(key) and inner is not None else hide(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hide(inner) for inner in value]
    return value


def discreet(document: dict[str, Any]) -> dict[str, Any]:
    """A task's document without values whose names tell of a secret: in params, headers and the history of edits."""
    hidden: dict[str, Any] = {name: hide(document[name]) for name in ("params", "headers") if name in document}
    if "history" in document:
        hidden["history"] = [
            entry | {"detail": entry["detail"] and hide_in_text(entry["detail"])} for entry in document["history"]
        ]
    return document | hidden


def hide_in_text(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without `secrets`, without passwords of addresses, and without what follows a secret's name.

    ``token='abc'``, ``"api_key": "abc"`` and ``Authorization: Bearer abc`` lose their values.
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    if _MAY_HOLD.search(text) is None:
        return text
    if "@" in text or "assword" in text.lower():
        text = redact_url(text)
    return _NAMED.sub(_masked, text)


def hide_in_lines(text: str, secrets: Iterable[str] = ()) -> str:
    """As `hide_in_text`, for many lines: quick where there is nothing to hide."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    if not _has_sign(text):
        return text
    begin, done = 0, []
    while begin < len(text):
        end = text.find("\n", begin + _BLOCK) + 1 or len(text)
        block = text[begin:end]
        done.append(hide_in_text(block) if _has_sign(block) else block)
        begin = end
    return "".join(done)


def _has_sign(text: str) -> bool:
    folded = text.casefold()
    return any(sign in folded for sign in _SIGNS)


def secrets_in(*values: Any) -> list[str]:
    """The texts that stand under secrets' keys in JSON values, the longest first, to be taken out of text."""
    found = {text for value in values for text in _secrets(value, within=False) if len(text) >= SHORTEST}
    told = {repr(text)[1:-1] for text in found}  # as an error message quotes it
    return sorted(found | told, key=lambda each: (-len(each), each))


def _secrets(value: Any, *, within: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(inner, within=within or is_secret(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(inner, within=within)
    elif within and value is not None and not isinstance(value, bool):
        yield str(value)


def _masked(found: re.Match[str]) -> str:
    value = found["value"]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found['name']}{quote}{HIDDEN}{quote}"
