"""Warnings kept back in one thread: others warn as ever, and the filters stay as they were."""

from __future__ import annotations

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import extract
from absurd.tasks.cutout.fits_image import read_wcs
from absurd.tasks.cutout.sources.folder import FolderSource
from absurd.tasks.quiet import _FILTER, quiet

PATIENCE = 60
"""Seconds until another thread has to be where it is waited for."""


def filters() -> list[Any]:
    """Those of the process, but for the one that stays."""
    return [each for each in warnings.filters if each is not _FILTER]


def test_one_thread_leaves_while_another_is_within(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second comes in before the first leaves: what it warns of then is kept back, and its end changes nothing."""
    entered, left = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> str:
        entered.set()
        assert left.wait(PATIENCE)
        warnings.warn("told late", stacklevel=1)
        return "second"

    def quick(*_: object, **__: object) -> str:
        monkeypatch.setattr("absurd.tasks.cutout.sky_wcs.SkyWCS", slow)
        others.append(threads.submit(read_wcs, {"NAXIS": 2}))
        assert entered.wait(PATIENCE)
        return "first"

    before, others = filters(), list[Any]()
    monkeypatch.setattr("absurd.tasks.cutout.sky_wcs.SkyWCS", quick)
    with ThreadPoolExecutor(1) as threads:
        try:
            assert read_wcs({"NAXIS": 2}) == "first"
        finally:
            left.set()
        assert others[0].result() == "second"
    assert filters() == before


def test_other_threads_warn_as_ever() -> None:
    """Also what is the same warning at the same place, and also while another thread is within."""

    def warn() -> None:
        warnings.warn("heard", stacklevel=1)

    with ThreadPoolExecutor(1) as threads, quiet():
        warn()
        with pytest.raises(UserWarning, match="heard"):
            threads.submit(warn).result()
        with quiet():
            warn()
        warn()
    with pytest.raises(UserWarning, match="heard"):
        warn()


def test_lists_of_filters_that_others_begin() -> None:
    """`catch_warnings` of others begins new ones, with filters in front: those within go before, later ones not."""
    before = filters()
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with quiet():
                warnings.warn("kept back", stacklevel=1)
                warnings.simplefilter("error", UserWarning)
                with pytest.raises(UserWarning):
                    warnings.warn("asked for within", stacklevel=1)
                with quiet():
                    warnings.warn("kept back again", stacklevel=1)
            assert warnings.filters.count(_FILTER) == 1
    assert filters() == before


def test_files_that_are_warned_of_by_many_threads(tmp_path: Path) -> None:
    """What astropy mends while it reads headers and pixels is said nowhere, and the filters are as before."""
    for number in range(4):
        cards = {"radecsys": "FK5", "date-obs": "31/12/98", "equinox": 2000.0, "bunit": "counts/sec per"}
        write_image(tmp_path / f"{number}_r.fits", pixels_of(), make_wcs(frame="FK5"), **cards)
    before, interval = filters(), sys.getswitchinterval()

    def read(number: int) -> bool:
        source = FolderSource(tmp_path)
        cutout = extract(tmp_path / f"{number % 4}_r.fits", (10.0, 20.0), 5, unit="pixel")
        return len(source.images()) == 4 and cutout.image.pixels.shape == (5, 5)

    with ThreadPoolExecutor(8) as threads:
        sys.setswitchinterval(1e-5)
        try:
            assert all(threads.map(read, range(64)))
        finally:
            sys.setswitchinterval(interval)
    assert filters() == before
