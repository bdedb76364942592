"""Files of a run: written under the attempt's own name, published once the completion has committed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from absurd.errors import ResultError
from absurd.outcome import PendingArtifact


def collect(announced: Iterable[tuple[str, str, str]]) -> tuple[PendingArtifact, ...]:
    """Make the announced files durable and take their checksums.

    Raises ResultError for a file that was announced and not written.
    """
    return tuple(_collect(*each) for each in announced)


def discard(announced: Iterable[tuple[str, str, str]]) -> None:
    """Remove what a run that did not complete has written."""
    for mine, _, _ in announced:
        try:
            os.unlink(mine)
        except FileNotFoundError:
            continue


def publish(artifact: PendingArtifact) -> None:
    """Rename a completed run's file to its final path.

    May be repeated by anyone: once the attempt's file is gone, the rename was done.  Raises OSError,
    FileNotFoundError if neither name exists.
    """
    try:
        os.replace(artifact.attempt_path, artifact.path)
    except FileNotFoundError:
        if not os.path.exists(artifact.path):
            raise
        return
    _sync(os.path.dirname(artifact.path))


def _collect(mine: str, final: str, kind: str) -> PendingArtifact:
    try:
        with open(mine, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise ResultError(f"the artifact {final} was announced and not written", path=final) from None
    return PendingArtifact(mine, final, kind, digest, size)


def _sync(folder: str) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
