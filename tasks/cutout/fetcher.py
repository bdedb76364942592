"""`LsstDataFetcher`: cut-outs, what there is, and catalogues, of whatever a configuration names."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.cache import CacheManager
from absurd.tasks.cutout.cache_key import CacheKey
from absurd.tasks.cutout.cache_statistics import MemoryAlert
from absurd.tasks.cutout.config import ButlerConfig
from absurd.tasks.cutout.errors import ButlerConfigError, RippleError
from absurd.tasks.cutout.fetched import Fetched
from absurd.tasks.cutout.geometry import Unit, check_position
from absurd.tasks.cutout.health import Health, check_health
from absurd.tasks.cutout.images import ImageRef, Source, unread_of
from absurd.tasks.cutout.in_turn import fetch_in_turn
from absurd.tasks.cutout.kept import KeptCutouts
from absurd.tasks.cutout.performance import PerformanceMetrics, PerformanceMonitor, SilentMonitor, Threshold
from absurd.tasks.cutout.request import IMAGE, CutoutRequest, Edge, names
from absurd.tasks.cutout.resilience import Fallback, breaker_for, may_be_elsewhere, none_answered, policies_for
from absurd.tasks.cutout.retry import Deadline, is_transient

if TYPE_CHECKING:
    from absurd.tasks.cutout.catalogs.fetch import CatalogSource
    from absurd.tasks.cutout.catalogs.filters import Where
    from absurd.tasks.cutout.regions import Region
    from absurd.tasks.cutout.sources.butler import ButlerClient

OPERATIONS = ("find", "fetch", "catalog")
"""What a fetcher measures."""
Progress = Callable[[int, int], None]
"""Called with the number of requests that are done, and of all (0 where that is not known)."""


class LsstDataFetcher:
    """Data of a Butler server, a repository or a folder of images; each is asked where those before it do not answer.

    Use it as a context manager; one that is closed opens again when it is asked.  For several threads.  Errors are
    those of `absurd.tasks.cutout.errors`, every one a RippleError.

        config = ButlerConfig(repo_path="/path/to/repo", collections=["2.2i/runs/DP0.2"], cache_size=500)
        with LsstDataFetcher(config) as fetcher:
            cutout = fetcher.fetch_cutout(ra=150.0, dec=2.5, size=64)

    `sources` are asked in place of what the configuration names, by name, in this order.  `thresholds` of the
    operations find, fetch and catalog, of memory and of the cache are judged by `check_health`.  A call of fetch is
    what is cut at once, `batch_size` requests at most; a failed one counts as no error, for it is a row.  `on_alert` is
    told when a value that enters the cache meets the limit of its bytes, or finds the process above `memory_limit`.
    """

    def __init__(
        self,
        config: ButlerConfig,
        *,
        sources: Mapping[str, Source] | None = None,
        thresholds: Sequence[Threshold] = (),
        on_alert: Callable[[MemoryAlert], object] | None = None,
    ) -> None:
        self.config = config
        self.cache = CacheManager.of(config, on_alert=on_alert)
        self._kept = KeptCutouts(self.cache) if config.cache_size or config.cache_folder else None
        self._clients: dict[str, ButlerClient] = {}
        self.sources = dict(sources) if sources is not None else self._configured()
        self._retry = policies_for(config)
        self._once_more = replace(self._retry["query"], worthwhile=lambda error: isinstance(error, _Partly))
        self._silent: dict[str, frozenset[str]] = {}
        """Files of each source that were asked as often as is worth while: they are asked once each time from then."""
        self._fallback = Fallback(
            self.sources,
            breakers={name: breaker_for(name, config) for name in self.sources},
            retry=self._retry["query"],
            untimed=[name for name, each in self.sources.items() if getattr(each, "is_local", False)],
        )
        for each in thresholds:
            if each.operation is not None and not (
                config.enable_performance_monitoring and each.operation in OPERATIONS
            ):
                raise ButlerConfigError(
                    f"a threshold of {each.operation} would never be judged",
                    advice=f"name one of {', '.join(OPERATIONS)}, with enable_performance_monitoring on",
                )
        breakers = self._fallback.breakers  # not by way of self: a fetcher that is dropped is gone at once
        self.monitor = (PerformanceMonitor if config.enable_performance_monitoring else SilentMonitor)(
            thresholds,
            cache=self.cache.statistics,
            recoveries=lambda: {name: each.recoveries for name, each in breakers.items()},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back connections, and forget what is in memory."""
        for source in self.sources.values():
            source.close()
        self.cache.release()

    # Cut-outs -----------------------------------------------------------------------------------------

    def fetch_cutout(
        self,
        ra: float,
        dec: float,
        size: float | tuple[float, float] = 64,
        *,
        unit: Unit = "pixel",
        bands: Sequence[str] = (),
        planes: Sequence[str] = (IMAGE,),
        edge: Edge = "fill",
    ) -> Fetched:
        """The box of `size` pixels, or arcseconds, around a position in degrees, ICRS, in one band or several.

        ``.pixels`` is the image, (bands, ny, nx); ``.cutout(band)`` has the header with its WCS as well.  Raises
        RippleError: DataIdValidationError for what cannot be meant, BandNotFoundError, PositionOutsideError,
        CutoutExtractionError, ButlerConnectionError, ...  Without `bands` it is of all there are in files that can be
        read; ``.note`` says so if others could not be.
        """
        request = CutoutRequest(ra, dec, size, unit, names(bands), names(planes), edge)
        return next(iter(self.fetch_batch_cutouts([request]))).require()

    def fetch_batch_cutouts(
        self,
        requests: Iterable[CutoutRequest],
        progress: Progress | None = None,
        *,
        reduced: bool = False,
        most_bytes: float = math.inf,
    ) -> Iterator[Fetched]:
        """What becomes of each request, in their order; in memory are `batch_size` of them at a time.

        Or fewer, one at least, where their pixels would take more than about `most_bytes`.  The images of a list's
        requests are found for many at once.
        What fails is a row with its error, also where no source answers; only a wrong configuration is raised, and what
        a source of your own raises beside RippleError.  What a source does not have, or cannot read, is asked of the
        next; `source` and `note` of the row tell.  With `reduced`, a request of which no source has all is given the
        bands, and the planes, that are there; `left_out` names the others.  Where files of a source could not be read,
        rows that may lack what they hold tell of them (`unread`).
        """
        total = len(requests) if isinstance(requests, Sequence) else 0
        done = 0
        lists = iter(
            fetch_in_turn(
                {name: partial(self._find_in, name) for name in self.sources},
                requests,
                unread=lambda name: unread_of(self.sources[name]),
                chunk=self.config.batch_size,
                most_bytes=most_bytes,
                reduced=reduced,
                threads=self.config.max_workers,
                kept=self._kept,
                retry=self._retry["read"],
            )
        )
        while True:
            with self.monitor.measure("fetch") as measured:
                rows = next(lists, None)
                measured.counts = rows is not None
                for row in rows or ():
                    measured.items += 1
                    measured.bytes += row.nbytes
            if rows is None:
                return
            for row in rows:
                done += 1
                if progress is not None:
                    progress(done, total)
                yield row

    async def fetch_cutout_async(
        self, ra: float, dec: float, size: float | tuple[float, float] = 64, **options: Any
    ) -> Fetched:
        """As `fetch_cutout`, in another thread."""
        return await asyncio.to_thread(self.fetch_cutout, ra, dec, size, **options)

    async def fetch_batch_cutouts_async(
        self, requests: Sequence[CutoutRequest], progress: Progress | None = None, *, reduced: bool = False
    ) -> list[Fetched]:
        """As `fetch_batch_cutouts`, in another thread; all of them are in memory in the end."""
        return await asyncio.to_thread(lambda: list(self.fetch_batch_cutouts(requests, progress, reduced=reduced)))

    # What there is ------------------------------------------------------------------------------------

    def get_available_data(self, ra: float, dec: float, bands: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The images that contain a position in degrees, ICRS, the best first in each band: what and where they are.

        Files that could not be looked at are those of `unreadable`.
        """
        check_position(ra, dec)
        return [
            {
                "band": each.band,
                "uri": each.uri,
                "planes": sorted(each.hdus),
                "tract": each.tract,
                "patch": each.patch,
            }
            for each in self._find(np.array([[ra, dec]], dtype=np.float64), names(bands))[0]
        ]

    def fetch_catalog(
        self,
        region: Region,
        columns: Sequence[str] | None = None,
        where: Sequence[Where] = (),
        *,
        catalog: CatalogSource | str = "object",
    ) -> Any:
        """Rows of a catalogue in a region that pass all comparisons: a `pyarrow.Table`.

        `catalog` is a kind of the repository's (object, source, or a dataset type), or a source such as a
        `ParquetCatalog`, which has retries of its own.  Raises as `absurd.tasks.cutout.fetch_catalog`.
        """
        from absurd.tasks.cutout.catalogs.fetch import fetch_catalog

        with self.monitor.measure("catalog") as measured:
            if not isinstance(catalog, str):
                table = fetch_catalog(catalog, region, columns, where)
            else:
                from absurd.tasks.cutout.catalogs.butler import ButlerCatalog

                if not self._clients:
                    raise ButlerConfigError(
                        f"no repository is configured, so there is no catalogue {catalog!r}",
                        advice="set repo_path or server_url, or give a ParquetCatalog",
                    )
                kind = catalog
                clients = Fallback(self._clients, breakers=self._fallback.breakers, retry=self._retry["read"])

                def fetch(name: str) -> Any:  # each call of a source has its retries, however many there are
                    source = ButlerCatalog(self._clients[name], kind, ask=clients.asking(name))
                    return fetch_catalog(source, region, columns, where)

                table = clients.first(fetch).value
            measured.items, measured.bytes = table.num_rows, table.nbytes
        return table

    async def get_available_data_async(self, ra: float, dec: float, bands: Sequence[str] = ()) -> list[dict[str, Any]]:
        """As `get_available_data`, in another thread."""
        return await asyncio.to_thread(self.get_available_data, ra, dec, bands)

    async def fetch_catalog_async(
        self,
        region: Region,
        columns: Sequence[str] | None = None,
        where: Sequence[Where] = (),
        *,
        catalog: CatalogSource | str = "object",
    ) -> Any:
        """As `fetch_catalog`, in another thread."""
        return await asyncio.to_thread(self.fetch_catalog, region, columns, where, catalog=catalog)

    def find_images(self, positions: NDArray[np.float64], bands: Sequence[str] = ()) -> list[list[ImageRef]]:
        """The images of each of (n, 2) positions, as `Source.find` tells them, of the first source that has any.

        Raises as `fetch_batch_cutouts` if no source answers.
        """
        found: list[list[ImageRef]] = [[] for _ in positions]
        away: dict[str, Exception] = {}
        left = np.arange(len(positions))
        for name in self.sources:
            if not len(left):
                break
            try:
                some = self._find_in(name, positions[left], bands)
            except RippleError as error:
                if len(self.sources) == 1 or not may_be_elsewhere(error):
                    raise
                away[name] = error
                continue
            for place, images in zip(left.tolist(), some, strict=True):
                found[place] = images
            left = np.array([place for place in left.tolist() if not found[place]], dtype=np.intp)
        if len(away) == len(self.sources):
            raise none_answered(away)
        return found

    def unreadable(self) -> dict[str, str]:
        """Files of the sources that cannot be read, or do not answer, and why, as far as they have been looked at."""
        told = [each for source in self.sources.values() for each in unread_of(source).items()]
        return {name: error.message for name, error in told}

    # How it is ----------------------------------------------------------------------------------------

    def metrics(self) -> PerformanceMetrics:
        """Times, errors and bytes of each operation so far, how the cache does, how long sources were away."""
        return self.monitor.metrics()

    def check_health(self) -> Health:
        """Whether sources answer that can be asked, and how cache, memory and disk stand; never raises."""
        config = self.config
        return check_health(
            connections={
                name: source.test_connection
                for name, source in self.sources.items()
                if hasattr(source, "test_connection")
            },
            seconds=config.timeout,
            breakers=self._fallback.breakers.values(),
            cache=self.cache,
            monitor=self.monitor,
            memory_limit=config.memory_limit,
            folders={config.cache_folder: config.min_free_bytes} if config.cache_folder else {},
        )

    # Helpers ------------------------------------------------------------------------------------------

    def _find_in(self, name: str, positions: NDArray[np.float64], bands: Sequence[str]) -> list[list[ImageRef]]:
        """What one source has, asked again where files of it that answered before do not for a while."""
        source = self.sources[name]

        def find(_: Deadline) -> list[list[ImageRef]]:
            found = self._fallback.ask(name, lambda source: source.find(positions, bands))
            silent = frozenset(file for file, error in unread_of(source).items() if is_transient(error))
            if not silent <= self._silent.get(name, frozenset()):
                raise _Partly(found, silent)
            self._silent[name] = silent
            return found

        with self.monitor.measure("find", items=len(positions)):
            try:
                return self._once_more.call(find)
            except _Partly as partly:
                self._silent[name] = partly.silent
                return partly.found

    def _find(self, positions: NDArray[np.float64], bands: Sequence[str]) -> list[list[ImageRef]]:
        """What the first source has that answers."""
        return self._fallback.first(lambda name: self._find_in(name, positions, bands)).value

    def _configured(self) -> dict[str, Source]:
        """A source for each place that the configuration names."""
        config = self.config
        found: dict[str, Source] = {}
        if config.server_url is not None:
            found["server"] = self._butler("server", replace(config, repo_path=None))
        if config.repo_path is not None:
            found["repository"] = self._butler("repository", replace(config, server_url=None))
        if config.folder is not None:
            from absurd.tasks.cutout.sources.folder import FolderSource

            found["folder"] = FolderSource(config.folder)
        if not found:
            raise ButlerConfigError(
                "the configuration names no place to fetch from", advice="set repo_path, server_url or folder"
            )
        return found

    def _butler(self, name: str, config: ButlerConfig) -> Source:
        try:
            from absurd.tasks.cutout.sources.butler import ButlerClient
            from absurd.tasks.cutout.sources.butler_source import ButlerSource
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] != "lsst":
                raise
            raise ButlerConfigError(
                f"{missing.name} is not installed, which repositories need", advice="pip install 'absurd[butler]'"
            ) from None
        client = self._clients[name] = ButlerClient(config, cache=_Kept(self.cache))
        return ButlerSource(client)


class _Partly(Exception):
    """An answer of a source some files of which were silent."""

    def __init__(self, found: list[list[ImageRef]], silent: frozenset[str]) -> None:
        super().__init__(f"{', '.join(sorted(silent))} cannot be read now")
        self.found = found
        self.silent = silent


class _Kept:
    """The cache as a client asks for it: a kind, then texts."""

    def __init__(self, cache: CacheManager) -> None:
        self._cache = cache

    def get_or_load(self, key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        kind, *parts = key
        return self._cache.get_or_load(CacheKey.of(kind, *parts), load)
