"""Real Butler repositories for tests: records of the HSC RC2 subset, with small images and catalogues put in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy import units as u
from astropy.table import Table
from lsst.daf.butler import Butler, CollectionType, DatasetType
from lsst.daf.butler.formatters.parquet import astropy_to_arrow
from skies import make_wcs

from absurd.tasks.cutout.sources.exposure import Exposure
from absurd.tasks.cutout.sources.formatter import exposure_config

SKYMAP = "hsc_rings_v1"
PATCHES = {(9615, 14): (19900, 3900), (9813, 72): (-100, 31900)}
"""The patches that the records have, and (x, y) on their tracts of their first pixels."""
SHAPE = (120, 140)
BITS = {"BAD": 0, "SAT": 1, "DETECTED_NEGATIVE": 6}


class Token:
    """A text that is not shown."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text


@dataclass(frozen=True)
class Settings:
    """What a client wants to know of its configuration."""

    repo_path: str | None = None
    server_url: str | None = None
    collections: Sequence[str] = ("chain",)
    instrument: str = "HSC"
    max_connections: int = 10
    timeout: float = 30.0
    skymap: str | None = None
    datasets: Mapping[str, str] = field(default_factory=dict)
    token: Token | None = None

    def access_token(self) -> Token | None:
        return self.token


def centre_of(butler: Butler, tract: int, patch: int) -> tuple[float, float]:
    """Middle of a patch: right ascension and declination, degrees."""
    with butler.query() as query:
        (record,) = query.where(skymap=SKYMAP, tract=tract, patch=patch).dimension_records("patch")
    middle = record.region.getCentroid()
    lon, lat = np.arctan2(middle[1], middle[0]), np.arcsin(middle[2])
    return float(np.degrees(lon) % 360), float(np.degrees(lat))


def exposure(centre: tuple[float, float], origin: tuple[int, int], seed: int, band: str = "g") -> Exposure:
    """Three planes that cover a patch of 12 arcminutes, different in each pixel."""
    random = np.random.default_rng(seed)
    ny, nx = SHAPE
    header = make_wcs(*centre, scale=6.0, crpix=((nx + 1) / 2, (ny + 1) / 2)).to_header()
    header["BAND"] = band
    header["BUNIT"] = "nJy"
    planes = {
        "image": random.normal(100, 5, SHAPE).astype(np.float32),
        "mask": random.integers(0, 128, SHAPE, dtype=np.int32),
        "variance": random.uniform(1, 2, SHAPE).astype(np.float32),
    }
    return Exposure(planes, header, origin, BITS)


def object_table(tract: int, patch: int, centre: tuple[float, float] = (0.0, 0.0)) -> Table:
    """Five objects in a row to the east, a hundredth of a degree apart, with units."""
    ids = np.arange(5, dtype=np.int64) + patch * 1000 + (tract << 40)
    table = Table({"objectId": ids, "flux": np.linspace(1, 2, 5) * u.nJy, "patch": np.full(5, patch)})
    table["coord_ra"] = (centre[0] + np.arange(5) * 0.01) * u.deg
    table["coord_dec"] = np.full(5, centre[1]) * u.deg
    table["flux"].description = "of the object"
    return table


def make_repository(root: Path, records: Path, database: str | None = None) -> str:
    """A repository on SQLite, or in a PostgreSQL database, with two patches.

    `first` has one image (g of the first patch) and catalogues, `second` has g and r of both patches; `chain` is the
    two in this order, `back` in the other, `whole` is a chain of `chain`; `empty` has nothing.
    """
    config: Any = exposure_config()
    if database is not None:
        config["registry", "db"] = database.replace("postgresql://", "postgresql+psycopg://", 1)
    Butler.makeRepo(str(root), config=config)
    butler = Butler.from_config(str(root), writeable=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the records are of an old universe
        butler.import_(filename=str(records), without_datastore=True)
    patch, image = ("skymap", "tract", "patch"), ("skymap", "tract", "patch", "band")
    for name, dimensions, storage in (
        ("deepCoadd", image, "FitsExposure"),
        ("objectTable", patch, "ArrowAstropy"),
        ("objectTable_tract", ("skymap", "tract"), "ArrowTable"),
        ("notes", ("skymap", "tract"), "StructuredDataDict"),
    ):
        butler.registry.registerDatasetType(DatasetType(name, dimensions, storage, universe=butler.dimensions))
    for run in ("first", "second", "empty"):
        butler.collections.register(run)
    images = [("first", (9615, 14), "g"), *(("second", place, band) for place in PATCHES for band in "gr")]
    for seed, (run, (tract, patch_id), band) in enumerate(images):
        made = exposure(centre_of(butler, tract, patch_id), PATCHES[tract, patch_id], seed, band)
        butler.put(made, "deepCoadd", skymap=SKYMAP, tract=tract, patch=patch_id, band=band, run=run)
    for tract, patch_id in PATCHES:
        table = object_table(tract, patch_id, centre_of(butler, tract, patch_id))
        butler.put(table, "objectTable", skymap=SKYMAP, tract=tract, patch=patch_id, run="first")
    whole = pa.concat_tables([astropy_to_arrow(object_table(9615, patch_id)) for patch_id in (14, 15)])
    butler.put(whole, "objectTable_tract", skymap=SKYMAP, tract=9615, run="first")
    for name, parts in (("chain", ["first", "second"]), ("back", ["second", "first"]), ("whole", ["chain"])):
        butler.collections.register(name, CollectionType.CHAINED)
        butler.collections.redefine_chain(name, parts)
    butler.close()
    return str(root)
