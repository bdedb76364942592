"""The reference pages that are written from the code: settings, errors, the command line, and others.

``make docs`` runs this file, which writes the pages; tests/test_docs.py fails while a page is not what it would write.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from earlier_endpoints import EARLIER, EARLIER_SETTINGS
from house import ROOT, project

import absurd as absurd_package
from absurd import AbsurdClient, RunContext, errors, schema
from absurd.cli.programs import programs
from absurd.cli.remedies import remedies
from absurd.cli.run import EXIT_CODES, FAILED
from absurd.config import PREFIX, Settings
from absurd.database import AsyncDatabase
from absurd.database_errors import OLDEST_SERVER
from absurd.executor import registry
from absurd.metrics import BOUNDS, METRICS
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.pipeline import PipelineConfig, environment_names, load_pipeline_config
from absurd.tasks.pipeline.environments import described_keys
from absurd.tasks.qa import GATES, IMAGE_GATES, MOSAIC_GATES
from absurd.web.access import API
from absurd.web.app import build_app
from absurd.web.pages import fields_of, scope_of
from absurd.web.problems import MEANINGS
from absurd.workers import AbsurdWorker

PROGRAMS = programs()

ERROR_MODULES = (
    "absurd.errors",
    "absurd.workers.child.process",
    "absurd.workers.dask.runs",
    "absurd.tasks.cutout.errors",
    "absurd.tasks.export.errors",
    "absurd.tasks.export.butler.errors",
    "absurd.tasks.session.errors",
    "absurd.tasks.maintenance.errors",
    "absurd.tasks.radio.errors",
)

WIDTH = 88
"""Columns of the help texts."""

NOTICE = "<!-- Written from the code by `make docs`; change the docstrings there. -->"


def settings_page() -> str:
    """A table of every setting: name, variable, default, meaning."""
    meanings = _attribute_docstrings(Settings)
    rows = [
        (f"`{field.name}`", f"`{PREFIX}{field.name.upper()}`", _default(field), meanings[field.name])
        for field in dataclasses.fields(Settings)
        if field.name != "warnings"
    ]
    return _page(
        "Settings",
        "A setting is taken from the first of these that names it: a flag, the environment, the file, the default. "
        "The file is `absurd.toml`, or the table `[tool.absurd]` of `pyproject.toml`, in the working directory; its "
        "keys are the names below. An unknown key of the file is refused; an unknown `ABSURD_` variable is a warning "
        "that suggests the right one. An empty variable counts as unset.",
        _table(("Setting", "Variable", "Default", "Meaning"), rows),
    )


def errors_page() -> str:
    """A table of every error for each family, with the exit code of the family; then cause and cure of each."""
    for module in ERROR_MODULES:
        import_module(module)
    sqlstates = {error: f"`{state}`" for state, error in errors.BY_SQLSTATE.items()}
    ours = [each for each in _descendants(errors.AbsurdError) if each.__module__ in ERROR_MODULES]
    found = sorted(ours, key=lambda each: ERROR_MODULES.index(each.__module__))  # in whatever order they were imported
    parts = []
    families: list[type[errors.AbsurdError]] = [*EXIT_CODES, errors.AbsurdError]
    for family in families:
        members = [each for each in dict.fromkeys([family, *found]) if _family(each) is family]
        rows = [
            (f"[`{each.code}`](#{each.code})", f"`{each.__name__}`", sqlstates.get(each, ""), _first(each))
            for each in members
        ]
        parts.append(f"## {family.__name__}: exit code {EXIT_CODES.get(family, FAILED)}\n")
        parts.append(_table(("Code", "Class", "SQLSTATE", "Meaning"), rows))
    parts.append("## Causes and cures\n\nOf the codes above, and of three that programs use without a class.\n")
    parts += [f"### {code}\n\n- Cause: {each.cause}\n- Cure: {each.cure}\n" for code, each in remedies().items()]
    return _page(
        "Errors",
        "Every error is an `AbsurdError` and carries a `code` that does not change between versions: the same in "
        'Python (`error.code`), under `--json` (`{"error": {"code", "message", "details"}}`), in REST and in '
        "logs. The family says what a caller can do about it, and becomes the exit code of a command. SQL functions "
        "raise the SQLSTATE. `absurd explain CODE` tells the cause and the cure, as the end of this page does.",
        "\n".join(parts),
    )


def _family(error: type[errors.AbsurdError]) -> type[errors.AbsurdError]:
    return next((each for each in EXIT_CODES if issubclass(error, each)), errors.AbsurdError)


def metrics_page() -> str:
    """A table of every metric, by who tells it."""
    parts = []
    for source, title in _SOURCES.items():
        rows = [
            (f"`{name}`", metric.kind, ", ".join(f"`{each}`" for each in metric.labels), metric.help)
            for name, metric in METRICS.items()
            if metric.source == source
        ]
        parts += [f"## {title}\n", _table(("Name", "Kind", "Labels", "Meaning"), rows)]
    bounds = ", ".join(f"{each:g}" for each in BOUNDS)
    return _page(
        "Metrics",
        "What Prometheus reads at `/metrics`, see [monitoring](../operations/monitoring.md). Counters begin at 0 "
        "when a queue is created, or a process started, and never fall after that; a switch is 1 or 0. Histograms "
        f"have buckets up to {bounds} seconds.",
        "\n".join(parts),
    )


_SOURCES = {
    "queue": "Of the whole queue: `absurd serve` and each scheduler",
    "worker": "Of one worker",
    "scheduler": "Of one scheduler",
}


def cli_page() -> str:
    """The help text of every command."""
    parts = []
    for name, program in PROGRAMS.items():
        for ctx in _commands(program, name, None):
            text = click.unstyle(ctx.command.get_help(ctx))
            depth = "###" if ctx.parent else "##"
            parts.append(f"{depth} {ctx.command_path}\n\n```text\n{text}\n```\n")
    return _page(
        "Command line",
        "Exit codes: 0 done, 1 failed, 2 called wrongly, 3 not found, 4 database not reached, 5 conflict with the "
        "present state, 130 interrupted. With `--json` a command prints one JSON document; so is its error.",
        "\n".join(parts),
    )


def executors_page() -> str:
    """The executors that are shipped, each with the params it takes."""
    for module in EXECUTOR_MODULES:
        import_module(module)
    parts = []
    for each in registry:
        if not each.function.__module__.startswith("absurd.tasks."):
            continue  # registered by a test
        schema_of_params = each.params_schema()
        required = schema_of_params.get("required", [])
        rows = [
            (f"`{name}`", _type(about), _shown(about, name in required), about.get("description", ""))
            for name, about in schema_of_params["properties"].items()
        ]
        limit = f"time limit {each.timeout:g} s" if each.timeout else "no time limit"
        place = "the event loop" if each.runs_in == "loop" else f"a {each.runs_in}"
        parts.append(
            f"## {each.name}\n\n{_whole(each.function)}\n\n"
            f"Runs in {place}, {limit}; needs {_extra(each.function.__module__)}.\n\n"
            + _table(("Param", "Type", "Default", "Meaning"), rows)
        )
    return _page(
        "Executors",
        "What comes along to be spawned by name. `absurd executor show NAME` tells the same. Relative paths start in "
        "the worker's working folder. [Your own](../howto/own-executor.md) stand beside these.",
        "\n".join(parts),
    )


def _extra(module: str) -> str:
    """What brings that which the executors of a module import."""
    extra = EXECUTOR_MODULES[module]
    return "no extra" if extra is None else f"the extra `{extra}`"


def _type(about: dict[str, Any]) -> str:
    """A JSON schema in a word or two."""
    if "anyOf" in about:
        return " or ".join(_type(each) for each in about["anyOf"])
    if "enum" in about:
        return ", ".join(f"`{each}`" for each in about["enum"])
    if "$ref" in about:
        return "objects"
    kind = {"string": "text", "null": "none"}.get(about["type"], about["type"])
    items = about.get("items") or next(iter(about.get("prefixItems", ())), None)  # of a tuple: all are of one type
    return f"list of {_type(items)}" if kind == "array" and items else kind


def _shown(about: dict[str, Any], required: bool) -> str:
    if required:
        return "(required)"
    value = about.get("default")
    return "none" if value in (None, []) else f"`{json.dumps(value)}`"


def pipeline_page() -> str:
    """Every key of the radio pipeline's configuration, and every gate."""
    names = [name for name in environment_names() if name != "production"]
    layers = {name: load_pipeline_config(name) for name in names}
    sections: dict[str, list[tuple[str, ...]]] = {}
    for name, about in described_keys(PipelineConfig):
        others = [f"{each} `{_value(layers[each], name)}`" for each in names if name != "environment"
                  and _value(layers[each], name) != _value(load_pipeline_config("production"), name)]  # fmt: skip
        row = (
            f"`{name}`",
            f"`{_value(load_pipeline_config('production'), name)}`",
            ", ".join(others),
            about.description,
            ", ".join(f"`{stage}`" for stage in about.json_schema_extra["read_by"]),
        )
        sections.setdefault(name.partition(".")[0] if "." in name else "", []).append(row)
    headers = ("Key", "Usual value", "Elsewhere", "Meaning", "Read by")
    parts = [
        (f"## {section}\n\n{_first(type(getattr(layers['testing'], section)))}\n\n" if section else "")
        + _table(headers, rows)
        for section, rows in sections.items()
    ]
    limits = ("warn_below", "fail_below", "warn_above", "fail_above")
    for title, where, gates in (
        ("Gates", "Of `quality.limits`, and of the param `limits` of `qa.calibration`.", GATES),
        ("Gates of images", "Of the param `limits` of `qa.image`.", IMAGE_GATES),
        ("Gates of mosaics", "Of the param `limits` of `qa.mosaic`.", MOSAIC_GATES),
    ):
        rows = [
            (f"`{name}`", each.meaning, each.unit, *(_limit(getattr(each.limits, limit)) for limit in limits))
            for name, each in gates.items()
        ]
        parts.append(f"## {title}\n\n{where}\n\n" + _table(("Gate", "Measure", "Unit", *limits), rows))
    return _page(
        "The pipeline's configuration",
        "What `load_pipeline_config` gives; [how it is put together](../howto/pipeline.md). The usual values are those "
        "of production; *elsewhere* tells what an environment has instead.",
        "\n".join(parts),
    )


def _value(config: Any, name: str) -> str:
    for part in name.split("."):
        config = config[part]
    return "none" if config is None else json.dumps(config)


def _limit(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def python_page() -> str:
    """Every public name, and the methods of those that are used by their methods."""
    public = {each: getattr(absurd_package, each) for each in absurd_package.__all__}
    rows = [(f"`{each}`", _first(value)) for each, value in public.items()]
    parts = [_table(("Name", "What it is"), rows)]
    for each in (AbsurdClient, RunContext, AbsurdWorker):
        homes = [home for home in each.__mro__ if home.__module__.startswith("absurd.")]
        methods = {name: value for home in homes for name, value in vars(home).items() if not name.startswith("_")}
        described = [
            (f"`{_signature(name, value)}`", _first(value)) for name, value in methods.items() if _is_for_callers(value)
        ]
        parts.append(f"\n## {each.__name__}\n\n{_whole(each)}\n\n{_table(('Call', 'What it does'), described)}")
    return _page(
        "Python",
        "`from absurd import ...` gives these names; each module is loaded when it is first used. `AbsurdWorker` is in "
        "`absurd.workers`. `SyncAbsurdClient` has the methods of `AbsurdClient`, without `await`. The errors are on a "
        "[page of their own](errors.md).",
        "".join(parts),
    )


def sql_page() -> str:
    """Every public function and every table of the schema, with the comment that the database holds on it."""
    sql = "\n".join(text for _, text in schema.scripts())
    arguments = dict(re.findall(r"^create or replace function (\w+)\(((?:[^()]|\([^()]*\))*)\)", sql, re.MULTILINE))
    comments = re.findall(r"^comment on (function|table) (\w+)[^;']*? is\s+'((?:[^']|'')+)';", sql, re.MULTILINE)
    told = [(kind, name, " ".join(text.replace("''", "'").split())) for kind, name, text in comments]
    functions = [
        (f"`{name}({_inputs(arguments[name])})`", text)
        for kind, name, text in told
        if kind == "function" and not name.startswith("_")
    ]
    tables = [(f"`{name}`", text) for kind, name, text in told if kind == "table"]
    return _page(
        "SQL",
        "The queue is a schema of PostgreSQL, `absurd` unless `ABSURD_SCHEMA` says otherwise. Programs in any language "
        "take part by calling its functions, which alone change its tables. `absurd db grant` gives a role what its "
        "part needs; `absurd db sql` prints everything. Functions of a worker's side run at READ COMMITTED and refuse "
        "any other isolation. Names that begin with `_` are private. The SQLSTATEs are among the [errors](errors.md).",
        "## Functions\n\n"
        f"{_table(('Function', 'What it does'), functions)}\n"
        "## Tables\n\nTo look at; their columns may change with any version.\n\n"
        f"{_table(('Table', 'What it holds'), tables)}",
    )


def rest_page() -> str:
    """Every operation of the web interface: who may call it, what it takes, and how it may fail."""
    described = build_app(Settings(), AsyncDatabase("postgresql://localhost/absurd")).openapi()
    operations: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path, methods in described["paths"].items():
        for method, each in methods.items():
            operations.setdefault(each["tags"][0], []).append((f"{method.upper()} {path}", each))
    parts = []
    for topic, those in operations.items():
        rows = [(f"`{call}`", scope_of(each) or "(none)", each["description"], _failures(each)) for call, each in those]
        headers = ("Call", "Scope", "What it does", "May answer, beside what all may")
        parts.append(f"## {topic.capitalize()}\n\n{_table(headers, rows)}\n")
        for call, each in those:
            if fields := fields_of(each, described):
                taken = [(f"`{name}`", place, kind, meaning) for name, place, kind, meaning in fields]
                parts.append(f"### {call}\n\n{_table(('Field', 'Where', 'Type', 'Meaning'), taken)}\n")
    statuses = [(str(status), meaning) for status, meaning in MEANINGS.items()]
    return _page(
        "REST",
        "The routes of `absurd serve`; [how it is run and kept safe](../operations/serve.md). The same for programs is "
        "at `/api/v1/openapi.json`, and for people at `/api/v1/docs`. Lists are pages, `{items, next}`: `next` is what "
        "to give as `after`, null at the end. An error is `{error, message, details}`, with the codes of the "
        "[errors](errors.md). Reads carry an `ETag` and answer 304 to `If-None-Match`. The scopes are reader, "
        "spawner, operator and admin: each allows what those before it do.",
        f"All may answer 401, 403, 413, 422, 429, 500 and 503.\n\n{_table(('Status', 'Meaning'), statuses)}\n"
        + "\n".join(parts).rstrip()
        + "\n\n"
        + _earlier(described),
    )


def _earlier(described: dict[str, Any]) -> str:
    """Where the endpoints of the backend before are now; a place that is not there is refused."""
    here = {
        f"{method.upper()} {path.removeprefix(API)}"
        for path, methods in described["paths"].items()
        for method in methods
    }
    told = [
        "## Coming from the backend of the DSA-110 pipeline\n\n"
        "Each endpoint that it had, below `/api/v1` where nothing else is said, and its new place."
    ]
    for topic, those in EARLIER.items():
        if missing := {place for each in those for place in each.now} - here:
            raise LookupError(f"no route is {', '.join(sorted(missing))}")
        rows = [
            (f"`{each.call}`", ", ".join(f"`{place}`" for place in each.now) or "(none)", each.remark) for each in those
        ]
        told.append(f"### {topic}\n\n{_table(('It was', 'It is', ''), rows)}")
    known = {field.name for field in dataclasses.fields(Settings)}
    if missing := {now for now, _ in EARLIER_SETTINGS.values()} - known:
        raise LookupError(f"no setting is {', '.join(sorted(missing))}")
    rows = [(f"`{was}`", f"`{PREFIX}{now.upper()}`", remark) for was, (now, remark) in EARLIER_SETTINGS.items()]
    told.append(f"### Environment\n\n{_table(('It was', 'It is', ''), rows)}")
    return "\n\n".join(told)


def environment() -> str:
    """An environment of conda with what all extras ask for: Python and PostgreSQL of conda, the rest of PyPI."""
    about = project()["project"]
    extras, wanted, open_ = about["optional-dependencies"], set(about["dependencies"]), ["all"]
    while open_:
        for each in extras[open_.pop()]:
            if named := re.fullmatch(r"absurd\[(.+)\]", each):
                open_ += named[1].split(",")
            else:
                wanted.add(each)
    lines = [
        "# Written from pyproject.toml by `make docs`: `conda env create -f environment.yml`.",
        "name: absurd",
        "channels: [conda-forge]",
        "dependencies:",
        f'  - "python{about["requires-python"]}"',
        "  - pip",
        f'  - "postgresql>={OLDEST_SERVER}"',
        "  - pip:",
        *(f"      - {json.dumps(each)}" for each in [*sorted(wanted, key=str.lower), "-e ."]),
    ]
    return "\n".join(lines) + "\n"


def _failures(operation: dict[str, Any]) -> str:
    common = {"200", "201", "204", "304", "401", "403", "413", "422", "429", "500", "503"}
    return ", ".join(status for status in sorted(operation["responses"]) if status not in common)


def _inputs(arguments: str) -> str:
    """The arguments of an SQL function that a caller gives."""
    given = [" ".join(each.split()) for each in arguments.split(",")]
    return ", ".join(each for each in given if not each.startswith("out "))


def _is_for_callers(member: object) -> bool:
    return bool(member.__doc__) and not _first(member).endswith("for the worker.")


def _signature(name: str, value: object) -> str:
    """A method as it is called: without annotations, which the types on the page would repeat."""
    if isinstance(value, property):
        return name
    function = value.__func__ if isinstance(value, classmethod) else value
    assert inspect.isfunction(function)
    given = list(inspect.signature(function).parameters.values())[1:]
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in given]
    return f"{name}{inspect.Signature(plain)}"


def _commands(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """A context for `command` and for each below it, in the order of the help."""
    wanted = {**command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    ctx = click.Context(command, info_name=name, parent=parent, **wanted)
    yield ctx
    if isinstance(command, click.Group):
        for each in command.list_commands(ctx):
            found = command.get_command(ctx, each)
            if found is not None and not found.hidden:
                yield from _commands(found, each, ctx)


def _descendants(family: type[errors.AbsurdError]) -> Iterator[type[errors.AbsurdError]]:
    for each in family.__subclasses__():
        yield each
        yield from _descendants(each)


def _attribute_docstrings(owner: type) -> dict[str, str]:
    """The string under each annotated attribute of a class, by the attribute's name."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for attribute, text in zip(node.body, node.body[1:], strict=False):
        if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{attribute.target.id} has no docstring"
            assert isinstance(text.value, ast.Constant)
            found[attribute.target.id] = " ".join(str(text.value.value).split())
    return found


def _default(field: dataclasses.Field[object]) -> str:
    if field.name == "home":  # depends on the platform; its meaning tells
        return ""
    value = field.default
    if value is None or value == ():
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _first(owner: object) -> str:
    return " ".join((inspect.getdoc(owner) or "").partition("\n\n")[0].split())


def _whole(owner: object) -> str:
    return " ".join((inspect.getdoc(owner) or "").split()).replace("``", "`")


def _table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headers, tuple("---" for _ in headers), *rows]
    return "".join(f"| {' | '.join(_cell(text) for text in line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _page(title: str, introduction: str, body: str) -> str:
    return f"# {title}\n\n{NOTICE}\n\n{introduction}\n\n{body}"


REFERENCE = ROOT / "docs" / "reference"
PAGES: dict[Path, Callable[[], str]] = {
    REFERENCE / "settings.md": settings_page,
    REFERENCE / "errors.md": errors_page,
    REFERENCE / "metrics.md": metrics_page,
    REFERENCE / "cli.md": cli_page,
    REFERENCE / "executors.md": executors_page,
    REFERENCE / "python.md": python_page,
    REFERENCE / "sql.md": sql_page,
    REFERENCE / "pipeline.md": pipeline_page,
    REFERENCE / "rest.md": rest_page,
    ROOT / "environment.yml": environment,
}
"""The path of each page, and what writes its text: all take a second, too long where only paths are wanted."""


if __name__ == "__main__":
    for path, written in PAGES.items():
        path.write_text(written(), encoding="utf-8")
