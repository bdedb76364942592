"""What errors of other packages say, for a sentence of ours."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not empty; what kind of error it is where there is none.

    Later lines tell where in a library it happened, or the same for each place that was tried.  A `KeyError` shows its
    message as Python writes texts: it is given without these quotes.
    """
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    lines = (line.strip() for line in str(message).splitlines())
    return next(filter(None, lines), type(error).__name__)
