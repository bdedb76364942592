"""Executors of modules that cannot be imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path


def executors_of(module: str) -> list[str]:
    """Names that `module` would register, read from its text; none where that cannot be found."""
    try:
        spec = find_spec(module)
    except ImportError:  # a package above it needs what is not there
        return []
    if spec is None or spec.origin is None:
        return []
    return sorted(_decorated(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))))


def _decorated(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        for call in getattr(node, "decorator_list", ()):
            match call:
                case ast.Call(func=ast.Name(id="executor"), args=[ast.Constant(value=str(name)), *_]):
                    yield name
