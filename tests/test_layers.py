"""Import floors: who may import whom, as pyproject.toml states it under ``tool.importlinter``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from house import build_link_tree, files, name, run, run_python, told

DRIVERS = {"asyncpg", "psycopg"}
HEAVY = {"astropy", "numpy", "PIL", "pyarrow", "pydantic"}


def test_imports_go_downwards_only(tmp_path: Path) -> None:
    """No module imports from a floor above its own, no sibling another, and every module stands on a floor."""
    tree = build_link_tree(tmp_path)

    result = _lint(tree)

    assert result.returncode == 0, told(result)


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    """The check above sees the source at all: an import of the command line by the errors breaks it."""
    tree = build_link_tree(tmp_path)
    errors = tree / "absurd" / "errors.py"
    text = errors.read_text(encoding="utf-8")
    errors.unlink()
    errors.write_text(f"{text}\nimport absurd.cli\n", encoding="utf-8")

    result = _lint(tree)

    assert result.returncode == 1
    assert "absurd.errors -> absurd.cli" in " ".join(result.stdout.split()), told(result)


ON_THE_QUEUE = {"orchestrator.py", "metrics.py", "workflows.py"}
"""Of tasks/pipeline: what makes workflows of the stages, and looks at them, with a client."""


def is_kernel(path: Path) -> bool:
    return path.name != "executors.py" and not (path.parent.name == "pipeline" and path.name in ON_THE_QUEUE)


@pytest.mark.parametrize("path", [each for each in files("tasks/**/*.py") if is_kernel(each)], ids=name)
def test_kernels_run_without_the_queue(path: Path) -> None:
    """Of the core, a kernel imports the errors only, and no kernel imports an `executors.py`."""
    imported = _imports(path)

    core = {each for each in imported if each.split(".")[0] == "absurd" and not each.startswith("absurd.tasks")}
    assert core <= {"absurd.errors"}
    assert not [each for each in imported if "executors" in each.split(".")]


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import absurd", DRIVERS | HEAVY | {"click"}),
        ("from absurd import executor, RetryPolicy, RunContext", DRIVERS | HEAVY),
        ("import absurd.errors, absurd.model, absurd.retry, absurd.outcome", DRIVERS | HEAVY | {"structlog"}),
        ("import absurd.tasks, absurd.tasks.cutout, absurd.tasks.export", DRIVERS | {"pydantic"}),
        ("from absurd.cli import main; sys.argv[1:] = ['--help']; main()", {"asyncpg"} | HEAVY),
    ],
)
def test_what_is_not_needed_is_not_loaded(statement: str, unwanted: set[str]) -> None:
    """Importing the package, a kernel or the help loads no driver and nothing heavy: process slots start quickly."""
    code = f"""
import sys
try:
    {statement}
except SystemExit:
    pass
print("loaded:", *sorted({unwanted!r} & set(sys.modules)))
"""

    result = run_python("-c", code)

    assert result.returncode == 0, told(result)
    assert result.stdout.splitlines()[-1].strip() == "loaded:"


def _imports(path: Path) -> set[str]:
    """Every module that the file at `path` imports anywhere in it, by its full name."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "absurd" else {node.module}
            )
    return imported


def _lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """import-linter over the link tree; it imports nothing, it reads."""
    return run(
        Path(sys.executable).with_name("lint-imports"),
        *("--config", tree / "pyproject.toml", "--no-cache"),
        cwd=tree,
        environ={"PYTHONPATH": str(tree)},
    )
