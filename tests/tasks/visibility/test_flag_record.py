"""Flags of Measurement Sets: in the column, in versions of the record, and whole whatever happens meanwhile."""

from __future__ import annotations

import multiprocessing
import shutil
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interference import KINDS, interfered, recording

from absurd.tasks.radio.errors import DataError, StateManagementError
from absurd.tasks.visibility.flag_record import FOLDER, FlagRecord
from absurd.tasks.visibility.flagging import on_disk
from absurd.tasks.visibility.flagging.flagger import flag
from absurd.tasks.visibility.flagging.on_disk import Done, flag_measurement_set, restore_flags
from absurd.tasks.visibility.flagging.recording import take
from absurd.tasks.visibility.flagging.strategy import Strategy, strategy_named
from absurd.tasks.visibility.flags import Reason
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.visibilities import Visibilities

SOME, _ = interfered(recording(antennas=5, channels=96), KINDS["bursts"])
FLAGGED = np.random.default_rng(1).random(SOME.flags.shape) < 0.1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A Measurement Set with a tenth of its visibilities flagged."""
    made = tmp_path / "some.ms"
    write_measurement_set(SOME.with_(flags=FLAGGED), made)
    return made


def now(path: Path) -> Visibilities:
    return read_measurement_set(path)


def set_flags(path: Path, flags: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    """As another program does it."""
    from casacore import tables

    with tables.table(str(path), readonly=False, ack=False) as main:
        main.putcol("FLAG", flags)
        main.putcol("FLAG_ROW", flags.all(axis=(1, 2)))


@pytest.mark.parametrize("bytes_at_once", [60_000, 1 << 30])
def test_the_column_is_what_flagging_in_memory_gives(path: Path, bytes_at_once: int) -> None:
    """A block of baselines at a time, or all at once: the same flags, reasons and numbers; all else stays."""
    before = now(path)
    expected, reasons, report = flag(before)

    done = flag_measurement_set(path, Strategy(), bytes_at_once=bytes_at_once)

    after = now(path)
    np.testing.assert_array_equal(after.flags, expected.flags)
    np.testing.assert_array_equal(after.data, before.data)
    np.testing.assert_array_equal(FlagRecord(path).reasons(1), reasons)
    assert done.version.report == report.told(before.correlations)
    assert done.version.settings == Strategy().told() and done.version.number == 1 and not done.resumed


def test_versions_tell_what_was_done(path: Path) -> None:
    """The first version holds the flags as they were; each step adds one, and flags only grow."""
    flag_measurement_set(path, strategy_named("structure"), key="one")
    flag_measurement_set(path, strategy_named("default"), key="two")

    record = FlagRecord(path)
    versions = record.versions()
    assert [(each.number, each.step, each.key) for each in versions] == [
        (0, "input", None),
        (1, "visibility.flag", "one"),
        (2, "visibility.flag", "two"),
    ]
    assert "sum_threshold" not in versions[1].settings and "sum_threshold" in versions[2].settings
    flags = [record.reasons(each.number) for each in versions]
    np.testing.assert_array_equal(flags[0] != 0, FLAGGED)
    assert all(((later & earlier) == earlier).all() for earlier, later in pairwise(flags))
    assert [each.report["flagged"] for each in versions] == [np.count_nonzero(each) for each in flags]


def test_an_earlier_version_comes_back(path: Path) -> None:
    """Restored flags are those of the version, as one of its own; no version is lost, nor what others have flagged."""
    flag_measurement_set(path, Strategy())
    by_hand = now(path).flags.copy()
    by_hand[0] = True
    set_flags(path, by_hand)

    done = restore_flags(path, 0)

    np.testing.assert_array_equal(now(path).flags, FLAGGED)
    assert [each.step for each in FlagRecord(path).versions()] == ["input", "visibility.flag", "input", "restore"]
    assert done.version.number == 3 and done.version.settings == {"version": 0}
    restore_flags(path, 2)
    np.testing.assert_array_equal(now(path).flags, by_hand)
    with pytest.raises(DataError, match="has no version 9"):
        restore_flags(path, 9)


def test_flags_of_others_stay(path: Path) -> None:
    """What another program has flagged meanwhile is INPUT in the next version; what it took back is flagged again."""
    flag_measurement_set(path, Strategy())
    flags = now(path).flags.copy()
    flags[3] = True
    flags[5] = False
    set_flags(path, flags)

    flag_measurement_set(path, Strategy())

    reasons = FlagRecord(path).reasons(2)
    earlier = FlagRecord(path).reasons(1)
    assert (reasons[3] != 0).all() and ((reasons[3] & int(Reason.INPUT)) != 0)[earlier[3] == 0].all()
    assert ((reasons & earlier) == earlier).all()
    np.testing.assert_array_equal(now(path).flags, reasons != 0)


def test_the_same_task_flags_once(path: Path) -> None:
    """A second attempt of a task whose first one had done all changes nothing."""
    first = flag_measurement_set(path, Strategy(), key="task")
    again = flag_measurement_set(path, Strategy(), key="task")

    assert again.resumed and again.version == first.version
    assert len(FlagRecord(path).versions()) == 2


def test_the_same_strategy_again_changes_no_flag(path: Path) -> None:
    """A second pass by another task is a version of its own, with the same reasons, a baseline in memory or all."""
    flag_measurement_set(path, Strategy(), key="one")
    flag_measurement_set(path, Strategy(), key="two", bytes_at_once=60_000)

    record = FlagRecord(path)
    np.testing.assert_array_equal(record.reasons(2), record.reasons(1))
    np.testing.assert_array_equal(now(path).flags, record.reasons(1) != 0)


@pytest.mark.parametrize("change", [flag_measurement_set, restore_flags])
def test_two_attempts_at_once_make_one_version(path: Path, change: Callable[..., Done]) -> None:
    """Attempts of the same task that both began before either had done anything: the later one finds the version."""
    flag_measurement_set(path, strategy_named("structure"), key="before")
    context = multiprocessing.get_context("fork")
    both, told = context.Barrier(2), context.SimpleQueue()
    argument = Strategy() if change is flag_measurement_set else 0

    def attempt() -> None:
        changing = vars(on_disk)["changing"]

        def after_both_have_asked(*arguments: Any) -> Any:
            both.wait(60)
            return changing(*arguments)

        vars(on_disk)["changing"] = after_both_have_asked
        done = change(path, argument, key="task")
        told.put((done.version.number, done.resumed))

    children = [context.Process(target=attempt) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for each in children:
            each.start()
    for each in children:
        each.join(60)

    assert [each.exitcode for each in children] == [0, 0]
    assert sorted(told.get() for _ in children) == [(2, False), (2, True)]
    assert [each.key for each in FlagRecord(path).versions()] == [None, "before", "task"]
    np.testing.assert_array_equal(now(path).flags, FlagRecord(path).reasons(2) != 0)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("at", ["search", "put", "swap"])
def test_a_kill_leaves_what_there_was(path: Path, at: str) -> None:
    """Killed while it searches, writes flags or puts the set in place: flags and record are the older ones."""
    expected, _, _ = flag(now(path))
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_killed, args=(path, at))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer ones tell that threads do not come along
        child.start()
    child.join(60)
    assert child.exitcode == -9
    assert FlagRecord(path).versions() == []
    np.testing.assert_array_equal(now(path).flags, FLAGGED)

    done = flag_measurement_set(path, Strategy(), key="task")

    assert not done.resumed and [each.number for each in FlagRecord(path).versions()] == [0, 1]
    np.testing.assert_array_equal(now(path).flags, expected.flags)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert sorted(each.name for each in (path / FOLDER / "window-0").iterdir()) == ["00000", "00001"]


def test_a_kill_after_the_swap_leaves_no_old_files(path: Path) -> None:
    """Killed before the older files are removed: the flags are the new ones, and the next attempt removes these."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_killed, args=(path, "removal"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join(60)
    assert child.exitcode == -9
    assert len(FlagRecord(path).versions()) == 2
    assert len(list(path.parent.iterdir())) == 2

    done = flag_measurement_set(path, Strategy(), key="task")

    assert done.resumed
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def _killed(path: Path, at: str) -> None:
    """Flag, and be killed at some point."""
    import os
    import signal

    from absurd.tasks import folder

    def die(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    put, sync = on_disk.OnDisk.put, vars(folder)["sync"]
    seen: list[int] = []

    def once_put(place: Path) -> None:  # the last that is flushed is the folder with the final names
        if place == path.parent:
            die()
        sync(place)

    def some(self: on_disk.OnDisk, rows: Any, flags: Any) -> None:
        if seen:
            die()
        seen.append(1)
        put(self, rows, flags)
        if at == "swap":
            folder._exchange = die
        if at == "removal":
            vars(folder)["sync"] = once_put

    if at == "search":
        on_disk.flag_recording = die  # type: ignore[attr-defined]
    else:
        on_disk.OnDisk.put = some  # type: ignore[method-assign]
    flag_measurement_set(path, Strategy(), key="task", bytes_at_once=100_000 if at == "put" else 1 << 30)


def test_others_wait(path: Path) -> None:
    """Two that flag the same set at once do it one after the other: each finds what the one before has made."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=flag_measurement_set, args=(path, Strategy())) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for each in children:
            each.start()
    for each in children:
        each.join(60)

    assert [each.exitcode for each in children] == [0, 0]
    versions = FlagRecord(path).versions()
    assert [each.number for each in versions] == [0, 1, 2]
    assert versions[2].report["flagged_before"] == versions[1].report["flagged"]


def test_a_record_of_other_visibilities_is_refused(path: Path, tmp_path: Path) -> None:
    """Where the record is about other rows or channels, nothing is flagged by it."""
    flag_measurement_set(path, Strategy())
    other = tmp_path / "other.ms"
    write_measurement_set(recording(antennas=4, channels=96), other)
    shutil.copytree(path / FOLDER, other / FOLDER)

    with pytest.raises(StateManagementError, match="there are"):
        flag_measurement_set(other, Strategy())


def test_a_set_made_anew_has_no_record(path: Path) -> None:
    """The record goes with the Measurement Set: one that is written over it begins anew."""
    flag_measurement_set(path, Strategy())
    write_measurement_set(SOME, path)

    assert FlagRecord(path).versions() == []


def test_channels_that_descend(path: Path) -> None:
    """Where channels lie in descending order, flags lie where the visibilities do."""
    from casacore import tables

    with tables.table(str(path), readonly=False, ack=False) as main:
        for name in ("DATA", "FLAG"):
            main.putcol(name, main.getcol(name)[:, ::-1])
        with tables.table(main.getkeyword("SPECTRAL_WINDOW"), readonly=False, ack=False) as windows:
            windows.putcol("CHAN_FREQ", windows.getcol("CHAN_FREQ")[:, ::-1])
    expected, _, _ = flag(now(path))

    flag_measurement_set(path, Strategy())

    np.testing.assert_array_equal(now(path).flags, expected.flags)
    with tables.table(str(path), ack=False) as main:
        np.testing.assert_array_equal(main.getcol("FLAG"), expected.flags[:, ::-1])


@pytest.mark.parametrize("case", ["absent", "a folder", "no rows"])
def test_what_cannot_be_flagged_is_told(case: str, tmp_path: Path) -> None:
    """A set that is not there, is none, or has no rows is refused by name."""
    path = tmp_path / "this.ms"
    if case == "a folder":
        path.mkdir()
    elif case == "no rows":
        write_measurement_set(take(SOME, np.zeros(0, np.int64)), path)

    with pytest.raises(DataError, match=r"this\.ms"):
        flag_measurement_set(path, Strategy())
