"""``absurd bench``: what the queue does on this machine, in a schema of its own that goes afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from absurd.cli.output import Table, emit, json_option, note, plural, settings_of

if TYPE_CHECKING:
    from absurd.bench.arena import Arena
    from absurd.bench.figures import Figure, Report

Command = TypeVar("Command", bound=Callable[..., Any])
Measure = Callable[["Arena"], list["Figure"]]


def bench_options(command: Command) -> Command:
    """Options that every benchmark has."""
    path = click.Path(dir_okay=False, path_type=Path)
    for option in (
        click.option("--against", type=path, metavar="FILE", help="Compare with the figures saved in FILE."),
        click.option("--save", type=path, metavar="FILE", help="Keep the figures in FILE, beside other benchmarks'."),
        click.option(
            "--rounds", type=click.IntRange(1, 100), default=1, show_default=True, help="Give medians of N rounds."
        ),
    ):
        command = option(command)
    return json_option(command)


def _number_option(name: str, least: int, default: int, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.IntRange(least), default=default, show_default=True, help=text)


def concurrency_option(default: int) -> Callable[[Command], Command]:
    """How many runs a worker executes at once: the only setting that is not the usual one."""
    return _number_option("--concurrency", 1, default, "Runs at once of a worker.")


@click.group()
def bench() -> None:
    """Measure the queue on this machine.

    Each benchmark installs a queue in a schema of its own in the database that is used, runs worker processes with
    default settings on it, and removes it afterwards.  Existing queues are not touched; what else the machine
    does shows in the figures.
    """


@bench.command(epilog="Example: absurd bench queue --rounds 5 --save figures.json")
@_number_option("--tasks", 100, 200_000, "Tasks of a drain.")
@concurrency_option(500)
@bench_options
@click.pass_context
def queue(ctx: click.Context, /, tasks: int, concurrency: int, **options: Any) -> None:
    """How many tasks a second are spawned and drained, and their write-ahead log."""
    from absurd.bench.queue import measure

    _run(ctx, "queue", lambda arena: measure(arena, tasks=tasks, concurrency=concurrency), **options)


@bench.command(epilog="Example: absurd bench latency --against figures.json")
@_number_option("--tasks", 10, 1000, "How many, one after another.")
@concurrency_option(10)
@bench_options
@click.pass_context
def latency(ctx: click.Context, /, tasks: int, concurrency: int, **options: Any) -> None:
    """How soon a task starts on an idle worker."""
    from absurd.bench.latency import measure

    _run(ctx, "latency", lambda arena: measure(arena, tasks=tasks, concurrency=concurrency), **options)


@bench.command(epilog="Example: absurd bench backlog --pending 1000000 --finished 10000000")
@_number_option("--pending", 0, 500_000, "Tasks that wait.")
@_number_option("--finished", 0, 500_000, "Tasks that have ended.")
@_number_option("--tasks", 100, 200_000, "Tasks of a drain.")
@concurrency_option(500)
@bench_options
@click.pass_context
def backlog(ctx: click.Context, /, pending: int, finished: int, tasks: int, concurrency: int, **options: Any) -> None:
    """What a long queue or a long history costs.

    Tasks are drained with and without it; an empty claim and `absurd status` are timed.
    """
    from absurd.bench.backlog import measure

    sizes = {"pending": pending, "finished": finished, "tasks": tasks, "concurrency": concurrency}
    _run(ctx, "backlog", lambda arena: measure(arena, **sizes), **options)


@bench.command(epilog="Example: absurd bench snapshot --minutes 30")
@click.option("--minutes", type=click.FloatRange(0.01), default=0.5, show_default=True, help="How long it is held.")
@_number_option("--tasks", 100, 200_000, "Tasks of the drain at the end.")
@concurrency_option(500)
@bench_options
@click.pass_context
def snapshot(ctx: click.Context, /, minutes: float, tasks: int, concurrency: int, **options: Any) -> None:
    """What a forgotten transaction costs a busy queue, at 1,000 tasks a second."""
    from absurd.bench.snapshot import measure

    _run(
        ctx, "snapshot", lambda arena: measure(arena, minutes=minutes, tasks=tasks, concurrency=concurrency), **options
    )


@bench.command(epilog="Example: absurd bench dag --nodes 10000")
@click.option("--nodes", type=click.IntRange(9, 100_000), default=10_000, show_default=True, help="Of each graph.")
@concurrency_option(500)
@bench_options
@click.pass_context
def dag(ctx: click.Context, /, nodes: int, concurrency: int, **options: Any) -> None:
    """How fast graphs are spawned and worked through.

    A chain of diamonds, a fan out and in, and layers of which each node comes after all of the layer before.
    """
    from absurd.bench.dag import measure

    _run(ctx, "dag", lambda arena: measure(arena, nodes=nodes, concurrency=concurrency), **options)


@bench.command(epilog="Example: absurd bench slots --rounds 5")
@_number_option("--tasks", 100, 5000, "Tasks of a drain.")
@concurrency_option(1)
@bench_options
@click.pass_context
def slots(ctx: click.Context, /, tasks: int, concurrency: int, **options: Any) -> None:
    """What a run costs in a process, beside what it costs in a thread."""
    from absurd.bench.slots import measure

    _run(ctx, "slots", lambda arena: measure(arena, tasks=tasks, concurrency=concurrency), **options)


@bench.command(epilog="Example: absurd bench idle --json")
@click.option(
    "--seconds", type=click.FloatRange(1, 100), default=60.0, show_default=True, help="How long it is watched."
)
@bench_options
@click.pass_context
def idle(ctx: click.Context, /, seconds: float, **options: Any) -> None:
    """What a worker and a scheduler cost that have nothing to do.

    Processor time with all child processes, and statements, which are counted on the way to the server.
    """
    from absurd.bench.idle import measure

    _run(ctx, "idle", lambda arena: measure(arena, seconds=seconds), **options)


def _run(
    ctx: click.Context,
    name: str,
    measure: Measure,
    *,
    rounds: int,
    save: Path | None,
    against: Path | None,
    as_json: bool,
) -> None:
    """Measure, print, keep."""
    from absurd.bench import figures
    from absurd.bench.arena import arena

    settings = settings_of(ctx)
    before = figures.load(against) if against else {}
    if save and save.exists():
        figures.load(save)  # a file of something else is refused now, not after minutes
    found = []
    for n in range(rounds):
        with arena(settings) as place:
            found.append(measure(place))
            server = place.fetch("current_setting('server_version')")
        if rounds > 1:
            note(f"Round {n + 1} of {rounds}: " + "; ".join(f"{each.name} {_value(each)}" for each in found[-1]))
    made = figures.report(name, found, server)
    if save:
        figures.save(save, [made])
    emit(made.to_json(), as_json=as_json, text=_text(made, before))


def _text(made: Report, before: dict[tuple[str, str], float]) -> str:
    from absurd.bench.figures import change

    headers, right = ["figure", "value", "unit"], ["value"]
    rows: list[list[Any]] = [[each.name, _value(each), each.unit] for each in made.figures]
    if before:
        headers += ["before", "change"]
        right.append("before")
        for row, each in zip(rows, made.figures, strict=True):
            old = before.get((made.benchmark, each.name))
            row += ["" if old is None else _number(old), change(each, old)]
    machine = made.machine
    told = (
        f"{plural(made.rounds, 'round')}, {plural(machine['cores'], 'core')}, {machine['system']}, "
        f"PostgreSQL {machine['postgresql']}, Python {machine['python']}, absurd {machine['absurd']}"
    )
    return f"{Table(headers, rows, right=right)}\n\n{told}"


def _value(figure: Figure) -> str:
    return _number(figure.value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
