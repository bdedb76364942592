"""Where the function of an executor is defined, and how a child process finds it there."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from absurd.errors import ConfigurationError, UnknownExecutorError
from absurd.executor import Executor, load_modules, registry

MAIN = "__mp_main__"
"""What the main program is called in a child, as multiprocessing calls it: its
``if __name__ == "__main__":`` does not hold there."""
IMPORTING = "_ABSURD_IMPORTING"
"""Set in a child process, and so in all that it starts, while it imports something for its runs: what that is."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The address of a function: what a child needs to find it."""

    module: str
    qualname: str
    file: str | None
    """The module's source, for a module that cannot be imported by its name."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A function that is not imported here, because a process of its own will do that."""

    origin: Origin

    def __call__(self, *_args: Any) -> Any:
        raise AssertionError(f"{self.origin.module}:{self.origin.qualname} was called where it is not imported")


def origin_of(executor: Executor) -> Origin:
    """Where the function of `executor` is defined."""
    return origin_of_function(executor.function)


def origin_of_function(function: Any) -> Origin:
    """Where a function is defined."""
    if isinstance(function, Elsewhere):
        return function.origin
    name = getattr(function, "__module__", None) or "__main__"
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if name == "__main__" and spec is not None:  # python -m package.module
        name = spec.name
    file = getattr(module, "__file__", None)
    return Origin(name, getattr(function, "__qualname__", ""), None if file is None else os.path.abspath(file))


def is_hidden(origin: Origin) -> bool:
    """Whether the function stands inside one of the main program, which no other process calls."""
    return origin.module == "__main__" and "<locals>" in origin.qualname


def find(name: str, origin: Origin) -> Executor:
    """The executor called `name`, importing what is needed.

    Raises UnknownExecutorError, which tells what to do, when it cannot be found from its origin.
    """
    found = _registered(name, origin)
    if found is not None:
        return found
    module = _import(name, origin)
    found = _registered(name, origin) or _held(name, module)
    if found is None:
        load_modules([])  # published by a package, which registers it from another module
        found = _registered(name, origin)
    if found is None:
        raise not_found(name, origin)
    return found


def not_found(name: str, origin: Origin) -> UnknownExecutorError:
    """What is to be done about an executor that a process does not find."""
    where = "inside a function" if "<locals>" in origin.qualname else "nowhere by that name"
    return UnknownExecutorError(
        f"the process of executor {name!r} finds its function {origin.module}:{origin.qualname} {where}; define it "
        "at the top level of a module, name the module that registers it with --import, or use runs_in='thread'",
        name=name,
    )


def find_function(origin: Origin) -> Any:
    """The function at `origin`, importing what is needed.  Raises ConfigurationError when it is not there."""
    module = _import(origin.qualname, origin)
    try:
        return functools.reduce(getattr, origin.qualname.split("."), module)
    except AttributeError:
        raise ConfigurationError(f"there is no function {origin.qualname} in module {origin.module}") from None


def refuse_in_child() -> None:
    """Raise ConfigurationError while a child process imports, there and in whatever is started by that.

    The module at fault would start workers without end: each has child processes, which import it again.
    """
    module = os.environ.get(IMPORTING)
    if module is not None:
        raise ConfigurationError(
            f"importing {module} starts a worker; put that under: if __name__ == '__main__'", module=module
        )


@contextmanager
def importing(module: str) -> Iterator[None]:
    """While a child process imports `module`.  Raises ConfigurationError where that ends the program."""
    before = os.environ.get(IMPORTING)
    os.environ[IMPORTING] = module
    try:
        yield
    except SystemExit as end:
        raise ConfigurationError(
            f"importing {module} ends the program (exit code {end.code}); put what it does under: "
            "if __name__ == '__main__'",
            module=module,
        ) from end
    finally:
        os.environ.pop(IMPORTING, None)
        if before is not None:
            os.environ[IMPORTING] = before


def _registered(name: str, origin: Origin) -> Executor | None:
    """The registered executor, unless another function took its name."""
    found = registry.get(name)
    if found is None or found.function.__qualname__ != origin.qualname:
        return None
    return found if found.function.__module__ in (origin.module, MAIN) else None


def _held(name: str, module: ModuleType) -> Executor | None:
    """The executor in a variable of the module: one that was made without being registered."""
    found = (each for each in vars(module).values() if isinstance(each, Executor) and each.name == name)
    return next(found, None)


def _import(name: str, origin: Origin) -> ModuleType:
    with importing(origin.module):
        if origin.module != "__main__":
            try:
                return importlib.import_module(origin.module)
            except ModuleNotFoundError as error:
                if origin.file is None or not f"{origin.module}.".startswith(f"{error.name}."):
                    raise
        if origin.file is None or not os.path.isfile(origin.file):
            raise UnknownExecutorError(
                f"the executor {name!r} is defined in a program without a file, which a child process cannot import; "
                "move it to a module, or use runs_in='thread'",
                name=name,
            )
        return _load(MAIN if origin.module == "__main__" else origin.module, origin.file)


def _load(name: str, file: str) -> ModuleType:
    """The module in `file` under `name`; imported once."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UnknownExecutorError(f"{file} cannot be imported as a module", file=file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
