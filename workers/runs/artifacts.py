"""Files of a run: written under the run's own name, published once the completion has committed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress

from absurd.artifact_path import keep_rights
from absurd.disk import persist_names
from absurd.errors import ResultError
from absurd.outcome import PendingArtifact


def collect(announced: Iterable[tuple[str, str, str]]) -> tuple[PendingArtifact, ...]:
    """Make the announced files durable and take their checksums.

    Raises ResultError for a file that was announced and not written.
    """
    collected = tuple(_collect(*each) for each in announced)
    for folder in {os.path.dirname(each.attempt_path) for each in collected}:
        persist_names(folder)  # the names too: after the commit a power cut must not lose what it refers to
    return collected


def discard(announced: Iterable[tuple[str, str, str]]) -> None:
    """Remove what a run that did not complete has written."""
    for mine, _, _ in announced:
        with suppress(OSError):  # not written; or it cannot be removed, and then nobody is misled by its name
            os.unlink(mine)


def publish(artifact: PendingArtifact) -> None:
    """Rename a completed run's file to its final path; what it replaces leaves it its owner, group and mode.

    May be repeated by anyone: once the run's file is gone, the rename was done.  Raises OSError,
    FileNotFoundError if neither name exists.
    """
    try:
        keep_rights(artifact.path, artifact.attempt_path)
        os.replace(artifact.attempt_path, artifact.path)
    except FileNotFoundError:
        if not os.path.exists(artifact.path):
            raise
    persist_names(os.path.dirname(artifact.path))


def _collect(mine: str, final: str, kind: str) -> PendingArtifact:
    try:
        with open(mine, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise ResultError(f"the artifact {final} was announced and not written", path=final) from None
    except IsADirectoryError:
        raise ResultError(f"the artifact {final} was written as a folder; an artifact is a file", path=final) from None
    return PendingArtifact(mine, final, kind, digest, size)
