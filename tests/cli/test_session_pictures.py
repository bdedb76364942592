"""``absurd session frames|export-fits|plot|tail``: what a session has seen and was told."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image
from session_files import in_process, line_of

from absurd.tasks.session import SessionManager, plotting

if TYPE_CHECKING:
    from cli.conftest import Run


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, which the commands know by the setting."""
    monkeypatch.setenv("ABSURD_SESSION_FOLDER", str(tmp_path / "telescope"))
    return tmp_path / "telescope"


@pytest.fixture
def night(data: Path) -> Path:
    """A session with two cameras, telemetry, events and an error."""
    with SessionManager(data) as sessions:
        session = sessions.start_session("observation", target="M31 <b>")
        for number in range(3):
            frame = np.arange(600, dtype=np.uint16).reshape(20, 30) + number
            told = {"gain": 200, "gain_mode": "<b>auto", "odd": float("nan"), "none": None}
            session.add_frame("main", frame, exposure_us=312_000, settings=told)
            time = "2026-01-01T05:00:00+02:00" if number == 0 else None
            session.add_telemetry("mount_position", ra=10.0 + number, dec=41.0, text="x", odd=float("inf"), time=time)
        session.add_frame("guide", np.zeros((4, 5, 3), np.uint8))
        session.add_event("cloud_detected", cover=0.3)
        session.log("ERROR", "lost & <b>found")
        return sessions.end_session()


def test_frames(run: Run, night: Path, tmp_path: Path) -> None:
    """Frames are listed, and come out as FITS with the same pixels, header and checksum."""
    listed = run("session", "frames", night.stem, "--json").document
    assert [(each["camera"], each["index"]) for each in listed] == [("main", 0), ("main", 1), ("main", 2), ("guide", 0)]
    assert (listed[0]["shape"], listed[0]["exposure_us"]) == ([20, 30], 312_000)
    assert "20×30" in run("session", "frames", str(night), "--camera", "main").out

    written = run("session", "export-fits", night.stem, "--out", str(tmp_path / "fits"), "--json").document["files"]

    assert len(written) == 4
    with fits.open(written[1], checksum=True) as file:
        assert np.array_equal(file[0].data, np.arange(600).reshape(20, 30) + 1)
        header = file[0].header
        assert (header["EXPTIME"], header["INSTRUME"], header["GAIN"]) == (0.312, "main", 200)
        assert header["DATE-OBS"].startswith("20")
    one = run(
        "session", "export-fits", night.stem, "--out", str(tmp_path), "--camera", "main", "--frame", "2", "--json"
    )
    assert [Path(each).name for each in one.document["files"]] == [f"{night.stem}_main_00002.fits"]
    assert run("session", "frames", night.stem, "--camera", "none").code == 3
    assert run("session", "export-fits", night.stem, "--out", str(tmp_path), "--frame", "9").code == 3


def test_pictures(run: Run, night: Path, data: Path, tmp_path: Path) -> None:
    """A picture has something to see, the page holds it and what happened, with nothing taken for markup; a session
    without anything is drawn too.
    """
    made = run("session", "plot", night.stem, "--out", str(tmp_path / "out"), "--json")

    assert made.code == 0, made.err
    picture, page = map(Path, made.document["pictures"])
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("L"))
    assert pixels.shape[1] > 800
    assert (pixels < 128).mean() > 0.01
    text = page.read_text()
    assert "data:image/png;base64," in text
    assert "cloud_detected" in text
    assert "lost &amp; &lt;b&gt;found" in text
    assert "<b>" not in text
    refused = run("session", "plot", night.stem, "--out", str(picture / "below"), "--json")
    assert (refused.code, json.loads(refused.out or refused.err)["error"]["code"]) == (1, "session_storage")
    shutil.rmtree(night.with_name(f"{night.stem}_frames"))
    assert run("session", "plot", night.stem, "--out", str(tmp_path / "out")).code == 0
    lost = run("session", "export-fits", night.stem, "--out", str(tmp_path / "out"), "--json")
    assert (lost.code, json.loads(lost.out or lost.err)["error"]["code"]) == (1, "session_damaged")
    story = plotting.Story(night)
    assert sorted(story.telemetry) == [("mount_position", "dec"), ("mount_position", "ra")]
    assert story.telemetry["mount_position", "ra"][0][0] == datetime(2026, 1, 1, 3)  # noqa: DTZ001 - as drawn, in UTC
    assert story.span[0] == datetime(2026, 1, 1, 3)  # noqa: DTZ001
    run("session", "start", "experiment")
    empty = Path(run("session", "end").out.strip())
    assert run("session", "plot", str(empty), "--out", str(tmp_path)).code == 0


FOLLOWING = """
    import sys, time
    from pathlib import Path
    from absurd.tasks.session.following import follow
    for each in follow(Path(sys.argv[1]), last=1, wait=lambda: time.sleep(0.01) or True):
        print(each.kind, each.value.get("message", each.session_id), flush=True)
"""


def test_tail(run: Run, data: Path) -> None:
    """The last entries are printed; who follows hears what comes, also of the sessions after."""
    with SessionManager(data) as sessions:
        sessions.start_session("experiment")
        for number in range(20):
            sessions.log("INFO", f"entry {number}", number=number)
        sessions.add_telemetry("temperature", 3.5)
        told = run("session", "tail", "-n", "3", "--json")
        assert [json.loads(each)["value"]["message"] for each in told.out.splitlines()] == ["entry 18", "entry 19"]
        assert "temperature" in run("session", "tail", "--all").out
        with in_process(FOLLOWING, data) as process:
            assert line_of(process).startswith("telemetry")
            sessions.log("INFO", "now")
            assert line_of(process) == "log now"
            path = sessions.end_session()
            assert line_of(process) == f"end {path.stem}"
            assert line_of(process).startswith("start idle_")
            sessions.log("INFO", "idle")
            assert line_of(process) == "log idle"
            session = sessions.start_session("observation")
            assert line_of(process).startswith("end idle_")
            assert line_of(process) == f"start {session.id}"
            process.kill()
    assert run("session", "tail").out == ""
