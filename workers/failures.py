"""Exceptions as the JSON that is stored with a failed run, however odd they are (pure)."""

from __future__ import annotations

import re
import signal
import subprocess
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from absurd.errors import AbsurdError
from absurd.model import Claim
from absurd.redaction import hide_in_text, secrets_in

MESSAGE_LIMIT = 5_000
"""Most characters of a message that are kept."""
TRACEBACK_LIMIT = 20_000
FRAME_LIMIT = 50
"""Most frames of a traceback that are kept: the innermost."""
CLASSES_LIMIT = 20
"""Most classes of an exception that are told."""
OUT_OF_MEMORY = 137
"""Exit code of programs that were killed for want of memory: 128 + SIGKILL."""
RELATIVES_LIMIT = 1_000
"""Most causes, and members of groups, whose tracebacks are taken."""

_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")


def describe(error: BaseException, code: str | None = None, claim: Claim | None = None) -> dict[str, Any]:
    """`error` as ``{code, type, classes, message, traceback}``; never raises.

    `code` is the error's own where none is given, and "exception" for what is not of absurd.  Where a
    process ended, ``exit_code`` or ``signal`` tells how; ``out_of_memory`` is there where memory ran out.
    Secrets of `claim`, and what stands behind a secret's name, are hidden: errors are stored and shown.
    """
    if code is None:
        code = error.code if isinstance(error, AbsurdError) else "exception"
    secrets = () if claim is None else secrets_in(claim.params, claim.headers, claim.parents)
    return {
        "code": code,
        "type": type(error).__qualname__,
        "classes": [f"{each.__module__}.{each.__qualname__}" for each in type(error).__mro__[:-1]][:CLASSES_LIMIT],
        "message": _told(lambda: str(error), MESSAGE_LIMIT, secrets),
        "traceback": _told(lambda: "".join(_traceback(error)), TRACEBACK_LIMIT, secrets),
    } | _cause(error)


def _cause(error: BaseException) -> dict[str, Any]:
    """What rules can tell apart beside class and text."""
    if isinstance(error, MemoryError):
        return {"out_of_memory": True}
    if not isinstance(error, subprocess.CalledProcessError) or not isinstance(error.returncode, int):
        return {}
    if error.returncode < 0:
        with suppress(ValueError):  # a real-time signal has no name
            return {"signal": signal.Signals(-error.returncode).name}
        return {"signal": str(-error.returncode)}
    return {"exit_code": error.returncode} | ({"out_of_memory": True} if error.returncode == OUT_OF_MEMORY else {})


def _told(tell: Callable[[], str], limit: int, secrets: Sequence[str]) -> str:
    """What `tell` returns as text that PostgreSQL takes: no NUL, no lone surrogates, not without end, no secrets."""
    try:
        text = str.__str__(tell())
        if len(text) > 20 * limit:  # before it is searched
            text = f"{text[: 10 * limit]}\n… characters left out …\n{text[-10 * limit :]}"
        text = hide_in_text(text, secrets)
    except BaseException as broken:  # an exception that cannot be told must not hide the failure
        return f"(this cannot be told: {type(broken).__qualname__} was raised)"
    if len(text) > limit:
        text = f"{text[: limit // 2]}\n… {len(text) - limit} characters left out …\n{text[-limit // 2 :]}"
    return _UNSTORABLE.sub("\ufffd", text)


def _traceback(error: BaseException) -> list[str]:
    frames = _inner(error.__traceback__)
    if _is_small(error):
        return traceback.format_exception(type(error), error, frames, limit=-FRAME_LIMIT)
    return [*traceback.format_tb(frames, limit=-FRAME_LIMIT), f"{type(error).__qualname__}: its causes are too many"]


def _is_small(error: BaseException) -> bool:
    """Whether the causes of an error and the members of its groups can be told: groups in groups grow without end."""
    waiting = [error]
    for _ in range(RELATIVES_LIMIT):
        if not waiting:
            return True
        one = waiting.pop()
        waiting += [each for each in (one.__cause__, one.__context__) if each is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
    return False


def _inner(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the executor's own frame on."""
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith("absurd.workers."):
        frames = frames.tb_next
    return frames
