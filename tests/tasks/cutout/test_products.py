"""What a batch gives: its manifest, tensors, and what counts as good."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from absurd.tasks.cutout import ButlerConfigError, DataIdValidationError, tensor_zarr
from absurd.tasks.cutout import manifest as manifests
from absurd.tasks.cutout.normalise import NORMALISATIONS, normalise, preprocessing, register_preprocessing
from absurd.tasks.cutout.quality import quality_of
from absurd.tasks.cutout.request import Limits
from absurd.tasks.cutout.tensor import TensorFile, read_tensors


def row(number: int, **told: Any) -> dict[str, Any]:
    """A row of a manifest."""
    base = {"row": number, "ra": 1.0, "dec": 2.0, "state": "accepted", "bands": ["g"], "left_out": [], "sources": []}
    return base | told


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=5))
def test_a_manifest_is_in_the_order_of_the_requests(parts: list[list[int]]) -> None:
    """Parts hold rows as they come; merged they stand in order, each once, as the last part has it."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as name:
        folder = Path(name)
        patch.setattr(manifests, "MERGED_ROWS", 3)
        for number, rows in enumerate(parts):
            manifests.write_part([row(each, id=f"{number}") for each in rows], folder / f"{number}.arrow")
        counts = manifests.merge(
            manifests.Parts([folder / f"{n}.arrow" for n in range(len(parts))]), folder / "all.parquet"
        )
        found = [(each["row"], each["id"]) for each in manifests.read(folder / "all.parquet")]

    last = {each: str(number) for number, rows in enumerate(parts) for each in rows}
    assert found == sorted(last.items())
    assert counts == {"accepted": len(last), "rejected": 0, "failed": 0}


def test_the_manifest_tells_units(tmp_path: Path) -> None:
    """The columns say what they are in, and states are counted."""
    rows = [row(0), row(1, state="failed", code="c", reason="r"), row(2, state="rejected", reason="dark")]
    manifests.write_part(rows, tmp_path / "a.arrow")

    assert manifests.merge(manifests.Parts([tmp_path / "a.arrow"]), tmp_path / "m.parquet") == {
        "accepted": 1,
        "rejected": 1,
        "failed": 1,
    }
    schema = pq.read_schema(tmp_path / "m.parquet")
    assert schema.field("ra").metadata[b"unit"] == b"deg"
    assert [each["reason"] for each in manifests.read(tmp_path / "m.parquet")] == [None, "r", "dark"]


FORMS = ("parquet", "zarr")


@pytest.mark.parametrize("form", FORMS)
def test_tensors_come_back(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added in pieces comes back bit for bit, with its rows and its mask, in one array."""
    monkeypatch.setattr(tensor_zarr, "ROWS_OF_A_CHUNK", 2)
    random = np.random.default_rng(1)
    pixels = random.normal(size=(7, 2, 5, 4)).astype(np.float32)
    pixels[2, 0, 0] = np.nan
    valid = random.random(pixels.shape) > 0.3
    path = tmp_path / f"t.{form}"
    ids = ["a", None, "a long name of an object in the sky, é", *[None] * 4]
    with TensorFile(path, (2, 5, 4), bands=["g", "r"], normalisation="asinh") as file:
        places = [*file.add(np.arange(3), ids[:3], pixels[:3], valid[:3])]
        places += file.add(np.arange(3, 7), ids[3:], pixels[3:], valid[3:])
        assert not path.exists()

    rows, back, good = read_tensors(path)
    assert places == list(range(7))
    assert rows.tolist() == list(range(7))
    assert back.dtype == np.float32
    assert np.array_equal(back, pixels, equal_nan=True)
    assert np.array_equal(good, valid)
    if form == "parquet":
        assert pq.read_schema(path).metadata[b"absurd.bands"] == b"g\nr"
        assert pq.read_table(path)["id"].to_pylist() == ids
        return
    group: Any = zarr.open_group(path, mode="r")
    assert dict(group.attrs) == {"bands": ["g", "r"], "normalisation": "asinh", "axes": ["row", "band", "y", "x"]}
    assert group["pixels"].chunks == (2, 2, 5, 4)
    assert [bytes(each).rstrip(b"\0").decode() or None for each in group["id"][:]] == ids


def test_a_chunk_of_a_store_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come at a time, in memory is a chunk of 4 MiB and what came last."""
    written: list[tuple[str, int]] = []
    grow = tensor_zarr._Store._grow

    def counted(store: Any, name: str, values: Any) -> None:
        written.append((name, len(values)))
        grow(store, name, values)

    monkeypatch.setattr(tensor_zarr._Store, "_grow", counted)
    monkeypatch.setattr(tensor_zarr, "CHUNK_BYTES", 8 * 4 * 5 * 5)
    with TensorFile(tmp_path / "t.zarr", (1, 5, 5), bands=["g"]) as file:
        for number in range(0, 20, 4):
            some = np.full((4, 1, 5, 5), number, np.float32)
            file.add(np.arange(number, number + 4), [None] * 4, some, np.ones_like(some, dtype=bool))
    assert [several for name, several in written if name == "pixels"] == [8, 8, 4]
    assert read_tensors(tmp_path / "t.zarr")[1][:, 0, 0, 0].tolist() == [each // 4 * 4 for each in range(20)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("private", [False, True])
def test_a_file_of_tensors_has_one_shape(tmp_path: Path, form: str, private: bool) -> None:
    """Another shape is refused, and what was begun does not appear."""
    with (
        pytest.raises(DataIdValidationError, match=r"shape \(1, 3, 3\)"),
        TensorFile(tmp_path / f"t.{form}", (1, 4, 4), bands=["g"], private=private) as file,
    ):
        file.add(np.arange(1), [None], np.zeros((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), bool))

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", FORMS)
def test_what_stood_there_is_replaced_when_the_new_is_whole(tmp_path: Path, form: str) -> None:
    """Until then, and where it fails, the older tensors are read."""
    path = tmp_path / f"t.{form}"

    def write(value: float) -> None:
        with TensorFile(path, (1, 2, 2), bands=["g"]) as file:
            some = np.full((3, 1, 2, 2), value, np.float32)
            file.add(np.arange(3), [None] * 3, some, np.ones_like(some, dtype=bool))
            if value < 0:
                raise InterruptedError

    write(1)
    with pytest.raises(InterruptedError):
        write(-1)
    assert (read_tensors(path)[1] == 1).all()
    write(2)
    assert (read_tensors(path)[1] == 2).all()
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_store_takes_the_place_of_no_other_folder(tmp_path: Path) -> None:
    """What holds anything but tensors is refused, and stays; so is a private path at which there is something."""
    (tmp_path / "t.zarr").mkdir()
    (tmp_path / "t.zarr" / "notes").write_text("mine")

    with pytest.raises(ButlerConfigError, match="holds notes, which is of no tensors"):
        TensorFile(tmp_path / "t.zarr", (1, 2, 2), bands=["g"]).__enter__()
    with pytest.raises(FileExistsError):
        TensorFile(tmp_path / "t.zarr", (1, 2, 2), bands=["g"], private=True).__enter__()

    assert [each.name for each in (tmp_path / "t.zarr").iterdir()] == ["notes"]


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, (2, 6, 6), elements=st.floats(-1e6, 1e6, width=32)),
    arrays(bool, (2, 6, 6)),
    st.sampled_from(NORMALISATIONS),
)
def test_normalisation_keeps_what_it_promises(pixels: Any, valid: Any, how: Any) -> None:
    """Finite everywhere, 0 where nothing is valid, in its range, the order of values kept, scale and offset gone."""
    result = normalise(pixels, valid, how)

    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert not result[~valid].any()
    for band in range(2):
        values, before = result[band][valid[band]], pixels[band][valid[band]]
        assert (
            np.diff(values[np.argsort(before, kind="stable")]) >= -1e-5 * max(1, np.abs(values).max(initial=0))
        ).all()
        if how == "min-max":
            assert ((values >= 0) & (values <= 1)).all()
        if how == "z-score" and values.size and before.std() > 1e-3 * max(1, np.abs(before).max()):
            assert abs(values.mean(dtype=np.float64)) < 1e-3
            assert abs(values.std(dtype=np.float64) - 1) < 1e-3


def test_asinh_is_the_formula() -> None:
    """asinh((v - median) / (3 x 1.4826 MAD))."""
    pixels = np.array([[[0.0, 1.0, 2.0, 3.0, 100.0]]])

    expected = np.arcsinh((pixels - 2.0) / (3 * 1.4826 * 1.0))

    assert np.allclose(normalise(pixels, np.ones(pixels.shape, bool), "asinh"), expected)


def test_own_preprocessing_has_a_name() -> None:
    """A registered function is found; another name is refused with those that are known."""
    register_preprocessing("test_products.double", lambda pixels, valid: pixels * 2)

    assert preprocessing("test_products.double")(np.ones((1, 1, 1), np.float32), np.ones((1, 1, 1), bool)) == 2
    with pytest.raises(DataIdValidationError, match=r"known are: .*test_products\.double"):
        preprocessing("os.system")


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.int32, np.int64])
def test_quality_counts_what_it_says(kind: Any) -> None:
    """Fractions of the pixels on the image; only the bits that count, in masks of any integer type."""
    pixels = np.ones((4, 4), np.float32)
    pixels[0] = np.nan
    pixels[1, 0] = np.inf
    outside = np.zeros((4, 4), bool)
    outside[0] = True
    mask = np.zeros((4, 4), kind)
    mask[2, :3], mask[3, 0] = 4, 1

    every = quality_of(pixels, mask, outside)
    assert (every.not_finite, every.masked, every.outside) == (1 / 12, 4 / 12, 4 / 16)
    assert quality_of(pixels, mask, outside, mask_bits=1).masked == 1 / 12
    assert quality_of(pixels, None, outside).masked == 0
    assert every.reason(Limits()) == ""
    assert every.reason(Limits(masked=0.25)) == "33.3% of the pixels are masked, 25.0% are allowed"


@pytest.mark.parametrize("limits", [{"masked": float("nan")}, {"outside": -0.1}, {"not_finite": 2.0}])
def test_limits_are_fractions(limits: dict[str, Any]) -> None:
    """A limit that is no fraction is refused by its name."""
    with pytest.raises(DataIdValidationError, match=next(iter(limits))):
        Limits(**limits)
