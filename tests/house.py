"""What the tests of the house itself share: where the checkout is, which files it has, and how tools see it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

MAPPED = {
    "absurd.schema": "schema",
    "absurd.scheduler": "scheduler",
    "absurd.tasks": "tasks",
    "absurd.workers": "workers",
}
"""Packages that live beside ``absurd/`` and their folders, as pyproject.toml maps them."""

_NOT_OURS = {".git", ".venv", "__pycache__"}
_MADE = {"build", "demo", "dist"}
"""Folders of the root that commands make."""


@cache
def project() -> dict[str, Any]:
    """The content of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def files(*patterns: str) -> Iterator[Path]:
    """The project's own files that match one of `patterns`; nothing that was built or downloaded."""
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            parts = path.relative_to(ROOT).parts
            is_ours = not _NOT_OURS.intersection(parts) and parts[0] not in _MADE
            if path.is_file() and is_ours and not any(each.endswith(".egg-info") for each in parts):
                yield path


def name(path: Path) -> str:
    """`path` as it is called from the root of the checkout."""
    return path.relative_to(ROOT).as_posix()


def packages() -> dict[str, Path]:
    """Every folder of the source with an ``__init__.py``, by its import name."""
    found = {}
    for package, folder in {"absurd": "absurd", **MAPPED}.items():
        for init in files(f"{folder}/**/__init__.py"):
            below = init.parent.relative_to(ROOT / folder).parts
            found[".".join((package, *below))] = init.parent
    return found


def build_link_tree(where: Path) -> Path:
    """Links that lay the source out as it is imported: ``absurd/*``, and ``absurd/tasks`` to ``tasks/``, and so on.

    Tools that know nothing of the mapping in pyproject.toml see all files there, in every way of installing.
    """
    (where / "absurd").mkdir()
    for each in (ROOT / "absurd").iterdir():
        if each.name != "__pycache__":
            (where / "absurd" / each.name).symlink_to(each)
    for package, folder in MAPPED.items():
        (where / package.replace(".", "/")).symlink_to(ROOT / folder)
    (where / "tests").symlink_to(ROOT / "tests")
    (where / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    return where


def run(
    *command: str | Path, cwd: Path = ROOT, environ: Mapping[str, str] | None = None, seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end and return what it said; whether it succeeded is for the caller to judge."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar file of real data; the first Pythons 3.11, which Debian 12 still has, know no filters."""
    with tarfile.open(archive) as packed:
        if hasattr(tarfile, "data_filter"):
            packed.extractall(folder, filter="data")
        else:
            packed.extractall(folder)  # noqa: S202 - of our own data


def run_python(*arguments: str | Path, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Run this Python with `arguments`."""
    return run(sys.executable, *arguments, **keywords)


def told(result: subprocess.CompletedProcess[str]) -> str:
    """Everything a command said, for the message of an assertion; real paths where it saw links."""
    return f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"


def loaded_after(program: str, *packages: str) -> list[str]:
    """Those of `packages` that are loaded in a new process once it has run `program`."""
    end = f"\nimport sys; print(*sorted({set(packages)!r} & sys.modules.keys()))"
    result = run_python("-c", program + end)
    assert result.returncode == 0, told(result)
    return result.stdout.split()
