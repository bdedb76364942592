"""``absurd export`` and ``fast-export``: queries to Parquet files, by tasks or in this process."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.export_options import (
    ADDRESS,
    Given,
    absolute,
    address,
    common_options,
    export_options,
    exports_of,
)
from absurd.cli.export_products import export_products
from absurd.cli.output import clean, emit, json_option, note, plural, size
from absurd.cli.run import run
from absurd.cli.signals import unwinding
from absurd.cli.values import instant, seconds
from absurd.cli.waiting import Document, Painter, report

if TYPE_CHECKING:
    from absurd.tasks.export.batch import BatchItem, BatchResult

resume_option = click.option(
    "--resume",
    is_flag=True,
    help="With --config: leave files alone that are of the same query, database and options.",
)


@click.command(epilog="Example: absurd export --sql 'select 1 as n' --out n.parquet --here")
@export_options
@click.option(
    "--products",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the product tables as SQLite, for `absurd serve --products`, instead of a query.",
)
@click.option("--since", type=instant, metavar="TIME", help="With --products: only what was observed then or later.")
@click.option("--until", type=instant, metavar="TIME", help="With --products: only what was observed before.")
@click.option("--direct", is_flag=True, help="Export in this process, without a task; so do the address options.")
@resume_option
@click.option("--queue", "-q", help="Queue to go to.  [the executor's, ABSURD_QUEUE_NAME, default]")
@click.option("--no-wait", is_flag=True, help="Print the id of the task, and do not wait for its end.")
@click.option("--wait-timeout", type=seconds, help="Wait no longer than this (exit 1); the task goes on.")
@click.option("--here", is_flag=True, help="Run the task to its end in this process, in a queue of its own.")
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    /,
    products: Path | None,
    since: datetime | None,
    until: datetime | None,
    direct: bool,
    resume: bool,
    queue: str | None,
    no_wait: bool,
    wait_timeout: float | None,
    here: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Export queries to Parquet files, exactly.

    One query becomes a task `export.query`, a list of them (--config) a task `export.batch` in a workflow.  They
    read from the database of the queue, or from a --service as pg_service.conf on the worker's machine names it.

    With --direct, or with --dsn, --host and the like, which no task may hold, there is no task: this process exports,
    as `fast-export` does.
    """
    if products is not None:
        if direct or here or no_wait or queue is not None or any(given.values()):
            raise click.UsageError("--products goes with --since and --until alone: it writes what the database holds")
        export_products(ctx, products, since, until, as_json=as_json)
        return
    if since is not None or until is not None:
        raise click.UsageError("--since and --until are for --products; a query says for itself which rows it gives")
    if direct or any(given[each] for each in ADDRESS):
        if here or no_wait or queue is not None:
            raise click.UsageError("--here, --no-wait and --queue are for tasks; with an address there is none")
        export_directly(given, resume=resume, as_json=as_json)
        return
    if resume:
        raise click.UsageError("--resume is for --direct: a task goes on by itself where it was interrupted")
    from absurd.cli.spawning import serve_task

    name, params = _task(given)
    ended = serve_task(
        ctx,
        name,
        params,
        queue=queue,
        here=here,
        no_wait=no_wait,
        timeout=wait_timeout,
        as_json=as_json,
        workflow=None if given["config"] is None else f"export {given['config']}"[:200],
    )
    if ended is not None:
        _report(ended, as_json=as_json)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: fast-export --config exports.yaml --service mpc_sbn",
)
@export_options
@resume_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="absurd", message="%(prog)s %(version)s")
@click.pass_context
def fast_export(ctx: click.Context, /, resume: bool, as_json: bool, debug: bool, **given: Any) -> None:
    """Export queries of PostgreSQL to Parquet files, exactly, without a queue.

    The database is named by options, else by the environment (PGSERVICE, PGHOST, PGPORT, PGDATABASE, PGUSER;
    PGPASSFILE, PGPASSWORD).  A file appears under its name when it is whole.
    """
    from absurd.cli.output import Invocation

    ctx.ensure_object(Invocation).debug |= debug
    export_directly(given, resume=resume, as_json=as_json)


def export_directly(given: Given, *, resume: bool, as_json: bool) -> None:
    """Export in this process, and print what was written.  Exits with 1 if an export of a list failed."""
    exports = exports_of(given)
    for listed in exports:
        absolute(listed["out"])  # refused before anything is written
    if resume and given["config"] is None:
        raise click.UsageError("--resume is for the exports of --config")
    _need_the_extra()
    database = address(given)
    painter = Painter()
    current = ""

    def begun(number: int, out: str) -> None:
        nonlocal current
        current = f"{number + 1}/{len(exports)} {out}"

    def progress(rows: int, held: int) -> None:
        told = f"{current}  {plural(rows, 'row')}, {size(held)}"
        painter.paint({"state": "exporting", "attempts": 1, "progress": {"done": rows, "total": None, "message": told}})

    def warn(told: str) -> None:
        painter.clear()
        note(f"{click.style('Warning:', fg='yellow')} {told}")

    from absurd.tasks.export.batch import export_batch

    try:
        with unwinding():
            result = export_batch(
                database,
                exports,
                stop_on_failure=given["stop_on_failure"],
                resume=resume,
                keep_temp=given["keep_temp"],
                begun=begun,
                progress=None if as_json else progress,
                warn=warn,
                **common_options(given),
            )
    finally:
        painter.clear()
    if given["config"] is None and result.items[0].error is not None:
        raise result.items[0].error
    emit(_document(result), as_json=as_json, text="\n".join(_line(each) for each in result.items if each.error is None))
    for each in result.failed:
        note(f"{click.style('Error:', fg='red', bold=True)} {_line(each)}")
    if len(result.snapshots) > 1:
        note("Files that an earlier run had written were kept: they are of another snapshot.")
    if result.failed:
        raise click.exceptions.Exit(1)


def _task(given: Given) -> tuple[str, dict[str, Any]]:
    """The executor, and the params of its task."""
    exports = [each | {"out": absolute(each["out"])} for each in exports_of(given)]
    common = common_options(given) | {"keep_temp": given["keep_temp"]}
    if given["service"] is not None:
        common["database"] = given["service"]
    if given["config"] is None:
        return "export.query", exports[0] | common
    return "export.batch", {"exports": exports, "stop_on_failure": given["stop_on_failure"], **common}


def _report(ended: Document, *, as_json: bool) -> None:
    """As `report`; of a batch a line for each export."""
    if as_json or ended["state"] != "completed" or ended["name"] != "export.batch":
        report(ended, as_json=as_json)
        return
    result = ended["result"]
    lines = [
        f"{clean(each['path'])}: {plural(each['rows'], 'row')}, {size(each['bytes'])}" for each in result["exports"]
    ]
    if not result["one_snapshot"]:
        note("The batch was interrupted: its files are of several snapshots, see the result with --json.")
    emit(None, as_json=False, text="\n".join(lines))


def _document(result: BatchResult) -> Document:
    return {
        "exports": [_entry(each) for each in result.items],
        "snapshots": list(result.snapshots),
        "failed": len(result.failed),
    }


def _entry(item: BatchItem) -> Document:
    made = item.result
    return {
        "out": item.out,
        "state": item.state,
        "rows": made and made.rows,
        "bytes": made and made.bytes,
        "row_groups": made and made.row_groups,
        "files": made and [asdict(each) for each in made.files],
        "snapshot": item.snapshot,
        "error": item.error and {"code": item.error.code, "message": item.error.message},
    }


def _line(item: BatchItem) -> str:
    if item.error is not None:
        return f"{item.out}: {item.error.message}"
    if item.result is None:
        return f"{item.out}: {item.state}"
    told = f"{item.out}: {plural(item.result.rows, 'row')}, {size(item.result.bytes)}"
    return told if len(item.result.files) == 1 else f"{told} in {plural(len(item.result.files), 'file')}"


def _need_the_extra() -> None:
    from importlib.util import find_spec

    from absurd.errors import ConfigurationError

    missing = [each for each in ("numpy", "pyarrow") if find_spec(each) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} missing: exports need `pip install 'absurd[export]'`")


def main() -> None:
    """The console script ``fast-export``."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # pyarrow imports numpy, which starts a thread for each core
    run(fast_export, "fast-export")


if __name__ == "__main__":
    main()
