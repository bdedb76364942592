"""``absurd extract-catalog`` and ``extract-catalog``: catalogues of an LSST Butler to Parquet files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from absurd.cli.output import clean, emit, json_option, note, plural, size
from absurd.cli.run import run
from absurd.cli.signals import unwinding
from absurd.cli.spawning import serve_task
from absurd.cli.values import seconds
from absurd.cli.waiting import Document, Painter, report

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("output_file", type=click.Path(dir_okay=False)),
    click.argument("repo"),
    click.argument("collection"),
    click.option("--dataset-type", default="dia_source_visit", metavar="NAME", help="[dia_source_visit]"),
    click.option(
        "--filter-ids", type=click.Path(dir_okay=False), metavar="FILE",
        help="Parquet file with the ids of the rows to take: int64, or what stands for one exactly.",
    ),
    click.option("--filter-column", metavar="NAME", help="Its column with the ids.  [the first]"),
    click.option(
        "--target-column", default="diaSourceId", metavar="NAME",
        help="Column of the datasets that has to hold one of the ids.  [diaSourceId]",
    ),
    click.option(
        "--compression", type=click.Choice(["zstd", "snappy", "gzip", "brotli", "lz4", "none"]), default="zstd",
        help="Of the file's pages.  [zstd]",
    ),
    click.option(
        "--jobs", type=click.IntRange(1, 64), default=2, metavar="N", help="Datasets that are read side by side.  [2]"
    ),
    click.option("--silent", is_flag=True, help="Print nothing but errors."),
)  # fmt: skip


def catalog_options(command: Command) -> Command:
    """Give `command` the arguments and options for what to extract."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(
    name="extract-catalog", epilog="Example: absurd extract-catalog out.parquet /repo/main LSSTCam/runs/DRP --here"
)
@catalog_options
@click.option("--direct", is_flag=True, help="Extract in this process, without a task.")
@click.option("--queue", "-q", help="Queue to go to.  [the executor's, ABSURD_QUEUE_NAME, default]")
@click.option("--no-wait", is_flag=True, help="Print the id of the task, and do not wait for its end.")
@click.option("--wait-timeout", type=seconds, help="Wait no longer than this (exit 1); the task goes on.")
@click.option("--here", is_flag=True, help="Run the task to its end in this process, in a queue of its own.")
@json_option
@click.pass_context
def extract_catalog(
    ctx: click.Context,
    /,
    direct: bool,
    queue: str | None,
    no_wait: bool,
    wait_timeout: float | None,
    here: bool,
    silent: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Extract a catalogue of an LSST Butler to a Parquet file.

    That is the datasets of one type in the COLLECTION of the repository REPO, to OUTPUT_FILE.  One row group for each
    dataset, in the order of their data IDs; of several with one data ID that of the first collection that has it.
    Several collections are divided by commas.  A task `export.butler_catalog` does it.
    """
    if direct:
        if here or no_wait or queue is not None:
            raise click.UsageError("--here, --no-wait and --queue are for tasks; with --direct there is none")
        _extract(given, silent=silent, as_json=as_json)
        return
    _local(given)
    params = {"out": given.pop("output_file"), "collection": given.pop("collection").split(",")}
    ended = serve_task(
        ctx,
        "export.butler_catalog",
        params | given,
        queue=queue,
        here=here,
        no_wait=no_wait,
        timeout=wait_timeout,
        as_json=as_json,
        quiet=silent,
    )
    if ended is not None and not (silent and ended["state"] == "completed"):
        report(ended, as_json=as_json)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: extract-catalog out.parquet /repo/main LSSTCam/runs/DRP --filter-ids ids.parquet",
)
@catalog_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="absurd", message="%(prog)s %(version)s")
@click.pass_context
def extract_catalog_program(ctx: click.Context, /, silent: bool, as_json: bool, debug: bool, **given: Any) -> None:
    """Extract a catalogue of an LSST Butler to a Parquet file.

    That is the datasets of one type in the COLLECTION of the repository REPO, to OUTPUT_FILE.  One row group for each
    dataset, in the order of their data IDs; of several with one data ID that of the first collection that has it.
    Several collections are divided by commas.  The file appears when it is whole; after a
    kill the same command goes on where it was.
    """
    from absurd.cli.output import Invocation

    ctx.ensure_object(Invocation).debug |= debug
    _extract(given, silent=silent, as_json=as_json)


def _local(given: dict[str, Any]) -> None:
    """Make paths independent of the working folder.  Raises ExportConfigError for addresses."""
    from absurd.tasks.export.destination import local_place

    for name, what in (("output_file", "a catalogue"), ("filter_ids", "a file of ids")):
        if given[name] is not None:
            given[name] = local_place(given[name], what)


def _extract(given: dict[str, Any], *, silent: bool, as_json: bool) -> None:
    """Extract in this process, and print what was written."""
    import logging

    _need_the_extra()
    from absurd.tasks.export.butler.catalog import extract_catalog as extract
    from absurd.tasks.export.errors import ExportFailedError

    logging.getLogger("lsst").setLevel(logging.ERROR)  # it warns of packages that are not needed here
    painter = Painter()

    def progress(done: int, total: int, rows: int) -> None:
        told = {"done": done, "total": total, "message": plural(rows, "row")}
        painter.paint({"state": "extracting", "attempts": 1, "progress": told})

    out, repo, collections = given.pop("output_file"), given.pop("repo"), given.pop("collection").split(",")
    try:
        with unwinding():
            result = extract(out, repo, collections, progress=None if silent or as_json else progress, **given)
    except OSError as error:
        told = f"the catalogue {out} cannot be made: {error.strerror or error}"
        raise ExportFailedError(f"{told} ({error.filename})" if error.filename else told) from error
    finally:
        painter.clear()
    if silent:
        return
    for each in result.unified:
        note(f"{click.style('Warning:', fg='yellow')} {clean(each)}")
    document: Document = {"out": out, **dataclasses.asdict(result)}
    told = f"{plural(result.rows, 'row')} of {plural(result.datasets, 'dataset')}, {size(result.bytes)}"
    emit(document, as_json=as_json, text=f"{out}: {told}")


def _need_the_extra() -> None:
    from importlib.util import find_spec

    from absurd.errors import ConfigurationError

    missing = [each for each in ("lsst", "numpy", "pyarrow") if find_spec(each) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} missing: this needs `pip install 'absurd[butler]'`")


def main() -> None:
    """The console script ``extract-catalog``."""
    run(extract_catalog_program, "extract-catalog")


if __name__ == "__main__":
    main()
