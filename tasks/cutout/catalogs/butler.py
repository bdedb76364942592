"""The catalogues of a Butler's patches as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, starmap
from typing import Any

from absurd.tasks.cutout.catalogs.filters import Where
from absurd.tasks.cutout.catalogs.region import picked
from absurd.tasks.cutout.catalogs.rows import Rows, with_units
from absurd.tasks.cutout.errors import DataIdValidationError, SourceNotFoundError
from absurd.tasks.cutout.regions import Region
from absurd.tasks.cutout.resilience import Ask, Fallback, policies
from absurd.tasks.cutout.sources.butler import ButlerClient

POSITION = ("coord_ra", "coord_dec")
"""Right ascension and declination in the pipelines' tables of objects and sources."""


class ButlerCatalog:
    """A kind of catalogue (see `ButlerClient.dataset_type`) of the patches that a region overlaps.

    Patches overlap, and an object near an edge is in the catalogue of each: the column that the pipelines call
    detect_isPrimary tells which is meant, to be asked for in `where`.  A kind of whole tracts is asked by tract.

    Each call of the repository goes through `ask`; without one, what may pass is tried again as `policies` has it.
    """

    def __init__(
        self,
        client: ButlerClient,
        kind: str = "object",
        *,
        position: tuple[str, str] = POSITION,
        ask: Ask | None = None,
    ) -> None:
        self.client = client
        self.kind = kind
        self.name = f"{client.place} {kind}"
        self._position = position
        self._ask = ask or Fallback({self.name: client}, retry=policies()["read"]).asking(self.name)

    def stream(self, region: Region | None, columns: Sequence[str] | None = None, where: Sequence[Where] = ()) -> Rows:
        """As `ParquetCatalog.stream`; a part for each patch that overlaps the region, in their order.

        The columns are those of the first.  Raises SourceNotFoundError if no patch that overlaps has the catalogue,
        DataIdValidationError without a region.
        """
        if region is None:
            raise DataIdValidationError(
                f"{self.name} is asked by region, and there is none", advice="give one, or read the files as Parquet"
            )
        name = self._ask(lambda: self.client.dataset_type(self.kind))
        patches = self._ask(lambda: self.client.find_patches(region.to_sphgeom()))
        there = self._ask(lambda: self._there(name, patches))
        if not there:
            raise SourceNotFoundError(f"no patch in the region has a {name}", source=self.name)
        needed = (
            None
            if columns is None
            else list(dict.fromkeys([*columns, *self._position, *(each.column for each in where)]))
        )

        def read(tract: int, patch: int | None) -> Any:
            # in this thread: what Arrow's own threads hold of a table may outlast one that ends with the reading, and a
            # process that ends meanwhile is aborted
            table = self._ask(lambda: self.client.get_catalog(tract, patch, name, needed), timed=False)
            table = picked(table.cast(with_units(table.schema)), region, self._position, where)
            return table if columns is None else table.select(list(columns))

        first = read(*there[0])
        return Rows(first.schema, chain([first], starmap(read, there[1:])))

    def _there(self, name: str, patches: Sequence[tuple[int, int]]) -> list[tuple[int, int | None]]:
        """The patches, or tracts, that have a dataset of the type."""
        if "patch" in self.client.dimensions(name):
            return [key for key, datasets in self.client.locate(patches, dataset_type=name).items() if datasets]
        first = dict(reversed(patches))
        return [
            (tract, None)
            for tract, patch in sorted(first.items())
            if name in self.client.query_available_datasets(tract, patch)
        ]
