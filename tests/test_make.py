"""The two commands of a fresh clone: what `make` offers, and what it says where it cannot go on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from house import ROOT, run, told


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what `make install` reads before it installs anything."""
    folder = tmp_path / "clone"
    (folder / ".ci").mkdir(parents=True)
    for file in ("Makefile", "pyproject.toml", ".ci/environment"):
        shutil.copy(ROOT / file, folder / file)
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH that has the usual tools and no Python."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for tool in ("dirname", "id", "mktemp", "sh", "tail", "touch"):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    return folder


def test_make_alone_tells_what_there_is() -> None:
    """`make` without a target lists the targets and changes nothing."""
    result = run("make")

    assert result.returncode == 0, told(result)
    for target in ("install", "demo", "test", "lint", "clean"):
        assert f"make {target} " in result.stdout


def test_test_takes_a_part_names_and_coverage() -> None:
    """`make test` hands what it is told on to pytest: a part of the suite, names of tests, coverage."""
    asked = {"-v", "--cov", "tests/core"}

    assert not asked.intersection(run("make", "-n", "test").stdout.split())
    assert asked <= set(run("make", "-n", "test", "T=tests/core", "V=1", "COVERAGE=1").stdout.split())


def test_no_python_is_said(clone: Path, programs: Path) -> None:
    """Without any Python there is one sentence that says what to install."""
    result = _install(clone, {"PATH": str(programs)})

    assert result.returncode != 0
    assert "no Python of 3.11 or newer is on PATH (no python3 is there)" in result.stderr


def test_an_old_python_is_said(clone: Path, programs: Path) -> None:
    """Where Python is too old its version is named."""
    _fake_python(programs, 'case $1 in -V) echo "Python 3.9.2" ;; *) exit 1 ;; esac')

    result = _install(clone, {"PATH": str(programs)})

    assert result.returncode != 0
    assert "(Python 3.9.2 is there)" in result.stderr


def test_a_python_without_means_is_said(clone: Path, programs: Path) -> None:
    """Debian's bare python3 has neither venv nor pip: the package to install is named."""
    _fake_python(programs, 'case $2 in "import sys"*) exit 0 ;; *) exit 1 ;; esac')

    result = _install(clone, {"PATH": str(programs)})

    assert result.returncode != 0
    assert "apt-get install python3-venv" in result.stderr


def test_a_python_that_was_named_is_said(clone: Path, programs: Path) -> None:
    """PYTHON= that cannot be used is named, and no other is taken instead."""
    result = _install(clone, {"PATH": str(programs), "PYTHON": "/nowhere/python3"})

    assert result.returncode != 0
    assert "PYTHON=/nowhere/python3 does not run or is older than 3.11" in result.stderr


def test_a_failed_installation_is_begun_again(clone: Path, programs: Path) -> None:
    """What broke off leaves no stamp, so that the next call does not take it for done."""
    _fake_python(programs, "exit 1")
    _install(clone, {"PATH": str(programs)})

    assert not (clone / ".venv" / ".installed").exists()


def test_continuous_integration_is_a_script_that_parses() -> None:
    """`.ci/run` and the script that makes the environment are free of syntax errors."""
    for shell, script in (("bash", ".ci/run"), ("sh", ".ci/environment")):
        result = run(shell, "-n", ROOT / script)
        assert result.returncode == 0, told(result)


def _install(clone: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    make = shutil.which("make")
    assert make
    return run(make, "install", cwd=clone, environ=environ)


def _fake_python(programs: Path, body: str) -> None:
    python = programs / "python3"
    python.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    python.chmod(0o755)
