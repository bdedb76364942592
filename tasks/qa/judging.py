"""What becomes of an image or mosaic after it was measured: its files, and its row in the database."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absurd.tasks.artifact import checksum
from absurd.tasks.qa.assess import SUFFIX, refuse_quarantined, write_report
from absurd.tasks.qa.image_params import SkyParams
from absurd.tasks.qa.quarantine import put_into_quarantine
from absurd.tasks.qa.report import QualityReport
from absurd.tasks.radio.errors import DataError, QualityError

Product = Mapping[str, Any]


def require_present(path: str, product: Product | None) -> None:
    """Raise unless the file is there, and is the one that the database has at its path, if it has one.

    Raises QualityError, again, where it is in quarantine, and DataError.
    """
    refuse_quarantined(path)
    if product is None or product["state"] == "superseded":
        return
    if checksum(path) != product["checksum"]:
        raise DataError(f"{path} is not what task {product['task_id']} has made there", path=path)


def files_of(path: str, product: Product | None) -> list[str]:
    """The file, and those that were made with it, that are there: what goes into quarantine together."""
    beside = product["facts"].get("paths", {}).values() if product is not None else ()
    return [each for each in dict.fromkeys([path, *map(str, beside)]) if os.path.lexists(each)]


def keep(report: QualityReport, params: SkyParams) -> str:
    """Write the report as JSON, named after the image, and give its path."""
    image = Path(os.path.abspath(params.image))
    folder = image.parent if params.reports is None else Path(params.reports)
    return write_report(report, folder / f"{image.name}{SUFFIX}")


def refuse_again(product: Product, path: str, *, move: bool) -> QualityError:
    """The error of a product that is quarantined already; its files are too then, if they are to `move`.

    It was quarantined by a run that was killed before it moved them all, or its task has made the same again.
    """
    reason = str(product["reason"])
    files = files_of(path, product) if move else []
    places = [str(put_into_quarantine(each, {"reasons": [reason]})) for each in files]
    return QualityError(f"{path} is quarantined: {reason}", reasons=[reason], quarantined=places)
