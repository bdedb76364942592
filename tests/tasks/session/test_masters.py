"""Master frames: made of one session's frames, the same however they are kept, and referred to by later sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asdf
import numpy as np
import pytest
from session_files import tree_of
from single_run import fail, run

from absurd.tasks.artifact import checksum
from absurd.tasks.session import (
    AsyncSessionManager,
    SessionManager,
    SessionNotFoundError,
    SessionValueError,
    find_master,
    masters,
    verify,
)
from absurd.tasks.session.arrays import SessionArrays

SHAPE = (40, 60)
PATTERN = np.linspace(900, 1100, SHAPE[0] * SHAPE[1]).reshape(SHAPE)


def darks(data: Path, frames: Any = "external", compression: Any = None, count: int = 25) -> str:
    """A session with darks of a known pattern, noise of 10 and cosmic rays, of two exposures; and its calibration."""
    noise = np.random.default_rng(7)
    with SessionManager(data, frames=frames, compression=compression) as sessions:
        session = sessions.start_session("maintenance", purpose="darks")
        for number in range(count):
            frame = noise.normal(PATTERN, 10)
            frame[noise.integers(SHAPE[0], size=3), noise.integers(SHAPE[1], size=3)] = 60_000
            session.add_frame("main", frame.astype(np.uint16), exposure_us=1e6, settings={"gain": 200, "step": number})
            session.add_frame("main", np.full(SHAPE, 7, np.uint16), exposure_us=10.0)
        flat = np.linspace(0.5, 1.5, PATTERN.size).reshape(SHAPE)
        session.add_calibration("flats", [(PATTERN + level * flat).astype(np.float32) for level in (5000, 7000, 9000)])
        sessions.end_session()
        return session.id


def master_of(data: Path, session_id: str, **params: Any) -> dict[str, Any]:
    result, kinds = run("session.master", {"data_dir": str(data), "session_id": session_id, **params})
    assert kinds == ["master"]
    return result


def test_masters(tmp_path: Path) -> None:
    """The mean of darks has the pattern with the noise of the mean, and no cosmic ray; a flat has the shape of the
    field and the median 1 once the dark is taken off; plain asdf opens both, and the newest that fits is found.
    """
    session_id = darks(tmp_path)

    told = master_of(tmp_path, session_id, kind="dark", camera="main", exposure_us=1e6)

    assert (told["frames"], told["settings"]) == (25, {"gain": 200})
    assert told["noise"] == pytest.approx(10, rel=0.05)
    assert told["clipped"] >= 60
    path = Path(told["path"])
    assert path.parent == tmp_path / "calibration" / "darks"
    with asdf.open(path, validate_checksums=True) as file:
        difference = np.asarray(file["frame"]) - PATTERN
        assert file["master"]["session_id"] == session_id
    assert np.std(difference) == pytest.approx(10 / 5, rel=0.15)
    assert np.abs(difference).max() < 20

    flat = master_of(tmp_path, session_id, kind="flat", subtract=str(path.relative_to(tmp_path)))

    pixels = masters.read_master(Path(flat["path"])).pixels
    wanted = np.linspace(0.5, 1.5, PATTERN.size).reshape(SHAPE)
    assert np.median(pixels) == pytest.approx(1)
    assert pixels == pytest.approx(wanted, rel=0.01)
    assert find_master(tmp_path, "dark", camera="main", exposure_us=1e6) == path
    assert find_master(tmp_path, "dark", camera="main", exposure_us=2e6) is None
    assert find_master(tmp_path, "flat") == Path(flat["path"])


@pytest.mark.parametrize("kept", [("embedded", None), ("embedded", "zstd"), ("external", "zlib")])
def test_however_frames_are_kept(tmp_path: Path, kept: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A master is the same of frames embedded, beside and compressed, and in however many strips it is made."""
    first = darks(tmp_path / "plain", count=5)
    plain = masters.read_master(
        Path(master_of(tmp_path / "plain", first, kind="dark", camera="main", exposure_us=1e6)["path"])
    )
    monkeypatch.setattr(masters, "STRIP", 4 * 5 * 100)
    session_id = darks(tmp_path / "other", *kept, count=5)

    told = master_of(tmp_path / "other", session_id, kind="dark", camera="main", exposure_us=1e6)

    found = masters.read_master(Path(told["path"]))
    assert np.array_equal(found.pixels, plain.pixels)
    assert found.facts["md5"] == plain.facts["md5"]


async def test_later_sessions_refer_to_masters(tmp_path: Path) -> None:
    """A session keeps path and checksum of the masters that it uses; that one is gone or changed is found."""
    told = master_of(tmp_path, darks(tmp_path), kind="dark", camera="main", exposure_us=10.0)
    path = Path(told["path"])
    async with AsyncSessionManager(tmp_path) as sessions:
        await sessions.start_session("observation", target="M31")
        await sessions.add_master(path)
        with pytest.raises(SessionNotFoundError):
            await sessions.add_master("calibration/darks/none.asdf")
        (tmp_path / "words").write_text("something else")
        with pytest.raises(SessionValueError):
            await sessions.add_master("words")
        later = await sessions.end_session()
    [used] = tree_of(later)["calibration"]["masters"]
    assert used["path"] == str(path.relative_to(tmp_path))
    assert (used["sha256"], used["kind"], used["frames"]) == (checksum(path), "dark", 25)
    assert verify(later).meta["target"] == "M31"
    assert masters.changed_masters(tmp_path, later) == []
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "not the one" in masters.changed_masters(tmp_path, later)[0]
    path.unlink()
    assert "is gone" in masters.changed_masters(tmp_path, later)[0]


def test_what_makes_no_master(tmp_path: Path) -> None:
    """Frames that are not there, of several exposures or shapes, and flats without light are refused, and not tried
    again; so is a session that there is not.
    """
    session_id = darks(tmp_path, count=2)
    params = {"data_dir": str(tmp_path), "session_id": session_id}
    assert "exposures" in fail("session.master", params | {"kind": "dark", "camera": "main"})["message"]
    assert "calibration arrays" in fail("session.master", params | {"kind": "bias"})["message"]
    assert fail("session.master", params | {"kind": "bias", "camera": "guide"})["code"] == "session_not_found"
    with SessionManager(tmp_path) as sessions:
        sessions.start_session("maintenance")
        sessions.add_calibration("flats", [np.zeros(SHAPE), np.zeros(SHAPE)])
        sessions.add_calibration("dark", [np.ones((4, 4)), np.ones((4, 5))])
        path = sessions.end_session()
    params["session_id"] = path.stem
    assert "median" in fail("session.master", params | {"kind": "flat"})["message"]
    assert "shapes" in fail("session.master", params | {"kind": "dark"})["message"]
    params["session_id"] = "idle_20261130_181319_a0821d0d"
    assert fail("session.master", params | {"kind": "flat"})["code"] == "session_not_found"
    assert [each.shape for each in SessionArrays(path).of("calibration", "dark_frames")] == [(4, 4), (4, 5)]
