"""``absurd pipeline config``: what is shown is what the stages have."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from absurd.cli import absurd
from absurd.cli.run import call


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What the command prints: to stdout, or to stderr if it fails."""
    assert call(absurd, "absurd", ["pipeline", "config", *words]) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_it_is_shown_as_toml_that_gives_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The text can be kept as a file, which laid over any environment of that name is that configuration."""
    text = said(capsys, "--environment", "testing", "--set", "imaging.niter=77", "--set", "imaging.threshold=2mJy")
    kept = tmp_path / "kept.toml"
    kept.write_text(text)

    assert tomllib.loads(text)["imaging"]["niter"] == 77
    assert said(capsys, "-e", "testing", "--file", str(kept)) == text
    document = json.loads(said(capsys, "-e", "testing", "--file", str(kept), "--json"))
    assert (document["imaging"]["niter"], document["imaging"]["threshold"]) == (77, "2mJy")


def test_schema_and_stages_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema is for editors; params of a stage are what its executor is given."""
    assert json.loads(said(capsys, "--schema"))["title"] == "PipelineConfig"
    params = json.loads(said(capsys, "--stage", "qa.calibration", "--set", "paths.base_dir=/data"))
    assert params["reports"] == "/data/logs"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--environment", "prodution"), "did you mean production"),
        (("--set", "imaging.nitre=1"), "did you mean imaging.niter"),
        (("--set", "imaging"), "KEY=VALUE"),
        (("--set", "imaging=1", "--set", "imaging.niter=1"), "imaging has a value already"),
        (("--file", "absent.toml"), "No such file"),
        (("--stage", "nothing"), "take pipeline simulate"),
    ],
)
def test_what_is_wrong_is_usage(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str) -> None:
    """Exit 2, with the reason."""
    assert reason in said(capsys, *words, code=2)
