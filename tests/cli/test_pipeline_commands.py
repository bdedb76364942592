"""``absurd pipeline simulate`` and ``plot``: what they write, what they print, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from absurd.cli import absurd
from absurd.cli.run import call

SMALL = ["--antennas", "4", "--subbands", "3", "--channels", "2", "--integrations", "2", "--sources", "1"]


def test_simulate_tells_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json names each file, the truth and what was simulated; each exists, and the missing sub-band does not."""
    words = ["pipeline", "simulate", str(tmp_path / "in"), *SMALL, "--missing", "1", "--noise", "0.5", "--json"]

    assert 0 == call(absurd, "absurd", words)

    told = json.loads(capsys.readouterr().out)
    assert [each[-9:] for each in told["files"]] == ["sb00.hdf5", "sb02.hdf5"]
    assert all(Path(each).is_file() for each in told["files"])
    assert Path(told["truth"], "sources.csv").is_file()
    assert told["noise_jy"] == 0.5
    assert told["sources"] == 2
    assert told["settings"]["missing"] == [1]


def test_simulate_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people: a sentence, the first file and the truth."""
    assert 0 == call(absurd, "absurd", ["pipeline", "simulate", str(tmp_path), *SMALL])

    sentence, first, truth = capsys.readouterr().out.splitlines()
    assert sentence.startswith("3 sub-bands of DSA-110, ")
    assert "4 antennas, 2 sources, noise " in sentence
    assert Path(first).is_file()
    assert Path(truth).is_dir()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--antennas", "500"], "antennas is 500, and DSA-110 has 96"),
        (["--start", "yesterday"], "'yesterday' is no time"),
        (["--missing", "x"], "'x' is no list of numbers"),
        (["--noise", "loud"], "'loud' is no noise"),
        (["--antennas", "many"], "'many' is no number"),
        (["--telescope", "vla"], "telescope 'vla' is not known"),
        (["--sky", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--calibrator", "none"], "neither a declination nor a calibrator"),
    ],
)
def test_simulate_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str) -> None:
    """What cannot be meant is an error with the value, and nothing is written."""
    code = call(absurd, "absurd", ["pipeline", "simulate", str(tmp_path / "in"), *SMALL, *options])

    assert code != 0
    assert told in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("*.hdf5"))


def test_plot_tells_its_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sub-band gives coverage, flags and closure phases; --kind gives one of them, --json their paths."""
    assert 0 == call(absurd, "absurd", ["pipeline", "simulate", str(tmp_path / "in"), *SMALL, "--json"])
    file = json.loads(capsys.readouterr().out)["files"][0]

    assert 0 == call(absurd, "absurd", ["pipeline", "plot", file, "--out", str(tmp_path / "all"), "--json"])
    pictures = json.loads(capsys.readouterr().out)["pictures"]
    assert 0 == call(absurd, "absurd", ["pipeline", "plot", file, "--out", str(tmp_path / "one"), "--kind", "flags"])

    stem = Path(file).stem
    assert [Path(each).name for each in pictures] == [f"{stem}_{kind}.png" for kind in ("coverage", "flags", "closure")]
    assert all(Path(each).read_bytes().startswith(b"\x89PNG") for each in pictures)
    assert capsys.readouterr().out == f"{tmp_path / 'one' / stem}_flags.png\n"


@pytest.mark.parametrize(
    ("path", "options", "told"),
    [
        ("nowhere.ms", [], "nowhere.ms is not there"),
        ("text.uvh5", [], "holds no visibilities"),
        ("text.uvh5", ["--kind", "spectrum"], "'spectrum' is not one of"),
    ],
)
def test_plot_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, options: list[str], told: str
) -> None:
    """What is not there, or holds no visibilities, is told as such, and nothing is drawn."""
    (tmp_path / "text.uvh5").write_text("text", encoding="utf-8")

    code = call(absurd, "absurd", ["pipeline", "plot", str(tmp_path / path), "--out", str(tmp_path), *options])

    assert code != 0
    assert told in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("*.png"))
