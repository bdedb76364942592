"""``absurd bench``: figures of a queue of its own, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from cli.conftest import Run, Start

from absurd.bench import idle, tiles
from absurd.bench import imaging as images
from absurd.tasks.imaging.engines import Recording, engine_named
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.products import write_products
from absurd.tasks.visibility.measurement_set import read_measurement_set

Connection = psycopg.Connection[Any]
Until = Callable[[Callable[[], object]], None]

SMALL = {
    "queue": ["--tasks", "600"],
    "latency": ["--tasks", "10"],
    "backlog": ["--tasks", "600", "--pending", "600", "--finished", "300"],
    "snapshot": ["--tasks", "600", "--minutes", "0.01"],
    "dag": ["--nodes", "30"],
    "slots": ["--tasks", "100"],
    "packing": ["--tasks", "300"],
    "idle": ["--seconds", "2"],
    "web": ["--rows", "1000", "--requests", "10", "--followers", "3", "--tasks", "600"],
    "batch": ["--positions", "60", "--side", "200", "--size", "9"],
}

MAY_BE_NAUGHT = (
    "spawn to start, half of them", "spawn to start, 99 %", "a process over a thread", "in a process", "worker",
    "server", "cutting on the queue", "share of worker and server", "share of the queue",
)  # fmt: skip
"""On a busy machine a task starts before its spawner gets to look at the clock, and a difference has any sign."""


def schemas(connection: Connection) -> list[str]:
    """Schemas of benchmarks that are in the database."""
    return [name for (name,) in connection.execute("select nspname from pg_namespace where nspname ^@ 'absurd_bench_'")]


@pytest.mark.parametrize("name", SMALL)
def test_each_measures_and_leaves_nothing(
    name: str, run: Run, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive figures with units; no schema is left, and the queues that exist are as they were."""
    monkeypatch.setattr(idle, "SETTLING", 0.0)  # what they do at their start is more than nothing
    connection.execute("select spawn_task('default', 'bench.noop', '{}')")

    found = run("bench", name, *SMALL[name], "--json")

    assert found.code == 0, found.err
    figures = found.document["figures"]
    assert figures
    assert all(each["value"] > 0 or name == "idle" or each["name"] in MAY_BE_NAUGHT for each in figures), figures
    assert found.document["machine"]["postgresql"]
    assert schemas(connection) == []
    assert connection.execute("select name, pending from list_queues()").fetchall() == [("default", 1)]
    assert connection.execute("select count(*) from worker").fetchone() == (0,)


def test_cutouts_are_measured_without_a_database(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates of each contestant, how many times those of another they are, and memory; no image is left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)

    found = run(
        "bench", "cutout", "--side", "200", "--positions", "8", "--many", "30", "--size", "9", "--rounds", "2", "--json"
    )

    assert found.code == 0, found.err
    figures = {each["name"]: each for each in found.document["figures"]}
    assert all(each["value"] > 0 for each in figures.values())
    assert {"plain, absurd", "tiles of a row, astropy", "tiles of 100 x 100, absurd over astropy"} <= set(figures)
    assert figures["peak memory, 30 cut-outs"]["unit"] == "MiB"
    assert list(tmp_path.iterdir()) == []


def test_calibration_is_measured_without_a_database(run: Run) -> None:
    """Seconds of a solve and errors of the gains, and with interference and dead antennas."""
    found = run("bench", "calibration", "--antennas", "10", "--channels", "4", "--times", "3", "--json")

    assert found.code == 0, found.err
    figures = {each["name"]: each for each in found.document["figures"]}
    assert set(figures) == {
        f"embedded{more}, {what}" for more in ("", ", disturbed") for what in ("solve", "error of gains")
    }
    assert 0 < figures["embedded, error of gains"]["value"] < 5
    assert figures["embedded, disturbed, error of gains"]["value"] < 5


def test_images_are_measured_without_a_database(run: Run) -> None:
    """Of a tile whose gains were solved on a calibrator: time, memory, noise and errors of fluxes, by imager."""
    sizes = ["--size", "256", "--antennas", "30", "--channels", "4", "--times", "3"]
    found = run("bench", "imaging", "--tile", "solved", *sizes, "--json")

    assert found.code == 0, found.err
    figures = {each["name"]: each["value"] for each in found.document["figures"]}
    imagers = {name.partition(",")[0] for name in figures}
    assert imagers == {"embedded"} | ({"WSClean"} if shutil.which("wsclean") else set())
    for each in imagers:
        assert all(figures[f"{each}, {what}"] > 0 for what in ("wall", "processor", "memory", "residual"))
        # No bound from below: cleaning to 1 mJy takes most of the 6.6 mJy of noise of so small a tile away as well.
        assert figures[f"{each}, residual over thermal noise"] < 3


def test_tiles_of_benchmarks_are_what_they_are_called(tmp_path: Path) -> None:
    """Solved gains give back the sky; wide sources fade on long baselines; spectra change it along the band."""
    seen, told = {}, {}
    for kind in tiles.KINDS:
        told[kind] = tiles.simulate(tmp_path / f"{kind}.ms", kind, size=1024, antennas=40, channels=4, times=3)
        seen[kind] = read_measurement_set(tmp_path / f"{kind}.ms")
    power = {kind: np.abs((each.data * np.conj(seen["plain"].data)).mean(axis=(0, 2))) for kind, each in seen.items()}

    off = seen["solved"].data - seen["plain"].data
    assert float(np.sqrt(np.mean(np.abs(off) ** 2) / 2)) == pytest.approx(0.5 * np.sqrt(2), rel=0.3)
    assert power["solved"] == pytest.approx(power["plain"] - 0.5, rel=0.03)
    length = np.hypot(*seen["plain"].uvw_m[:, :2].T)
    faded = np.abs(seen["extended"].data - seen["plain"].data).mean(axis=(1, 2))  # their noise is the same
    assert faded[length < 20].max() < 0.1
    assert faded[length > 1000].mean() > 1
    assert [sum(each.is_wide for each in sources) for sources in told.values()] == [0, 0, 5, 0]
    ratio = power["chromatic"] / power["plain"]
    assert abs(ratio[-1] / ratio[0] - 1) > 0.02
    bright = told["chromatic"][49]
    assert bright.flux_jy(1.4e9) == pytest.approx(told["plain"][49].flux_jy(1.4e9), rel=0.05)
    assert bright.flux_jy(1.4e9) == pytest.approx(bright.by_channel_jy.mean())
    slope = np.polyfit(np.linspace(1.3e9, 1.5e9, 4), bright.by_channel_jy, 1)[0]
    assert bright.flux_jy(1.41e9) - bright.flux_jy(1.4e9) == pytest.approx(1e7 * slope)


@pytest.mark.parametrize("kind", ["plain", "chromatic"])
def test_fluxes_of_images_are_right(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tile with little noise flux densities above 100 mJy are off by 0.2 % in the median and by 1 % at most."""
    monkeypatch.setattr(tiles, "_NOISE_JY", 0.02)
    sky = tiles.simulate(tmp_path / "tile.ms", kind, size=768, antennas=60, channels=4, times=4)
    parameters = ImagingParameters.model_validate({"image_size": 768, "cell_size": "3arcsec", "robust": 0.0})
    (image,) = engine_named("embedded").image(Recording(tmp_path / "tile.ms"), parameters, lambda stage: None)
    write_products([image], {"image": str(tmp_path / "image.fits")}, pblimit=0.1)

    wanted = np.array([each.flux_jy(image.frequency_hz) for each in sky])
    off = np.abs(images.fluxes(tmp_path / "image.fits", sky) / wanted - 1)[wanted > 0.1]
    print(np.sort(off))
    assert len(off) > 20
    assert np.median(off) < 0.002
    assert off.max() < 0.01


def test_mosaics_are_measured_without_a_database(run: Run) -> None:
    """Seconds, memory, and how right flux densities and the noise map are."""
    found = run("bench", "mosaic", "--tiles", "2", "--side", "300", "--json")

    assert found.code == 0, found.err
    figures = {each["name"]: each["value"] for each in found.document["figures"]}
    assert figures["2 tiles"] > 0
    assert 0.8 < figures["chi squared of pixels"] < 1.2
    assert abs(figures["bias of bright sources"]) < 1


def test_photometry_is_measured_without_a_database(run: Run) -> None:
    """Positions a second, how right they are, and what is found."""
    found = run("bench", "photometry", "--sources", "60", "--side", "500", "--json")

    assert found.code == 0, found.err
    figures = {each["name"]: each["value"] for each in found.document["figures"]}
    assert figures["forced photometry"] > 0
    assert figures["bias above 20 errors"] < 0.5
    assert 0.7 < figures["scatter in errors"] < 1.4
    assert figures["found above 10 sigma"] > 90


def test_sessions_are_measured_without_a_database(run: Run, tmp_path: Path) -> None:
    """Entries, frames beside the disk's own rate, memory, the catalogue and queries; nothing stays in the folder."""
    sizes = ("--entries", "200", "--frames", "2", "--files", "20")
    found = run("bench", "session", *sizes, "--folder", str(tmp_path), "--json")

    assert found.code == 0, found.err
    figures = {each["name"]: each["value"] for each in found.document["figures"]}
    assert len(figures) == 10
    assert figures["entries, sync=entry"] > 0
    assert figures["memory above the interpreter"] < 200
    assert list(tmp_path.iterdir()) == []


def databases(connection: Connection) -> list[str]:
    """Databases of benchmarks that are on the server."""
    return [name for (name,) in connection.execute("select datname from pg_database where datname ^@ 'absurd_bench_'")]


EXPORT = ("bench", "export", "--scale", "0.0002", "--only", "absurd, 2 connections")


def test_exports_are_measured_beside_others(run: Run, connection: Connection) -> None:
    """Each contestant has times and a file of the server's rows, or a reason; no database is left."""
    others = ("--only", "COPY BINARY to nowhere", "--only", "CSV in two stages")
    found = run(*EXPORT, *others, "--table", "wide", "--table", "texty_cast", "--rounds", "2", "--json")

    assert found.code == 0, found.err
    document = found.document
    assert document["rows"] == {"wide": 200, "texty_cast": 400}
    assert list(document["contestants"]) == ["COPY BINARY to nowhere", "absurd, 2 connections", "CSV in two stages"]
    failed = {(each["query"], each["contestant"]): each["failed"] for each in document["results"] if each["failed"]}
    assert failed == {("texty_cast", "CSV in two stages"): "wrong: 120 NULLs for 40 in note"}
    for each in document["results"]:
        if not each["failed"]:
            assert each["runs"] == 2
            assert each["wall"] > 0
            assert each["cpu"] > 0
            assert each["server_cpu"] >= 0
            assert each["peak"] > 1 << 20
            assert (each["size"] > 1000) == (each["contestant"] != "COPY BINARY to nowhere")
    assert document["rounds"] == 2
    measured = {f"{each['query']}, {each['contestant']}": each["wall"] for each in document["results"] if each["wall"]}
    assert {each["name"]: each["value"] for each in document["figures"]} == measured
    assert databases(connection) == []


def test_exports_are_told_as_tables(run: Run) -> None:
    """A table for each query, with ratios to ours; who is not installed is named, and so is an unknown contestant."""
    told = run(*EXPORT, "--table", "wide")

    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[0] == "wide, 200 rows"
    assert "to ours" in lines[1]
    assert lines[2].startswith("absurd, 2 connections")
    assert "Not installed: " in told.out
    refused = run("bench", "export", "--only", "pgpq")
    assert refused.code == 2
    assert "there is no contestant 'pgpq'" in refused.err


def test_a_killed_benchmark_of_exports_is_tidied_up(
    start: Start, run: Run, connection: Connection, until: Until
) -> None:
    """Its database goes with the next run."""
    process = start("absurd", "bench", "export", "--scale", "0.1")
    until(lambda: databases(connection))

    process.kill()
    process.communicate(timeout=30)
    assert run(*EXPORT, "--table", "wide").code == 0

    assert databases(connection) == []


def test_a_run_is_held_against_a_saved_one(run: Run, tmp_path: Path) -> None:
    """--save keeps figures beside those of other benchmarks, --against shows them and how they changed."""
    saved = tmp_path / "figures.json"
    other = {"benchmark": "dag", "figures": [{"name": "x", "value": 1.0}]}
    saved.write_text(json.dumps([other]))

    assert run("bench", "queue", "--tasks", "200", "--save", str(saved), "--rounds", "2").code == 0
    text = run("bench", "queue", "--tasks", "200", "--against", str(saved)).out

    documents = json.loads(saved.read_text())
    assert documents[0] == other
    assert (documents[1]["benchmark"], documents[1]["rounds"]) == ("queue", 2)
    assert text.splitlines()[0].split() == ["figure", "value", "unit", "before", "change"]
    assert "drained by 2 processes" in text


@pytest.mark.parametrize("option", ["--save", "--against"])
def test_a_file_of_something_else_is_refused(option: str, run: Run, tmp_path: Path, connection: Connection) -> None:
    """Before anything is measured, and it is left as it is."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes")

    refused = run("bench", "queue", option, str(path))

    assert refused.code == 2
    assert "holds no saved figures" in refused.err
    assert path.read_text() == "my notes"


def test_a_role_that_may_make_no_schema_is_told(run: Run, connection: Connection, database_url: str) -> None:
    """One sentence that names what is missing, exit code 2."""
    connection.execute("create role bench_reader login")
    try:
        refused = run("bench", "queue", "--database-url", database_url.replace("//absurd@", "//bench_reader@"))
    finally:
        connection.execute("drop role bench_reader")

    assert refused.code == 2, refused
    assert "schema of its own" in refused.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_benchmark_that_is_stopped_leaves_nothing(
    number: signal.Signals, start: Start, run: Run, connection: Connection, until: Until
) -> None:
    """Ctrl-C removes schema and workers; after a kill the workers leave by themselves and the next run tidies up."""
    process = start("absurd", "bench", "latency", "--tasks", "100000")
    until(lambda: schemas(connection))
    [schema] = schemas(connection)
    until(lambda: connection.execute(f"select 1 from pg_tables where schemaname = '{schema}'").fetchone())
    until(lambda: connection.execute(f"select 1 from {schema}.worker where state = 'running'").fetchone())

    process.send_signal(number)
    process.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert schemas(connection) == [schema]
        until(lambda: connection.execute(f"select 1 from {schema}.worker where state = 'stopped'").fetchone())
        assert run("bench", "latency", "--tasks", "10").code == 0

    assert schemas(connection) == []
    until(lambda: connection.execute(
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    ).fetchone() == (0,))  # fmt: skip
