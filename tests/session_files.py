"""Sessions for tests: files opened as anybody opens them, and processes that get killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import asdf
import numpy as np

from absurd.tasks.session.asdf_extension import schema_uri
from absurd.tasks.session.listing import DAY

PLAIN = """
    import importlib.abc, json, sys, warnings
    class Blocked(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "absurd":
                raise ModuleNotFoundError("absurd is not here")
    sys.meta_path.insert(0, Blocked())
    import asdf, numpy
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=asdf.exceptions.AsdfConversionWarning)
    warnings.filterwarnings("ignore", "asdf.* plugin from package absurd", asdf.exceptions.AsdfWarning)
    def plain(value):
        if hasattr(value, "dtype"):
            array = numpy.asarray(value)
            return {"dtype": array.dtype.str, "shape": list(array.shape), "sum": float(abs(array).sum())}
        if hasattr(value, "items"):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, (list, asdf.lazy_nodes.AsdfListNode)):
            return [plain(each) for each in value]
        return value
    with asdf.open(sys.argv[1], validate_checksums=True, lazy_load=False) as file:
        print(json.dumps(plain(dict(file.tree))))
"""


def opened(path: Path) -> Any:
    """A file's tree, by plain asdf in a process that cannot import this package; of arrays dtype, shape and sum."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PLAIN), str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def tree_of(path: Path) -> Any:
    """A file's tree, by asdf in this process: checked against the schema, checksums too; arrays as in `opened`."""
    with asdf.open(path, custom_schema=schema_uri(), validate_checksums=True, lazy_load=False) as file:
        return _plain(dict(file.tree))


def _plain(value: Any) -> Any:
    if hasattr(value, "dtype"):
        array = np.asarray(value)
        return {"dtype": array.dtype.str, "shape": list(array.shape), "sum": float(abs(array).sum())}
    if hasattr(value, "items"):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def session_files(data_dir: Path) -> list[Path]:
    """All files of sessions, in the order of their names."""
    return sorted(data_dir.glob(f"{DAY}/*.asdf"))


def in_process(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Begin a Python process with a script, whose output can be read; its input ends when the block does."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | options.pop("environ", {}),
        **options,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")
