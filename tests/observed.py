"""A small night in the product tables, with its files: for tests of what is shown of products."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID, uuid4

import numpy as np
import psycopg
from astropy.io import fits
from astropy.wcs import WCS

Connection = psycopg.Connection[Any]

CENTRE = (150.0, 54.5)
"""Of the images, degrees, ICRS."""
SIDE, SCALE = 64, 5.0
"""Pixels, and arcseconds of one."""
TIMES = ("-infinity", "2026-03-01T04:00:00.25+00:00", "2026-03-01T05:00:00+00:00", "2026-03-01T06:00:00+00:00")
"""When the source was measured; the image of the first one does not tell."""


@dataclass(frozen=True)
class Observed:
    """Numbers and files of what there is."""

    task: UUID
    images: list[int]
    mosaic: int
    table: int
    source: int
    ms: int
    gains: int
    session: str
    export: UUID
    cutout: UUID
    files: dict[str, Path]
    hashes: dict[str, str]


def fill(connection: Connection, folder: Path) -> Observed:
    """Two images that became a mosaic, a source that was measured in them, and what else a night leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = uuid4().hex[:8]
    files = {name: folder / f"{name}.fits" for name in ("one", "two", "mosaic", "stamp")}
    for number, path in enumerate(files.values()):
        _write_image(path, number)
    files |= {"table": folder / "stars.parquet", "export": folder / "rows.parquet", "session": folder / "night.asdf"}
    for name in ("table", "export", "session"):
        files[name].write_bytes(f"content of {name} {mark}".encode())
    hashes = {name: sha256(path.read_bytes()).hexdigest() for name, path in files.items()}

    def value(sql: str, *arguments: Any) -> Any:
        row = connection.execute(sql, arguments).fetchone()
        assert row is not None
        return row[0]

    tasks = {
        name: value("select task_id from spawn_task('default', %s, '{}')", name)
        for name in ("imaging.image", "export.query", "cutout.extract")
    }
    task = tasks["imaging.image"]

    def product(name: str, kind: str, state: str, begin: str | None) -> int:
        number: int = value(
            "insert into product (kind, path, checksum, bytes, state, reason, observed_from, observed_until, facts,"
            " task_id, stored_at, decided_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, clock_time(),"
            " clock_time()) returning id",
            kind, str(files[name]), hashes[name], files[name].stat().st_size, state,
            "noise" if state == "quarantined" else None, begin, begin, json.dumps({"weighting": "briggs"}), task,
        )  # fmt: skip
        if kind != "table":
            connection.execute(
                "insert into sky_image (product_id, telescope, ra, declination, frequency_hz, rms_jy)"
                " values (%s, %s, %s, %s, 1.4e9, 0.00025)",
                [number, f"array {mark}", *CENTRE],
            )
        return number

    images = [product("one", "image", "accepted", TIMES[1]), product("two", "image", "quarantined", TIMES[2])]
    mosaic, table = product("mosaic", "mosaic", "candidate", TIMES[1]), product("table", "table", "accepted", None)
    inputs = [
        (images[0], "/night/one.ms", "visibilities", None),
        (mosaic, str(files["one"]), "tile", images[0]),
        (mosaic, str(files["two"]), "tile", images[1]),
        (table, str(files["mosaic"]), "image", mosaic),
    ]
    source = value(
        "insert into source (name, ra, declination, product_id, found_at) values (%s, 0.001, 54.5, %s, clock_time())"
        " returning id",
        f"A & B {mark}", table,
    )  # fmt: skip
    connection.execute(
        "insert into source (name, ra, declination, found_at) values (%s, 359.999, 54.5, clock_time())", [mark]
    )
    rows = [(source, at, str(files["one"]), table, images[0], 0.004 + n / 1000, n != 2) for n, at in enumerate(TIMES)]
    statements: dict[LiteralString, list[tuple[Any, ...]]] = {
        "insert into product_input (product_id, path, role, input_id) values (%s, %s, %s, %s)": inputs,
        "insert into photometry (source_id, observed_at, image, product_id, image_id, name, flux_jy, error_jy,"
        " detected, upper_limit_jy, flags) values (%s, %s, %s, %s, %s, 'A', %s, 0.0001, %s, 0.003, 0)": rows,
        "insert into variability (product_id, source_id, kind, epochs, detections, eta, reference)"
        " values (%s, %s, 'variable', 4, 3, 12.5, false)": [(table, source)],
        "insert into qa_result (product_id, gate, part, value, unit, verdict, limits, measured_at)"
        " values (%s, %s, '', %s, 'Jy/beam', %s, %s, clock_time())": [
            (images[0], "noise", 0.00025, "ok", '{"fail_above": 0.01}'),
            (images[1], "noise", 0.5, "fail", '{"fail_above": 0.01}'),
            (images[1], "beam", None, "none", "{}"),
        ],
    }
    with connection.cursor() as cursor:
        for sql, values in statements.items():
            cursor.executemany(sql, values)
    gains = value("select id from register_gain_set(%s)", json.dumps(_gains(mark)))
    intake = f"intake.{mark}"
    connection.execute("select set_intake(%s, %s)", [intake, json.dumps({"subbands": 1, "min_subbands": 1})])
    stamp = "2026-03-01T04:00:00Z"
    subband = {"path": f"/{mark}_sb00.hdf5", "version": "1", "state": "whole", "number": 0, "stamp": stamp}
    about = {"declination_deg": 54.5, "content": "110 antennas", "begins_at": stamp, "integration_s": 12.9}
    connection.execute("select count(*) from record_subbands(%s, %s)", [intake, json.dumps([subband | about])])
    ms = value("select g.id from subband_group g join intake i on i.id = intake_id where i.name = %s", intake)
    connection.execute("select end_conversion(%s, 1, %s)", [ms, json.dumps({"path": f"/night/{mark}.ms"})])
    for name, kind, state in (("export.query", "parquet", "export"), ("cutout.extract", "cutout", "stamp")):
        connection.execute(
            "insert into artifact (task_id, path, attempt, attempt_path, kind, sha256, bytes, completed_at,"
            " published_at) values (%s, %s, 1, %s, %s, %s, %s, clock_time(), clock_time())",
            [tasks[name], str(files[state]), str(files[state]), kind, hashes[state], files[state].stat().st_size],
        )
    connection.execute(
        "insert into session_file (folder, path, state, bytes, changed_ns, session_id, session_type, start_time,"
        " target, recovered, error_count, meta, task_id, stored_at)"
        " values (%s, 'night.asdf', 'sealed', %s, 1, %s, 'observation', %s, 'M31', false, 2, '{\"seeing\": 1.2}', %s,"
        " clock_time())",
        [str(folder), files["session"].stat().st_size, mark, TIMES[1], task],
    )
    export, cutout = tasks["export.query"], tasks["cutout.extract"]
    return Observed(task, images, mosaic, table, source, ms, gains, mark, export, cutout, files, hashes)


def _gains(mark: str) -> dict[str, Any]:
    times = {"observed_from": "2026-03-01T04:00Z", "observed_until": "2026-03-01T04:05Z"}
    valid = {"valid_from": "2026-03-01T00:00Z", "valid_until": "2026-03-02T00:00Z", "provenance": {"model": "point"}}
    where = {"declination": 54.5, "strip": 1, "lowest_hz": 1.28e9, "highest_hz": 1.53e9, "telescope": mark}
    what = {"path": f"/gains/{mark}", "checksum": "0" * 64, "bytes": 9, "kinds": ["bandpass", "gain"], "source": "3C48"}
    return times | valid | where | what


def _write_image(path: Path, number: int) -> None:
    """Noise with a point in the middle."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval = CENTRE
    wcs.wcs.crpix = [SIDE / 2 + 1, SIDE / 2 + 1]
    wcs.wcs.cdelt = [-SCALE / 3600, SCALE / 3600]
    pixels = np.random.default_rng(number).normal(0, 1e-3, (SIDE, SIDE)).astype(np.float32)
    pixels[SIDE // 2, SIDE // 2] = 1.0
    fits.PrimaryHDU(pixels, wcs.to_header()).writeto(path, overwrite=True)
