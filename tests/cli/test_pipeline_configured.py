"""``--environment`` and ``--file`` of commands of the pipeline: each key that is for a command has its effect there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from subband_files import write_subband

from absurd.cli import absurd
from absurd.cli.run import call

if TYPE_CHECKING:
    from cli.conftest import Run

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


def test_watch_refuses_what_cannot_be_meant(run: Run, configured: Configured) -> None:
    """The telescope is that of the configuration, unless what arrives is simulated."""
    ended = run("pipeline", "watch", *configured({"ms_creation.test_mode": False, "telescope": "absent.toml"}))

    assert ended.code != 0
    assert "absent.toml cannot be read" in ended.err
