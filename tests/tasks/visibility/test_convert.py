"""Sub-bands of one recording become one Measurement Set: whole, in order, with what is missing flagged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray
from proof import seed_of
from recordings import CHANNEL_HZ, LIGHT, LOWEST_HZ, Recording

from absurd.tasks.radio.errors import DataError, StageError, UnreadableError, ValidationError
from absurd.tasks.radio.telescope import Band
from absurd.tasks.visibility.convert import convert_group, missing_channels
from absurd.tasks.visibility.flag_record import FlagRecord
from absurd.tasks.visibility.flagging.on_disk import flag_measurement_set
from absurd.tasks.visibility.flagging.strategy import strategy_named
from absurd.tasks.visibility.flags import Reason
from absurd.tasks.visibility.measurement_set import read_measurement_set
from absurd.tasks.visibility.measurement_set_rows import open_table
from absurd.tasks.visibility.uvh5 import Blocks, read_subband
from absurd.tasks.visibility.visibilities import Visibilities

RECORDING = Recording()
PATIENCE = 60


def subbands(folder: Path, recording: Recording = RECORDING, numbers: tuple[int, ...] = (2, 0, 1)) -> list[Path]:
    """Files of sub-bands, in any order."""
    return [recording.write_subband(folder / f"sb{number:02d}.hdf5", number) for number in numbers]


def test_sources_are_where_they_are(tmp_path: Path) -> None:
    """Visibilities are those of sources at their ICRS places by u, v, w of their rows; a mirrored sky has others."""
    convert_group(subbands(tmp_path), tmp_path / "out.ms")

    found = read_measurement_set(tmp_path / "out.ms")

    assert found.phase_centres[0].name == "meridian_icrs_t0"
    expected, mirrored = (predicted(found, sign) for sign in (1, -1))
    crosses = ~found.is_auto
    noise = 0.02
    # Aberration differs by a part in 10^4 over the field: up to 0.2 arcsec, 0.002 turns of 350 m.
    assert np.abs(found.data[..., 0] - expected)[crosses].max() < 0.06 + 4 * noise
    assert np.abs(found.data[..., 0] - mirrored)[crosses].max() > 1


def predicted(found: Visibilities, sign: int) -> NDArray[np.complex128]:
    """Of the sources, (row, channel), by the formula of `Visibilities`; with -1 of a sky turned by half a turn."""
    total = np.zeros(found.data.shape[:2], np.complex128)
    for place, (_, _, flux) in zip(RECORDING.sky, RECORDING.sources, strict=True):
        cosines = np.array([direction_cosines(place, each.ra_rad, each.dec_rad) for each in found.phase_centres])
        east, north, towards = cosines[found.field].T
        path = sign * (found.uvw_m[:, 0] * east + found.uvw_m[:, 1] * north)
        path += found.uvw_m[:, 2] * (towards - 1)
        total += flux * np.exp(2j * np.pi * path[:, None] * found.frequencies_hz / LIGHT)
    return total


def direction_cosines(place: SkyCoord, ra: float, dec: float) -> tuple[float, float, float]:
    """l, m and n of a source seen from a phase centre."""
    turn = place.ra.rad - ra
    return (
        np.cos(place.dec.rad) * np.sin(turn),
        np.sin(place.dec.rad) * np.cos(dec) - np.cos(place.dec.rad) * np.sin(dec) * np.cos(turn),
        np.sin(place.dec.rad) * np.sin(dec) + np.cos(place.dec.rad) * np.cos(dec) * np.cos(turn),
    )


@dataclass(frozen=True)
class SameSky(Recording):
    """Of the sources of `RECORDING`, when it points to something else than that."""

    @cached_property
    def sky(self) -> tuple[SkyCoord, ...]:
        return RECORDING.sky


@pytest.mark.parametrize(
    "changes",
    [
        {"begin": "2025-10-05T12:30:01.2"},
        {"declination_deg": 37.19},
        {"begin": "2025-10-05T12:29:58.8", "declination_deg": 36.9},
    ],
)
def test_sub_bands_that_point_elsewhere_are_turned(tmp_path: Path, changes: dict[str, Any]) -> None:
    """By a tenth of an integration or twice the tolerance of declinations: sources stay where they are."""
    other = SameSky(**changes)
    files = [RECORDING.write_subband(tmp_path / "a.hdf5", 0), other.write_subband(tmp_path / "b.hdf5", 1)]
    turned = np.random.default_rng(1).random(other.integrations * len(other.pairs[0])) < 0.5
    files.append(other.write_subband(tmp_path / "c.hdf5", 2, turned=turned, row_order=np.arange(len(turned))[::-1]))

    convert_group(files, tmp_path / "out.ms")

    found = read_measurement_set(tmp_path / "out.ms")
    apart = np.abs(found.data[..., 0] - predicted(found, 1))[~found.is_auto]
    assert apart.max() < 0.06 + 4 * 0.02 + 0.03  # in 1.2 s the sky turns 350 m by 0.0012 turns


def test_channels_ascend_whatever_the_order_of_files(tmp_path: Path) -> None:
    """Data of each sub-band are in their channels, and equal to what the file alone gives."""
    files = subbands(tmp_path)

    done = convert_group(files, tmp_path / "out.ms")

    found = read_measurement_set(tmp_path / "out.ms")
    assert (done.subbands, done.channels, done.missing_channels, done.missing_rows, done.flagged) == (3, 12, 0, 0, 0)
    np.testing.assert_allclose(found.frequencies_hz, LOWEST_HZ + CHANNEL_HZ * np.arange(12), rtol=1e-12)
    for number in range(3):
        alone = read_subband(tmp_path / f"sb{number:02d}.hdf5")
        assert np.array_equal(found.data[:, 4 * number : 4 * number + 4], alone.data)
        assert np.array_equal(found.uvw_m, alone.uvw_m)
        assert np.array_equal(found.time_s, alone.time_s)


def test_missing_subbands_are_flagged(tmp_path: Path) -> None:
    """By the band of the telescope at its ends too: zeros, flagged, without weight."""
    band = Band(LOWEST_HZ - CHANNEL_HZ / 2, CHANNEL_HZ, channels=4, subbands=4, descending=True)
    files = subbands(tmp_path, numbers=(0, 2))

    within = convert_group(files, tmp_path / "within.ms")
    whole = convert_group(files, tmp_path / "whole.ms", band=band)

    assert (within.channels, within.missing_channels) == (12, 4)
    assert within.flagged == pytest.approx(1 / 3)
    assert (whole.channels, whole.missing_channels, whole.flagged) == (16, 8, 0.5)
    found = read_measurement_set(tmp_path / "whole.ms")
    missing = [number in range(4, 8) or number >= 12 for number in range(16)]
    assert np.array_equal(found.flags.all(axis=(0, 2)), missing)
    assert not found.flags[:, np.logical_not(missing)].any()
    assert not found.data[:, missing].any()
    assert not found.weights[:, missing].any()


def test_antennas_and_rows_in_another_order(tmp_path: Path) -> None:
    """A sub-band whose antennas are listed otherwise, whose rows are shuffled and whose baselines are partly turned."""
    recording = RECORDING.with_(correlations=(-5, -6, -7, -8), seed=3)
    random = np.random.default_rng(5)
    rows = recording.integrations * len(recording.pairs[0])
    plain = [recording.write_subband(tmp_path / f"sb{number:02d}.hdf5", number) for number in (0, 1)]
    shuffled = recording.write_subband(
        tmp_path / "shuffled.hdf5",
        1,
        antenna_order=[3, 1, 4, 0, 2],
        row_order=random.permutation(rows),
        turned=random.random(rows) < 0.5,
        descending=True,
        old_layout=False,
    )

    convert_group(plain, tmp_path / "plain.ms")
    convert_group([plain[0], shuffled], tmp_path / "shuffled.ms")

    expected, found = (read_measurement_set(tmp_path / f"{name}.ms") for name in ("plain", "shuffled"))
    assert np.array_equal(found.antenna1, expected.antenna1)
    assert found.correlations == ("XX", "XY", "YX", "YY")
    assert np.array_equal(found.data[:, :4], expected.data[:, :4])
    # In a turned baseline XY is the conjugate of YX: what was written there is told by which is which.
    same = np.isclose(found.data[:, 4:], expected.data[:, 4:], atol=1e-6)
    swapped = np.isclose(found.data[:, 4:], expected.data[:, 4:][..., [0, 2, 1, 3]], atol=1e-6)
    assert np.all(same | swapped)
    assert np.all(same[..., [0, 3]])


def test_subbands_that_lack_rows(tmp_path: Path) -> None:
    """A file that ends early, or lacks an antenna, is flagged where it has nothing."""
    rows = RECORDING.integrations * len(RECORDING.pairs[0])
    files = subbands(tmp_path, numbers=(0, 1))
    short = RECORDING.write_subband(tmp_path / "short.hdf5", 2, row_order=np.arange(rows - 7))

    done = convert_group([*files, short], tmp_path / "out.ms")

    found = read_measurement_set(tmp_path / "out.ms")
    assert (done.missing_rows, done.rows) == (7, rows)
    assert found.flags[-7:, 8:].all()
    assert found.flags.sum() == 7 * 4 * 2


def test_what_is_no_number(tmp_path: Path) -> None:
    """Becomes 0 and flagged; flags of the file are kept, and samples are the weights."""
    shape = RECORDING.integrations * len(RECORDING.pairs[0]), 4, 2
    data = np.ones(shape, np.complex64)
    data[3, 1, 0], data[4, 2, 1] = np.nan, complex(0, np.inf)
    flags = np.zeros(shape, np.bool_)
    flags[5] = True
    samples = np.full(shape, 0.5, np.float32)
    samples[6, :, 1] = np.nan
    file = RECORDING.write_subband(
        tmp_path / "one.hdf5", 0, data={"visdata": data, "flags": flags, "nsamples": samples}
    )

    done = convert_group([file], tmp_path / "out.ms")

    found = read_measurement_set(tmp_path / "out.ms")
    flags[3, 1, 0] = flags[4, 2, 1] = True
    assert done.invalid == 2
    assert np.array_equal(found.flags, flags)
    assert np.isfinite(found.data).all()
    assert np.unique(found.weights).tolist() == [0.0, 0.5]
    assert not found.weights[6, :, 1].any()


@pytest.mark.parametrize(
    ("changes", "header", "said"),
    [
        ({"begin": "2025-10-05T12:35:10"}, {}, "is of another time"),
        ({"begin": "2025-10-05T12:30:04"}, {}, "is of another time"),
        ({"begin": "2025-10-05T12:30:01.4"}, {}, "is of another time"),
        ({"declination_deg": 37.21}, {}, "declinations are 37.2100 and 37.0000 degrees"),
        ({"declination_deg": 38.0}, {}, "declinations are 38.0000 and 37.0000 degrees"),
        ({"correlations": (-5,)}, {}, "correlations are XX, and XX, YY"),
        ({"integration_s": 6.442451}, {}, "integrations are 6.442 s long, and 12.88"),
        ({}, {"channel_width": 2 * CHANNEL_HZ}, "channels are 488.281 kHz wide, and 244.141"),
        ({}, {"antenna_names": np.array([f"other{each}" for each in range(5)], "S6")}, "there is an antenna other0"),
        ({}, {"antenna_names": np.array(["same"] * 5, "S6")}, "there is an antenna same"),
        ({}, {"freq_array": LOWEST_HZ + CHANNEL_HZ * (4.5 + np.arange(4))}, "is between the channels of the others"),
        ({}, {"freq_array": LOWEST_HZ + CHANNEL_HZ * (2 + np.arange(4))}, "have the same channels"),
    ],
)
def test_subbands_that_do_not_belong_together(
    tmp_path: Path, changes: dict[str, object], header: dict[str, object], said: str
) -> None:
    """Are refused with the reason, and nothing is written."""
    first = RECORDING.write_subband(tmp_path / "a.hdf5", 0)
    second = RECORDING.with_(**changes).write_subband(tmp_path / "b.hdf5", 1, header=header)

    with pytest.raises(DataError, match=said):
        convert_group([first, second], tmp_path / "out.ms")

    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.hdf5", "b.hdf5"]


def test_channels_of_another_width_than_the_telescopes(tmp_path: Path) -> None:
    """Are refused as such."""
    band = Band(LOWEST_HZ - CHANNEL_HZ / 4, CHANNEL_HZ / 2, channels=8, subbands=4, descending=True)

    with pytest.raises(DataError, match=r"has channels 244\.141 kHz wide, and the telescope's have 122\.07"):
        convert_group(subbands(tmp_path, numbers=(1, 2)), tmp_path / "out.ms", band=band)


def test_antennas_that_moved(tmp_path: Path) -> None:
    """An antenna that stands elsewhere is another one: its files are refused."""
    first = RECORDING.write_subband(tmp_path / "a.hdf5", 0)
    moved = RECORDING.with_(antennas=(*RECORDING.antennas[:4], (312.0, 150.0, 2.0)))

    with pytest.raises(DataError, match=r"antenna pad004 stands 2 m apart"):
        convert_group([first, moved.write_subband(tmp_path / "b.hdf5", 1)], tmp_path / "out.ms")


def test_a_file_with_other_data_is_another_file(tmp_path: Path) -> None:
    """Of the same name, size, times and channels: what was written of the one before is replaced."""
    files = subbands(tmp_path)
    convert_group(files, tmp_path / "out.ms")
    with h5py.File(files[0], "r+") as file:
        file["Data/visdata"][...] *= 2
    told = files[0].stat()
    os.utime(files[0], ns=(told.st_atime_ns, told.st_mtime_ns + 1))  # clocks of file systems are coarse

    assert convert_group(files, tmp_path / "out.ms").is_new


def test_a_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its data alone, before they are read or while they are: that is told, and nothing is written."""
    files = sorted(subbands(tmp_path))

    def touch(file: Path) -> None:
        told = file.stat()
        os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns + 1))

    with pytest.raises(UnreadableError, match=r"sb01\.hdf5 was changed while it was converted"):
        convert_group(files, tmp_path / "out.ms", on_subband=lambda done, _: touch(files[1]) if done == 1 else None)
    read = Blocks.read

    def changed(self: Blocks, rows: slice, *, conjugate: bool) -> Any:
        touch(files[0])
        return read(self, rows, conjugate=conjugate)

    monkeypatch.setattr(Blocks, "read", changed)
    with pytest.raises(UnreadableError, match=r"sb00\.hdf5 was changed while it was converted"):
        convert_group(files, tmp_path / "out.ms")
    assert not (tmp_path / "out.ms").exists()


def test_what_was_made_of_other_files_stays(tmp_path: Path) -> None:
    """Another recording, of files of the same names, does not take the place of a Measurement Set."""
    convert_group(subbands(tmp_path), tmp_path / "out.ms")
    (tmp_path / "other").mkdir()
    others = subbands(tmp_path / "other", RECORDING.with_(begin="2025-10-06T12:30:00"))
    before = content(tmp_path / "out.ms")

    with pytest.raises(StageError, match=r"out\.ms was made from other files"):
        convert_group(others, tmp_path / "out.ms")

    assert content(tmp_path / "out.ms") == before


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    """One that has the name of the Measurement Set, and is none, is refused and not touched."""
    files = subbands(tmp_path)
    (tmp_path / "out.ms").mkdir()
    (tmp_path / "out.ms" / "notes").write_text("mine", encoding="utf-8")

    with pytest.raises(ValidationError, match=r"out\.ms holds something else"):
        convert_group(files, tmp_path / "out.ms")

    assert [each.name for each in (tmp_path / "out.ms").iterdir()] == ["notes"]


def test_missing_sub_bands_are_no_fault_of_antennas(tmp_path: Path) -> None:
    """Flags tell that they are missing; however many they are, no antenna is dead of it."""
    band = Band(LOWEST_HZ - CHANNEL_HZ / 2, CHANNEL_HZ, channels=4, subbands=40, descending=True)
    convert_group(subbands(tmp_path, numbers=(1, 2)), tmp_path / "out.ms", band=band)
    with open_table(tmp_path / "out.ms") as main:
        assert missing_channels(main) == [slice(0, 4), slice(12, 160)]

    done = flag_measurement_set(tmp_path / "out.ms", strategy_named("structure", {}))

    assert done.version.report["dead_antennas"] == []
    reasons = FlagRecord(tmp_path / "out.ms").reasons(0)
    assert set(np.unique(reasons[:, :4])) == set(np.unique(reasons[:, 12:])) == {int(Reason.MISSING)}
    assert not reasons[:, 4:12].any()


def test_converting_again(tmp_path: Path) -> None:
    """The same files leave the Measurement Set as it is; others replace it; the same files give the same again."""
    files = subbands(tmp_path)
    first = convert_group(files, tmp_path / "out.ms")
    inode = (tmp_path / "out.ms").stat().st_ino

    again = convert_group(files[::-1], tmp_path / "out.ms")
    assert not again.is_new
    assert again == replace(first, is_new=False)
    assert (tmp_path / "out.ms").stat().st_ino == inode
    assert convert_group(files[:2], tmp_path / "out.ms").is_new
    assert (tmp_path / "out.ms").stat().st_ino != inode

    convert_group(files, tmp_path / "other.ms")
    convert_group(files, tmp_path / "out.ms")
    assert content(tmp_path / "out.ms") == content(tmp_path / "other.ms")


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a table, but for locks, and for those in which casacore leaves bytes unset."""
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file() and each.name not in {"table.lock", "table.f0i"}
    }


def test_one_is_asked_after_each_subband(tmp_path: Path) -> None:
    """How far it is; what is raised there ends the conversion, and nothing is left."""
    told: list[tuple[int, int]] = []
    files = subbands(tmp_path)
    convert_group(files, tmp_path / "out.ms", on_subband=lambda *each: told.append(each))

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError):
        convert_group(files, tmp_path / "other.ms", on_subband=stop)

    assert told == [(1, 3), (2, 3), (3, 3)]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.ms", "sb00.hdf5", "sb01.hdf5", "sb02.hdf5"]


_KILLED = """
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from absurd.tasks.visibility.convert import convert_group
def stop(done, _):
    if done == int(sys.argv[1]):
        print("there", flush=True)
        sys.stdin.read()
convert_group(sorted(Path(sys.argv[2]).glob("*.hdf5")), sys.argv[3], on_subband=stop)
"""


_ANY_TIME = """
import sys
from pathlib import Path
from absurd.tasks.visibility.convert import convert_group
files = sorted(Path(sys.argv[1]).glob("*.hdf5"))
while True:
    for some in (files[:2], files):
        print(convert_group(some, sys.argv[2]).is_new, flush=True)
"""


def test_kills_at_any_time(tmp_path: Path) -> None:
    """While one Measurement Set is replaced by another, again and again: what is there is one of them, and whole."""
    subbands(tmp_path)
    random = np.random.default_rng(seed_of("kills of conversions"))
    for _ in range(4):
        seconds = float(random.uniform(0.02, 0.6))
        victim = subprocess.Popen(
            [sys.executable, "-c", _ANY_TIME, tmp_path, tmp_path / "o.ms"], stdout=subprocess.PIPE
        )
        assert victim.stdout is not None
        assert victim.stdout.readline()
        assert victim.stdout.readline() == b"True\n"  # it has replaced one, and is at the next
        with pytest.raises(subprocess.TimeoutExpired):
            victim.wait(seconds)
        victim.kill()
        victim.communicate(timeout=PATIENCE)

        print(f"killed after {seconds:.3f} s")
        found = read_measurement_set(tmp_path / "o.ms")
        assert found.data.shape[1] in {8, 12}
        assert not found.flags.any()
        assert np.abs(found.data).min() > 0
    files = sorted(tmp_path.glob("*.hdf5"))
    assert {convert_group(some, tmp_path / "o.ms").channels for some in (files[:2], files)} == {8, 12}
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_memory_does_not_grow_with_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than a sub-band is held at once, of as many rows as there may be."""
    monkeypatch.setattr("absurd.tasks.visibility.measurement_set_blocks.BLOCK_BYTES", 1 << 18)
    places = tuple((float(x), float(y), 0.0) for x, y in np.random.default_rng(3).normal(size=(24, 2)) * 200)
    recording = RECORDING.with_(antennas=places, integrations=30, channels=48, seed=0, sources=((0.1, 0.1, 1.0),))
    files = [recording.write_subband(tmp_path / f"sb{number:02d}.hdf5", number) for number in range(3)]
    convert_group(files[:1], tmp_path / "first.ms")

    tracemalloc.start()
    try:
        convert_group(files, tmp_path / "out.ms")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    rows = recording.integrations * len(recording.pairs[0])
    assert most < 0.75 * rows * 48 * 2 * 8


@pytest.mark.parametrize("subband", [1, 3])
def test_a_kill_leaves_nothing_under_the_name(tmp_path: Path, subband: int) -> None:
    """Kill -9 in the middle; the next conversion gives what one gives that was left alone, and cleans up."""
    files = subbands(tmp_path)
    victim = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(subband), tmp_path, tmp_path / "out.ms"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"there\n"
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=PATIENCE)

    assert not (tmp_path / "out.ms").exists()
    convert_group(files, tmp_path / "out.ms")
    convert_group(files, tmp_path / "other.ms")
    assert content(tmp_path / "out.ms") == content(tmp_path / "other.ms")
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
