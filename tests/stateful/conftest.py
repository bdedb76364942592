"""Assertions of the rules tell their values, as those of tests do."""

import pytest

pytest.register_assert_rewrite(
    "stateful.machine", *(f"stateful.{name}_rules" for name in ("spawn", "claim", "upkeep", "people"))
)
