"""A Butler for tests of programs: a folder of FITS and Parquet files with an index, asked as a `ButlerClient` is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from absurd.tasks.cutout.errors import (
    ButlerConnectionError,
    CollectionError,
    DataIdValidationError,
    SourceNotFoundError,
)

if TYPE_CHECKING:
    from absurd.tasks.cutout.sources.exposure import BoxLike, Exposure, ExposureFile
    from absurd.tasks.cutout.sources.region_map import Located, RegionSkyMap

INDEX = "index.json"


class FolderButler:
    """Datasets in a folder, without a registry: nothing of lsst need be installed.

    ``index.json`` in it, which `put`, `chain` and `add_patch` write, holds

    - ``collections``: each name with the names it chains, none for one that has datasets itself,
    - ``patches``: [tract, patch, corners], the corners as [ra, dec] in degrees, counter-clockwise on the sky,
    - ``datasets``: each with ``type``, ``collection``, ``data_id`` and ``file``, a path in the folder.

    What it gives, and what it raises, is what a `ButlerClient` of the same datasets does.  With `away` set, each call
    raises ButlerConnectionError, as of a repository that does not answer; `calls` counts them by name.
    """

    def __init__(self, folder: str | Path, collections: Sequence[str] = ()) -> None:
        self.folder = Path(folder)
        self.collections = list(collections)
        self.place = self.folder.name
        self.away = False
        self.calls: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """Nothing is open between calls."""

    # To fill it --------------------------------------------------------------------------------------

    def put(self, dataset: Any, dataset_type: str, collection: str, **data_id: Any) -> Path:
        """Add an `Exposure`, or a `pyarrow.Table`; gives its file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self._index()
        number = len(index["datasets"])
        if hasattr(dataset, "planes"):
            from absurd.tasks.cutout.sources.exposure import write_exposure

            path = self.folder / f"{dataset_type}_{number}.fits"
            write_exposure(dataset, path)
        else:
            from absurd.tasks.cutout.catalogs.write import write_catalog

            path = self.folder / f"{dataset_type}_{number}.parquet"
            write_catalog(dataset, path)
        index["collections"].setdefault(collection, [])
        index["datasets"].append(
            {"type": dataset_type, "collection": collection, "data_id": data_id, "file": path.name}
        )
        self._write(index)
        return path

    def chain(self, name: str, collections: Sequence[str]) -> None:
        """A collection that searches others, in their order."""
        index = self._index()
        index["collections"][name] = list(collections)
        self._write(index)

    def add_patch(self, tract: int, patch: int, corners: Sequence[tuple[float, float]]) -> None:
        """Where a patch is: its corners as (ra, dec) in degrees, counter-clockwise on the sky."""
        index = self._index()
        index["patches"].append([tract, patch, [list(corner) for corner in corners]])
        self._write(index)

    # What there is -----------------------------------------------------------------------------------

    def test_connection(self) -> bool:
        """Whether the folder has an index.  Raises CollectionError."""
        try:
            self._search("test_connection")
        except ButlerConnectionError:
            return False
        return True

    def list_collections(self) -> list[str]:
        """The names of all collections, sorted."""
        return sorted(self._asked("list_collections")["collections"])

    def get_skymap(self) -> RegionSkyMap:
        """Tracts and patches of positions, by the corners in the index."""
        from absurd.tasks.cutout.sources.region_map import Region, RegionSkyMap, SkyMapRecord

        patches = [Region.of(tract, patch, corners) for tract, patch, corners in self._asked("get_skymap")["patches"]]
        tracts = {each.tract for each in patches}

        def load(wanted: Sequence[int] | None) -> Iterator[Region]:
            for each in patches:
                if wanted is None:  # a tract is as large as its patches: those that hold a position tell it
                    yield Region(each.tract, each.tract, each.vertices)
                elif each.tract in wanted:
                    yield each

        width = max((each.id for each in patches), default=0) + 1
        return RegionSkyMap(SkyMapRecord(self.place, b"", max(tracts, default=0) + 1, width, 1), load)

    def dataset_type(self, kind: str) -> str:
        """As `ButlerClient.dataset_type`."""
        from absurd.tasks.cutout.sources.releases import usual_names

        names = usual_names(kind)
        if len(names) == 1:
            return names[0]
        there = {each["type"] for each in self._search("dataset_type")}
        found = next((name for name in names if name in there), None)
        if found is None:
            raise SourceNotFoundError(f"{self.place} has none of {', '.join(names)}; it has {', '.join(sorted(there))}")
        return found

    def query_available_datasets(self, tract: int, patch: int) -> dict[str, list[dict[str, Any]]]:
        """As `ButlerClient.query_available_datasets`."""
        found: dict[str, list[dict[str, Any]]] = {}
        for each in self._search("query_available_datasets"):
            data_id = each["data_id"]
            if data_id.get("tract") == tract and data_id.get("patch", patch) == patch:
                found.setdefault(each["type"], []).append(dict(data_id))
        return {name: sorted(ids, key=lambda each: [*map(str, each.values())]) for name, ids in sorted(found.items())}

    def locate(
        self, patches: Iterable[tuple[int, int]], *, dataset_type: str = "image"
    ) -> dict[tuple[int, int], list[Located]]:
        """As `ButlerClient.locate`."""
        from absurd.tasks.cutout.sources.region_map import Located

        name = self.dataset_type(dataset_type)
        found: dict[tuple[int, int], list[Located]] = {key: [] for key in sorted(set(patches))}
        for each in self._search("locate"):
            data_id = each["data_id"]
            key = (data_id.get("tract"), data_id.get("patch"))
            if each["type"] == name and key in found:
                path = str(self.folder / each["file"])
                found[key].append(Located(data_id.get("band"), path, each["file"]))
        return found

    # What is in it -----------------------------------------------------------------------------------

    def get_deferred(self, data_id: Mapping[str, Any], *, dataset_type: str = "image") -> ExposureFile:
        """As `ButlerClient.get_deferred`."""
        from absurd.tasks.cutout.sources.exposure import ExposureFile

        found = self._find("get_deferred", self.dataset_type(dataset_type), data_id)
        return ExposureFile(self.folder / found["file"], found["data_id"].get("band"))

    def get_exposure(
        self,
        data_id: Mapping[str, Any],
        bbox: BoxLike | None = None,
        *,
        dataset_type: str = "image",
        planes: Sequence[str] = (),
    ) -> Exposure:
        """As `ButlerClient.get_exposure`."""
        return self.get_deferred(data_id, dataset_type=dataset_type).read(bbox, planes)

    def get_catalog(
        self, tract: int, patch: int | None, catalog_type: str = "object", columns: Sequence[str] | None = None
    ) -> Any:
        """As `ButlerClient.get_catalog`."""
        return self.get_table({"tract": tract} | ({} if patch is None else {"patch": patch}), catalog_type, columns)

    def get_table(self, data_id: Mapping[str, Any], catalog_type: str, columns: Sequence[str] | None = None) -> Any:
        """As `ButlerClient.get_table`."""
        from absurd.tasks.cutout.catalogs.fetch import fetch_catalog
        from absurd.tasks.cutout.catalogs.parquet import ParquetCatalog
        from absurd.tasks.cutout.sources.catalog_table import picked

        found = self._find("get_table", self.dataset_type(catalog_type), data_id, or_tract=True)
        table = fetch_catalog(ParquetCatalog(self.folder / found["file"]))
        return picked(table, columns, None if "patch" in found["data_id"] else data_id.get("patch"))

    # Inside ------------------------------------------------------------------------------------------

    def _find(self, call: str, name: str, data_id: Mapping[str, Any], *, or_tract: bool = False) -> dict[str, Any]:
        same = [each for each in self._search(call) if each["type"] == name]
        known = {key: value for each in same for key, value in each["data_id"].items()}
        if "skymap" in known:
            data_id = {"skymap": known["skymap"]} | dict(data_id)
        unknown = data_id.keys() - known.keys() - ({"patch"} if or_tract else set())
        if same and (known.keys() - data_id.keys() or unknown):
            raise DataIdValidationError(
                f"datasets of type {name!r} are told by {', '.join(sorted(known))}; the data ID has "
                f"{', '.join(f'{key}={value}' for key, value in data_id.items()) or 'nothing'}"
            )
        for each in same:
            if all(data_id[key] == value for key, value in each["data_id"].items()):
                return each
        told = ", ".join(f"{key}={value}" for key, value in data_id.items())
        raise SourceNotFoundError(f"there is no {name} of {told} in {', '.join(self.collections)} of {self.place}")

    def _search(self, call: str) -> list[dict[str, Any]]:
        """The datasets of the collections: of two with one type and data ID, that of the first collection."""
        index = self._asked(call)
        there = index["collections"]
        missing = [name for name in self.collections if name not in there]
        if missing or not self.collections:
            raise CollectionError(
                f"{self.place} has no collection {', '.join(missing) or 'without a name'}; "
                f"there are {', '.join(sorted(there)) or 'none'}"
            )
        found: dict[str, dict[str, Any]] = {}
        for run in _flat(self.collections, there):
            for each in index["datasets"]:
                if each["collection"] == run:
                    found.setdefault(json.dumps([each["type"], each["data_id"]], sort_keys=True), each)
        return list(found.values())

    def _asked(self, call: str) -> dict[str, Any]:
        self.calls[call] = self.calls.get(call, 0) + 1
        if self.away or not (self.folder / INDEX).is_file():
            raise ButlerConnectionError(f"{self.place} does not answer", source=self.place)
        return self._index()

    def _index(self) -> dict[str, Any]:
        index: dict[str, Any] = {"collections": {}, "patches": [], "datasets": []}
        with suppress(FileNotFoundError):
            index |= json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
        return index

    def _write(self, index: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _flat(names: Sequence[str], chains: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The collections that are no chains, each once, in the order in which they are searched."""
    seen: set[str] = set()

    def walk(some: Sequence[str]) -> Iterator[str]:
        for name in some:
            if name not in seen:
                seen.add(name)
                yield from walk(chains[name]) if chains.get(name) else [name]

    return walk(names)


def square(ra: float, dec: float, side: float) -> list[tuple[float, float]]:
    """Corners of a patch of `side` degrees around a position, for `FolderButler.add_patch`; not at the poles."""
    half, across = side / 2, side / 2 / math.cos(math.radians(dec))
    return [(ra - across, dec - half), (ra + across, dec - half), (ra + across, dec + half), (ra - across, dec + half)]
