"""The shipped executors as the queue runs them: params, products, results, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from memory_port import MemoryPort
from PIL import Image as Pictures
from single_run import fail, run, run_to_end
from skies import make_wcs, pixels_of, write_image

from absurd.errors import InvalidParamsError
from absurd.executor import Executor, registry
from absurd.outcome import Completed
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.export import verify_manifest


@pytest.mark.parametrize("module", EXECUTOR_MODULES)
def test_executors_live_in_the_folder_of_their_prefix(module: str) -> None:
    """``cutout.extract`` is found in ``tasks/cutout``, runs in a process and tells what it does."""
    prefix = module.split(".")[2]
    mine: list[Executor] = [each for each in registry if each.function.__module__ == module]

    assert mine
    for each in mine:
        assert each.name.startswith(f"{prefix}.")
        assert (each.runs_in, bool(each.description)) == ("process", True)
        fields = each.params_schema()["properties"]
        assert [name for name, field in fields.items() if not field.get("description")] == []


def test_export(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue's own database is exported; the result names path, types and snapshot, and progress was told."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    port = MemoryPort()
    out = tmp_path / "new" / "x.parquet"

    result, kinds = run("export.query", {"sql": "select 1 as a, inet '10.0.0.0/8' as b", "out": str(out)}, port)

    assert pq.read_table(out).to_pylist() == [{"a": 1, "b": "10.0.0.0/8"}]
    assert (result["path"], result["rows"], result["row_groups"]) == (str(out), 1, 1)
    assert result["bytes"] == out.stat().st_size
    assert result["columns"][1] == {
        "name": "b",
        "postgres_type": "inet",
        "arrow_type": "string",
        "kept_as_text": True,
        "nulled": 0,
    }
    assert kinds == ["parquet", "manifest"]
    assert result["manifest"] == f"{out}.manifest.json"
    assert verify_manifest(out).files[0].sha256 == result["sha256"] == result["files"][0]["sha256"]
    assert set(port.told) == {(1, None, "1 row, 0.0 MB")}  # more than once on a machine that took long for it
    assert sorted(out.parent.iterdir()) == [out, Path(result["manifest"])]


@pytest.mark.parametrize("where", ["folder", "store"])
def test_export_of_a_dataset(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A dataset, and what goes to a store, is no artifact: the run puts it in place, unless its claim is lost then."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    place = str(tmp_path / "d") if where == "folder" else f"memory://{tmp_path.name}/d"
    params = {"sql": "select n, n % 2 as k from generate_series(1, 9) n", "out": place, "partition_by": ["k"]}

    result, kinds = run("export.query", params)

    assert (kinds, result["path"], result["manifest"]) == ([], place, f"{place}/_manifest.json")
    assert [each["path"] for each in result["files"]] == ["k=0/part-00000.parquet", "k=1/part-00000.parquet"]
    assert verify_manifest(place).rows == result["rows"] == 9

    class Losing(MemoryPort):
        """Its claims get lost once all rows are told of."""

        async def set_progress(self, lease: int, task_id: UUID, done: float, *rest: Any) -> None:
            await super().set_progress(lease, task_id, done, *rest)
            self.stale = done == 20

    lost = run_to_end("export.query", params | {"sql": "select n, n % 2 as k from generate_series(1, 20) n"}, Losing())
    assert not isinstance(lost, Completed)
    assert verify_manifest(place).rows == 9


def test_export_from_a_service(empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`database` names a service of libpq, where address and password are; the task holds neither."""
    parameters = psycopg.conninfo.conninfo_to_dict(empty_database_url)
    lines = "".join(f"{key}={value}\n" for key, value in parameters.items() if value)
    (tmp_path / "services.conf").write_text(f"[archive]\n{lines}")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services.conf"))
    params = {"sql": "select current_database() as name", "out": str(tmp_path / "x.parquet"), "database": "archive"}

    run("export.query", params)

    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"name": parameters["dbname"]}]


def test_a_failed_export_tells_why(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's sentence with its code; neither the file nor a part of it is there."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)

    error = fail("export.query", {"sql": "select x", "out": str(tmp_path / "x.parquet")})

    assert error["code"] == "export_query_invalid"
    assert error["message"] == 'PostgreSQL refuses the query: column "x" does not exist (at character 8)'
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("export.query", {"sql": "select 1"}, "out: Field required"),
        ("export.query", {"sql": "select 1", "out": "x", "password": "p"}, "password: extra forbidden"),
        ("export.query", {"sql": "select 1", "out": "x", "database": "postgresql://u:p@h/d"}, "database: "),
        ("export.query", {"sql": "select 1", "out": "x", "row_group_size": 0}, "row_group_size: "),
        (
            "cutout.extract",
            {"ra": 400, "dec": 0, "size": 5, "source": "s", "out": "o"},
            "ra: .*less than or equal to 360",
        ),
        ("cutout.extract", {"ra": "nan", "dec": 0, "size": 5, "source": "s", "out": "o"}, "ra: "),
        ("cutout.extract", {"ra": 1, "dec": -91, "size": 5, "source": "s", "out": "o"}, "dec: "),
        ("cutout.extract", {"ra": 1, "dec": 1, "size": 0, "source": "s", "out": "o"}, "size: .*greater than 0"),
        ("cutout.extract", {"ra": 1, "dec": 1, "size": 5, "unit": "deg", "source": "s", "out": "o"}, "unit: "),
    ],
)
def test_params_are_checked_at_spawn(name: str, params: dict[str, Any], message: str) -> None:
    """Each wrong field is named, before anything runs."""
    with pytest.raises(InvalidParamsError, match=message):
        registry.require(name).load_params(params)


def test_cutout_of_a_file(tmp_path: Path) -> None:
    """One image gives OUT.fits and OUT.png, and a result that tells where on the image it was."""
    source = write_image(tmp_path / "image.fits", pixels_of(), make_wcs(), filter="r", bunit="nJy")
    params = {
        "ra": 10.0,
        "dec": 20.0,
        "size": 50,
        "unit": "pixel",
        "source": str(source),
        "out": str(tmp_path / "o.fits"),
    }

    result, kinds = run("cutout.extract", params)

    (cut,) = result["cutouts"]
    assert kinds == ["cutout", "preview"]
    assert cut["path"] == str(tmp_path / "o.fits")
    assert result["preview"] == cut["preview"] == str(tmp_path / "o.png")
    assert (cut["band"], cut["unit"], cut["shape"], cut["source"]) == ("r", "nJy", [50, 50], "image.fits")
    assert (cut["origin_xy"], cut["clipped_origin_xy"], cut["n_outside"]) == ([-5, -10], [0, 0], 2500 - 1200)
    assert cut["pixel_scale_arcsec"] == pytest.approx([0.5, 0.5])
    assert cut["centre_deg"] == pytest.approx([10.0, 20.0], abs=1e-3)
    with fits.open(cut["path"]) as written:
        assert np.array_equal(written[0].data[10:40, 5:45], pixels_of())
        assert written[0].header["TASKID"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.fits", "o.fits", "o.png"]


def test_cutout_of_a_folder_in_three_bands(tmp_path: Path) -> None:
    """Each band gets its file and its picture, and the three together one in colour, blue before red."""
    for seed, band in enumerate("gri"):
        write_image(tmp_path / f"{band}.fits", pixels_of(seed=seed), make_wcs(), filter=band)
    params = {"ra": 10.0, "dec": 20.0, "size": 10, "source": str(tmp_path), "out": f"{tmp_path}/cuts/"}

    result, kinds = run("cutout.extract", params)

    base = tmp_path / "cuts" / "cutout_010.000000+20.000000"
    assert [cut["path"] for cut in result["cutouts"]] == [f"{base}_{band}.fits" for band in "gri"]
    assert result["preview"] == f"{base}.png"
    assert sorted(kinds) == ["band_preview"] * 3 + ["cutout"] * 3 + ["preview"]
    with Pictures.open(result["preview"]) as picture:
        colours = np.asarray(picture)
    assert (colours.max(axis=-1) != colours.min(axis=-1)).any()
    assert len(list(base.parent.iterdir())) == 7


def test_a_cutout_of_a_folder_is_the_fetchers(tmp_path: Path) -> None:
    """A box beyond its image goes on in the image beside it, as of an index; `hdu` takes one image as it is."""
    images = tmp_path / "images"
    images.mkdir()
    for name, (x, value) in {"a": (20.5, 1.0), "b": (-19.5, 2.0)}.items():
        pixels = np.full((40, 40), value, np.float32)
        write_image(images / f"{name}.fits", pixels, make_wcs(crpix=(x, 20.5)), band="g")
    ra, dec = map(float, make_wcs(crpix=(20.5, 20.5)).all_pix2world([[37, 19]], 0)[0])
    params = {"ra": ra, "dec": dec, "size": 10, "unit": "pixel", "source": str(images), "out": str(tmp_path / "o")}

    (cut,) = run("cutout.extract", params)[0]["cutouts"]
    with fits.open(cut["path"]) as written:
        assert sorted(set(written[0].data.ravel().tolist())) == [1.0, 2.0]
        assert written[0].header["STITCH1"] == "b.fits"
    (alone,) = run("cutout.extract", params | {"hdu": 0})[0]["cutouts"]
    with fits.open(alone["path"]) as written:
        assert np.isnan(written[0].data).sum() == alone["n_outside"] > 0
    for change, code in (
        ({"dec": -20.0}, "cutout_outside"),
        ({"bands": ["z"]}, "cutout_band_not_found"),
        ({"planes": ["mask"]}, "cutout_plane_not_found"),
        ({"size": 0.1}, "cutout_size_invalid"),
    ):
        assert fail("cutout.extract", params | change)["code"] == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"source": "absent.fits"}, "cutout_source_not_found"),
        ({"ra": 190.0}, "cutout_outside"),
        ({"bands": ["z"]}, "cutout_band_not_found"),
        ({"planes": ["mask"]}, "cutout_plane_not_found"),
        ({"size": 0.1}, "cutout_size_invalid"),
        ({"source": "torn.fits"}, "cutout_image_unreadable"),
    ],
)
def test_a_failed_cutout_tells_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], code: str
) -> None:
    """Each cause has its code and its sentence, and leaves no file."""
    monkeypatch.chdir(tmp_path)
    image = write_image(tmp_path / "image.fits", pixels_of(), make_wcs(), filter="r")
    (tmp_path / "torn.fits").write_bytes(image.read_bytes()[:4000])
    params: dict[str, Any] = {"ra": 10.0, "dec": 20.0, "size": 5, "source": "image.fits", "out": "out/cut"}

    error = fail("cutout.extract", params | change)

    assert error["code"] == code
    assert "\n" not in error["message"]
    assert list(tmp_path.glob("out/*")) == []
