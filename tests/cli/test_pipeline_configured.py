"""``--environment`` and ``--file`` of commands of the pipeline: each key that is for a command has its effect there."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from subband_files import write_subband

from absurd.cli import absurd
from absurd.cli.run import call

if TYPE_CHECKING:
    from cli.conftest import Run, Start

SMALL = {
    "paths.hdf5_dir": "in",
    "paths.log_dir": "said",
    "ms_creation.test_mode": True,
    "ms_creation.n_antennas": 4,
    "ms_creation.n_frequencies": 32,
    "ms_creation.n_times": 2,
    "skymodel.field.n_sources": 1,
}
Configured = Callable[..., list[str]]


@pytest.fixture
def configured(tmp_path: Path) -> Configured:
    """Options of a command: the environment for testing with a file over it, and keys over that."""

    def write(changes: dict[str, Any] | None = None) -> list[str]:
        document: dict[str, Any] = {}
        for name, value in ({"paths.base_dir": str(tmp_path)} | SMALL | (changes or {})).items():
            *sections, key = name.split(".")
            table = document
            for each in sections:
                table = table.setdefault(each, {})
            table[key] = value
        (tmp_path / "site.yaml").write_text(json.dumps(document))
        return ["--environment", "testing", "--file", str(tmp_path / "site.yaml")]

    return write


def simulated(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert call(absurd, "absurd", ["pipeline", "simulate", *words, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.parametrize(
    ("key", "value", "setting", "seen"),
    [
        ("ms_creation.n_antennas", 5, "antennas", 5),
        ("ms_creation.n_frequencies", 48, "channels", 3),
        ("ms_creation.n_times", 3, "integrations", 3),
        ("calibration.fixed_declination_deg", 55.0, "declination_deg", 55.0),
        ("skymodel.field.n_sources", 2, "sources", 2),
        ("skymodel.field.radius_deg", 0.25, "radius_deg", 0.25),
        ("skymodel.flux.min_flux_jy", 0.03, "faintest_jy", 0.03),
        ("skymodel.flux.max_flux_jy", 0.7, "brightest_jy", 0.7),
        ("skymodel.flux.power_law_index", -1.2, "counts_index", -1.2),
    ],
)
def test_what_is_simulated(
    capsys: pytest.CaptureFixture[str], configured: Configured, tmp_path: Path, key: str, value: float, setting: str,
    seen: float,
) -> None:  # fmt: skip
    """By the configuration, into its folder."""
    told = simulated(capsys, *configured({key: value}), "--subbands", "1")

    assert told["settings"][setting] == seen
    assert [Path(each).parent for each in told["files"]] == [tmp_path / "in"]


def test_options_go_before_the_configuration(
    capsys: pytest.CaptureFixture[str], configured: Configured, tmp_path: Path
) -> None:
    """Those that are given, and no others."""
    told = simulated(capsys, str(tmp_path / "else"), *configured(), "--antennas", "6", "--subbands", "1")

    assert (told["settings"]["antennas"], told["settings"]["integrations"]) == (6, 2)
    assert Path(told["files"][0]).parent == tmp_path / "else"


def test_nothing_is_simulated_where_recordings_arrive(
    capsys: pytest.CaptureFixture[str], configured: Configured, tmp_path: Path
) -> None:
    """Without test_mode the folder is a telescope's; one that is named is the caller's own."""
    options = configured({"ms_creation.test_mode": False})

    assert call(absurd, "absurd", ["pipeline", "simulate", *options]) != 0

    assert "ms_creation.test_mode is false" in capsys.readouterr().err
    assert not (tmp_path / "in").exists()
    assert call(absurd, "absurd", ["pipeline", "simulate"]) == 2
    assert "FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "console", "file"),
    [
        (("DEBUG", True, True), {"is written", "simulated into"}, {"is written", "simulated into"}),
        (("INFO", True, False), {"simulated into"}, None),
        (("INFO", False, True), set(), {"simulated into"}),
        (("ERROR", True, True), set(), set()),
    ],
)
def test_what_is_said(
    capsys: pytest.CaptureFixture[str], configured: Configured, tmp_path: Path, keys: tuple[str, bool, bool],
    console: set[str], file: set[str] | None,
) -> None:  # fmt: skip
    """From a level on, to the terminal, to a file, as the keys say; and the file does not stay open."""
    names = ("logging.level", "logging.console_output", "logging.file_output")
    options = configured(dict(zip(names, keys, strict=True)))

    assert call(absurd, "absurd", ["pipeline", "simulate", *options, "--subbands", "1"]) == 0

    said, kept = capsys.readouterr().err, tmp_path / "said" / "pipeline.log"
    assert {each for each in ("is written", "simulated into") if each in said} == console
    assert kept.exists() == (file is not None)
    if file is not None:
        text = kept.read_text()
        assert {each for each in ("is written", "simulated into") if each in text} == file
    assert not any(isinstance(each, logging.FileHandler) for each in logging.getLogger("absurd.pipeline").handlers)


def test_plan_by_the_configuration(run: Run, configured: Configured, tmp_path: Path) -> None:
    """Of the folder where sub-bands arrive, by the policy that an intake would have."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        write_subband(tmp_path / "in", number)
    policy = {"services.expected_subbands": 4, "services.min_subbands": 2, "services.partial_after_min": 2.0}

    found = run("pipeline", "plan", *configured(policy), "--json").document

    (foreseen,) = found["foreseen"]
    assert (foreseen["expected"], foreseen["missing"]) == (4, [3])
    assert foreseen["next"] == "would wait 120 s for sb03, and then be converted as it is"


def test_groups_are_planned_by_the_tolerances(run: Run, configured: Configured, tmp_path: Path) -> None:
    """Of times (to that of a group, so twice that between two files) and declinations: more is another group."""
    (tmp_path / "in").mkdir()
    write_subband(tmp_path / "in", 0)
    write_subband(tmp_path / "in", 1, jitter_s=40)
    write_subband(tmp_path / "in", 2, declination_deg=16.5)
    tolerances = ("services.group_tolerance_s", "services.group_declination_tolerance_deg")

    def groups(seconds: float, degrees: float) -> list[list[int]]:
        options = configured(dict(zip(tolerances, (seconds, degrees), strict=True)))
        return sorted(each["present"] for each in run("pipeline", "plan", *options, "--json").document["foreseen"])

    assert groups(60.0, 1.0) == [[0, 1, 2]]
    assert groups(15.0, 1.0) == [[0, 2], [1]]
    assert groups(60.0, 0.1) == [[0, 1], [2]]


def test_watch_by_the_configuration(run: Run, start: Start, configured: Configured, tmp_path: Path) -> None:
    """What is watched, where products go, and how an intake groups; what it says goes to the log."""
    (tmp_path / "in").mkdir()
    options = configured({
        "paths.ms_stage1_dir": "ms",
        "ms_creation.test_mode": False,
        "services.expected_subbands": 5,
        "services.min_subbands": 2,
        "services.group_tolerance_s": 31.0,
        "services.group_declination_tolerance_deg": 0.3,
        "services.partial_after_min": 2.0,
        "logging.file_output": True,
        "logging.console_output": False,
    })  # fmt: skip

    with start("absurd", "pipeline", "watch", *options, "--json") as watching:
        assert watching.stdout is not None
        begun = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGTERM)
        _, err = watching.communicate(timeout=60)

    intake = run("pipeline", "plan", "--json").document["intake"]
    assert (watching.returncode, err) == (0, "")
    assert (begun["event"], begun["folder"]) == ("watching", str(tmp_path / "in"))
    assert intake["params"] == {"out": str(tmp_path / "ms"), "telescope": "dsa110"}
    assert (intake["subbands"], intake["min_subbands"]) == (5, 2)
    assert (intake["time_tolerance_seconds"], intake["declination_tolerance_deg"]) == (31.0, 0.3)
    assert intake["timeout_seconds"] == 120.0
    assert f"INFO Watching {tmp_path / 'in'}" in (tmp_path / "said" / "pipeline.log").read_text()


@pytest.mark.parametrize(
    ("level", "console", "file"), [("INFO", True, True), ("INFO", False, False), ("ERROR", True, True)]
)
def test_what_plot_says(
    capsys: pytest.CaptureFixture[str], configured: Configured, tmp_path: Path, level: str, console: bool, file: bool
) -> None:
    """As the other commands: from a level on, to the terminal, to a file."""
    recorded = write_subband(tmp_path, 0)
    names = ("logging.level", "logging.console_output", "logging.file_output")
    options = configured(dict(zip(names, (level, console, file), strict=True)))
    words = ["pipeline", "plot", str(recorded), "--kind", "flags", "--out", str(tmp_path), *options]

    assert call(absurd, "absurd", words) == 0

    said, kept = capsys.readouterr().err, tmp_path / "said" / "pipeline.log"
    sentence = f"1 picture of {recorded} in {tmp_path}"
    assert (sentence in said) == (console and level == "INFO")
    assert kept.exists() == file
    assert not file or (sentence in kept.read_text()) == (level == "INFO")


def test_blocks_by_the_configuration(run: Run, configured: Configured, tmp_path: Path) -> None:
    """Where recordings are, how long they and blocks are and overlap, how many blocks go on at once, whether there are
    mosaics, and what is said of it.
    """
    options = configured({
        "paths.ms_stage1_dir": "ms",
        "services.mosaic_duration_min": 20.0,
        "services.mosaic_overlap_min": 5.0,
        "services.ms_chunk_duration_min": 5.0,
        "services.max_concurrent_blocks": 1,
        "mosaicking.save_fits": False,
        "logging.file_output": True,
    })  # fmt: skip
    for minutes in range(0, 35, 5):
        at = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
        (tmp_path / "ms" / f"drift_{at:%Y%m%dT%H%M%S}_00.ms").mkdir(parents=True)

    found = run("pipeline", "batch", *options, "--workflow", "nightly-mosaic", "--no-wait", "--json").document

    assert list(found["blocks"]) == ["20230101T000000_20230101T002000", "20230101T001500_20230101T003500"]
    nodes = run("workflow", "show", found["workflow"], "--json").document["nodes"]
    names = [each["name"] for each in nodes]
    assert "imaging.mosaic" not in names
    assert names.count("photometry.detect") == 7  # in each image, the one that two blocks share among them
    first = found["blocks"]["20230101T000000_20230101T002000"]
    alone = [each for each in nodes if each["name"] == "visibility.flag" and first in each["depends_on"]]
    assert len(alone) == 3  # the second block begins when the first has ended
    assert " DEBUG " in (tmp_path / "said" / "pipeline.log").read_text()


def test_watch_refuses_what_cannot_be_meant(run: Run, configured: Configured) -> None:
    """The telescope is that of the configuration, unless what arrives is simulated."""
    ended = run("pipeline", "watch", *configured({"ms_creation.test_mode": False, "telescope": "absent.toml"}))

    assert ended.code != 0
    assert "absent.toml cannot be read" in ended.err
