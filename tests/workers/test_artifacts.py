"""Files of a run are durable before its completion, and published after it by whoever comes first."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import psycopg
import pytest

from absurd.database import AsyncDatabase
from absurd.errors import ResultError
from absurd.outcome import PendingArtifact
from absurd.workers.publisher import Publisher
from absurd.workers.runs.artifacts import collect, discard, publish


def pending(tmp_path: Path, text: str = "new") -> PendingArtifact:
    mine, final = tmp_path / ".run.part.image.fits", tmp_path / "image.fits"
    mine.write_text(text)
    return collect([(str(mine), str(final), "image")])[0]


def test_size_and_checksum_are_taken_before_the_completion(tmp_path: Path) -> None:
    """They go with it; the file is still under the run's own name then."""
    artifact = pending(tmp_path)

    assert (hashlib.sha256(b"new").hexdigest(), 3, "image") == (artifact.sha256, artifact.bytes, artifact.kind)
    assert not Path(artifact.path).exists()


def test_publication_replaces_what_was_there(tmp_path: Path) -> None:
    """The name holds the old file or the new one, never a part, and the run's own name is gone."""
    artifact = pending(tmp_path)
    Path(artifact.path).write_text("old")

    publish(artifact)

    assert "new" == Path(artifact.path).read_text()
    assert [Path(artifact.path)] == list(tmp_path.iterdir())


def test_an_interrupted_publication_can_be_finished_by_anyone(tmp_path: Path) -> None:
    """Before the rename it is made, after it nothing happens; also by one who knows the names alone."""
    artifact = pending(tmp_path)
    known = PendingArtifact(artifact.attempt_path, artifact.path, "", "", 0)

    for _ in range(3):
        publish(known)

    assert "new" == Path(artifact.path).read_text()


def test_a_file_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    """It was removed from outside; nobody is told that it was published."""
    artifact = pending(tmp_path)
    Path(artifact.attempt_path).unlink()

    with pytest.raises(FileNotFoundError):
        publish(artifact)


def test_only_files_are_collected(tmp_path: Path) -> None:
    """What was not written, or written as a folder, is named by its final path."""
    (tmp_path / ".folder").mkdir()

    for mine in (".nothing", ".folder"):
        with pytest.raises(ResultError, match="final"):
            collect([(str(tmp_path / mine), str(tmp_path / "final"), "file")])


def test_discarding_never_fails(tmp_path: Path) -> None:
    """A run that has failed already is not failed by what it left."""
    artifact = pending(tmp_path)
    (tmp_path / "folder").mkdir()

    discard([(artifact.attempt_path, "", ""), (str(tmp_path / "none"), "", ""), (str(tmp_path / "folder"), "", "")])

    assert not Path(artifact.attempt_path).exists()


async def test_files_that_nobody_reaches_hide_no_others(
    tmp_path: Path, database_url: str, connection: psycopg.Connection[Any]
) -> None:
    """Overdue files on the disk of a machine that is gone are no hindrance to those that lie here."""
    here = pending(tmp_path)
    insert = (
        "insert into artifact (task_id, path, attempt, attempt_path, kind, completed_at)"
        " select gen_random_uuid(), %s, 1, %s, 'file', clock_time() - make_interval(secs => %s)"
        " from generate_series(1, %s)"
    )
    connection.execute(insert, ("/nowhere/file", "/nowhere/.file", 3600, 150))
    connection.execute(insert, (here.path, here.attempt_path, 60, 1))
    async with AsyncDatabase(database_url) as database:
        publisher = Publisher(database)
        for _ in range(60):
            publisher._due = 0.0
            await publisher.publish_overdue()
            if Path(here.path).exists():
                break

    left = connection.execute("select path, count(*) from artifact where published_at is null group by 1").fetchall()
    assert left == [("/nowhere/file", 150)]
