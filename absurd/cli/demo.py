"""``absurd demo``: real work through a real queue, start to pictures, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from absurd.cli.output import duration, emit, json_option, plural, settings_of, size
from absurd.errors import ConfigurationError, ExecutionError

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import Settings
    from absurd.database_sync import SyncDatabase
    from absurd.model import Task, TaskSpec
    from absurd.tasks.simulate import Sky

QUEUE = "demo"
TABLE = "demo_sources"
PATIENCE = 300.0
"""Seconds after which a demo that does not finish is given up."""


@click.command(epilog="Example: absurd demo --out demo --cutouts 12")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), metavar="FOLDER",
              help="Where everything goes, the database too.  [demo]")  # fmt: skip
@click.option(
    "--cutouts", type=click.IntRange(1, 200), default=12, metavar="N", help="How many sources to cut out.  [12]"
)
@click.option("--seed", type=int, default=12, metavar="N", help="Another number makes another sky.  [12]")
@click.option("--keep", is_flag=True, help="Leave the database running.")
@json_option
@click.pass_context
def demo(ctx: click.Context, out: Path, cutouts: int, seed: int, keep: bool, as_json: bool) -> None:
    """Export a catalogue and cut out its brightest sources, with a worker of its own.

    A simulated sky is made, its catalogue loaded into PostgreSQL, and tasks are spawned that a separate
    worker process executes.  Safe to run again: files are replaced, the database goes on.
    """
    settings = settings_of(ctx)
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if settings.database_url is None:
        settings = replace(settings, home=out / "home")
    steps = Steps(quiet=as_json)
    from absurd.embedded import EmbeddedServer

    server = EmbeddedServer(settings) if settings.database_url is None else None
    try:
        document = _run(settings, out, cutouts, seed, steps)
    finally:
        if server is not None and not keep:
            server.stop()
    emit(document, as_json=as_json, text=_summary(document, settings, keep))


def _run(settings: Settings, out: Path, cutouts: int, seed: int, steps: Steps) -> dict[str, Any]:
    begun = time.monotonic()
    try:
        from absurd.tasks.simulate import load_catalogue_sql, simulate_sky
    except ImportError as error:
        raise ConfigurationError(f"the demo needs the extras astro and export: {error}") from None
    from absurd.cli.status import describe, look
    from absurd.client_sync import SyncAbsurdClient
    from absurd.database_sync import SyncDatabase
    from absurd.resolve import resolve_database

    with steps("Simulated sky"):
        sky = simulate_sky(out / "sky", seed=seed)
    with steps("PostgreSQL"):
        database = SyncDatabase(resolve_database(settings), schema=settings.schema)
        database.open()
    with database, SyncAbsurdClient(settings=settings) as client:
        with steps("Catalogue loaded"):
            for statement, arguments in load_catalogue_sql(sky, TABLE):
                database.fetch(statement, *arguments)
        with _worker(settings, out):
            ids = client.spawn_many(_specs(database, sky, out, cutouts))
            tasks = _watch(client, ids, steps)
            status = click.unstyle(describe(look(database, settings.home), database.address))
    took = time.monotonic() - begun
    page = _write_page(out, tasks, status, took)
    products = [each.path for task in tasks for each in task.artifacts]
    return {
        "seconds": round(took, 2),
        "tasks": len(tasks),
        "products": products,
        "page": str(page),
        "status": status,
    }


@contextmanager
def _worker(settings: Settings, out: Path) -> Iterator[None]:
    """A worker process beside this one, stopped at the end."""
    command = [sys.executable, "-m", "absurd.cli.worker", "--queue", QUEUE, "--concurrency", "2"]
    with (out / "worker.log").open("ab") as log:
        # Through the environment: a password on a command line is seen by everybody on the machine.
        process = subprocess.Popen(command, env=os.environ | settings.environment(), stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _specs(database: SyncDatabase, sky: Sky, out: Path, cutouts: int) -> list[TaskSpec]:
    """One export of the whole catalogue, one cut-out of each of the brightest sources."""
    from absurd.model import TaskSpec

    export = TaskSpec(
        "export.query",
        {"sql": f"select * from {TABLE} order by id", "out": str(out / "sources.parquet")},
        queue=QUEUE,
        priority=10,
        tags=["demo"],
    )
    brightest = database.fetch(f"select id, ra, dec from {TABLE} order by flux desc limit $1", cutouts)
    cuts = [
        TaskSpec(
            "cutout.extract",
            {
                "ra": row["ra"],
                "dec": row["dec"],
                "size": 40,
                "unit": "arcsec",
                "source": str(sky.folder),
                "out": str(out / "cutouts" / f"source-{row['id']:04d}"),
            },
            queue=QUEUE,
            tags=["demo", f"source-{row['id']:04d}"],
        )
        for row in brightest
    ]
    return [export, *cuts]


def _watch(client: SyncAbsurdClient, ids: Sequence[UUID], steps: Steps) -> list[Task]:
    """Wait for all tasks under a progress bar; ExecutionError names those that failed."""
    deadline = time.monotonic() + PATIENCE
    with steps.bar("Tasks", len(ids)) as advance:
        ended = 0
        while ended < len(ids):
            states = client.get_states(ids).values()
            now = sum(state is not None and state.ended for state in states)
            advance(now - ended)
            ended = now
            if time.monotonic() > deadline:
                left = plural(len(ids) - ended, "task")
                raise ExecutionError(f"{left} of the demo did not end in {duration(PATIENCE)}; worker.log tells more")
            time.sleep(0.05)
    return [client.wait(each, timeout=60) for each in ids]  # for their files too; raises what one failed with


def _write_page(out: Path, tasks: Sequence[Task], status: str, took: float) -> Path:
    from pyarrow import parquet

    from absurd.cli.demo_page import Bar, Picture, build_page

    exported = out / "sources.parquet"
    table = parquet.read_table(exported)
    shown = table.slice(0, 8).to_pylist()
    cuts = [task for task in tasks if task.name == "cutout.extract"]
    pictures = [
        Picture(
            Path(next(each.path for each in task.artifacts if each.kind == "preview")),
            str(task.tags[1]),
            f"RA {task.params['ra']:.4f}°, Dec {task.params['dec']:+.4f}°",
        )
        for task in cuts
    ]
    bars = [
        Bar(task.name, task.tags[1] if len(task.tags) > 1 else task.name, run.started_at, run.finished_at)
        for task in tasks
        for run in task.runs
        if run.started_at and run.finished_at
    ]
    products = [
        (str(Path(each.path).relative_to(out)), each.kind, (each.sha256 or "")[:16])
        for task in tasks
        for each in task.artifacts
    ]
    page = out / "index.html"
    page.write_text(
        build_page(
            facts=[
                ("tasks completed", str(len(tasks))),
                ("catalogue rows exported", f"{table.num_rows:,}"),
                ("products", str(len(products))),
                ("from start to pictures", duration(took)),
            ],
            pictures=pictures,
            columns=table.column_names,
            rows=[list(row.values()) for row in shown],
            table_note=f"The first of {plural(table.num_rows, 'row')}; the file has {size(exported.stat().st_size)}.",
            bars=bars,
            products=products,
            status=status,
            hints=[
                f"{_program()} --home {out / 'home'} {command}"
                for command in ("status", "task list --tag demo", f"task show {tasks[0].id}")
            ],
        )
    )
    return page


def _summary(document: dict[str, Any], settings: Settings, keep: bool) -> str:
    listed = "\n".join(f"  {path}" for path in document["products"][:6])
    more = len(document["products"]) - 6
    lines = [
        "",
        click.style("Products", bold=True),
        listed + (f"\n  … and {more} more" if more > 0 else ""),
        "",
        click.style("Status", bold=True),
        document["status"],
        "",
        f"{plural(document['tasks'], 'task')} in {duration(document['seconds'])}.  Now open",
        f"  {click.style(document['page'], bold=True)}",
    ]
    if settings.database_url is None:
        lines.append(f"The database {'runs on' if keep else 'was stopped'}.  To look again:")
        lines.append(f"  {_program()} --home {settings.home} status")
    return "\n".join(lines)


def _program() -> str:
    """How to call this program again from here, whether or not its folder is on PATH."""
    return "absurd" if shutil.which("absurd") else os.path.relpath(Path(sys.executable).with_name("absurd"))


class Steps:
    """Says each step with its time; nothing with --json."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a step."""
        begun = time.monotonic()
        if not self._quiet:
            click.echo(f"{name:<18}", nl=False)
        yield
        if not self._quiet:
            click.echo(f" {click.style('done', fg='green')} in {duration(time.monotonic() - begun)}")

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[Any]:
        """A progress bar of `total` parts; yields what advances it."""
        if self._quiet or not sys.stdout.isatty():
            with self(name):
                yield lambda parts: None
            return
        with click.progressbar(length=total, label=f"{name:<18}", show_pos=True) as painted:
            yield painted.update
