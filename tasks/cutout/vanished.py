"""Images that were there when a batch was divided, and are gone when it is cut."""

from __future__ import annotations

from collections.abc import Sequence

from absurd.tasks.cutout.errors import SourceNotFoundError
from absurd.tasks.cutout.fetched import Fetched
from absurd.tasks.cutout.images import local_path
from absurd.tasks.cutout.in_turn import beside
from absurd.tasks.cutout.ranged import is_remote


class Vanished:
    """Tells rows of the files that they lack since the batch was divided; each file is looked for once.

    A folder without a file looks as if it had never been there: the position would be on no image, with no word of why.
    """

    def __init__(self) -> None:
        self._is_gone: dict[str, bool] = {}

    def told(self, row: Fetched, planned: Sequence[str]) -> Fetched:
        """A row, with what has vanished of its `planned` images as files that cannot be read.

        Of addresses the source tells itself.
        """
        if row.n_found >= len(planned):
            return row
        gone = {uri: _gone(uri) for uri in planned if self._has_vanished(uri)}
        return beside(row, gone | dict(row.unread)) if gone else row

    def _has_vanished(self, uri: str) -> bool:
        if uri not in self._is_gone:
            self._is_gone[uri] = not is_remote(uri) and not local_path(uri).exists()
        return self._is_gone[uri]


def _gone(uri: str) -> SourceNotFoundError:
    return SourceNotFoundError(f"{uri} was there when the batch was divided, and is gone", source=uri)
