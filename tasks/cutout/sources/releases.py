"""What the data releases of the Rubin Observatory call the datasets that are asked for here."""

from __future__ import annotations

RELEASES: dict[str, dict[str, str]] = {
    "dp1": {"image": "deep_coadd", "visit_image": "visit_image", "object": "object", "source": "source"},
    "dp02": {"image": "deepCoadd", "visit_image": "calexp", "object": "objectTable", "source": "src"},
}
"""Dataset types by kind: images of patches and of visits, catalogues of coadds and of visits.

DP1: https://dp1.lsst.io, DP0.2: https://dp0-2.lsst.io.
"""

KINDS = tuple(RELEASES["dp1"])


def usual_names(kind: str) -> list[str]:
    """The dataset types that a kind may be, the newest release's first; of any other word, itself."""
    return [names[kind] for names in RELEASES.values()] if kind in KINDS else [kind]
