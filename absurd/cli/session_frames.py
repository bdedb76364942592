"""``absurd session frames|export-fits|plot``: what cameras have seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from absurd.cli.output import Table, clean, emit, json_option, note, plural
from absurd.cli.session import anywhere, data_option

if TYPE_CHECKING:
    from absurd.tasks.session.arrays import Kept, SessionArrays


@click.command(epilog="Example: absurd session frames observation_m31_20251214_210000_1f0c33a8 --data telescope/")
@click.argument("name", metavar="SESSION")
@data_option
@click.option("--camera", metavar="NAME", help="Of one camera.")
@json_option
def frames(name: str, data: Path | None, camera: str | None, as_json: bool) -> None:
    """List a session's frames, and what was told of each."""
    found = _chosen(_opened(data, name), camera, ())
    if as_json:
        rows = [
            {"camera": each.name, "index": each.index, "shape": each.shape, "datatype": each.datatype} | each.info
            for each in found
        ]
        emit(rows, as_json=True)
        return
    headers = ("camera", "frame", "shape", "type", "time", "exposure µs")
    table = Table(
        headers,
        [
            (each.name, each.index, "×".join(map(str, each.shape)) or "lost", each.datatype, each.info.get("time"),
             each.info.get("exposure_us"))
            for each in found
        ],
        right=("frame", "exposure µs"),
        empty="No frames.",
    )  # fmt: skip
    emit(None, as_json=False, text=table)


@click.command("export-fits", epilog="Example: absurd session export-fits idle_20251214_180000_1f0c33a8 --out fits/")
@click.argument("name", metavar="SESSION")
@data_option
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="FOLDER", help="Where to."
)
@click.option("--camera", metavar="NAME", help="Of one camera.")
@click.option("--frame", "numbers", type=click.IntRange(min=0), multiple=True, help="One frame, from 0; repeatable.")
@json_option
def export_fits(
    name: str, data: Path | None, out: Path, camera: str | None, numbers: tuple[int, ...], as_json: bool
) -> None:
    """Write a session's frames as FITS files."""
    from absurd.tasks.session.export import export_fits as write

    session = _opened(data, name)
    found = [each for each in _chosen(session, camera, numbers) if each.array is not None]
    written = [str(each) for each in write(session, found, out)]
    if not as_json:
        note(f"{plural(len(written), 'frame')} in {out}")
    emit({"files": written}, as_json=as_json, text="\n".join(map(clean, written)))


@click.command(epilog="Example: absurd session plot observation_m31_20251214_210000_1f0c33a8 --out pictures/")
@click.argument("name", metavar="SESSION")
@data_option
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=".", metavar="FOLDER", help="Where to.  [.]"
)
@json_option
def plot(name: str, data: Path | None, out: Path, as_json: bool) -> None:
    """Draw a session as PNG and as a page of HTML.

    Telemetry and events over time, warnings and errors, and the middle frame of each camera.
    """
    from absurd.tasks.session.listing import find
    from absurd.tasks.session.plotting import plot as write

    made = [str(each) for each in write(find(anywhere(data, name), name), out)]
    emit({"pictures": made}, as_json=as_json, text="\n".join(map(clean, made)))


def _opened(data: Path | None, name: str) -> SessionArrays:
    from absurd.tasks.session.arrays import SessionArrays
    from absurd.tasks.session.listing import find

    return SessionArrays(find(anywhere(data, name), name))


def _chosen(session: SessionArrays, camera: str | None, numbers: tuple[int, ...]) -> list[Kept]:
    from absurd.tasks.session.errors import SessionNotFoundError

    found = [each for each in session.kept if each.section == "cameras" and camera in {None, each.name}]
    if camera is not None and not found:
        raise SessionNotFoundError(f"{session.path} has no frames of a camera {camera!r}", path=str(session.path))
    there = {each.index for each in found}
    if missing := sorted(set(numbers) - there):
        raise SessionNotFoundError(f"{session.path} has no frame {missing[0]}", path=str(session.path))
    return [each for each in found if not numbers or each.index in numbers]
