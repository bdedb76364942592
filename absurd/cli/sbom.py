"""``absurd sbom``: a bill of materials, for whoever has to know what runs here."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from importlib.metadata import PackageMetadata, metadata
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import click

from absurd.cli.output import emit, json_option
from absurd.cli.packages import installed_tree

SPECIFICATION = "1.6"
_CLASSIFIER = "License :: OSI Approved :: "
_LONGEST_NAME = 100
"""Characters of a licence's name; longer ones are the whole text of the licence."""


@click.command(epilog="Example: absurd sbom > absurd.cdx.json")
@json_option
def sbom(as_json: bool) -> None:
    """Print the packages of Python that absurd runs with here, as CycloneDX.

    Each with its version, its licence and what it asks for; of the extras those that are installed.  The same
    packages give the same document.
    """
    document = bill_of_materials()
    emit(document, as_json=as_json, text=json.dumps(document, indent=2, ensure_ascii=False))


def bill_of_materials() -> dict[str, Any]:
    """The document, as https://cyclonedx.org/docs/1.6/json/ has it."""
    tree = installed_tree()
    parts = {name: _component(metadata(name), name) for name in sorted(tree)}
    references = {name: part["bom-ref"] for name, part in parts.items()}
    document: dict[str, Any] = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {
            "component": parts["absurd"] | {"type": "application"},
            "properties": [{"name": "python", "value": platform.python_version()}],
        },
        "components": [part for name, part in parts.items() if name != "absurd"],
        "dependencies": [
            {"ref": references[name], "dependsOn": sorted(references[each] for each in below)}
            for name, below in sorted(tree.items())
        ],
    }
    return document | {"serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, json.dumps(document, sort_keys=True))}"}


def _component(about: PackageMetadata, name: str) -> dict[str, Any]:
    address = f"pkg:pypi/{name}@{about['Version']}"
    part: dict[str, Any] = {
        "type": "library",
        "bom-ref": address,
        "name": about["Name"],
        "version": about["Version"],
        "purl": address,
    }
    if summary := _told(about, "Summary"):
        part["description"] = summary
    if licences := list(_licences(about)):
        part["licenses"] = licences
    return part


def _licences(about: PackageMetadata) -> Iterator[dict[str, Any]]:
    """An expression of SPDX, or else names as the package's authors wrote them."""
    if expression := _told(about, "License-Expression"):
        yield {"expression": expression}
        return
    named = [each.removeprefix(_CLASSIFIER) for each in about.get_all("Classifier") or () if _CLASSIFIER in each]
    told = _told(about, "License").strip()
    if told and len(told) <= _LONGEST_NAME and "\n" not in told:
        named = [told]
    for each in named:
        yield {"license": {"name": each}}


def _told(about: PackageMetadata, field: str) -> str:
    return about[field] if field in about else ""  # noqa: SIM401 - it has no `get` that is promised
