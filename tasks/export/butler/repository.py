"""What a catalogue asks of a Butler: which datasets there are, their schemas, their rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NoReturn

from astropy.table import Table
from lsst.daf.butler import Butler, ButlerUserError
from lsst.daf.butler.formatters.parquet import astropy_to_arrow

from absurd.tasks.export.butler.errors import ButlerRepositoryError, CatalogReadError
from absurd.tasks.said import first_line

TRIES = 3
PAUSE_SECONDS = 0.5
"""Before a dataset that could not be read is tried again; the next time twice as long."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of the catalogue."""

    id: str
    run: str
    data_id: dict[str, Any]
    """Its required dimensions and their values."""
    ref: Any

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.data_id.items()) or self.id


class Repository:
    """A Butler for several threads: each call has one of its own.

    Raises ButlerRepositoryError.
    """

    def __init__(self, repo: str, jobs: int) -> None:
        try:
            butler = Butler.from_config(repo)
        except (FileNotFoundError, ButlerUserError, KeyError) as error:
            raise ButlerRepositoryError(
                f"there is no Butler repository {repo!r}: {first_line(error)}", repo=repo
            ) from error
        self._butlers: SimpleQueue[Any] = SimpleQueue()
        for each in (butler, *(butler.clone() for _ in range(jobs - 1))):
            self._butlers.put(each)

    def find(self, dataset_type: str, collections: Sequence[str]) -> list[Dataset]:
        """The datasets, one for each data ID: that of the first collection that has it.  Sorted by data ID."""
        butler = self._butlers.get()
        try:
            refs = butler.query_datasets(
                dataset_type, collections=list(collections), find_first=True, limit=None, explain=False
            )
        except (ButlerUserError, LookupError) as error:
            raise ButlerRepositoryError(
                f"no datasets of type {dataset_type!r} are found in {', '.join(collections)}: {first_line(error)}"
            ) from error
        finally:
            self._butlers.put(butler)
        found = [Dataset(str(ref.id), ref.run, dict(ref.dataId.required), ref) for ref in refs]
        return sorted(found, key=lambda each: (tuple(each.data_id.values()), each.id))

    def schema(self, dataset: Dataset) -> Any:
        """The Arrow schema of a dataset.  Raises CatalogReadError."""
        return self._read(dataset, "schema", None)

    def table(self, dataset: Dataset, columns: Sequence[str] | None = None) -> Any:
        """A dataset, or columns of it, as an Arrow table.  Raises CatalogReadError."""
        return self._read(dataset, None, columns)

    def _read(self, dataset: Dataset, component: str | None, columns: Sequence[str] | None) -> Any:
        butler = self._butlers.get()
        try:
            for attempt in range(TRIES):
                try:
                    return _get(butler, dataset.ref, component, columns)
                except FileNotFoundError as error:
                    _unreadable(dataset, error)
                except OSError as error:  # of a file system behind a network, say
                    if attempt == TRIES - 1:
                        _unreadable(dataset, error)
                    time.sleep(PAUSE_SECONDS * 2**attempt)
                except Exception as error:  # of whichever formatter its storage class names
                    _unreadable(dataset, error)
        finally:
            self._butlers.put(butler)
        raise AssertionError("the last attempt returns or raises")


def _get(butler: Any, ref: Any, component: str | None, columns: Sequence[str] | None) -> Any:
    try:
        arrow = ref.overrideStorageClass("ArrowTable")
    except ValueError:  # afw's, which become Astropy's only
        ref, arrow = ref.overrideStorageClass("AstropyTable"), None
    if arrow is None or "columns" not in ref.datasetType.storageClass.parameters:  # no Parquet: read whole
        table = astropy_to_arrow(Table(butler.get(ref), copy=False))  # of a QTable, whose columns are quantities, too
        return table.schema if component else table if columns is None else table.select(list(columns))
    if component is not None:
        return butler.get(arrow.makeComponentRef(component))
    return butler.get(arrow, parameters=None if columns is None else {"columns": list(columns)})


def _unreadable(dataset: Dataset, error: Exception) -> NoReturn:
    raise CatalogReadError(
        f"dataset {dataset} of run {dataset.run} cannot be read: {first_line(error)}", dataset=dataset.id
    ) from error
