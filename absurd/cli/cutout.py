"""``absurd cutout``: cut-outs made in this process, without a task."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.connection import client_of
from absurd.cli.output import clean, emit, json_option, note, plural, settings_of
from absurd.cli.signals import unwinding
from absurd.cli.waiting import Document, Painter
from absurd.errors import InvalidParamsError

if TYPE_CHECKING:
    from uuid import UUID

    from absurd.executor import Executor
    from absurd.tasks.cutout.cutting import BatchResult
    from absurd.tasks.cutout.params import BatchParams
    from absurd.tasks.cutout.sources.index import IndexSource

MOST_TOLD = 10
"""Failures that are printed; the manifest tells of all."""


class _Degrees(click.Command):
    """A command whose arguments may be numbers below 0, which look like options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # to float() a blank before the sign makes no difference
        return super().parse_args(ctx, [f" {each}" if _is_negative(each) else each for each in args])


@click.command(
    cls=_Degrees,
    epilog="Example: absurd cutout 150.1 -2.2 30 --source images/ --out cut/ --bands g,r,i",
)
@click.argument("ra", type=float, required=False)
@click.argument("dec", type=float, required=False)
@click.argument("size", type=float, required=False)
@click.option(
    "--positions",
    metavar="FILE",
    help="A table (.csv, .ecsv, .parquet, .fits) with columns ra and dec, perhaps id and size, instead of RA DEC SIZE.",
)
@click.option("--size", "side", type=float, metavar="N", help="Size of --positions without one of their own.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    required=True,
    metavar="PLACE",
    help="A FITS file or its address, a folder of them, index:NAME, a Butler repository or the address of a server; "
    "repeatable, in order of fallback.",
)
@click.option(
    "--collection",
    "collections",
    multiple=True,
    metavar="NAME",
    help="Of a repository; repeatable, in order.",
)
@click.option("--out", required=True, metavar="FOLDER", help="Where the products go.")
@click.option("--unit", type=click.Choice(["arcsec", "pixel"]), default="arcsec", help="Of sizes.  [arcsec]")
@click.option("--bands", metavar="A,B,…", help="Bands to cut, in this order.  [all there are]")
@click.option("--planes", metavar="A,B,…", help="Planes to cut: image, mask, variance, …  [image]")
@click.option(
    "--edge", type=click.Choice(["fill", "refuse"]), default="fill", help="A box beyond its image: NaN, or no.  [fill]"
)
@click.option("--max-outside", type=click.FloatRange(0, 1), help="Reject above this fraction beyond the image.  [1]")
@click.option("--max-not-finite", type=click.FloatRange(0, 1), help="Reject above this fraction of NaN.  [1]")
@click.option("--max-masked", type=click.FloatRange(0, 1), help="Reject above this fraction of masked pixels.  [1]")
@click.option("--reduced", is_flag=True, help="Cut the bands that are there, where not all are.")
@click.option("--fits/--no-fits", default=True, help="Keep each band as a FITS file.  [--fits]")
@click.option(
    "--tensors",
    type=click.Choice(["none", "asinh", "min-max", "z-score"]),
    help="Keep all accepted as tensors for learning, so normalised.",
)
@click.option(
    "--keep-parts/--no-keep-parts",
    default=True,
    help="Keep .parts, by which the same command again knows what is still good.  [--keep-parts]",
)
@json_option
def cutout(
    ra: float | None,
    dec: float | None,
    size: float | None,
    positions: str | None,
    side: float | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Cut positions out of images, here and now.

    RA and DEC are degrees (ICRS), SIZE is the side of the square.  The folder gets a FITS file of each band, a
    manifest with a row for each position, and a page that shows them.  The same command again cuts what is missing.
    For many on several machines there is the executor `cutout.batch`.

    Exits with 1 if a position failed.
    """
    if positions is None and size is None:
        raise click.UsageError("Give RA, DEC and SIZE, or --positions")
    if positions is not None and ra is not None:
        raise click.UsageError("Give either RA, DEC and SIZE, or --positions")
    if positions is None and side is not None:
        raise click.UsageError("--size is for --positions; the third argument is the size of one")
    _need_the_extra()
    params = _params(given) | {
        "positions": [(ra, dec)] if positions is None else positions,
        "size": side if positions is not None else size,
    }
    result = _cut(params, show=not as_json)
    failures = _failures(result)
    if positions is None and failures:
        _raise(failures[0])
    files = _files(result, given["fits"]) if positions is None else []
    document = asdict(result) | {"failures": failures}
    emit(document, as_json=as_json, text="\n".join([*_lines(result), *files]))
    for each in failures:
        name = f"row {each['row']}" + (f" ({clean(each['id'])})" if each["id"] else "")
        note(f"{click.style('Error:', fg='red', bold=True)} {name}: {clean(each['reason'])}")
    if result.failed > len(failures):
        note(f"and {result.failed - len(failures):,} more: see the manifest")
    if result.failed:
        raise click.exceptions.Exit(1)


def _params(given: dict[str, Any]) -> dict[str, Any]:
    """The params of `cutout.batch` that say the same."""
    sources = given["sources"]
    limits = {name: given[f"max_{name}"] for name in ("outside", "not_finite", "masked")}
    params: dict[str, Any] = {
        name: given[name] for name in ("out", "unit", "edge", "reduced", "fits", "tensors", "keep_parts")
    }
    params["source"] = sources[0] if len(sources) == 1 else list(sources)
    params["limits"] = {name: value for name, value in limits.items() if value is not None}
    params["collections"] = list(given["collections"])
    for name in ("bands", "planes"):
        if given[name] is not None:
            params[name] = [each.strip() for each in given[name].split(",")]
    return params


def _cut(params: dict[str, Any], *, show: bool) -> BatchResult:
    from absurd.tasks.cutout.cutting import cut_here
    from absurd.tasks.cutout.errors import CutoutExtractionError
    from absurd.tasks.cutout.executors import batch

    painter = Painter()

    def progress(done: int, total: int) -> None:
        told = {"done": done, "total": total, "message": plural(total, "position")}
        painter.paint({"state": "cutting", "attempts": 1, "progress": told})

    try:
        with unwinding(), ExitStack() as opened:
            ctx = click.get_current_context()
            return cut_here(
                _checked(batch, params),
                partial(_indexed, ctx, opened),
                progress=progress if show else None,
                has_ended=partial(_has_ended, ctx),
            )
    except NotADirectoryError:
        raise click.UsageError(
            f"--out {params['out']} is no folder, or is in none: name one for the products"
        ) from None
    except OSError as error:
        told = f"{error.filename or params['out']}: {error.strerror or error}"
        raise CutoutExtractionError(told, advice="the same command goes on where it was") from error
    finally:
        painter.clear()


def _checked(batch: Executor, params: dict[str, Any]) -> BatchParams:
    """The params as an object; who gave options is told of these, and not of an executor."""
    try:
        checked: BatchParams = batch.load_params(params)
    except InvalidParamsError as error:
        raise InvalidParamsError(error.message.removeprefix(f"params of {batch.name}: ")) from None
    return checked


def _indexed(ctx: click.Context, opened: ExitStack, name: str) -> IndexSource:
    """The source that an index of images is; its connection is closed with `opened`."""
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.cutout.sources.index import IndexSource

    client = SyncAbsurdClient(settings=settings_of(ctx))
    opened.callback(client.close)
    return IndexSource(partial(client.find_images, name), name=f"index {name}", close=client.close)


def _has_ended(ctx: click.Context, batch: UUID) -> bool:
    """Whether a batch of the queue has ended, or is removed."""
    from absurd.errors import TaskNotFoundError

    with client_of(ctx) as client:
        try:
            return client.get_task(batch).state.ended
        except TaskNotFoundError:
            return True


def _failures(result: BatchResult) -> list[Document]:
    """The first rows that failed."""
    from itertools import islice

    from absurd.tasks.cutout.manifest import read

    failed = (each for each in read(result.manifest) if each["state"] == "failed") if result.failed else iter(())
    names = ("row", "id", "ra", "dec", "code", "reason")
    return [{name: each[name] for name in names} for each in islice(failed, MOST_TOLD)]


def _raise(failure: Document) -> None:
    """The error of a single position, as it is anywhere else."""
    from absurd.tasks.cutout.errors import error_types

    raise error_types()[failure["code"]](failure["reason"])


def _files(result: BatchResult, fits: bool) -> list[str]:
    """The FITS files of a single position; what is unusual about it is told on stderr."""
    from absurd.tasks.cutout.manifest import read
    from absurd.tasks.cutout.part import fits_names

    folder = os.path.dirname(result.manifest)
    row = next(read(result.manifest))
    if row["note"]:
        note(clean(row["note"]))
    return [os.path.join(folder, each) for each in fits_names(row["row"], row["id"], row["bands"])] if fits else []


def _lines(result: BatchResult) -> list[str]:
    told = f"{plural(result.rows, 'row')}: {result.accepted:,} accepted, {result.rejected:,} rejected"
    told += f", {result.failed:,} failed"
    if kept := result.rows - result.cut:
        told += f"; {kept:,} kept" if result.cut else "; all kept"
    return [each for each in (f"{result.manifest}: {told}", result.contact_sheet, result.tensors) if each]


def _is_negative(text: str) -> bool:
    try:
        return text.startswith("-") and float(text) <= 0
    except ValueError:
        return False


def _need_the_extra() -> None:
    from importlib.util import find_spec

    from absurd.errors import ConfigurationError

    missing = [each for each in ("astropy", "numpy", "PIL", "pyarrow") if find_spec(each) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} missing: cut-outs need `pip install 'absurd[astro]'`")
