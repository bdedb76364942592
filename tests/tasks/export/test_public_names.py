"""What ``from absurd.tasks.export import ...`` gives, and what it leaves alone."""

from __future__ import annotations

import pyarrow as pa
import pytest
from house import loaded_after

from absurd.errors import AbsurdError
from absurd.tasks import export

VALUES = {"DEFAULT_BLOCK_SIZE": int, "DEFAULT_ROW_GROUP_SIZE": int, "PGOID_TO_ARROW": dict}
"""Those that are neither functions nor classes."""


def test_every_public_name_is_there() -> None:
    """Each can be imported, and is the function or class of the package that is called so, or a value of its type."""
    assert len(set(export.__all__)) == len(export.__all__)
    for name in export.__all__:
        named = getattr(export, name)
        if name in VALUES:
            assert type(named) is VALUES[name]
            continue
        assert named.__name__ == name
        assert named.__module__.startswith("absurd.tasks.export.")
        assert named.__doc__
        assert name.endswith("Error") == (isinstance(named, type) and issubclass(named, AbsurdError))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        export.nothing  # noqa: B018


def test_the_values_are_what_they_say() -> None:
    """Rows of a row group, bytes of blocks, and Arrow types by OID, as `arrow_type_for_oid` gives them."""
    assert (export.DEFAULT_ROW_GROUP_SIZE, export.DEFAULT_BLOCK_SIZE) == (1_000_000, 64 << 20)
    assert export.PGOID_TO_ARROW[20] == export.arrow_type_for_oid(20) == pa.int64()


def test_importing_the_package_loads_no_driver() -> None:
    """What is not asked for is not loaded."""
    for program in ("import absurd.tasks.export", "from absurd.tasks.export import ExportConfigError"):
        assert loaded_after(program, "pyarrow", "psycopg", "numpy") == []
