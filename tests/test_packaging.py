"""Packaging: what the wheel holds, and that it works alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from house import MAPPED, ROOT, files, name, packages, project, run, run_python, told

from absurd.cli.unregistered import executors_of
from absurd.embedded_binaries import choose
from absurd.tasks import EXECUTOR_MODULES

HEAVY = {"astropy", "numpy", "pillow", "pyarrow"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the source so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for folder in ("absurd", *MAPPED.values()):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    built = tmp_path_factory.mktemp("dist")

    result = run_python("-m", "build", "--wheel", "--no-isolation", "--outdir", built, source)

    assert result.returncode == 0, told(result)
    [made] = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of an empty environment, outside the checkout, with the wheel alone installed into it."""
    place = tmp_path_factory.mktemp("alone") / "environment"
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)],
    ):
        result = run(*command, cwd=place.parent)
        assert result.returncode == 0, told(result)
    return place / "bin"


def test_every_package_is_listed() -> None:
    """Packages are listed by hand in pyproject.toml; none is forgotten, none is there that does not exist."""
    assert sorted(packages()) == sorted(project()["tool"]["setuptools"]["packages"])


def test_the_mapping_is_the_one_the_tests_know() -> None:
    """The folders beside ``absurd/`` are mapped to its subpackages as the link tree lays them out."""
    assert {"absurd": "absurd", **MAPPED} == project()["tool"]["setuptools"]["package-dir"]


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Nothing but ``absurd/`` and the metadata: no bare ``tasks``, no tests; one wheel is for all Pythons."""
    assert wheel.name.split("-")[2:4] == ["cp311", "abi3"]
    roots = {entry.split("/")[0] for entry in _entries(wheel)}

    assert {"absurd", f"absurd-{project()['project']['version']}.dist-info"} == roots


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    """Every module, every SQL file, what pages are made of, and the marker of typed packages are inside."""
    expected = {name(path) for path in files("absurd/**/*.py", "absurd/**/*.toml", "absurd/py.typed")}
    expected |= {name(path) for path in files("absurd/web/dashboard/static/*", "absurd/web/dashboard/templates/*")}
    for package, folder in MAPPED.items():
        below = files(f"{folder}/**/*.py", f"{folder}/**/*.sql")
        expected |= {f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}" for path in below}

    assert expected - set(_entries(wheel)) == set()


def test_the_wheel_names_its_licence_and_programs(wheel: Path) -> None:
    """BSD-3-Clause, with its text; the programs and the group executors are found in."""
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(entry).name: archive.read(entry).decode() for entry in _entries(wheel) if ".dist-info/" in entry}

    assert "License-Expression: BSD-3-Clause" in texts["METADATA"]
    assert texts["LICENSE"].startswith("BSD 3-Clause License")
    assert {"absurd", "absurd-worker", "absurd-scheduler", "extract-catalog", "fast-export"} <= set(
        re.findall(r"^([\w-]+) =", texts["entry_points.txt"], re.MULTILINE)
    )
    assert "[absurd.executors]" in texts["entry_points.txt"]


def test_the_wheel_alone_runs_a_task(installed: Path, tmp_path: Path) -> None:
    """Without extras and outside the checkout: version, a task of a plain module on any server found, and the doctor,
    who says of each executor that cannot run what brings it.
    """
    (tmp_path / "plain.py").write_text(
        "from absurd import executor\n"
        "@executor('plain.add')\n"
        "def add(ctx, params):\n"
        "    return {'sum': params['a'] + params['b']}\n",
        encoding="utf-8",
    )

    try:
        version = _alone(installed, tmp_path, "--version")
        doctor = _alone(installed, tmp_path, "doctor", "--json")
        spawned = _alone(
            installed, tmp_path, "spawn", "plain.add", "a=2", "b=3", "--import", "plain", "--here", "--json"
        )
    finally:
        stopped = _alone(installed, tmp_path, "db", "stop")

    assert version.returncode == 0, told(version)
    assert project()["project"]["version"] in version.stdout
    assert doctor.returncode == 0, told(doctor)
    lacking = [each for each in json.loads(doctor.stdout) if (each["name"], each["level"]) == ("executors", "warn")]
    for module, extra in EXECUTOR_MODULES.items():
        said = [each for each in lacking if set(executors_of(module)) <= set(re.findall(r"[\w.]+", each["message"]))]
        assert [each["action"].endswith(f"pip install 'absurd[{extra}]'") for each in said] == ([True] if extra else [])
    assert spawned.returncode == 0, told(spawned)
    assert json.loads(spawned.stdout)["result"] == {"sum": 5}
    assert stopped.returncode == 0, told(stopped)


@pytest.mark.parametrize(
    ("program", "words", "extra"),
    [
        ("fast-export", ("--sql", "select 1", "--out", "a.parquet", "--service", "x"), "absurd[export]"),
        ("extract-catalog", ("a.parquet", "repo", "collection"), "absurd[butler]"),
    ],
)
def test_the_wheel_alone_tells_of_programs_that_need_more(
    installed: Path, tmp_path: Path, program: str, words: tuple[str, ...], extra: str
) -> None:
    """Their help is shown without any extra, and what is missing is named when they are asked to work."""
    helped = run(installed / program, "--help", cwd=tmp_path)
    asked = run(installed / program, *words, cwd=tmp_path)

    assert helped.returncode == 0, told(helped)
    assert f"Example: {program}" in helped.stdout
    assert asked.returncode == 2
    assert extra in asked.stderr


def test_the_wheel_alone_brings_nothing_heavy(installed: Path) -> None:
    """A queue and a worker of plain executors need neither arrays nor images nor tables."""
    result = run(installed / "python", "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check")

    present = {line.split("==")[0].lower() for line in result.stdout.splitlines()}
    assert result.returncode == 0, told(result)
    assert HEAVY & present == set()


def _entries(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def _alone(installed: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `absurd` of the empty environment with a home of its own and the server programs this machine has."""
    programs = choose(None, home / "absurd", None).bin
    return run(
        installed / "absurd",
        *arguments,
        cwd=home,
        environ={"ABSURD_HOME": str(home / "absurd"), "ABSURD_PG_BIN": str(programs), "PYTHONPATH": str(home)},
    )
