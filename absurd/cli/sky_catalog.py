"""``absurd catalog``: rows of a catalogue by their place on the sky and their columns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from absurd.cli.output import Table, clean, emit, json_option, note, plural, size
from absurd.cli.signals import unwinding
from absurd.cli.waiting import Document

if TYPE_CHECKING:
    from absurd.tasks.cutout.catalogs.fetch import CatalogSource
    from absurd.tasks.cutout.catalogs.rows import Rows
    from absurd.tasks.cutout.regions import Region

Command = TypeVar("Command", bound=Callable[..., Any])

MOST_COLUMNS = 8
WIDEST = 40
_UNITS = {"": 1.0, "deg": 1.0, "arcmin": 1 / 60, "arcsec": 1 / 3600}


def names(text: str) -> list[str]:
    """``ra,dec`` as an option: names of columns."""
    found = [each.strip() for each in text.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise click.BadParameter(f"{text!r} must be names of columns, each once, as in ra,dec")
    return found


def pair(text: str) -> tuple[str, str]:
    """As `names`, exactly two."""
    found = names(text)
    if len(found) != 2:
        raise click.BadParameter(f"{text!r} must be two names of columns, as in ra,dec")
    return found[0], found[1]


def angle(text: str) -> float:
    """``0.5``, ``30arcmin`` or ``12 arcsec`` as an option: degrees."""
    found = re.fullmatch(r"\s*([-+.\d]+(?:e[-+]?\d+)?)\s*(deg|arcmin|arcsec)?\s*", text, re.IGNORECASE)
    try:
        value = float(found[1]) if found else math.nan
    except ValueError:
        value = math.nan
    if found is None or math.isnan(value):
        raise click.BadParameter(f"{text!r} is no angle; write 0.5 (degrees), 30arcmin or 12arcsec")
    return value * _UNITS[(found[2] or "").lower()]


def corners(text: str) -> list[tuple[float, float]]:
    """``10,5 11,5 10.5,6`` as an option: right ascensions and declinations."""
    try:
        found = [tuple(float(each) for each in word.split(",")) for word in text.split()]
    except ValueError:
        found = []
    if not found or any(len(each) != 2 for each in found):
        raise click.BadParameter(f"{text!r} is no list of corners; write RA,DEC RA,DEC RA,DEC in degrees")
    return [(ra, dec) for ra, dec in found]


_OPTIONS = (
    click.argument("source"),
    click.option(
        "--cone", nargs=3, type=angle, metavar="RA DEC RADIUS",
        help="All within RADIUS of a position; degrees, or as in 30arcsec.",
    ),
    click.option(
        "--box", nargs=4, type=float, metavar="RA_MIN RA_MAX DEC_MIN DEC_MAX",
        help="Degrees; over 0h if RA_MIN is more than RA_MAX.",
    ),
    click.option(
        "--polygon", type=corners, metavar="'RA,DEC RA,DEC RA,DEC'", help="Three corners or more, convex; degrees."
    ),
    click.option("--columns", type=names, metavar="A,B", help="Columns to take.  [all]"),
    click.option(
        "--where", "comparisons", multiple=True, metavar="COMPARISON",
        help="Rows to take, as in 'mag < 20', 'band in g,r' or 'flux is not null'; repeatable, all must hold.",
    ),
    click.option(
        "--position", type=pair, metavar="RA,DEC", help="Columns of the position.  [ra,dec, or as the catalogue tells]"
    ),
    click.option(
        "--collection", "collections", multiple=True, metavar="NAME",
        help="SOURCE is a repository: search here; repeatable, the first that has a dataset wins.  "
        "[RIPPLE_COLLECTIONS]",
    ),
    click.option("--type", "kind", metavar="NAME", help="Of a repository: object, source or a dataset type.  [object]"),
    click.option(
        "--out", type=click.Path(dir_okay=False), metavar="FILE",
        help="Write .parquet, .arrow, .fits, .ecsv or .csv instead of printing.",
    ),
    click.option("--rows", "shown", type=click.IntRange(1), default=10, metavar="N", help="Rows to print.  [10]"),
)  # fmt: skip


def catalog_options(command: Command) -> Command:
    """Give `command` the options for which rows are wanted, and where they go."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(epilog="Example: absurd catalog objects.parquet --cone 150.1 2.2 30arcsec --where 'mag < 20'")
@catalog_options
@json_option
def catalog(
    source: str,
    cone: tuple[float, float, float] | None,
    box: tuple[float, float, float, float] | None,
    polygon: list[tuple[float, float]] | None,
    columns: list[str] | None,
    comparisons: tuple[str, ...],
    position: tuple[str, str] | None,
    collections: tuple[str, ...],
    kind: str | None,
    out: str | None,
    shown: int,
    as_json: bool,
) -> None:
    """Take rows of a catalogue by position and by column.

    SOURCE is a Parquet file, a folder of them, a HATS tree, or a Butler repository or the address of a server, which
    is asked as the variables RIPPLE_* say.  Of Parquet only row groups are read that can hold such rows.  A file
    appears when it is whole.
    """
    _need_the_extra(butler=bool(collections))
    from absurd.tasks.cutout.catalogs.filters import Where
    from absurd.tasks.cutout.catalogs.rows import about

    region = _region(cone, box, polygon)
    where = [Where.read(each) for each in comparisons]
    with unwinding(), _opened(source, collections, kind, position) as opened:
        rows = opened.stream(region, columns, where)
        told = [{"name": each.name, "type": str(each.type), **about(each)} for each in rows.schema]
        document: Document = {"source": source, "columns": told}
        if out is None:
            document |= _looked_at(rows, shown)
        else:
            document |= {"out": out, "rows": _written(rows, out), "bytes": Path(out).stat().st_size}
        document["row_groups_read"] = getattr(opened, "row_groups_read", None)
    if as_json:
        emit(_plain(document), as_json=True)
    elif out is None:
        emit(None, as_json=False, text=_table(told, document["first"]))
        note(_counted(document))
    else:
        emit(None, as_json=False, text=f"{out}: {_counted(document)}, {size(document['bytes'])}")


def _region(cone: Any, box: Any, polygon: Any) -> Region | None:
    from absurd.tasks.cutout.regions import Circle, Polygon, RaDecBox

    given = [each for each in (cone, box, polygon) if each is not None]
    if len(given) > 1:
        raise click.UsageError("Give one of --cone, --box and --polygon")
    if cone is not None:
        return Circle(*cone)
    if box is not None:
        return RaDecBox(*box)
    return None if polygon is None else Polygon(polygon)


@contextmanager
def _opened(
    source: str, collections: tuple[str, ...], kind: str | None, position: tuple[str, str] | None
) -> Iterator[CatalogSource]:
    from absurd.tasks.cutout.config import ButlerConfig
    from absurd.tasks.cutout.resilience import Fallback, breaker_for, policies_for
    from absurd.tasks.cutout.sources.places import Address, Index, places_of

    (place,) = places_of(source, collections=collections, base=ButlerConfig.from_env())
    if isinstance(place, Index):
        raise click.UsageError(f"{source} is an index of images, which has no catalogue")
    if isinstance(place, Address):
        raise click.UsageError(f"{source} is a FITS file; a catalogue is Parquet, or in a repository")
    if place.folder is not None and not collections:
        from absurd.tasks.cutout.catalogs.parquet import ParquetCatalog

        if kind is not None:
            raise click.UsageError("--type is of a repository: name its collections with --collection")
        yield ParquetCatalog(source, position=position, retry=policies_for(place)["read"])
        return
    if place.folder is not None:  # no folder of a repository: a label of one
        place = replace(place, folder=None, repo_path=source, collections=list(collections))
    if not place.collections:
        raise click.UsageError(f"{source} is a Butler repository: name its collections with --collection")
    _need_the_extra(butler=True)
    import logging

    from absurd.tasks.cutout.catalogs.butler import POSITION, ButlerCatalog
    from absurd.tasks.cutout.sources.butler import ButlerClient

    logging.getLogger("lsst").setLevel(logging.ERROR)  # it warns of packages that are not needed here
    with ButlerClient(place) as client:
        asked = Fallback(
            {source: client}, breakers={source: breaker_for(client.place, place)}, retry=policies_for(place)["read"]
        )
        yield ButlerCatalog(client, kind or "object", position=position or POSITION, ask=asked.asking(source))


def _written(rows: Rows, out: str) -> int:
    from absurd.tasks.cutout.catalogs.write import write_catalog

    try:
        return write_catalog(rows, out)
    except OSError as error:
        raise click.FileError(out, hint=error.strerror or str(error)) from error


def _looked_at(rows: Rows, shown: int) -> Document:
    """How many rows there are, and the first of them."""
    first: list[Document] = []
    counted = 0
    for part in rows.parts:
        first += part.slice(0, shown - len(first)).to_pylist()
        counted += part.num_rows
    return {"rows": counted, "first": first}


def _table(columns: list[Document], first: list[Document]) -> Table:
    some = columns[:MOST_COLUMNS]
    if len(some) < len(columns):
        note(f"{plural(len(columns) - len(some), 'column')} more: choose with --columns, or see all with --out")
    heads = [f"{clean(each['name'])} [{clean(each['unit'])}]" if "unit" in each else each["name"] for each in some]
    numbers = [head for head, each in zip(heads, some, strict=True) if re.match(r"u?int|float|double", each["type"])]
    return Table(heads, [[_cell(row[each["name"]]) for each in some] for row in first], right=numbers)


def _counted(document: Document) -> str:
    counted = plural(document["rows"], "row")
    if "first" in document and len(document["first"]) < document["rows"]:
        counted = f"{len(document['first']):,} of {counted}"
    read = document["row_groups_read"]
    return counted if read is None else f"{counted}, of {plural(read, 'row group')} read"


def _plain(value: Any) -> Any:
    """What JSON has a form for; it has none for NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _need_the_extra(*, butler: bool) -> None:
    from importlib.util import find_spec

    from absurd.errors import ConfigurationError

    missing = [each for each in ("astropy", "numpy", "pyarrow", *(["lsst"] if butler else [])) if not find_spec(each)]
    if missing:
        extra = "astro,butler" if butler else "astro"
        raise ConfigurationError(f"{' and '.join(missing)} missing: this needs `pip install 'absurd[{extra}]'`")
