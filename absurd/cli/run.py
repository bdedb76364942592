"""From a command to a process: every way a command can end becomes an exit code and at most one sentence.

Exit codes: 0 done; 1 failed; 2 called wrongly; 3 not found; 4 no database; 5 conflict; 130 interrupted.
Under ``--json`` an error is also a document on stdout: ``{"error": {"code", "message", "details"}}``.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from absurd.cli.output import Invocation, clean, emit
from absurd.errors import (
    AbsurdError,
    ConflictError,
    DatabaseUnavailableError,
    InvalidInputError,
    NotFoundError,
)

FAILED = 1
USAGE = 2
INTERRUPTED = 130

EXIT_CODES: dict[type[AbsurdError], int] = {
    InvalidInputError: USAGE,
    NotFoundError: 3,
    DatabaseUnavailableError: 4,
    ConflictError: 5,
}


def run(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> None:
    """Run `command` as the program `name` with `arguments` (default: those of the process) and exit."""
    code = call(command, name, arguments)
    if "pyarrow" in sys.modules:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End the process, but leave its interpreter whole.

    A thread of Arrow that has read a Python file may still be letting go of it, also for Butler's formatters: once the
    interpreter is taken apart that aborts the process, or hangs it, after all is done (apache/arrow#34314, #50482).
    """
    atexit._run_exitfuncs()  # noqa: SLF001 — as `multiprocessing` ends its processes
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # nobody reads it any more
            pass
        except OSError:
            code = code or FAILED
    os._exit(code)


def call(command: click.Command, name: str, arguments: Sequence[str] | None = None) -> int:
    """Run `command` and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    invocation = Invocation()
    color = False if os.environ.get("NO_COLOR") else None
    try:
        code = command.main(given, prog_name=name, standalone_mode=False, obj=invocation, color=color)
        return code if isinstance(code, int) else 0
    except SystemExit as ending:  # click's own answer to a pipe that nobody reads any more
        return ending.code if isinstance(ending.code, int) else FAILED
    except click.exceptions.NoArgsIsHelpError as error:  # whose message is the help, in lines of its own
        click.echo(error.format_message(), err=True, color=color)
        return USAGE
    except click.Abort:  # click's name for Ctrl-C
        return INTERRUPTED
    except BaseException as error:  # a process ends with a code and a sentence, whatever happened
        code, kind, message, details = explain(error, name)
        if invocation.debug and not isinstance(error, click.ClickException):
            import traceback

            traceback.print_exception(error)
        document = {"error": {"code": kind, "message": message, "details": details}} if "--json" in given else None
        tell(document, f"{click.style('Error:', fg='red', bold=True)} {clean(message)}{_hint(error)}", color=color)
        return code


def _hint(error: BaseException) -> str:
    """Where cause and cure of `error` are told; nothing for errors that are not ours."""
    from absurd.cli.remedies import remedies

    if isinstance(error, AbsurdError) and error.code in remedies():
        return f" (see `absurd explain {error.code}`)"
    return ""


def tell(document: object, sentence: str, *, color: bool | None) -> None:
    """Print `sentence` on stderr, and `document` (unless it is None) on stdout if anybody reads it."""
    click.echo(sentence, err=True, color=color)
    if document is not None:
        try:
            emit(document, as_json=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor complain at exit


def explain(error: BaseException, name: str) -> tuple[int, str, str, dict[str, object]]:
    """Exit code, stable code, sentence and details of `error`."""
    match error:
        case AbsurdError():
            code = next((code for family, code in EXIT_CODES.items() if isinstance(error, family)), FAILED)
            return code, error.code, error.message, error.details
        case click.UsageError():
            path = error.ctx.command_path if error.ctx is not None else name
            return USAGE, "usage", f"{error.format_message().rstrip('.')} (see `{path} --help`)", {}
        case click.ClickException():
            return error.exit_code, "usage", error.format_message(), {}
        case KeyboardInterrupt():
            return INTERRUPTED, "interrupted", "interrupted", {}
        case _:
            told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return FAILED, "internal", f"unexpected {told} (run with --debug for the whole story)", {}
