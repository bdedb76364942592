"""``absurd pipeline simulate``: the files of a recording that never was, and what is true of it."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.output import clean, emit, json_option, plural, size
from absurd.cli.pipeline import need_the_extra
from absurd.cli.pipeline_configured import configured, given_or_told, remark, required, told
from absurd.cli.signals import unwinding
from absurd.cli.waiting import Painter
from absurd.errors import ConfigurationError

if TYPE_CHECKING:
    from absurd.tasks.pipeline.simulation.simulate import Simulated


def moment(text: str) -> datetime:
    """``2026-01-15T08:00:00Z`` as an option; without a zone it is UTC."""
    from datetime import UTC

    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time; write 2026-01-15T08:00:00Z") from None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def numbers(text: str) -> tuple[int, ...]:
    """``3,7`` as an option."""
    try:
        return tuple(sorted({int(each) for each in text.split(",") if text}))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of numbers; write 3,7") from None


def noise(text: str) -> float | None:
    """``sefd`` or a number of Jy as an option; None is that of the telescope."""
    if text == "sefd":
        return None
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no noise; write sefd, or 0.5 for Jy") from None


def how_many(text: str) -> int | None:
    """``16`` or ``all`` as an option."""
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number; write 16, or all") from None


@click.command(epilog="Example: absurd pipeline simulate incoming --antennas 16 --noise 0.5 --rfi 0.02 --missing 3,7")
@click.argument("folder", type=click.Path(file_okay=False), required=False)
@click.option("--telescope", metavar="NAME", default="dsa110", help="One that comes along, or a .toml file.  [dsa110]")
@click.option("--antennas", type=how_many, default="16", metavar="N", help="How many, or all.  [16]")
@click.option("--subbands", type=int, metavar="N", help="How many, from sub-band 0 on.  [the telescope's]")
@click.option("--channels", type=int, metavar="N", help="Of a sub-band: fewer are wider.  [the telescope's]")
@click.option("--integrations", type=int, metavar="N", help="Of a group.  [the telescope's]")
@click.option("--groups", type=int, default=1, metavar="N", help="Groups of sub-bands, one after the other.  [1]")
@click.option("--start", type=moment, metavar="TIME", help="Begin of the first one.  [the calibrator transits in it]")
@click.option("--declination", type=float, metavar="DEG", help="Where dishes look, apparent.  [the calibrator's]")
@click.option("--calibrator", metavar="NAME", default="0834+555", help="A source by name, or none.  [0834+555]")
@click.option("--sources", type=int, default=20, metavar="N", help="Others, drawn around it.  [20]")
@click.option("--fluxes", nargs=2, type=float, default=(0.02, 0.5), metavar="JY JY", help="Of those.  [0.02 0.5]")
@click.option("--sky", metavar="FILE", help="A .csv of sources (ra, dec, flux_jy, …) instead of those drawn.")
@click.option("--beam", type=click.Choice(["airy", "gaussian", "none"]), default="airy", help="Of dishes.  [airy]")
@click.option(
    "--gains",
    type=click.Choice(["perfect", "steady", "drifting"]),
    default="drifting",
    help="All 1, drawn once, or with a smooth change.  [drifting]",
)
@click.option("--bandpass/--no-bandpass", default=True, help="Whether antennas have one.  [--bandpass]")
@click.option("--noise", "noise_jy", type=noise, default="sefd", metavar="JY", help="Of a visibility.  [sefd]")
@click.option("--rfi", "interference", type=float, default=0.0, metavar="SHARE", help="Of times × channels.  [0]")
@click.option("--dead", type=int, default=0, metavar="N", help="Antennas that give noise alone.  [0]")
@click.option("--lost", type=float, default=0.0, metavar="SHARE", help="Of times × antennas: data that are 0.  [0]")
@click.option("--missing", type=numbers, default="", metavar="A,B,…", help="Sub-bands without a file.")
@click.option("--jitter", "jitter_s", type=int, default=0, metavar="SECONDS", help="Of times in file names.  [0]")
@click.option("--seed", type=int, default=0, metavar="N", help="The same seed gives the same bytes.  [0]")
@configured("pipeline simulate")
@json_option
def simulate(folder: str | None, as_json: bool, **given: Any) -> None:
    """Simulate a drift scan into UVH5 files of sub-bands.

    With a configuration FOLDER is its hdf5_dir, if that is for what is simulated (ms_creation.test_mode).

    FOLDER gets `YYYY-MM-DDThh:mm:ss_sbNN.hdf5` for each sub-band, as DSA-110 writes them, and a folder `…_truth` with
    the gains, the bandpass, the interference and the sources that went in.
    """
    need_the_extra("astropy_iers_data", "erfa", "h5py", "numba", "numpy", "scipy", "zarr")
    settings = _settings(given, told().get("settings", {}))
    folder = folder or required(_for_simulations(told()), "FOLDER")
    result = _simulated(folder, settings, show=not as_json)
    for each in result.files:
        remark(f"{each} is written", logging.DEBUG)
    remark(f"{plural(len(result.files), 'sub-band')} simulated into {folder}")
    emit(_document(result), as_json=as_json, text="\n".join(_lines(result)))


def _settings(given: dict[str, Any], configured: dict[str, Any]) -> dict[str, Any]:
    """Of the simulation: options, those that were not given by the configuration, and what no option is for."""
    named = dict(configured)
    if named:
        named["fluxes"] = named.pop("faintest_jy"), named.pop("brightest_jy")
        named["declination"] = named.pop("declination_deg")
    settings = {**named, **given_or_told(given, named)}
    settings["faintest_jy"], settings["brightest_jy"] = settings.pop("fluxes")
    settings["declination_deg"] = settings.pop("declination")
    if settings["calibrator"] == "none":
        settings["calibrator"] = None
    return settings


def _for_simulations(params: dict[str, Any]) -> str | None:
    """The folder of the configuration.  Raises ConfigurationError where what arrives there is real."""
    if params and not params["test_mode"]:
        raise ConfigurationError(
            f"{params['folder']} is for what a telescope records: ms_creation.test_mode is false; name another FOLDER"
        )
    return params.get("folder")


def _simulated(folder: str, given: dict[str, Any], *, show: bool) -> Simulated:
    from absurd.tasks.pipeline.simulation.settings import SimulationSettings
    from absurd.tasks.pipeline.simulation.simulate import simulate as run
    from absurd.tasks.radio.errors import StageError

    settings = SimulationSettings(**given)
    painter = Painter()

    def progress(done: int, total: int) -> None:
        told = {"done": done, "total": total, "message": plural(total, "integration")}
        painter.paint({"state": "simulating", "attempts": 1, "progress": told})

    try:
        with unwinding():
            return run(settings, folder, progress if show else None)
    except OSError as error:
        raise StageError(f"{error.filename or folder}: {error.strerror or error}") from error
    finally:
        painter.clear()


def _document(result: Simulated) -> dict[str, Any]:
    import math

    recording = result.recording
    return {
        "files": list(result.files),
        "truth": result.truth,
        "telescope": recording.telescope.name,
        "antennas": recording.antennas,
        "declination_deg": math.degrees(recording.declination_rad),
        "noise_jy": recording.noise_jy,
        "sources": len(recording.sources),
        "dead": [recording.telescope.antenna_names[each] for each in recording.instrument.dead],
        "settings": asdict(recording.settings),
    }


def _lines(result: Simulated) -> list[str]:
    recording = result.recording
    written = sum(Path(each).stat().st_size for each in result.files)
    told = f"{plural(len(result.files), 'sub-band')} of {recording.telescope.name}, {size(written)}: "
    told += f"{plural(recording.antennas, 'antenna')}, {plural(len(recording.sources), 'source')}, "
    told += f"noise {recording.noise_jy:.3g} Jy"
    first = [clean(result.files[0])] if result.files else []
    return [told, *first, clean(result.truth)]
