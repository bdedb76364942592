"""What a stage reads is not what it writes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from absurd.tasks.radio.errors import ValidationError


def require_apart(
    read: Iterable[str | os.PathLike[str]], *written: str | os.PathLike[str], advice: str = "write to another place"
) -> None:
    """Raise ValidationError where what is read lies where something will be written, or in a folder there.

    It would be gone, whole, once the new product takes its place.
    """
    for each in read:
        for place in written:
            if Path(os.path.realpath(each)).is_relative_to(os.path.realpath(place)):
                raise ValidationError(f"{each} is both read and written", advice=advice)
