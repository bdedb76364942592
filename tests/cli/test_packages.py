"""What of Python is installed: told to whom it is missing, and to whoever has to account for it."""

from __future__ import annotations

import importlib.metadata
import re
from typing import TYPE_CHECKING

import pytest

from absurd.cli.packages import absent, called
from absurd.cli.unregistered import executors_of
from absurd.executor import registry
from absurd.tasks import EXECUTOR_MODULES

if TYPE_CHECKING:
    from cli.conftest import Run


@pytest.mark.parametrize("module", EXECUTOR_MODULES)
def test_executors_are_known_by_the_text_of_their_module(module: str) -> None:
    """What cannot be imported is told by name all the same: the names are those that the module registers."""
    importlib.import_module(module)

    assert executors_of(module) == sorted(each.name for each in registry if each.function.__module__ == module)


def test_each_extra_is_one() -> None:
    """Each module's extra is of the distribution, and installed here, where all are."""
    extras = set(importlib.metadata.metadata("absurd").get_all("Provides-Extra") or ())

    assert {each for each in EXECUTOR_MODULES.values() if each} <= extras
    assert [each for extra in EXECUTOR_MODULES.values() if extra for each in absent(extra)] == []


def test_a_bill_of_materials(run: Run) -> None:
    """Every installed package that absurd may use, once, with its version; each reference leads somewhere."""
    document = run("sbom", "--json").document
    parts = [document["metadata"]["component"], *document["components"]]
    names = {part["name"]: part for part in parts}

    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", document["serialNumber"])
    assert {"absurd", "asyncpg", "pydantic_core", "typing_extensions", "numpy"} <= names.keys()
    assert "pip" not in names
    for name, part in names.items():
        version = importlib.metadata.version(name)
        assert (part["version"], part["purl"]) == (version, f"pkg:pypi/{called(name)}@{version}")
    references = [part["bom-ref"] for part in parts]
    assert len(references) == len(set(references))
    assert sorted(each["ref"] for each in document["dependencies"]) == sorted(references)
    assert {below for each in document["dependencies"] for below in each["dependsOn"]} < set(references)
    assert names["absurd"]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert run("sbom", "--json").document == document
