"""What a task's source names: a file, a folder, an index or a repository; and to whom a token goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from skies import no_index

from absurd.tasks.cutout import ButlerConfig, ButlerConfigError, FolderSource
from absurd.tasks.cutout.sources.places import Address, Index, fetcher_for, places_of
from absurd.tasks.cutout.sources.remote import RemoteSource

SERVER = "https://data.example.org/api/butler"


def test_what_is_named(tmp_path: Path) -> None:
    """A repository is a folder with a butler.yaml, that file, or an address; all else is a file or a folder."""
    (tmp_path / "butler.yaml").write_text("")

    assert places_of("index:survey") == [Index("survey")]
    for source in (str(tmp_path), str(tmp_path / "butler.yaml")):
        (config,) = places_of(source, collections=["a", "b"])
        assert isinstance(config, ButlerConfig)
        assert (config.repo_path, config.server_url, config.folder) == (source, None, None)
        assert list(config.collections) == ["a", "b"]
    for source in (str(tmp_path.parent), "field.fits"):
        (config,) = places_of(source)
        assert isinstance(config, ButlerConfig)
        assert (config.repo_path, config.server_url, config.folder) == (None, None, source)
    with pytest.raises(ButlerConfigError, match="names no index"):
        places_of("index:")
    with pytest.raises(ButlerConfigError, match="there is no source"):
        places_of([])


def test_several_are_asked_in_their_order(tmp_path: Path) -> None:
    """Each has a name of its own; an index is what it is given as."""
    source = FolderSource(tmp_path)
    asked: list[str] = []

    def indexed(name: str) -> FolderSource:
        asked.append(name)
        return source

    with fetcher_for([str(tmp_path), "index:survey", {"folder": "elsewhere"}], indexed=indexed) as fetcher:
        assert list(fetcher.sources) == ["1 folder", "2 index survey", "3 folder"]
        assert fetcher.sources["2 index survey"] is source
    with fetcher_for("index:night", indexed=indexed, batch_size=7) as fetcher:
        assert list(fetcher.sources) == ["index night"]
        assert fetcher.config.batch_size == 7
    assert asked == ["survey", "night"]


def test_addresses_of_fits_files_are_files() -> None:
    """Those that follow each other are one source, other addresses are servers; a password is refused and not told."""
    files = ["https://archive.example.org/g.fits", "s3://bucket/r.fits.fz?x=1"]
    (server,) = places_of(SERVER)

    assert places_of(files) == [Address(each) for each in files]
    assert isinstance(server, ButlerConfig)
    with fetcher_for([*files, {"folder": "here"}, files[0]], indexed=no_index) as fetcher:
        assert list(fetcher.sources) == ["1 addresses", "2 folder", "3 addresses"]
        both = fetcher.sources["1 addresses"]
        assert isinstance(both, RemoteSource)
        assert both.addresses == tuple(files)
    with pytest.raises(ButlerConfigError, match=r"https://archive.example.org/g.fits is given with a user") as refused:
        places_of("https://me:secret@archive.example.org/g.fits")
    assert "secret" not in str(refused.value)


def test_a_token_goes_to_its_own_server_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever hands in a task can name any server: only the one that the worker's environment names is told it."""
    (tmp_path / "butler.yaml").write_text("")
    for name, value in (("SERVER_URL", SERVER), ("AUTH", "token"), ("COLLECTIONS", "c"), ("FOLDER", "/x")):
        monkeypatch.setenv(f"RIPPLE_{name}", value)

    places = [SERVER, SERVER + "/other", "https://else.example.org", str(tmp_path)]
    found = [place for each in places for place in places_of(each, base=ButlerConfig.from_env())]

    assert [place.auth for place in found if isinstance(place, ButlerConfig)] == ["token", "none", "none", "none"]
    assert [(place.folder, list(place.collections)) for place in found if isinstance(place, ButlerConfig)] == [
        (None, ["c"])
    ] * 4
    told = {"server_url": "https://else.example.org", "collections": ["c"], "auth": "token", "token_env": "HOME"}
    with pytest.raises(ButlerConfigError, match="which only the server in RIPPLE_SERVER_URL is"):
        fetcher_for(told, indexed=no_index)
