"""What ``import absurd`` gives, and what it leaves alone."""

from __future__ import annotations

import pytest
from house import loaded_after

import absurd


def test_every_public_name_is_there() -> None:
    """Each name of the sorted list can be used, under that name and no other thing's."""
    assert sorted(absurd.__all__) == list(absurd.__all__)
    for name in absurd.__all__:
        assert name == getattr(absurd, name).__name__
        assert name in dir(absurd)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        absurd.nothing  # noqa: B018


def test_importing_the_package_loads_no_driver() -> None:
    """Kernels and process slots import the package; they pay for neither drivers nor heavy libraries."""
    program = (
        "import absurd, absurd.errors, absurd.executor, absurd.model\n"
        "from absurd import executor, RetryPolicy, TaskSpec, RetryLater\n"
        "assert executor.__module__ == 'absurd.executor'"
    )

    assert loaded_after(program, "asyncpg", "psycopg", "pydantic", "structlog", "numpy", "asyncio") == []
