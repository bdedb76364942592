"""The complete flow of the specification, and files of earlier versions of the form."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import asdf
import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from live import working
from proof import amount
from session_files import opened, session_files

from absurd import SyncAbsurdClient
from absurd.config import Settings
from absurd.tasks.session import SessionManager, build_index, catalog, verify
from absurd.tasks.session.arrays import SessionArrays
from absurd.tasks.session.asdf_extension import VERSIONS, SessionMeta, schema_uri

ALIGNMENT_FRAMES, FRAMES = amount(20, 564), amount(50, 1000)
OLD = Path(__file__).with_name("data")


def capture(number: int) -> np.ndarray[Any, Any]:
    return np.full((12, 16), number, np.uint16)


def flow(sessions: SessionManager) -> tuple[Path, Path]:
    """The flow as it is written there, with arrays for the drivers of cameras."""
    sessions.log("INFO", "Telescope MCP server started")
    sessions.log("INFO", "Cameras initialized", cameras=["ASI482MC", "ASI120MC-S"])
    alignment = sessions.start_session("alignment", purpose="ra_dec_calibration")
    sessions.log("INFO", "Beginning plate solve alignment")
    alignment.add_frame("spotter", capture(0))
    for number in range(ALIGNMENT_FRAMES):
        alignment.add_frame("main", capture(number))
    solve_result = {"ra": 10.68, "dec": 41.27, "rotation": 1.5, "scale": 6.2}
    alignment.add_calibration("plate_solve", solve_result)
    sessions.log("INFO", "Alignment complete", offset_ra=0.5, offset_dec=-0.3)
    alignment_path = sessions.end_session()
    sessions.log("INFO", "Waiting for observation command")
    observation = sessions.start_session("observation", target="M31", planned_duration_minutes=120)
    sessions.log("INFO", "Starting M31 observation")
    for number in range(FRAMES):
        observation.add_frame("main", capture(number))
        sessions.log("DEBUG", f"Frame {number} captured", exposure_us=312000)
    observation_path = sessions.end_session()
    sessions.rebuild_catalog()
    return alignment_path, observation_path


def test_the_complete_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle, alignment, idle, observation, catalogue: the files hold what was told, plain asdf opens them, and the
    queries of the specification find them, in its own words, and open them; with 1,000 frames in `make soak`.
    """
    data = tmp_path / "telescope"
    with SessionManager(data_dir=data, sync="second") as sessions:
        alignment_path, observation_path = flow(sessions)

    assert [verify(each).metrics["frames_captured"] for each in (alignment_path, observation_path)] == [
        ALIGNMENT_FRAMES + 1,
        FRAMES,
    ]
    tree = opened(observation_path)
    assert (tree["meta"]["target"], tree["meta"]["planned_duration_minutes"]) == ("M31", 120)
    assert [each["sum"] for each in tree["cameras"]["main"]["frames"]] == [192.0 * each for each in range(FRAMES)]
    assert opened(alignment_path)["calibration"]["plate_solve_results"][0]["scale"] == 6.2
    types = [each.name.partition("_")[0] for each in session_files(data)]
    assert sorted(types) == ["alignment", "idle", "idle", "observation"]
    monkeypatch.chdir(data)
    relation: Any = duckdb.sql(
        "SELECT session_id, target, error_count, asdf_path FROM 'catalog/*.parquet'"
        " WHERE session_type = 'observation' AND target LIKE 'M%' ORDER BY start_time DESC LIMIT 10"
    )
    assert relation.fetchall() == [(observation_path.stem, "M31", 0, str(observation_path))]
    table = pq.read_table("catalog/catalog.parquet")
    failed = table.filter((pc.field("session_type") == "alignment") & (pc.field("error_count") > 0))
    assert failed.num_rows == 0
    build_index(data, data / catalog.SQLITE)
    with sqlite3.connect(catalog.SQLITE) as connection:
        newest = connection.execute("SELECT asdf_path FROM sessions ORDER BY start_time DESC LIMIT 10").fetchall()
    connection.close()
    assert len(newest) == 4
    with asdf.open(newest[0][0]) as file:
        assert file["observability"]["logs"][-1]["message"] == f"Frame {FRAMES - 1} captured"


async def test_the_flow_on_the_queue(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a client sealing and catalogue are tasks, and the database has the rows when the call returns."""
    import asyncio

    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    settings = Settings(database_url=database_url)
    with SyncAbsurdClient(settings=settings) as client, SessionManager(tmp_path, client, queue="night") as sessions:
        async with working(settings, queues=["night", "default"]):
            await asyncio.to_thread(sessions.start_session, "observation", target="M31")
            path = await asyncio.to_thread(sessions.end_session)
            await asyncio.to_thread(sessions.rebuild_catalog)
        [row] = client.list_sessions(str(tmp_path), target="M%")
    assert (row["session_id"], len(row["sha256"])) == (path.stem, 64)


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_files_of_earlier_versions(version: str, tmp_path: Path) -> None:
    """A file of each earlier version of the form is read by all that reads files, checked against its own schema, and
    keeps its version when asdf writes it again.
    """
    path = OLD / f"session-{version}.asdf"

    assert verify(path).meta["schema_version"] == version
    arrays = SessionArrays(path)
    assert [int(arrays.load(each)[0, 0]) for each in arrays.of("cameras", "main")] == [0, 1, 2]
    (tmp_path / "2026").mkdir()
    (tmp_path / "2026" / path.name).write_bytes(path.read_bytes())
    [entry] = catalog.scan(tmp_path).sessions
    assert entry.columns["schema_version"] == version
    assert (entry.columns["target"], entry.columns["frames_captured"], entry.columns["error_count"]) == ("M31", 3, 1)
    with asdf.open(path, custom_schema=schema_uri(version)) as file:
        assert isinstance(file["meta"], SessionMeta)
        file.write_to(tmp_path / "again.asdf")
    assert f"session_meta-{version}".encode() in (tmp_path / "again.asdf").read_bytes()
    assert "again.asdf" in {each.path for each in catalog.scan(tmp_path).entries}
