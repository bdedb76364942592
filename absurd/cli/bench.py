"""``absurd bench``: what the queue does on this machine, in a schema of its own that goes afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.bench_rounds import Measured, bench_options, concurrency_option, number_option, run, run_with
from absurd.cli.bench_text import query_text
from absurd.cli.output import note, settings_of

if TYPE_CHECKING:
    from absurd.bench.export import Comparison


@click.group()
def bench() -> None:
    """Measure the queue on this machine.

    Each benchmark installs a queue in a schema of its own in the database that is used, runs worker processes with
    default settings on it, and removes it afterwards.  Existing queues are not touched; what else the machine
    does shows in the figures.
    """


@bench.command(epilog="Example: absurd bench queue --rounds 5 --save figures.json")
@number_option("--tasks", 100, 200_000, "Tasks of a drain.")
@concurrency_option(500)
@bench_options
@click.pass_context
def queue(ctx: click.Context, /, tasks: int, concurrency: int, **options: Any) -> None:
    """How many tasks a second are spawned and drained, and their write-ahead log."""
    from absurd.bench.queue import measure

    run(ctx, "queue", lambda arena: measure(arena, tasks=tasks, concurrency=concurrency), **options)


@bench.command(epilog="Example: absurd bench latency --against figures.json")
@number_option("--tasks", 10, 1000, "How many, one after another.")
@concurrency_option(10)
@bench_options
@click.pass_context
def latency(ctx: click.Context, /, tasks: int, concurrency: int, **options: Any) -> None:
    """How soon a task starts on an idle worker."""
    from absurd.bench.latency import measure

    run(ctx, "latency", lambda arena: measure(arena, tasks=tasks, concurrency=concurrency), **options)


@bench.command(epilog="Example: absurd bench backlog --pending 1000000 --finished 10000000")
@number_option("--pending", 0, 500_000, "Tasks that wait.")
@number_option("--finished", 0, 500_000, "Tasks that have ended.")
@number_option("--tasks", 100, 200_000, "Tasks of a drain.")
@concurrency_option(500)
@bench_options
@click.pass_context
def backlog(ctx: click.Context, /, pending: int, finished: int, tasks: int, concurrency: int, **options: Any) -> None:
    """What a long queue or a long history costs.

    Tasks are drained with and without it; an empty claim and `absurd status` are timed.
    """
    from absurd.bench.backlog import measure

    sizes = {"pending": pending, "finished": finished, "tasks": tasks, "concurrency": concurrency}
    run(ctx, "backlog", lambda arena: measure(arena, **sizes), **options)


@bench.command(epilog="Example: absurd bench snapshot --minutes 30")
@click.option("--minutes", type=click.FloatRange(0.01), default=0.5, show_default=True, help="How long it is held.")
@number_option("--tasks", 100, 200_000, "Tasks of the drain at the end.")
@concurrency_option(500)
@bench_options
@click.pass_context
def snapshot(ctx: click.Context, /, minutes: float, tasks: int, concurrency: int, **options: Any) -> None:
    """What a forgotten transaction costs a busy queue, at 1,000 tasks a second."""
    from absurd.bench.snapshot import measure

    run(ctx, "snapshot", lambda arena: measure(arena, minutes=minutes, tasks=tasks, concurrency=concurrency), **options)


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

    run(ctx, "dag", lambda arena: measure(arena, nodes=nodes, concurrency=concurrency), **options)


@bench.command(epilog="Example: absurd bench slots --rounds 5")
@number_option("--tasks", 100, 5000, "Tasks of a drain.")
@concurrency_option(1)
@bench_options
@click.pass_context
def slots(ctx: click.Context, /, tasks: int, concurrency: int, **options: Any) -> None:
    """What a run costs in a process, beside what it costs in a thread."""
    from absurd.bench.slots import measure

    run(ctx, "slots", lambda arena: measure(arena, tasks=tasks, concurrency=concurrency), **options)


@bench.command(epilog="Example: absurd bench packing --rounds 5")
@number_option("--tasks", 100, 10_000, "Tasks of a drain.")
@concurrency_option(100)
@bench_options
@click.pass_context
def packing(ctx: click.Context, /, tasks: int, concurrency: int, **options: Any) -> None:
    """What needs cost: tasks a second without needs, and with some.

    Of one kind, of 200 kinds, and of something of which all workers share 4.
    """
    from absurd.bench.packing import measure

    run(ctx, "packing", lambda arena: measure(arena, tasks=tasks, concurrency=concurrency), **options)


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

    run(ctx, "idle", lambda arena: measure(arena, seconds=seconds), **options)


@bench.command(epilog="Example: absurd bench web --rows 5000000 --followers 200")
@number_option("--rows", 1000, 200_000, "Tasks that are there when pages are asked for.")
@number_option("--requests", 10, 100, "How often each page is asked for.")
@number_option("--followers", 1, 200, "How many watch live events.")
@number_option("--tasks", 100, 200_000, "Tasks of a drain.")
@concurrency_option(500)
@bench_options
@click.pass_context
def web(ctx: click.Context, /, **sizes: Any) -> None:
    """How soon the web interface answers, and what those who watch cost.

    Tasks are drained before nobody's eyes, and before those of readers of live events in this process; pages and lists
    are asked for with many tasks behind them, of which 5 % wait and 1 % have failed.
    """
    from absurd.bench.web import measure

    kept = {name: sizes.pop(name) for name in ("rows", "requests", "followers", "tasks", "concurrency")}
    run(ctx, "web", lambda arena: measure(arena, told=note, **kept), **sizes)


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

    run_with(
        "export",
        lambda rounds: _compared(
            compare(settings_of(ctx), scale=scale, rounds=rounds, queries=tables, only=only, pythons=peers, told=note)
        ),
        **options,
    )


@bench.command(epilog="Example: absurd bench cutout --rounds 5 --save figures.json")
@number_option("--positions", 1, 2000, "Cut-outs of each contestant in a round.")
@number_option("--many", 1, 100_000, "Cut-outs of the stream whose memory is watched.")
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
    run_with("cutout", lambda rounds: Measured(measure(rounds=rounds, tell=note, **sizes), None), **options)


@bench.command(epilog="Example: absurd bench batch --rounds 5")
@number_option("--positions", 10, 12_000, "Cut-outs of the batch.")
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

    run(ctx, "batch", lambda arena: measure(arena, positions=positions, side=side, size=size), **options)


@bench.command(epilog="Example: absurd bench calibration --rounds 3")
@number_option("--antennas", 5, 110, "Of the array.")
@number_option("--channels", 2, 48, "Of the bandpass.")
@number_option("--times", 1, 24, "Integrations, each with gains of its own.")
@click.option("--casa", metavar="PYTHON", help="Have CASA solve as well: a Python that has casatasks and casadata.")
@bench_options
def calibration(antennas: int, channels: int, times: int, casa: str | None, **options: Any) -> None:
    """How fast gains are solved, and how right they are.

    A calibrator is simulated with gains that are known; no database is needed.  Memory for it is 100 bytes for each of
    the visibilities: 1.5 GB by default.
    """
    from absurd.bench.calibration import measure

    sizes = {"antennas": antennas, "channels": channels, "times": times}
    run_with(
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
@number_option("--size", 256, 4800, "Pixels of a side.")
@number_option("--antennas", 30, 110, "Of the array.")
@number_option("--channels", 2, 48, "Of the band.")
@number_option("--times", 1, 24, "Integrations.")
@bench_options
def imaging(tile: str, size: int, antennas: int, channels: int, times: int, **options: Any) -> None:
    """How fast images are made, and how right they are.

    A tile is simulated whose sources are known, and imaged by WSClean as well where it is installed; no database is
    needed.  Memory for it is 2 GB by default, and as much room on the disk.
    """
    from absurd.bench.imaging import measure

    sizes = {"size": size, "antennas": antennas, "channels": channels, "times": times}
    name = "imaging" if tile == "plain" else f"imaging {tile}"
    run_with(name, lambda rounds: Measured(measure(rounds=rounds, tile=tile, tell=note, **sizes), None), **options)


@bench.command(epilog="Example: absurd bench mosaic --rounds 3")
@number_option("--tiles", 1, 12, "Images to combine.")
@click.option("--side", type=click.IntRange(200), default=4800, show_default=True, help="Of the tiles, pixels.")
@bench_options
def mosaic(tiles: int, side: int, **options: Any) -> None:
    """How long a mosaic takes, in how much memory, and how right it is.

    Tiles of 4 degrees, five minutes apart, are made in a temporary folder (1.8 GB by default); no database is needed.
    """
    from absurd.bench.mosaic import measure

    sizes = {"tiles": tiles, "side": side}
    run_with("mosaic", lambda rounds: Measured(measure(rounds=rounds, tell=note, **sizes), None), **options)


@bench.command(epilog="Example: absurd bench photometry --rounds 5")
@number_option("--sources", 20, 10_000, "Sources, of 1 mJy to 1 Jy in a noise of 0.3.")
@click.option("--side", type=click.IntRange(200), default=4800, show_default=True, help="Of the image, pixels.")
@bench_options
def photometry(sources: int, side: int, **options: Any) -> None:
    """How many flux densities a second are measured, and how sources are found.

    An image is made in a temporary folder; no database is needed.
    """
    from absurd.bench.photometry import measure

    sizes = {"sources": sources, "side": side}
    run_with("photometry", lambda rounds: Measured(measure(rounds=rounds, tell=note, **sizes), None), **options)


@bench.command(epilog="Example: absurd bench session --folder /data --rounds 3")
@number_option("--entries", 100, 300_000, "Lines of a log, by ten threads; a tenth of them where each is synced.")
@number_option("--frames", 1, 1000, "Of 1920 x 1080 pixels in 16 bits.")
@number_option("--files", 10, 10_000, "Of the catalogue.")
@click.option("--folder", type=click.Path(path_type=Path), help="On the disk to be measured.  [temporary files]")
@bench_options
def session(entries: int, frames: int, files: int, folder: Path | None, **options: Any) -> None:
    """What sessions take of a disk and of memory, and how fast they are found again.

    Frames are written turn by turn with as many bytes by hand (4 GB by default); no database is needed.
    """
    from absurd.bench.session import measure

    sizes: dict[str, Any] = {"entries": entries, "frames": frames, "files": files, "folder": folder}
    run_with("session", lambda rounds: Measured(measure(rounds=rounds, tell=note, **sizes), None), **options)


def _compared(found: Comparison) -> Measured:
    """A table for each query, and what else the document tells."""
    blocks = [query_text(found, query) for query in found.rows]
    if found.absent:
        blocks.append(f"Not installed: {', '.join(found.absent)}")
    return Measured([found.figures()], found.server, "\n\n".join(blocks), found.to_json())
