"""What is kept open for who asks next: closed when it is dropped, and not while anybody uses it."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from skies import make_wcs, no_index, pixels_of, write_image

from absurd.tasks.cutout import LsstDataFetcher, cutting
from absurd.tasks.cutout.cutting import cut_here
from absurd.tasks.cutout.held import Held
from absurd.tasks.cutout.params import BatchParams
from absurd.tasks.cutout.sources.places import fetcher_for


class Opened:
    """Tells whether it was closed, and refuses to be used then."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    def use(self) -> None:
        assert not self.closed


def test_what_is_dropped_is_closed_once() -> None:
    """The last that were lent stay; the others are closed, once each; one that is asked for again is made anew."""
    held = Held[str, Opened](2)
    made: list[Opened] = []

    def make() -> Opened:
        made.append(Opened())
        return made[-1]

    for key in ("a", "b", "a", "c", "b"):
        with held.lend(key, make) as one:
            one.use()
    assert [each.closed for each in made] == [1, 1, 0, 0]
    held.close()
    assert [each.closed for each in made] == [1, 1, 1, 1]


def test_what_is_in_use_is_closed_by_its_last_user() -> None:
    """Dropped by one that came later, or by `close`, it serves those who have it; also where one of them fails."""
    held = Held[str, Opened](1)
    with held.lend("a", Opened) as one, pytest.raises(ZeroDivisionError), held.lend("a", Opened) as same:
        assert same is one
        with held.lend("b", Opened) as other:
            held.close()
            one.use()
            other.use()
        assert other.closed == 1
        raise ZeroDivisionError
    assert one.closed == 1


def test_many_threads() -> None:
    """Nobody ever has one that is closed, and in the end all are, once."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    held = Held[int, Opened](2)
    made: list[Opened] = []
    counting = threading.Lock()

    def make() -> Opened:
        with counting:
            made.append(Opened())
            return made[-1]

    def work(number: int) -> None:
        chance = random.Random(seed + number)
        for _ in range(200):
            with held.lend(chance.randrange(5), make) as one:
                one.use()
                with held.lend(chance.randrange(5), make) as other:
                    other.use()
                one.use()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    held.close()
    assert len(made) > 5 and [each.closed for each in made] == [1] * len(made)


def test_fetchers_of_batches_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cuts batches of many sources keeps a few fetchers open, whatever sizes are asked of each."""
    cutting._fetchers.close()
    made: list[str] = []
    closed: list[str] = []
    close = LsstDataFetcher.close

    def making(source: Any, **options: Any) -> LsstDataFetcher:
        made.append(source)
        return fetcher_for(source, **options)

    def closing(self: LsstDataFetcher) -> None:
        closed.append(str(self.config.folder))
        close(self)

    monkeypatch.setattr(cutting, "fetcher_for", making)
    monkeypatch.setattr(LsstDataFetcher, "close", closing)
    folders = [str(tmp_path / f"sky{number}") for number in range(cutting.FETCHERS + 2)]
    for folder in folders:
        Path(folder).mkdir()
        write_image(Path(folder) / "r.fits", pixels_of(), make_wcs())
        for size in (5, 7):
            params = BatchParams(
                positions=[(10.0, 20.0)], source=folder, size=size, unit="pixel", out=str(tmp_path / "out"), fits=False
            )
            assert cut_here(params, no_index).accepted == 1

    assert made == folders and closed == folders[:2]
    cutting._fetchers.close()
    assert closed == folders
