"""Executors: the functions that tasks name, and the registry a worker finds them in."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal

from absurd.errors import (
    ConfigurationError,
    InvalidNameError,
    InvalidOptionError,
    InvalidParamsError,
    UnknownExecutorError,
)
from absurd.redaction import hide_in_text, is_secret
from absurd.resources import check_needs
from absurd.retry import RetryPolicy

RunsIn = Literal["loop", "thread", "process", "dask"]

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    ParamsT = TypeVar("ParamsT", default=Any)
else:  # defaults come with Python 3.13
    ParamsT = typing.TypeVar("ParamsT")
"""What an executor's params are annotated with, so that a type checker sees a spawn that does not fit."""

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")
"""What a queue or executor may be called; the same rule stands in schema/sql/20_queues.sql."""

ENTRY_POINTS = "absurd.executors"


_is_name = functools.lru_cache(128)(NAME.fullmatch)  # a bulk spawn asks for the same again and again


def check_name(kind: str, name: str) -> str:
    """`name` itself if a queue or executor may be called so; else InvalidNameError."""
    if not isinstance(name, str) or not _is_name(name):
        raise InvalidNameError(
            f"{kind} name {name!r} is not valid: 1 to 128 letters, digits or _ . : - and no leading punctuation",
            name=name,
        )
    return name


@dataclasses.dataclass(frozen=True, slots=True)
class Executor(Generic[ParamsT]):
    """A function registered under a task name.  Calling it calls the plain function."""

    name: str
    function: Callable[[Any, ParamsT], Any]
    queue: str | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    lane: str | None = None
    needs: Mapping[str, float] | None = dataclasses.field(default=None, hash=False)
    runs_in: RunsIn = "process"
    description: str = ""
    params_type: Any = None
    """Annotation of the second parameter; None when params stay a plain dict."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    def load_params(self, params: Any) -> Any:
        """JSON params as the object the function expects; InvalidParamsError names what does not fit."""
        if self.params_type is None:
            return params
        adapter = self._adapter()
        from pydantic import ValidationError

        try:
            return adapter.validate_python({} if params is None else params)
        except ValidationError as error:
            raise InvalidParamsError(f"params of {self.name}: {_explain(error)}", name=self.name) from None

    def dump_params(self, params: Any) -> Any:
        """An object or dict of params, checked, as plain JSON values for the database."""
        if self.params_type is None:
            return params
        checked = self.load_params(params)
        return self._adapter().dump_python(checked, mode="json", exclude_unset=True)

    def params_schema(self) -> dict[str, Any]:
        """JSON schema of the params; an open object for plain dicts.

        Raises ConfigurationError where the annotation is nothing that can be checked.
        """
        if self.params_type is None:
            return {"type": "object"}
        return dict(self._adapter().json_schema())

    def _adapter(self) -> Any:
        """What checks the params.  Raises ConfigurationError where their annotation is nothing that can be checked."""
        from pydantic import PydanticUserError

        try:
            return _adapter(self.params_type)
        except (PydanticUserError, RecursionError) as error:  # the latter of a TypedDict that holds itself
            said = str(error).partition("\n")[0].rstrip(".")
            raise ConfigurationError(
                f"params of {self.name} are annotated with what cannot be checked: {said}; a dataclass, a pydantic "
                "model, a TypedDict of typing_extensions or a plain dict will do",
                name=self.name,
            ) from None


class Registry:
    """Executors by name.  `registry` below is the one that `@executor` fills."""

    def __init__(self) -> None:
        self._executors: dict[str, Executor] = {}

    def add(self, new: Executor) -> None:
        """Register `new`; registering the same function again (a module reload) replaces it."""
        old = self._executors.get(new.name)
        if old is not None and _origin(old) != _origin(new):
            raise ConfigurationError(
                f"two functions are registered as {new.name!r}: {_origin(old)} and {_origin(new)}", name=new.name
            )
        self._executors[new.name] = new

    def get(self, name: str) -> Executor | None:
        """The executor of that name, or None."""
        return self._executors.get(name)

    def require(self, name: str) -> Executor:
        """The executor of that name; UnknownExecutorError lists near names."""
        found = self._executors.get(name)
        if found is None:
            raise UnknownExecutorError(f"no executor is called {name!r}{_near(name, self._executors)}", name=name)
        return found

    def __iter__(self) -> Iterator[Executor]:
        return iter(sorted(self._executors.values(), key=lambda each: each.name))

    def __contains__(self, name: str) -> bool:
        return name in self._executors

    def __len__(self) -> int:
        return len(self._executors)


registry = Registry()


def executor(
    name: str,
    *,
    queue: str | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    lane: str | None = None,
    needs: Mapping[str, float] | None = None,
    runs_in: RunsIn | None = None,
) -> Callable[[Callable[[Any, ParamsT], Any]], Executor[ParamsT]]:
    """Register the decorated function as the executor for tasks called `name`.

    `timeout` is in seconds.  `lane` is that of its tasks unless their spawn names one.  `needs` are what its tasks hold
    while they run, such as ``{"cpu": 2, "memory_gib": 4}``; a spawn may state other amounts.  `runs_in`
    defaults to "loop" for ``async def`` and "process" for ``def``.  The function takes
    ``(ctx, params)``; annotate `params` with a pydantic model, a dataclass or a TypedDict and it is
    checked at spawn and at run.
    """
    check_name("executor", name)
    if queue is not None:
        check_name("queue", queue)
    if timeout is not None and not timeout > 0:
        raise ConfigurationError(f"timeout of {name} is {timeout!r}; it must be more than 0 seconds", name=name)

    try:
        needed = check_needs(needs) if needs else None
    except InvalidOptionError as error:
        raise ConfigurationError(f"needs of {name}: {error.message}", name=name) from None

    def register(function: Callable[[Any, ParamsT], Any]) -> Executor[ParamsT]:
        where: RunsIn = runs_in or ("loop" if inspect.iscoroutinefunction(function) else "process")
        if where not in typing.get_args(RunsIn):
            raise ConfigurationError(
                f"runs_in of {name} is {where!r}; it must be loop, thread, process or dask", name=name
            )
        if where == "loop" and not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{name} runs in the loop, so it must be an async function", name=name)
        if where != "loop" and inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{name} is an async function, so it must run in the loop", name=name)
        made = Executor(
            name=name,
            function=function,
            queue=queue,
            retry=retry,
            timeout=timeout,
            lane=lane,
            needs=needed,
            runs_in=where,
            description=(inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " "),
            params_type=_params_type(function),
        )
        registry.add(made)
        return made

    return register


def load_modules(modules: list[str], *, shipped: bool = True) -> list[str]:
    """Import `modules`, so that their executors register, and those that packages publish.

    Modules in the working folder are found too, after all others.
    Returns a sentence for each published module that could not be imported (an extra is missing);
    a module named here must import.
    """
    if modules and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
                raise ConfigurationError(
                    f"module {module!r} cannot be imported: {error}; the working folder and PYTHONPATH are searched",
                    module=module,
                ) from error
            raise
    from importlib.metadata import entry_points  # 30 ms to import: not for those who only decorate

    missing = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name) if shipped else []:
        try:
            importlib.import_module(point.value)
        except ImportError as error:
            missing.append(f"executors of {point.value} are not available: {error}")
    return missing


def _params_type(function: Callable[..., Any]) -> Any:
    """What the second parameter is annotated with, unless that is a plain dict or nothing."""
    names = list(inspect.signature(function).parameters)
    if len(names) < 2:
        return None
    try:
        annotation = typing.get_type_hints(function).get(names[1])
    except NameError:
        return None
    if annotation is None or annotation is Any or (typing.get_origin(annotation) or annotation) is dict:
        return None
    return annotation


@functools.cache
def _adapter(params_type: Any) -> Any:
    from pydantic import TypeAdapter  # 60 ms to import: only for executors with typed params

    return TypeAdapter(params_type if sys.version_info >= (3, 12) else _modern(params_type))


def _modern(hint: Any) -> Any:
    """An annotation whose TypedDicts are such as pydantic reads: before Python 3.12 those of typing lack bases.

    Those within dataclasses and models stay what they are, and are refused.
    """
    if typing.is_typeddict(hint):
        return _modern_dict(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return typing.Annotated[(_modern(arguments[0]), *hint.__metadata__)]
    modern = tuple(_modern(each) if origin is not Literal else each for each in arguments)
    if modern == arguments:
        return hint
    if origin is types.UnionType:
        origin = typing.Union
    return origin[modern if len(modern) > 1 else modern[0]]


@functools.cache
def _modern_dict(typed_dict: Any) -> Any:
    from typing_extensions import TypedDict

    fields = {name: _modern(hint) for name, hint in typing.get_type_hints(typed_dict, include_extras=True).items()}
    for name in typed_dict.__optional_keys__:
        if typing.get_origin(fields[name]) not in (typing.Required, typing.NotRequired):
            fields[name] = typing.NotRequired[fields[name]]
    return TypedDict(typed_dict.__name__, fields)  # type: ignore[operator]


def _explain(error: Any) -> str:
    """The first three problems of a pydantic error, each with its field, in one line."""
    problems = error.errors(include_url=False)
    told = [": ".join(filter(None, (".".join(map(str, each["loc"])), _problem(each)))) for each in problems[:3]]
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return "; ".join(told) + more


def _problem(each: Any) -> str:
    """What is wrong with a field; of one whose name tells of a secret only the kind of it, for a message may quote."""
    if any(map(is_secret, each["loc"])):
        return str(each["type"]).replace("_", " ")
    return hide_in_text(each["msg"].removeprefix("Value error, "))  # pydantic's words before those of a validator


def _origin(each: Executor) -> str:
    return f"{each.function.__module__}.{each.function.__qualname__}"


def _near(name: str, known: dict[str, Executor]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else "; `absurd executor list` shows the known ones"
