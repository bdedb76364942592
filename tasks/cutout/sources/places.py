"""What a task or a command calls a source: a path, an address, an index, or fields of a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from absurd.tasks.cutout.config import ButlerConfig
from absurd.tasks.cutout.errors import ButlerConfigError
from absurd.tasks.cutout.ranged import is_remote, shown
from absurd.tasks.cutout.sources.folder import is_fits

if TYPE_CHECKING:
    from absurd.tasks.cutout.fetcher import LsstDataFetcher
    from absurd.tasks.cutout.images import Source

INDEX = "index:"

Named = str | Mapping[str, Any]
"""A path, an address or ``index:NAME``; or fields of a `ButlerConfig`."""
Indexed = Callable[[str], "Source"]
"""Gives the source that an index of that name is."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index of images in the queue's database."""

    name: str


@dataclass(frozen=True, slots=True)
class Address:
    """A FITS file that is not on this machine."""

    uri: str


Place = ButlerConfig | Index | Address


def places_of(
    source: Named | Sequence[Named], *, collections: Sequence[str] = (), base: ButlerConfig | None = None
) -> list[Place]:
    """What is to be asked, one after the other.

    A repository is a folder with a butler.yaml, that file, or an address that is none of a FITS file; it is asked for
    `collections`.  What a path or an address does not tell is as in `base`.  Raises ButlerConfigError.
    """
    named = [source] if isinstance(source, str | Mapping) else list(source)
    if not named:
        raise ButlerConfigError(
            "there is no source", advice="name a file, a folder, an index, a repository or a server"
        )
    return [_place(each, collections, base or ButlerConfig()) for each in named]


def fetcher_for(
    source: Named | Sequence[Named],
    *,
    indexed: Indexed,
    collections: Sequence[str] = (),
    batch_size: int | None = None,
) -> LsstDataFetcher:
    """A fetcher that asks one source after the other; `batch_size` counts where no configuration says another.

    Addresses of FITS files that follow each other are one source, as the files of a folder are.  What is not told is as
    the environment says (``RIPPLE_*``).  Who hands in a task can name any server, so none but that of the environment
    is told who asks.  Raises ButlerConfigError.
    """
    from absurd.tasks.cutout.fetcher import LsstDataFetcher

    base = ButlerConfig.from_env()
    if batch_size is not None:
        base = replace(base, batch_size=batch_size)
    places = places_of(source, collections=collections, base=base)
    for each in places:
        if isinstance(each, ButlerConfig):
            _check_trust(each, base)
    if len(places) == 1 and isinstance(places[0], ButlerConfig):
        return LsstDataFetcher(places[0])
    asked = [_sources(each, indexed, base.max_connections) for each in _grouped(places)]
    sources: dict[str, Source] = {
        f"{number} {name}" if len(asked) > 1 else name: source
        for number, each in enumerate(asked, 1)
        for name, source in each.items()
    }
    config = next((each for each in places if isinstance(each, ButlerConfig)), replace(base, cache_size=0))
    return LsstDataFetcher(config, sources=sources)


def _grouped(places: Sequence[Place]) -> list[list[Place]]:
    """Each by itself, but addresses that follow each other together."""
    found: list[list[Place]] = []
    for each in places:
        if found and isinstance(each, Address) and isinstance(found[-1][0], Address):
            found[-1].append(each)
        else:
            found.append([each])
    return found


def _sources(places: Sequence[Place], indexed: Indexed, at_once: int) -> Mapping[str, Source]:
    """What is asked there, by name."""
    from absurd.tasks.cutout.fetcher import LsstDataFetcher
    from absurd.tasks.cutout.sources.remote import RemoteSource

    match places[0]:
        case Index(name):
            return {f"index {name}": indexed(name)}
        case ButlerConfig() as config:
            return LsstDataFetcher(config).sources
        case _:
            addresses = [each.uri for each in places if isinstance(each, Address)]
            return {"addresses": RemoteSource(addresses, at_once=at_once)}


def _place(source: Named, collections: Sequence[str], base: ButlerConfig) -> Place:
    if isinstance(source, Mapping):
        try:
            return ButlerConfig(**{"batch_size": base.batch_size} | dict(source))
        except TypeError:
            known = ", ".join(ButlerConfig.__dataclass_fields__)
            unknown = ", ".join(sorted(set(source) - set(ButlerConfig.__dataclass_fields__)))
            raise ButlerConfigError(f"source has no field {unknown}", advice=f"there are {known}") from None
    if source.startswith(INDEX):
        name = source.removeprefix(INDEX)
        if not name:
            raise ButlerConfigError(f"source is {source!r}, which names no index", advice="as index:survey")
        return Index(name)
    if is_remote(source) and is_fits(Path(urlsplit(source).path)):
        if "@" in urlsplit(source).netloc:  # it would be kept with the task, and shown
            raise ButlerConfigError(
                f"{shown(source)} is given with a user or password", advice="have them in the environment"
            )
        return Address(source)
    nowhere = replace(base, server_url=None, repo_path=None, folder=None, auth="none")
    path = Path(source)
    is_repository = path.name == "butler.yaml" or (path / "butler.yaml").is_file() or "://" in source
    if not is_repository:
        return replace(nowhere, folder=source, cache_size=0)  # no position of a batch comes twice
    config = replace(nowhere, collections=list(collections) or base.collections)
    if re.match(r"https?://", source):
        return replace(config, server_url=source, auth=base.auth if source == base.server_url else "none")
    return replace(config, repo_path=source)


def _check_trust(config: ButlerConfig, base: ButlerConfig) -> None:
    """Raise ButlerConfigError for one that would tell a server who asks that the environment does not name."""
    if config.server_url is not None and config.auth != "none" and config.server_url != base.server_url:
        raise ButlerConfigError(
            f"{config.server_url} is to be told who asks, which only the server in RIPPLE_SERVER_URL is",
            advice="set that where workers run, or leave out auth",
        )
