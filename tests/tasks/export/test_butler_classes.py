"""Catalogues of a Butler whose datasets are not stored as tables of Arrow: Astropy's, NumPy's, pandas', and afw's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("lsst.daf.butler", reason="the extra [butler] is not installed")

from astropy import units as u
from astropy.table import MaskedColumn, QTable, Table
from lsst.daf.butler import Butler, DatasetRef, DatasetType, FileDataset

from absurd.tasks.cutout.sources.formatter import ExposureFormatter
from absurd.tasks.export.butler import CatalogReadError, extract_catalog

BIG = 2**53 + 1
"""No float64 holds it: a detour through floats makes it 2^53."""

MADE: dict[str, Callable[[Table], Any]] = {
    "AstropyTable": lambda table: table,
    "AstropyQTable": QTable,
    "ArrowAstropy": lambda table: table,
    "ArrowNumpy": lambda table: table["diaSourceId", "flux"].as_array(),
    "NumpyArray": lambda table: table["diaSourceId", "flux"].as_array(),
    "ArrowNumpyDict": lambda table: {name: np.asarray(table[name]) for name in ("diaSourceId", "flux")},
    "DataFrame": lambda table: table.to_pandas(),
    "StructuredDataDict": lambda _: {"no": "table"},
}
"""Storage class: the dataset that it stores."""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository with two visits, each as a dataset of every class; and a FITS file as one of afw's."""
    folder = tmp_path_factory.mktemp("butler")
    Butler.makeRepo(str(folder / "repo"))
    butler = Butler.from_config(str(folder / "repo"), writeable=True)
    insert = butler.registry.insertDimensionData
    insert(
        "instrument",
        {"name": "Cam", "visit_max": 9, "exposure_max": 9, "detector_max": 9, "class_name": "", "visit_system": 1},
    )
    insert("physical_filter", {"instrument": "Cam", "name": "g1", "band": "g"})
    insert("day_obs", {"instrument": "Cam", "id": 20270101})
    butler.collections.register("made")
    kinds = {
        name: DatasetType(f"as_{name}", ("instrument", "visit"), name, universe=butler.dimensions)
        for name in (*MADE, "SourceCatalog")
    }
    for each in kinds.values():
        butler.registry.registerDatasetType(each)
    for visit in (1, 2):
        insert(
            "visit",
            {"instrument": "Cam", "id": visit, "name": str(visit), "physical_filter": "g1", "day_obs": 20270101},
        )
        table = Table({"diaSourceId": np.array([BIG, visit]), "flux": np.array([1.5, 2.5]) * u.nJy})
        table["count"] = MaskedColumn([5, 0], mask=[False, True])
        for name, make in MADE.items():
            butler.put(make(table), kinds[name], instrument="Cam", visit=visit, run="made")
    Table({"diaSourceId": [BIG, 1]}).write(folder / "src.fits")
    data_id = butler.registry.expandDataId(instrument="Cam", visit=1)
    ref = DatasetRef(kinds["SourceCatalog"], data_id, run="made")
    file = FileDataset(str(folder / "src.fits"), [ref], formatter=ExposureFormatter)  # afw's own is not here
    butler.ingest(file, transfer="direct")
    butler.close()
    return str(folder / "repo")


@pytest.mark.parametrize(
    "name", ["AstropyTable", "AstropyQTable", "ArrowAstropy", "ArrowNumpy", "ArrowNumpyDict", "DataFrame"]
)
def test_tables_of_other_classes(repo: str, tmp_path: Path, name: str) -> None:
    """They become Arrow's: ids with every digit, NULL, units; and rows are picked of them by ids."""
    out, ids = tmp_path / "c.parquet", tmp_path / "ids.parquet"

    result = extract_catalog(out, repo, "made", dataset_type=f"as_{name}")

    assert (result.rows, result.row_groups, result.unified) == (4, 2, ())
    table = pq.read_table(out)
    assert table["diaSourceId"].to_pylist() == [BIG, 1, BIG, 2]
    assert table["flux"].to_pylist() == [1.5, 2.5, 1.5, 2.5]
    if "Astropy" in name:
        assert table.schema.field("flux").metadata[b"unit"] == b"nJy"
    if "Numpy" not in name:
        assert table["count"].to_pylist() == [5, None, 5, None]
    pq.write_table(pa.table({"id": [2, BIG - 1]}), ids)
    extract_catalog(out, repo, "made", dataset_type=f"as_{name}", filter_ids=ids)
    assert pq.read_table(out).select(table.column_names)["diaSourceId"].to_pylist() == [2]


@pytest.mark.parametrize("name", ["StructuredDataDict", "SourceCatalog"])
def test_what_becomes_no_table(repo: str, tmp_path: Path, name: str) -> None:
    """A dataset of another class, or of afw's where there is no afw, is refused by name, and nothing is written."""
    with pytest.raises(CatalogReadError, match="dataset instrument=Cam, visit=1 of run made cannot be read"):
        extract_catalog(tmp_path / "c.parquet", repo, "made", dataset_type=f"as_{name}")

    assert os.listdir(tmp_path) == []


AFW = """
import sys, types
import lsst
import numpy as np
from astropy.table import Table

class Catalog:
    def asAstropy(self):
        return Table({"id": np.array([2**53 + 1, 2])})

class SourceCatalog(Catalog):
    pass

lsst.afw = sys.modules["lsst.afw"] = types.ModuleType("lsst.afw")
lsst.afw.table = sys.modules["lsst.afw.table"] = types.ModuleType("lsst.afw.table")
for each in (Catalog, SourceCatalog):
    each.__module__ = "lsst.afw.table"
    setattr(lsst.afw.table, each.__name__, each)

from lsst.daf.butler import Butler, Config, DatasetType
from absurd.tasks.export.butler import extract_catalog

config = Config()
config["datastore", "formatters"] = {"SourceCatalog": "lsst.daf.butler.formatters.pickle.PickleFormatter"}
Butler.makeRepo("repo", config=config)
butler = Butler.from_config("repo", writeable=True)
butler.registry.registerDatasetType(DatasetType("src", (), "SourceCatalog", universe=butler.dimensions))
butler.collections.register("made")
butler.put(SourceCatalog(), "src", run="made")
print(extract_catalog("c.parquet", "repo", "made", dataset_type="src").rows)
"""


def test_catalogues_of_afw(tmp_path: Path) -> None:
    """Where there is afw its catalogues become Astropy's, and these Arrow's; a stand-in of its names, in a process."""
    done = subprocess.run([sys.executable, "-c", AFW], cwd=tmp_path, check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert pq.read_table(tmp_path / "c.parquet").to_pylist() == [{"id": BIG}, {"id": 2}]
