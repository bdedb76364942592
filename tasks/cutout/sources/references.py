"""What is asked of a Butler's registry and datastore, many datasets at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lsst.daf.butler import Butler, DatasetRef, DatasetType
from numpy.typing import NDArray

from absurd.tasks.cutout.errors import CutoutExtractionError, DataIdValidationError
from absurd.tasks.cutout.sources.butler_pool import ButlerPool
from absurd.tasks.cutout.sources.region_map import Located, Region


def regions_of(pool: ButlerPool, skymap: str, tracts: Sequence[int] | None) -> list[Region]:
    """The regions of all tracts of a sky map, or those of the patches of some; those without a region left out."""
    where = "skymap = name" + ("" if tracts is None else " AND tract IN (tracts)")
    bind = {"name": skymap} | ({} if tracts is None else {"tracts": list(tracts)})
    with pool.lease() as butler, butler.query() as query:
        records = list(query.where(where, bind=bind).dimension_records("tract" if tracts is None else "patch"))
    return [
        Region(
            each.id if tracts is None else each.tract,
            each.id,
            np.array([tuple(vertex) for vertex in each.region.getVertices()]),
        )
        for each in records
        if each.region is not None
    ]


def patches_in(pool: ButlerPool, skymap: str, region: Any) -> list[tuple[int, int]]:
    """Tract and patch of each patch whose region overlaps one of lsst.sphgeom, sorted."""
    with pool.lease() as butler, butler.query() as query:
        found = query.where(
            "skymap = name AND patch.region OVERLAPS wanted", bind={"name": skymap, "wanted": region}
        ).data_ids(["patch"])
        return sorted((int(each["tract"]), int(each["patch"])) for each in found)


def images_of_visits(
    butler: Butler, kind: DatasetType, collections: list[str], region: Any
) -> list[tuple[Located, NDArray[np.float64]]]:
    """The images of single exposures that overlap a region of lsst.sphgeom, with the corners of each as unit vectors.

    Of one data ID the first collection's; those without a region left out.
    """
    with butler.query() as query:
        found = query.where("visit_detector_region.region OVERLAPS wanted", bind={"wanted": region})
        refs = list(found.datasets(kind, collections, find_first=True).with_dimension_records())
    placed = [ref for ref in refs if ref.dataId.region is not None]
    corners = [np.array([tuple(vertex) for vertex in ref.dataId.region.getVertices()]) for ref in placed]
    return list(zip(locate_files(butler, placed), corners, strict=True))


def names_of_types(butler: Butler, collections: list[str]) -> list[str]:
    """The dataset types of which the collections have any, sorted."""
    infos = butler.collections.query_info(collections, flatten_chains=True, include_summary=True)
    return sorted({name for info in infos for name in info.dataset_types or ()})


def data_ids_of_patch(
    butler: Butler, kind: DatasetType, collections: list[str], skymap: str, where: Mapping[str, int]
) -> list[dict[str, Any]]:
    """The data IDs of a type in a patch or its tract, sorted; of one data ID the first collection's."""
    data_id = {"skymap": skymap} | {name: value for name, value in where.items() if name in kind.dimensions}
    with butler.query() as query:
        refs = list(query.where(data_id).datasets(kind, collections, find_first=True))
    return sorted((dict(ref.dataId.mapping) for ref in refs), key=lambda each: [*map(str, each.values())])


def locate_files(butler: Butler, refs: Sequence[DatasetRef]) -> list[Located]:
    """Where each dataset's file is, in one query."""
    uris = butler.get_many_uris(refs)
    found = []
    for ref in refs:
        uri = uris[ref].primaryURI
        if uri is None:
            raise CutoutExtractionError(f"{told(ref)} is kept in pieces, a file for each component")
        band = ref.dataId.get("band")
        found.append(Located(band, uri.ospath if uri.isLocal else str(uri), str(ref.id)))
    return found


def told(ref: DatasetRef) -> str:
    """A dataset for a message."""
    return f"{ref.datasetType.name} {', '.join(f'{key}={value}' for key, value in ref.dataId.required.items())}"


def number_of(value: Any, name: str) -> int:
    """A number of a data ID.  Raises DataIdValidationError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataIdValidationError(f"{name} is {value!r}; it must be a whole number, 0 or more")
    return value


def patch_of(value: Any) -> int:
    """A patch by its number; older releases wrote "x,y", which says nothing without the width of the grid."""
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return number_of(value, "patch")
