"""The cache: what it finds, for how long, what goes first, and what many threads at once make of it."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ticking import Clock

from absurd.tasks.cutout import DataIdValidationError
from absurd.tasks.cutout.cache import MISSING, POLICIES, CacheKey, CacheManager, MemoryAlert
from absurd.tasks.cutout.cache_disk import DiskLevel, Stored


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> CacheManager:
    """A memory level alone, or one that holds nothing before a disk level."""
    if request.param == "memory":
        return CacheManager(clock=clock)
    return CacheManager(max_entries=0, disk=DiskLevel(tmp_path / "cache", clock=clock), clock=clock)


def wcs(*parts: Any, **depends: Any) -> CacheKey:
    return CacheKey.of("wcs", *parts, **depends)


def never() -> Any:
    raise AssertionError("it was loaded")


@pytest.mark.parametrize("value", [None, 0, False, "", {}, [], "CTYPE1  = 'RA---TAN'", {"tracts": (1, 2)}, b"x", 0.5])
def test_every_value_is_found_again(cache: CacheManager, value: Any) -> None:
    """None and empty values are values, not absences."""
    assert cache.get(wcs(1)) is MISSING
    assert cache.get(wcs(1), "absent") == "absent"

    assert cache.put(wcs(1), value)

    assert cache.get(wcs(1)) == value
    assert type(cache.get(wcs(1))) is type(value)
    assert cache.get_or_load(wcs(1), never) == value


def test_arrays_are_found_again_and_cannot_be_changed(cache: CacheManager) -> None:
    """Bit by bit, at any depth, whatever the caller does to the array it put in."""
    pixels = np.random.default_rng(3).normal(size=(2, 20, 30)).astype(">f4")
    pixels[0, 0, 0] = np.nan
    expected = pixels.copy()
    cache.put(CacheKey.of("cutout", 1), {"image": pixels})
    pixels[:] = 0

    found = cache.get(CacheKey.of("cutout", 1))["image"]

    assert found.dtype == expected.dtype
    assert found.tobytes() == expected.tobytes()
    assert not found.flags.writeable


def test_what_is_too_old_is_a_miss(cache: CacheManager, clock: Clock) -> None:
    """A value counts until its time to live is over, by the cache's clock, and is then gone for good."""
    key, ttl = CacheKey.of("availability", "r"), POLICIES["availability"].ttl
    assert ttl is not None
    cache.put(key, ["deepCoadd"])
    clock.tick(ttl - 1)
    assert cache.get(key) == ["deepCoadd"]

    clock.tick(1)

    assert cache.get(key) is MISSING
    clock.tick(-1)
    assert cache.get(key) is MISSING
    assert cache.statistics().kinds["availability"].expirations == 1


def test_reading_makes_nothing_younger(cache: CacheManager, clock: Clock) -> None:
    """Age counts from when a value was stored, however often it is asked for and wherever it lies."""
    key = CacheKey.of("availability", "r")
    cache.put(key, 1)
    for _ in range(4):
        clock.tick(74)
        assert cache.get(key) == 1

    clock.tick(74)

    assert cache.get(key) is MISSING


def test_a_clock_that_was_set_back_keeps_nothing_for_ever(cache: CacheManager, clock: Clock) -> None:
    """A value from far in the future is too old as well."""
    cache.put(CacheKey.of("availability", "r"), 1)

    clock.tick(-86_400)

    assert cache.get(CacheKey.of("availability", "r")) is MISSING


def test_a_changed_file_invalidates_what_was_made_from_it(cache: CacheManager, tmp_path: Path) -> None:
    """Its size, its time, or only its content with the old size and time put back: the next read is a miss."""
    file = tmp_path / "image.fits"
    file.write_bytes(b"one")
    other = tmp_path / "other.fits"
    other.write_bytes(b"two")

    def change_size() -> None:
        file.write_bytes(b"longer")

    def change_time() -> None:
        os.utime(file, ns=(1, 1))

    def change_secretly() -> None:
        before = file.stat()
        replacement = tmp_path / "replacement"
        replacement.write_bytes(b"x" * before.st_size)
        os.utime(replacement, ns=(before.st_atime_ns, before.st_mtime_ns))
        replacement.replace(file)

    for change in (change_size, change_time, change_secretly, file.unlink):
        key = wcs("header", files=[other, file])
        cache.put(key, "text")
        cache.put(wcs("another", files=[other]), "text")
        assert cache.get(key) == "text"

        change()

        assert cache.get(key) is MISSING, change
        assert cache.get(wcs("another", files=[other])) == "text"
    assert cache.statistics().kinds["wcs"].invalidations == 4


def test_a_file_that_changes_while_it_is_read_is_noticed(cache: CacheManager, tmp_path: Path) -> None:
    """The version that counts is the one from before the file was read."""
    file = tmp_path / "image.fits"
    file.write_bytes(b"one")
    key = wcs(files=[file])

    def load() -> str:
        read = file.read_text()
        file.write_text("three")
        return read

    assert cache.get_or_load(key, load) == "one"
    assert cache.get_or_load(key, file.read_text) == "three"

    versions = key.versions()
    file.write_text("fourth")
    cache.put(key, "three", versions=versions)
    assert cache.get(key) is MISSING


def test_invalidation_by_key_kind_and_tag(cache: CacheManager, tmp_path: Path) -> None:
    """What is named goes, all else stays; a file's path is a tag."""
    file = tmp_path / "image.fits"
    keys = {
        "one": wcs(1), "two": wcs(2, tags=["run"]), "three": wcs(3, files=[file]),
        "psf": CacheKey.of("psf", 1, tags=["run"]), "cutout": CacheKey.of("cutout", 1, tags=["other"]),
    }  # fmt: skip

    def left() -> set[str]:
        return {name for name, key in keys.items() if cache.get(key) is not MISSING}

    for key in keys.values():
        cache.put(key, "x")
    assert cache.invalidate(keys["one"])
    assert not cache.invalidate(keys["one"])
    assert left() == {"two", "three", "psf", "cutout"}
    assert cache.invalidate_tag("run") == 2
    assert left() == {"three", "cutout"}
    assert cache.invalidate_tag(str(file)) == 1
    assert left() == {"cutout"}
    cache.put(keys["one"], "x")
    cache.put(keys["two"], "x")
    assert cache.invalidate_kind("wcs") == 2
    assert left() == {"cutout"}
    cache.clear()
    assert left() == set()


def test_what_is_invalidated_while_it_is_loaded_is_not_kept(cache: CacheManager) -> None:
    """Who waits for it has it; who asks later gets what is true by then."""

    def load() -> str:
        cache.invalidate_tag("run")
        return "old"

    assert cache.get_or_load(wcs(1, tags=["run"]), load) == "old"
    assert cache.get(wcs(1)) is MISSING


def test_only_small_cutouts_are_kept(cache: CacheManager) -> None:
    """Below 128 x 128 pixels, whatever the bands and planes around them; and no value larger than its kind's bound."""
    small, large = np.zeros((5, 127, 128), np.float32), np.zeros((128, 128), np.uint8)

    assert cache.put(CacheKey.of("cutout", "small"), {"image": small})
    assert not cache.put(CacheKey.of("cutout", "large"), {"image": small, "mask": large})
    assert not cache.put(CacheKey.of("cutout", "deep"), np.zeros((200, 127, 127)))
    assert cache.put(CacheKey.of("psf", "large"), large)

    assert cache.get(CacheKey.of("cutout", "large")) is MISSING
    assert cache.get_or_load(CacheKey.of("cutout", "large"), lambda: large).shape == (128, 128)
    assert cache.statistics().kinds["cutout"].refused == 3


def test_an_unknown_kind_is_refused(cache: CacheManager) -> None:
    """With the kinds that there are."""
    with pytest.raises(DataIdValidationError, match="no kind 'spectrum' of cached values: there are cutout, wcs, psf"):
        cache.get(CacheKey.of("spectrum", 1))


def test_coordinates_are_kept_in_memory_only(tmp_path: Path, clock: Clock) -> None:
    """A conversion takes less time than opening a file."""
    disk = DiskLevel(tmp_path, clock=clock)
    cache = CacheManager(disk=disk, clock=clock)

    cache.put(CacheKey.of("coordinates", 10.0, 20.0), (4849, 35))
    cache.put(wcs(1), "text")

    assert cache.get(CacheKey.of("coordinates", 10.0, 20.0)) == (4849, 35)
    assert disk.entries() == 1


# Eviction -------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first(clock: Clock) -> None:
    """Reading is using; putting a key that is there evicts nobody."""
    cache = CacheManager(max_entries=3, clock=clock)
    for number in (1, 2, 3):
        cache.put(wcs(number), number)
    cache.get(wcs(1))
    cache.put(wcs(3), "again")
    assert cache.statistics().kinds["wcs"].evictions == 0

    cache.put(wcs(4), 4)

    assert [cache.get(wcs(number)) for number in (1, 2, 3, 4)] == [1, MISSING, "again", 4]
    assert cache.statistics().kinds["wcs"].evictions == 1


@given(
    st.lists(st.tuples(st.sampled_from(["put", "get", "forget"]), st.integers(0, 7), st.integers(1, 900)), max_size=60),
    st.integers(1, 5),
    st.integers(500, 3000),
)
@settings(max_examples=150, deadline=None)
def test_memory_equals_a_model(steps: list[tuple[str, int, int]], max_entries: int, max_bytes: int) -> None:
    """Whatever is put, read and forgotten in any order: contents, bytes and order are those of a plain LRU list."""
    cache = CacheManager(max_entries=max_entries, max_bytes=max_bytes, clock=Clock())
    model: OrderedDict[int, tuple[int, int]] = OrderedDict()
    for what, number, length in steps:
        size = length + 128
        if what == "put":
            assert cache.put(wcs(number), np.full(length, number, np.uint8)) == (size <= max_bytes)
            if size <= max_bytes:
                model.pop(number, None)
                model[number] = (length, size)
                while len(model) > max_entries or sum(each for _, each in model.values()) > max_bytes:
                    model.popitem(last=False)
        elif what == "forget":
            assert cache.invalidate(wcs(number)) == (model.pop(number, None) is not None)
        else:
            found = cache.get(wcs(number))
            assert (found is not MISSING) == (number in model)
            if number in model:
                assert len(found) == model[number][0]
                model.move_to_end(number)
        statistics = cache.statistics()
        assert (statistics.entries, statistics.bytes) == (len(model), sum(each for _, each in model.values()))


def test_who_is_told_of_memory_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; what was asked for is given and kept."""

    def fails(alert: object) -> None:
        raise ValueError("no pager")

    cache = CacheManager(max_bytes=1000, on_alert=fails)
    value = cache.get_or_load(CacheKey.of("psf", 1), lambda: np.zeros(600, np.uint8))
    again = cache.get_or_load(CacheKey.of("psf", 2), lambda: np.zeros(600, np.uint8))

    assert value.size == again.size == 600
    assert "who is told of memory failed" in caplog.text


def test_the_limit_of_memory_alerts_once_and_evicts(clock: Clock) -> None:
    """Not with every value that follows, but again after use had fallen; whoever is told may use the cache."""
    told: list[MemoryAlert] = []

    def tell(alert: MemoryAlert) -> None:
        small.statistics()
        told.append(alert)

    small = CacheManager(max_bytes=10_000, clock=clock, on_alert=tell)
    for number in range(30):
        small.put(wcs(number), np.zeros(872, np.uint8))  # 1000 with what an array takes
    assert told == [MemoryAlert("cache", used=11_000, limit=10_000, evicted=1)]
    assert small.statistics().bytes == 10_000

    assert small.release(0.5) == 5
    for number in range(30):
        small.put(wcs(number), np.zeros(872, np.uint8))

    assert len(told) == 2


def test_a_process_that_holds_too_much_gets_memory_back(clock: Clock) -> None:
    """Above the limit half of what is cached goes with each value that comes; below, nothing does."""
    told: list[MemoryAlert] = []
    held = 100
    cache = CacheManager(memory_limit=1000, clock=clock, on_alert=told.append, resident=lambda: held)
    for number in range(7):
        cache.put(wcs(number), np.zeros(872, np.uint8))
    held = 2000

    cache.put(wcs(7), np.zeros(872, np.uint8))

    assert told == [MemoryAlert("process", used=2000, limit=1000, evicted=4)]
    assert cache.statistics().entries == 4
    assert cache.get(wcs(7)) is not MISSING


def test_garbage_is_collected_where_memory_is_short(clock: Clock) -> None:
    """What is held by nothing but its own cycle, as opened images are, goes with the first alert of the process."""

    class Opened:
        def __init__(self) -> None:
            self.itself = self

    gone = weakref.ref(Opened())
    gc.disable()
    try:
        cache = CacheManager(memory_limit=1000, clock=clock, resident=lambda: 2000)
        assert gone() is not None
        cache.put(wcs(1), 1)
        assert gone() is None
    finally:
        gc.enable()


# Statistics, warming, threads -------------------------------------------------------------------------


def test_statistics_count_by_kind(cache: CacheManager) -> None:
    """Hits, misses and their rate, for each kind and in all; before anything was asked the rate is 0."""
    assert cache.statistics().hit_rate == 0
    cache.get(wcs(1))
    cache.put(wcs(1), 1)
    for _ in range(3):
        cache.get(wcs(1))
    cache.get_or_load(CacheKey.of("psf", 1), lambda: 1)

    counted = cache.statistics()

    assert (counted.kinds["wcs"].hits, counted.kinds["wcs"].misses, counted.kinds["wcs"].hit_rate) == (3, 1, 0.75)
    assert (counted.kinds["psf"].hits, counted.kinds["psf"].misses) == (0, 1)
    assert (counted.hits, counted.misses, counted.hit_rate) == (3, 2, 0.6)


def test_warming_loads_what_is_absent_and_tells_what_failed(cache: CacheManager) -> None:
    """Nothing twice, no error hidden or in the way of the others, and no hit or miss counted."""
    cache.put(wcs(0), "there")
    loaded = []

    def load(key: CacheKey) -> str:
        loaded.append(key)
        if key == wcs(2):
            raise OSError("no such image")
        return "warm"

    warmed = cache.warm([wcs(0), wcs(1), wcs(1), wcs(2), wcs(3)], load, threads=1)

    assert (warmed.loaded, warmed.present) == (2, 2)
    [(key, error)] = warmed.failed
    assert (key, str(error)) == (wcs(2), "no such image")
    assert loaded == [wcs(1), wcs(2), wcs(3)]
    assert cache.statistics().hits + cache.statistics().misses == 0
    assert cache.get(wcs(3)) == "warm"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def at_once(pool: ThreadPoolExecutor, ask: Callable[[], Any], entered: threading.Event, go_on: threading.Event) -> Any:
    """The outcomes of `ask` in 8 threads, of which the first is inside its load when the others begin."""
    first = pool.submit(ask)
    assert entered.wait(20)
    asked = [pool.submit(ask) for _ in range(7)]
    go_on.set()
    return [each.exception() or each.result() for each in [first, *asked]]


def test_threads_that_ask_at_once_load_once(cache: CacheManager, pool: ThreadPoolExecutor) -> None:
    """Eight threads, one load, one miss, and the value for all of them; also if it is None."""
    entered, go_on, loads = threading.Event(), threading.Event(), []

    def load() -> None:
        loads.append(threading.get_ident())
        entered.set()
        assert go_on.wait(20)

    found = at_once(pool, lambda: cache.get_or_load(wcs(1), load), entered, go_on)

    assert found == [None] * 8
    assert len(loads) == 1
    assert (cache.statistics().hits, cache.statistics().misses) == (7, 1)


def test_a_load_that_fails_is_not_kept(cache: CacheManager, pool: ThreadPoolExecutor) -> None:
    """Every thread that waits gets the error, and the next one to ask loads again."""
    entered, go_on = threading.Event(), threading.Event()

    def load() -> None:
        entered.set()
        assert go_on.wait(20)
        raise OSError("away")

    found = at_once(pool, lambda: cache.get_or_load(wcs(1), load), entered, go_on)

    assert {str(each) for each in found} == {"away"}
    assert cache.get_or_load(wcs(1), lambda: "back") == "back"


def test_an_interrupted_load_leaves_nobody_waiting(cache: CacheManager, pool: ThreadPoolExecutor) -> None:
    """Of those who wait for a thread that was interrupted, one loads in its place."""
    entered, go_on, loads = threading.Event(), threading.Event(), []

    def load() -> str:
        loads.append(1)
        if len(loads) > 1:
            return "loaded"
        entered.set()
        assert go_on.wait(20)
        raise KeyboardInterrupt

    first, *others = at_once(pool, lambda: cache.get_or_load(wcs(1), load), entered, go_on)

    assert isinstance(first, KeyboardInterrupt)
    assert others == ["loaded"] * 7
    assert len(loads) == 2


def test_what_lands_while_one_looks_is_not_loaded_again(tmp_path: Path) -> None:
    """A value that another stores between a look that misses and the load is found before it is loaded."""

    class Late(DiskLevel):
        def read(self, key: CacheKey) -> Stored | None:
            found = super().read(key)
            if found is None:
                self.write(key, Stored("of another", time.time(), ()))
            return found

    cache = CacheManager(max_entries=0, disk=Late(tmp_path))

    assert cache.get_or_load(wcs(1), never) == "of another"


def test_a_load_that_asks_for_itself_is_told_so(cache: CacheManager) -> None:
    """It would wait for itself for ever."""
    with pytest.raises(RuntimeError, match="asks the cache for that very value"):
        cache.get_or_load(wcs(1), lambda: cache.get_or_load(wcs(1), never))
    assert cache.get_or_load(wcs(1), lambda: cache.get_or_load(wcs(2), lambda: "inner")) == "inner"


def test_many_threads_leave_the_books_right(pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    """Puts, reads, loads and invalidations in eight threads: values are whole and bytes are counted to the last."""
    cache = CacheManager(max_entries=20, max_bytes=50_000, disk=DiskLevel(tmp_path, max_bytes=60_000))

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for number in chance.integers(0, 40, 120).tolist():
            key = wcs(number, tags=[str(number % 3)])
            match chance.integers(0, 4):
                case 0:
                    cache.put(key, np.full(50 * number, number))
                case 1:
                    cache.invalidate(key)
                case _:
                    found = cache.get_or_load(key, partial(np.full, 50 * number, number))
                    assert found.shape == (50 * number,)
                    assert (found == number).all()

    list(pool.map(work, range(8)))

    counted = cache.statistics()
    assert counted.disk_error is None
    assert counted.entries <= 20
    assert counted.bytes <= 50_000
    assert counted.bytes == sum(entry.size for entry in cache._entries.values())
    assert counted.disk_bytes == sum(each.stat().st_size for each in tmp_path.glob("*/??/*")) <= 60_000


def test_own_policies_take_the_place_of_the_given(clock: Clock) -> None:
    """The times to live of a configuration reach the cache."""
    cache = CacheManager(policies={"availability": replace(POLICIES["availability"], ttl=5.0)}, clock=clock)
    cache.put(CacheKey.of("availability"), 1)

    clock.tick(5)

    assert cache.get(CacheKey.of("availability")) is MISSING
