"""What all benchmarks have in common: their options, and how figures are measured in rounds, kept and printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from absurd.cli.bench_text import machine_text, report_text, value_text
from absurd.cli.output import emit, json_option, note, settings_of

if TYPE_CHECKING:
    from absurd.bench.arena import Arena
    from absurd.bench.figures import Figure

Command = TypeVar("Command", bound=Callable[..., Any])
Measure = Callable[["Arena"], list["Figure"]]


class Measured(NamedTuple):
    """What a benchmark found: figures of each round, or of their medians."""

    rounds: Sequence[Sequence[Figure]]
    server: str | None
    text: str = ""
    """Shown in place of a table of the figures."""
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """Beside the figures in the document."""


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


def number_option(name: str, least: int, default: int, text: str) -> Callable[[Command], Command]:
    """A number, `least` or more."""
    return click.option(name, type=click.IntRange(least), default=default, show_default=True, help=text)


def concurrency_option(default: int) -> Callable[[Command], Command]:
    """How many runs a worker executes at once: the only setting that is not the usual one."""
    return number_option("--concurrency", 1, default, "Runs at once of a worker.")


def run(ctx: click.Context, name: str, measure: Measure, **options: Any) -> None:
    """Measure in an arena, a new one for each round, print, keep."""

    def measured(rounds: int) -> Measured:
        from absurd.bench.arena import arena

        found = []
        for n in range(rounds):
            with arena(settings_of(ctx)) as place:
                found.append(measure(place))
                server = place.fetch("current_setting('server_version')")
            if rounds > 1:
                told = "; ".join(f"{each.name} {value_text(each)}" for each in found[-1])
                note(f"Round {n + 1} of {rounds}: {told}")
        return Measured(found, server)

    run_with(name, measured, **options)


def run_with(
    name: str,
    measure: Callable[[int], Measured],
    *,
    rounds: int,
    save: Path | None,
    against: Path | None,
    as_json: bool,
) -> None:
    """Measure so many rounds, print, keep."""
    from absurd.bench import figures

    before = figures.load(against) if against else {}
    if save and save.exists():
        figures.load(save)  # a file of something else is refused now, not after minutes
    found = measure(rounds)
    made = replace(figures.report(name, found.rounds, found.server), rounds=rounds)
    if save:
        figures.save(save, [made])
    text = f"{found.text}\n\n{machine_text(made)}" if found.text and not before else report_text(made, before)
    emit(made.to_json() | found.more, as_json=as_json, text=text)
