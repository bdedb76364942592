"""A repository of the Rubin Observatory's Butler: what is in it, its images and its catalogues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DatasetType, MissingCollectionError
from lsst.sphgeom import Angle, Circle, LonLat, UnitVector3d
from numpy.typing import NDArray

from absurd.tasks.cutout.errors import (
    ButlerConnectionError,
    CollectionError,
    CutoutExtractionError,
    DataIdValidationError,
    SourceNotFoundError,
)
from absurd.tasks.cutout.retry import is_transient
from absurd.tasks.cutout.sources.butler_pool import ButlerPool, Secret
from absurd.tasks.cutout.sources.catalog_table import as_arrow
from absurd.tasks.cutout.sources.exposure import BoxLike, Exposure, ExposureFile
from absurd.tasks.cutout.sources.references import (
    data_ids_of_patch,
    images_of_visits,
    locate_files,
    names_of_types,
    number_of,
    patch_of,
    patches_in,
    regions_of,
    told,
)
from absurd.tasks.cutout.sources.region_map import Located, RegionSkyMap, SkyMapRecord
from absurd.tasks.cutout.sources.releases import RELEASES, usual_names
from absurd.tasks.said import first_line

AT_ONCE = 1000
"""Data IDs that are asked for in one query."""


class RepositoryConfig(Protocol):
    """What is asked of a `ButlerConfig`."""

    @property
    def repo_path(self) -> str | None: ...
    @property
    def server_url(self) -> str | None: ...
    @property
    def collections(self) -> Sequence[str]: ...
    @property
    def instrument(self) -> str: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def timeout(self) -> float: ...
    @property
    def skymap(self) -> str | None: ...
    @property
    def datasets(self) -> Mapping[str, str]: ...
    def access_token(self) -> Secret | None: ...


class Cache(Protocol):
    """What keeps registry results."""

    def get_or_load(self, key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        """What is kept under `key` (its kind "availability", then texts), else what `load` gives: plain data."""
        ...


class ButlerClient:
    """A repository, read-only: the server at `server_url`, else the direct one at `repo_path`.

    Nothing is opened until something is asked; then the collections are checked.  Up to `max_connections` threads
    are served at once, each by a Butler of its own.  Errors are those of `absurd.tasks.cutout.errors`:
    ButlerConnectionError, CollectionError, DataIdValidationError, SourceNotFoundError, and of pixels
    CutoutExtractionError.  What the registry answers is kept in `cache`, if there is one.
    """

    def __init__(self, config: RepositoryConfig, *, cache: Cache | None = None) -> None:
        place = config.server_url or config.repo_path
        if not place:
            raise DataIdValidationError("neither server_url nor repo_path is given: there is no repository to ask")
        self.config = config
        self.pool = ButlerPool(
            place,
            size=config.max_connections,
            timeout=config.timeout,
            token=config.access_token if config.server_url else None,
        )
        self.place = self.pool.place
        """What is shown of its address: no password, no token."""
        self._cache = cache
        self._checked = False
        self._skymap: RegionSkyMap | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return f"ButlerClient({self.place!r}, {', '.join(self.config.collections)})"

    def cleanup(self) -> None:
        """Close all connections and forget what is known; a client that is asked again opens them again."""
        self.pool.close()
        self._checked = False
        self._skymap = None

    # What there is -----------------------------------------------------------------------------------

    def test_connection(self) -> bool:
        """Whether the repository answers, by one query of its collections; whatever is asked then tells why not.

        Raises CollectionError: it answers, but does not have the collections.
        """
        self._checked = False
        try:
            self._check()
        except ButlerConnectionError:
            return False
        return True

    def list_collections(self) -> list[str]:
        """The names of all collections of the repository, sorted."""
        with self.pool.lease() as butler:
            return sorted(butler.collections.query("*", include_chains=True))

    def get_skymap(self) -> RegionSkyMap:
        """The sky map that tracts and patches are of: `skymap` of the configuration, or the only one.

        It is what the registry tells, not the dataset "skyMap", which is a pickle of classes that are not here.
        """
        if self._skymap is None:
            records = self._cached(("skymaps",), self._skymap_records)
            known = {each["name"]: each for each in records}
            name = self.config.skymap or (next(iter(known)) if len(known) == 1 else None)
            if name is None or name not in known:
                meant = f"no sky map {name!r}" if name else f"{len(known)} sky maps"
                raise DataIdValidationError(
                    f"{self.place} has {meant}; there are {', '.join(sorted(known)) or 'none'}",
                    advice="set skymap to one of them" if known else "",
                )
            self._skymap = RegionSkyMap(SkyMapRecord(**known[name]), partial(regions_of, self.pool, name))
        return self._skymap

    def query_available_datasets(self, tract: int, patch: int) -> dict[str, list[dict[str, Any]]]:
        """The datasets of a patch by dataset type, each told by its data ID, sorted; types without any are left out.

        Dataset types of the whole tract are among them.
        """
        skymap = self.get_skymap().record.name
        where = {"tract": number_of(tract, "tract"), "patch": patch_of(patch)}

        def load() -> dict[str, list[dict[str, Any]]]:
            with self._lease() as butler:
                kinds = [kind for kind in self._types(butler) if "tract" in kind.dimensions]
                found = {kind.name: data_ids_of_patch(butler, kind, self._collections, skymap, where) for kind in kinds}
            return {name: ids for name, ids in found.items() if ids}

        found: dict[str, list[dict[str, Any]]] = self._cached(("datasets", skymap, tract, patch), load)
        return found

    def dataset_type(self, kind: str) -> str:
        """The dataset type of a kind (image, visit_image, object, source) in the collections; another word is one.

        That is what `datasets` of the configuration tells, else that of the release whose names are used there.
        """
        if kind in self.config.datasets:
            return self.config.datasets[kind]
        names = usual_names(kind)
        if len(names) == 1:
            return names[0]
        there = self._cached(("types",), self._type_names)
        found = next((name for name in names if name in there), None)
        if found is None:
            releases = ", ".join(f"{names[kind]} ({release})" for release, names in RELEASES.items())
            raise SourceNotFoundError(
                f"{', '.join(self._collections)} of {self.place} have none of {releases}; "
                f"they have {', '.join(there) or 'nothing'}",
                advice=f"name the dataset type of {kind!r} in datasets",
            )
        return found

    def dimensions(self, dataset_type: str) -> tuple[str, ...]:
        """What the data IDs of a dataset type tell: tract and patch, or visit and detector, ...  Raises as `locate`."""
        return tuple(self._type(self.dataset_type(dataset_type)).dimensions.required)

    def locate(
        self, patches: Iterable[tuple[int, int]], *, dataset_type: str = "image"
    ) -> dict[tuple[int, int], list[Located]]:
        """The images of each (tract, patch), all of them in one query; of one data ID the first collection's.

        `dataset_type` is a kind or a name, see `dataset_type`.
        """
        wanted = sorted({(int(tract), int(patch)) for tract, patch in patches})
        name = self.dataset_type(dataset_type)
        skymap = self.get_skymap().record.name
        bulk: dict[tuple[int, int], list[dict[str, Any]]] = {}

        def load(key: tuple[int, int]) -> list[dict[str, Any]]:
            if not bulk:  # the first that is not kept brings all: one query is cheaper than many
                bulk.update(self._locate(wanted, name, skymap))
            return bulk[key]

        return {
            key: [Located(**each) for each in self._cached(("images", name, skymap, *key), partial(load, key))]
            for key in wanted
        }

    def locate_visits(
        self, centre: tuple[float, float], radius: float, *, dataset_type: str = "visit_image"
    ) -> list[tuple[Located, NDArray[np.float64]]]:
        """The images of single exposures within `radius` of `centre`, degrees, each with its corners as unit vectors.

        `dataset_type` is a kind or a name, see `dataset_type`; its data IDs must tell visit and detector.
        """
        kind = self._type(self.dataset_type(dataset_type))
        if not {"visit", "detector"} <= set(kind.dimensions.names):
            raise DataIdValidationError(f"datasets of type {kind.name!r} are of {kind.dimensions}, not of visits")
        circle = Circle(UnitVector3d(LonLat.fromDegrees(*centre)), Angle.fromDegrees(radius))
        with self._lease() as butler:
            return images_of_visits(butler, kind, self._collections, circle)

    def find_patches(self, region: Any) -> list[tuple[int, int]]:
        """Tract and patch of each patch that overlaps a region of lsst.sphgeom, sorted."""
        skymap = self.get_skymap().record.name
        return patches_in(self.pool, skymap, region)

    # What is in it -----------------------------------------------------------------------------------

    def get_deferred(self, data_id: Mapping[str, Any], *, dataset_type: str = "image") -> ExposureFile:
        """An image whose pixels are read when they are asked for; `dataset_type`: as in `locate`."""
        kind = self._type(self.dataset_type(dataset_type))
        given = self._completed(kind, data_id)
        with self._lease() as butler:
            ref = self._find(butler, kind, given)
            (located,) = locate_files(butler, [ref])
        if "://" in located.uri:
            raise CutoutExtractionError(
                f"{told(ref)} is at {located.uri.partition('?')[0]}, which is no local file",
                advice="cut it out as a remote file",
            )
        return ExposureFile(located.uri, located.band)

    def get_exposure(
        self,
        data_id: Mapping[str, Any],
        bbox: BoxLike | None = None,
        *,
        dataset_type: str = "image",
        planes: Sequence[str] = (),
    ) -> Exposure:
        """An image, or the box `bbox` of it in pixels of the tract or detector; no more of the file is read.

        The file is read as the pipelines lay it out, whatever the repository's own formatter: without afw.
        """
        return self.get_deferred(data_id, dataset_type=dataset_type).read(bbox, planes)

    def get_catalog(
        self, tract: int, patch: int | None, catalog_type: str = "object", columns: Sequence[str] | None = None
    ) -> Any:
        """A catalogue as a `pyarrow.Table` with units: "object", "source", or the name of a dataset type.

        Of a dataset type of whole tracts, the rows with `patch` in their column of that name; all, if `patch` is None.
        """
        data_id = {"skymap": self.get_skymap().record.name, "tract": number_of(tract, "tract")}
        if patch is not None:
            data_id["patch"] = patch_of(patch)
        return self.get_table(data_id, catalog_type, columns)

    def get_table(self, data_id: Mapping[str, Any], catalog_type: str, columns: Sequence[str] | None = None) -> Any:
        """As `get_catalog`, by a data ID of any dimensions."""
        kind = self._type(self.dataset_type(catalog_type))
        own = {name: value for name, value in data_id.items() if name in kind.dimensions or name != "patch"}
        patch = data_id.get("patch") if "patch" not in own else None
        given = self._completed(kind, own)
        with self._lease() as butler:
            ref = self._find(butler, kind, given)
            try:
                return as_arrow(butler, ref, columns, patch=patch)
            except FileNotFoundError as error:
                raise SourceNotFoundError(f"the file of {told(ref)} is gone: {first_line(error)}") from error
            except (OSError, ImportError, RuntimeError, ValueError) as error:
                if is_transient(error):
                    raise ButlerConnectionError(f"{told(ref)} cannot be read: {first_line(error)}") from error
                raise CutoutExtractionError(f"{told(ref)} cannot be read: {first_line(error)}") from error

    # Inside ------------------------------------------------------------------------------------------

    @property
    def _collections(self) -> list[str]:
        return list(self.config.collections)

    def _lease(self) -> Any:
        """A Butler, once the collections were checked."""
        if not self._checked:
            self._check()
        return self.pool.lease()

    def _check(self) -> None:
        with self.pool.lease() as butler:
            if not self._collections:
                there = sorted(butler.collections.query("*", include_chains=True))
                raise CollectionError(f"no collections are named; {self.place} has {', '.join(there) or 'none'}")
            for name in self._collections:
                if any(sign in name for sign in "*?["):
                    raise CollectionError(f"collection {name!r} is a pattern", advice="name the collections themselves")
            try:
                butler.collections.query_info(self._collections, include_chains=True)
            except MissingCollectionError as error:
                there = sorted(butler.collections.query("*", include_chains=True))
                missing = [name for name in self._collections if name not in there]
                raise CollectionError(
                    f"{self.place} has no collection {', '.join(missing)}; there are {', '.join(there) or 'none'}",
                    missing=missing,
                ) from error
        self._checked = True

    def _cached(self, what: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        if self._cache is None:
            return load()
        return self._cache.get_or_load(("availability", self.place, *self._collections, *what), load)

    def _skymap_records(self) -> list[dict[str, Any]]:
        with self._lease() as butler:
            records = butler.query_dimension_records("skymap", explain=False, limit=None)
        return [
            {
                "name": each.name,
                "hash": bytes(each.hash),
                "tract_max": each.tract_max,
                "patch_nx_max": each.patch_nx_max,
                "patch_ny_max": each.patch_ny_max,
            }
            for each in records
        ]

    def _types(self, butler: Butler) -> list[DatasetType]:
        return [butler.get_dataset_type(name) for name in names_of_types(butler, self._collections)]

    def _type_names(self) -> list[str]:
        with self._lease() as butler:
            return names_of_types(butler, self._collections)

    def _locate(
        self, wanted: list[tuple[int, int]], name: str, skymap: str
    ) -> dict[tuple[int, int], list[dict[str, Any]]]:
        found: dict[tuple[int, int], list[dict[str, Any]]] = {key: [] for key in wanted}
        with self._lease() as butler:
            kind = butler.get_dataset_type(name)
            if not {"tract", "patch"} <= set(kind.dimensions.names):
                raise DataIdValidationError(f"datasets of type {name!r} are of {kind.dimensions}, not of patches")
            for start in range(0, len(wanted), AT_ONCE):
                ids = [
                    DataCoordinate.standardize(skymap=skymap, tract=tract, patch=patch, universe=butler.dimensions)
                    for tract, patch in wanted[start : start + AT_ONCE]
                ]
                with butler.query() as query:
                    refs = list(query.join_data_coordinates(ids).datasets(kind, self._collections, find_first=True))
                for ref, located in zip(refs, locate_files(butler, refs), strict=True):
                    key = (int(ref.dataId["tract"]), int(ref.dataId["patch"]))
                    found[key].append({"band": located.band, "uri": located.uri, "dataset": located.dataset})
        return found

    def _type(self, name: str) -> DatasetType:
        with self._lease() as butler:
            return butler.get_dataset_type(name)

    def _completed(self, kind: DatasetType, data_id: Mapping[str, Any]) -> dict[str, Any]:
        """A data ID with sky map and instrument of the configuration, if it has none."""
        given = dict(data_id)
        if "skymap" in kind.dimensions and "skymap" not in given:
            given["skymap"] = self.get_skymap().record.name
        if "instrument" in kind.dimensions:
            given.setdefault("instrument", self.config.instrument)
        unknown = given.keys() - set(kind.dimensions.names)
        missing = set(kind.dimensions.required) - given.keys()
        if unknown or missing:
            raise DataIdValidationError(
                f"datasets of type {kind.name!r} are told by {', '.join(kind.dimensions.required)}; the data ID has "
                f"{', '.join(f'{key}={value}' for key, value in data_id.items()) or 'nothing'}"
            )
        return given

    def _find(self, butler: Butler, kind: DatasetType, given: Mapping[str, Any]) -> DatasetRef:
        ref = butler.find_dataset(kind, given, collections=self._collections)
        if ref is None:
            meant = ", ".join(f"{key}={value}" for key, value in given.items())
            raise SourceNotFoundError(
                f"there is no {kind.name} of {meant} in {', '.join(self._collections)} of {self.place}",
                source=kind.name,
            )
        return ref
