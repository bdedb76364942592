"""Names of sub-band files: ``YYYY-MM-DDThh:mm:ss_sbNN.hdf5``, or ``.uvh5``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath

SUFFIXES = (".hdf5", ".uvh5")

_NAME = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})_sb(\d{2,4})(\.hdf5|\.uvh5)", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class SubbandName:
    """What the name of a sub-band file tells."""

    stamp: datetime
    """When its writer began, UTC, to the second; those of one recording differ by up to two minutes."""
    number: int
    """Of the sub-band, from 0; 0 has the highest frequencies at DSA-110."""
    suffix: str = ".hdf5"

    def __str__(self) -> str:
        return f"{self.stamp:%Y-%m-%dT%H:%M:%S}_sb{self.number:02d}{self.suffix}"


def parse_name(path: str | PurePath) -> SubbandName | None:
    """What the last part of a path tells; None where it is not the name of a sub-band file.

    A name that begins with a dot is not: that is how rsync and others call a file while they write it.
    """
    found = _NAME.fullmatch(PurePath(path).name)
    if found is None:
        return None
    try:
        stamp = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError:  # the 31st of February
        return None
    return SubbandName(stamp, int(found[2]), found[3])
