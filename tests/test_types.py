"""Types: mypy, strictly, over the whole source and the tests."""

from __future__ import annotations

from pathlib import Path

from house import ROOT, build_link_tree, run_python, told


def test_mypy_finds_nothing(tmp_path: Path) -> None:
    """Source and tests are annotated throughout, and the annotations agree."""
    tree = build_link_tree(tmp_path)

    result = run_python(
        *("-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", ROOT / ".mypy_cache"),
        *("absurd", "tests"),
        cwd=tree,
        environ={"MYPYPATH": f"{tree}:{tree / 'tests'}", "MYPY_FORCE_COLOR": "0"},
        seconds=600,
    )

    assert result.returncode == 0, told(result)
