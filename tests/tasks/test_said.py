"""What errors of other packages say, in one line."""

from __future__ import annotations

import pytest

from absurd.tasks.said import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("\n  no such table\n\tin a.cc, line 7"), "no such table"),
        (KeyError("there is no 'a'"), "there is no 'a'"),
        (KeyError(3), "3"),
        (KeyError(), "KeyError"),
        (ValueError("there is no collection 'b'"), "there is no collection 'b'"),
        (PermissionError(13, "Permission denied", "f.hdf5"), "[Errno 13] Permission denied: 'f.hdf5'"),
        (OSError(" \n"), "OSError"),
    ],
)
def test_the_first_line(error: Exception, line: str) -> None:
    """The first that is not empty, as its author wrote it; the kind of error where nothing is said."""
    assert first_line(error) == line
