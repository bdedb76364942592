"""``absurd demo``: a night of a simulated array, from visibilities that arrive to light curves, in its own folder."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.output import duration, emit, json_option, plural, settings_of
from absurd.cli.pipeline import need_the_extra

if TYPE_CHECKING:
    from absurd.config import Settings
    from absurd.demo.compare import Comparison
    from absurd.demo.night import Night


@click.command(epilog="Example: absurd demo --out night --seed 7 --keep")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), metavar="FOLDER",
              help="Where everything goes, the database too.  [demo]")  # fmt: skip
@click.option(
    "--size", type=click.Choice(["tiny", "night"]), default="night", help="Of the array and the night.  [night]"
)
@click.option("--full", is_flag=True, help="The real array instead: hours and many GB, by estimate.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=12, metavar="N", help="Another number is another sky.  [12]"
)
@click.option("--keep", is_flag=True, help="Leave the database running, for the dashboard.")
@json_option
@click.pass_context
def demo(ctx: click.Context, out: Path, size: str, full: bool, seed: int, keep: bool, as_json: bool) -> None:
    """Observe a simulated night, from raw visibilities to light curves.

    A simulated DSA-110 writes its files into a folder as it would. Schedules, workers and a database of the demo's own
    do the rest: convert, flag, solve, apply, image, judge, combine, measure, export, archive. One worker is killed on
    the way. The report tells what came out against what went in.
    """
    need_the_extra("astropy", "casacore", "ducc0", "h5py", "matplotlib", "numba", "photutils", "pyarrow", "scipy")
    from absurd.demo.compare import compare
    from absurd.demo.night import run_night
    from absurd.demo.plan import SIZES, Plan
    from absurd.demo.platform import Platform
    from absurd.demo.report import draw_calibration, write_report

    out = _emptied(out.absolute())
    night_plan = Plan(SIZES["full" if full else size], seed)
    progress = Progress(quiet=as_json)
    with Platform(settings_of(ctx), out, night_plan, keep=keep) as platform:
        night = run_night(platform, progress)
        progress.say("Comparing what came out with what went in")
        comparison = compare(
            night.pointings, _paths(night, "photometry.forced"), _paths(night, "photometry.variability")
        )
        draw_calibration(night)
        hints = [
            f"{_program()} --home {platform.settings.home} {each}" for each in ("status", "workflow list", "serve")
        ]
        page = write_report(night, comparison, _status(platform.settings), hints)
    document = _document(night, comparison, page)
    emit(document, as_json=as_json, text="\n".join(_summary(document, hints, keep)))


def _status(settings: Settings) -> str:
    from absurd.cli.status import describe, look
    from absurd.database_sync import SyncDatabase
    from absurd.resolve import resolve_database

    with SyncDatabase(resolve_database(settings), schema=settings.schema) as database:
        return click.unstyle(describe(look(database, settings.home), database.address))


def _emptied(out: Path) -> Path:
    """The folder for the night; what an earlier demo left there goes, and nothing else may be there."""
    if out.exists() and any(out.iterdir()):
        if not (out / "night.toml").exists():
            raise click.UsageError(
                f"{out} is not empty, and no earlier demo has made it; name another folder with --out"
            )
        shutil.rmtree(out / "data", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _paths(night: Night, executor: str) -> list[str]:
    return [str(each.result["path"]) for each in night.named(executor)]


def _document(night: Night, comparison: Comparison, page: Path) -> dict[str, Any]:
    killed = None if night.killed is None else {"worker": night.killed.pid, "task": night.killed.task}
    return {
        "seconds": round(night.seconds, 1),
        "tasks": len(night.tasks),
        "killed": killed,
        "sources": [
            {
                "name": each.name,
                "field": each.field,
                "injected_jy": each.injected_jy,
                "measured_jy": each.measured_jy,
                "error_jy": each.error_jy,
                "epochs": len(each.epochs),
                "kind": each.kind,
            }
            for each in comparison.sources
        ],
        "strange": list(comparison.strange),
        "sessions": [str(each) for each in night.sessions],
        "page": str(page),
    }


def _summary(document: dict[str, Any], hints: list[str], keep: bool) -> list[str]:
    sources = document["sources"]
    seen = [each for each in sources if each["epochs"]]
    lines = ["", click.style("source     field    injected   measured (Jy)", bold=True)]
    lines += [
        f"{each['name']:<10} {each['field']:<7} {each['injected_jy']:9.3f}   {each['measured_jy']:.3f} ± "
        f"{each['error_jy']:.3f}  {each['kind']}"
        for each in seen
    ]
    lines += [
        "",
        f"{plural(document['tasks'], 'task')} in {duration(document['seconds'])}, one worker killed on the way.",
        "Now open",
        f"  {click.style(document['page'], bold=True)}",
        f"The database {'runs on' if keep else 'was stopped'}.  To look again:",
        *(f"  {each}" for each in hints),
    ]
    return lines


def _program() -> str:
    """How to call this program again from here, whether or not its folder is on PATH."""
    return "absurd" if shutil.which("absurd") else os.path.relpath(Path(sys.executable).with_name("absurd"))


class Progress:
    """Says what goes on: a line for each thing that happened, and one that is painted over; nothing with --json."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._paints = not quiet and sys.stdout.isatty()
        self._width = 0

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            click.echo(text.ljust(self._width))
            self._width = 0

    def paint(self, text: str) -> None:
        """A line that the next one covers; on a terminal alone."""
        if self._paints:
            click.echo(f"{text.ljust(self._width)}\r", nl=False)
            self._width = len(text)
