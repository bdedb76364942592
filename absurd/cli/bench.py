"""``absurd bench``: what the queue does on this machine, in a schema of its own that goes afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from absurd.cli.bench_text import machine_text, query_text, report_text, value_text
from absurd.cli.output import emit, json_option, note, settings_of

if TYPE_CHECKING:
    from absurd.bench.arena import Arena
    from absurd.bench.export import Comparison
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

    Chains of diamonds, two nodes wide and a hundred, a fan out and in, and layers of which each node comes after
    all of the layer before.
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


@bench.command(epilog="Example: absurd bench packing --rounds 5")
@_number_option("--tasks", 100, 10_000, "Tasks of a drain.")
@concurrency_option(100)
@bench_options
@click.pass_context
def packing(ctx: click.Context, /, tasks: int, concurrency: int, **options: Any) -> None:
    """What needs cost: tasks a second without needs, and with some.

    Of one kind, of 200 kinds, and of something of which all workers share 4.
    """
    from absurd.bench.packing import measure

    _run(ctx, "packing", lambda arena: measure(arena, tasks=tasks, concurrency=concurrency), **options)


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


@bench.command(epilog="Example: absurd bench export --scale 1 --rounds 5 --peers peers/bin/python --save figures.json")
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=0.1,
    show_default=True,
    help="Size of the tables; 1: 5,000,000, 1,000,000 and 2,000,000 rows.",
)
@click.option("--table", "tables", multiple=True, metavar="NAME", help="Export this one; repeatable.  [all]")
@click.option("--only", multiple=True, metavar="NAME", help="Run this contestant; repeatable.  [all]")
@click.option(
    "--peers", multiple=True, metavar="PYTHON", help="An interpreter that has other exporters as well; repeatable."
)
@bench_options
@click.pass_context
def export(
    ctx: click.Context,
    /,
    scale: float,
    tables: tuple[str, ...],
    only: tuple[str, ...],
    peers: tuple[str, ...],
    **options: Any,
) -> None:
    """How fast tables become Parquet files, beside other exporters.

    Of ADBC, connectorx, polars and duckdb those run that are installed here or for --peers.  Each run is a process of
    its own, and its file is read again.  The tables lie in a database of their own on the server that is used, and
    go afterwards.
    """
    from absurd.bench.export import compare

    _run_with(
        "export",
        lambda rounds: _compared(
            compare(settings_of(ctx), scale=scale, rounds=rounds, queries=tables, only=only, pythons=peers, told=note)
        ),
        **options,
    )


@bench.command(epilog="Example: absurd bench cutout --rounds 5 --save figures.json")
@_number_option("--positions", 1, 2000, "Cut-outs of each contestant in a round.")
@_number_option("--many", 1, 100_000, "Cut-outs of the stream whose memory is watched.")
@click.option("--side", type=click.IntRange(200), default=4000, show_default=True, help="Of the images, pixels.")
@click.option("--size", type=click.IntRange(1, 200), default=64, show_default=True, help="Of the cut-outs, pixels.")
@bench_options
def cutout(positions: int, many: int, side: int, size: int, **options: Any) -> None:
    """How many cut-outs of five bands a second, plain and compressed.

    Images are made for it in a temporary folder (1 GB), and no database is needed.  astropy, fitsio and astrocut cut
    the same out of the same files, if they are installed; one that has not come to the end after 20 seconds is
    measured by what it has done.
    """
    from absurd.bench.cutout import measure

    sizes = {"positions": positions, "many": many, "side": side, "size": size}
    _run_with("cutout", lambda rounds: Measured(measure(rounds=rounds, tell=note, **sizes), None), **options)


@bench.command(epilog="Example: absurd bench batch --rounds 5")
@_number_option("--positions", 10, 12_000, "Cut-outs of the batch.")
@click.option("--side", type=click.IntRange(200), default=2000, show_default=True, help="Of the images, pixels.")
@click.option("--size", type=click.IntRange(1, 200), default=64, show_default=True, help="Of the cut-outs, pixels.")
@bench_options
@click.pass_context
def batch(ctx: click.Context, /, positions: int, side: int, size: int, **options: Any) -> None:
    """What the queue costs a batch of cut-outs in three bands.

    Processor time of a worker and of the server, beside that of the same batch in a process without a queue.  The
    server must be on this machine, and should have nothing else to do.
    """
    from absurd.bench.batch import measure

    _run(ctx, "batch", lambda arena: measure(arena, positions=positions, side=side, size=size), **options)


@bench.command(epilog="Example: absurd bench calibration --rounds 3")
@_number_option("--antennas", 5, 110, "Of the array.")
@_number_option("--channels", 2, 48, "Of the bandpass.")
@_number_option("--times", 1, 24, "Integrations, each with gains of its own.")
@click.option("--casa", metavar="PYTHON", help="Have CASA solve as well: a Python that has casatasks and casadata.")
@bench_options
def calibration(antennas: int, channels: int, times: int, casa: str | None, **options: Any) -> None:
    """How fast gains are solved, and how right they are.

    A calibrator is simulated with gains that are known; no database is needed.  Memory for it is 100 bytes for each of
    the visibilities: 1.5 GB by default.
    """
    from absurd.bench.calibration import measure

    sizes = {"antennas": antennas, "channels": channels, "times": times}
    _run_with(
        "calibration", lambda rounds: Measured(measure(rounds=rounds, casa=casa, tell=note, **sizes), None), **options
    )


@bench.command(epilog="Example: absurd bench imaging --size 2048 --tile solved")
@click.option(
    "--tile",
    type=click.Choice(("plain", "solved", "extended", "chromatic")),
    default="plain",
    show_default=True,
    help="solved: with gains, solved on a calibrator; extended: with wide sources; chromatic: with spectra.",
)
@_number_option("--size", 256, 4800, "Pixels of a side.")
@_number_option("--antennas", 30, 110, "Of the array.")
@_number_option("--channels", 2, 48, "Of the band.")
@_number_option("--times", 1, 24, "Integrations.")
@bench_options
def imaging(tile: str, size: int, antennas: int, channels: int, times: int, **options: Any) -> None:
    """How fast images are made, and how right they are.

    A tile is simulated whose sources are known, and imaged by WSClean as well where it is installed; no database is
    needed.  Memory for it is 2 GB by default, and as much room on the disk.
    """
    from absurd.bench.imaging import measure

    sizes = {"size": size, "antennas": antennas, "channels": channels, "times": times}
    name = "imaging" if tile == "plain" else f"imaging {tile}"
    _run_with(name, lambda rounds: Measured(measure(rounds=rounds, tile=tile, tell=note, **sizes), None), **options)


@bench.command(epilog="Example: absurd bench mosaic --rounds 3")
@_number_option("--tiles", 1, 12, "Images to combine.")
@click.option("--side", type=click.IntRange(200), default=4800, show_default=True, help="Of the tiles, pixels.")
@bench_options
def mosaic(tiles: int, side: int, **options: Any) -> None:
    """How long a mosaic takes, in how much memory, and how right it is.

    Tiles of 4 degrees, five minutes apart, are made in a temporary folder (1.8 GB by default); no database is needed.
    """
    from absurd.bench.mosaic import measure

    sizes = {"tiles": tiles, "side": side}
    _run_with("mosaic", lambda rounds: Measured(measure(rounds=rounds, tell=note, **sizes), None), **options)


@bench.command(epilog="Example: absurd bench photometry --rounds 5")
@_number_option("--sources", 20, 10_000, "Sources, of 1 mJy to 1 Jy in a noise of 0.3.")
@click.option("--side", type=click.IntRange(200), default=4800, show_default=True, help="Of the image, pixels.")
@bench_options
def photometry(sources: int, side: int, **options: Any) -> None:
    """How many flux densities a second are measured, and how sources are found.

    An image is made in a temporary folder; no database is needed.
    """
    from absurd.bench.photometry import measure

    sizes = {"sources": sources, "side": side}
    _run_with("photometry", lambda rounds: Measured(measure(rounds=rounds, tell=note, **sizes), None), **options)


@bench.command(epilog="Example: absurd bench session --folder /data --rounds 3")
@_number_option("--entries", 100, 300_000, "Lines of a log, by ten threads; a tenth of them where each is synced.")
@_number_option("--frames", 1, 1000, "Of 1920 x 1080 pixels in 16 bits.")
@_number_option("--files", 10, 10_000, "Of the catalogue.")
@click.option("--folder", type=click.Path(path_type=Path), help="On the disk to be measured.  [temporary files]")
@bench_options
def session(entries: int, frames: int, files: int, folder: Path | None, **options: Any) -> None:
    """What sessions take of a disk and of memory, and how fast they are found again.

    Frames are written turn by turn with as many bytes by hand (4 GB by default); no database is needed.
    """
    from absurd.bench.session import measure

    sizes: dict[str, Any] = {"entries": entries, "frames": frames, "files": files, "folder": folder}
    _run_with("session", lambda rounds: Measured(measure(rounds=rounds, tell=note, **sizes), None), **options)


def _run(ctx: click.Context, name: str, measure: Measure, **options: Any) -> None:
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

    _run_with(name, measured, **options)


def _run_with(
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


def _compared(found: Comparison) -> Measured:
    """A table for each query, and what else the document tells."""
    blocks = [query_text(found, query) for query in found.rows]
    if found.absent:
        blocks.append(f"Not installed: {', '.join(found.absent)}")
    return Measured([found.figures()], found.server, "\n\n".join(blocks), found.to_json())
