"""``absurd cutout``: positions of arguments and of a table, what is printed, and how it ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np
import pytest
from astropy.io import fits
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import extract, manifest
from absurd.tasks.cutout.in_use import in_use
from absurd.tasks.cutout.tensor import read_tensors

if TYPE_CHECKING:
    from cli.conftest import Run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A place in two bands, south of the equator."""
    (tmp_path / "images").mkdir()
    for seed, band in enumerate("gr"):
        write_image(tmp_path / "images" / f"{band}.fits", pixels_of(seed=seed), make_wcs(10, -20), BAND=band)
    return tmp_path / "images"


def test_one_position(run: Run, images: Path, tmp_path: Path) -> None:
    """Right ascension, declination below 0 and size are arguments; each band is a file, and all files are named."""
    ended = run("cutout", "10", "-20", "6", "--source", "images", "--out", "cut", "--bands", "r,g")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        str(tmp_path / "cut" / "manifest.parquet") + ": 1 row: 1 accepted, 0 rejected, 0 failed",
        str(tmp_path / "cut" / "contact_sheet.html"),
        str(tmp_path / "cut" / "000000_r.fits"),
        str(tmp_path / "cut" / "000000_g.fits"),
    ]
    alone = extract(images / "r.fits", (10, -20), 6)
    with fits.open(tmp_path / "cut" / "000000_r.fits") as file:
        assert np.array_equal(file[0].data, alone.image.pixels)


def test_a_file_that_may_have_more_of_a_position_is_told(run: Run, images: Path) -> None:
    """Where no bands are named: what there is is cut, and stderr names the file that cannot be read."""
    (images / "r.fits").write_bytes((images / "r.fits").read_bytes()[:500])

    ended = run("cutout", "10", "-20", "6", "--source", "images", "--out", "cut")

    assert (ended.code, ended.out.count(".fits")) == (0, 1)
    assert ended.err.startswith("there may be more: r.fits cannot be read")


def test_a_table(run: Run, images: Path, tmp_path: Path) -> None:
    """Rows that fail are told on stderr and by the exit code, others are there; a second run keeps them."""
    Path("p.csv").write_text("id,ra,dec\na,10,-20\nb,400,-20\nc,10.0007,-20\n")
    words = ("cutout", "--positions", "p.csv", "--size", "12", "--unit", "pixel", "--source", "images", "--out", "cut")
    options = ("--no-fits", "--tensors", "asinh", "--max-outside", "0.01", "--bands", "g")

    ended = run(*words, *options, "--json")

    assert ended.code == 1
    assert (ended.document["accepted"], ended.document["rejected"], ended.document["failed"]) == (2, 0, 1)
    assert [each["id"] for each in ended.document["failures"]] == ["b"]
    assert "row 1 (b)" in ended.err
    assert "400" in ended.err
    assert read_tensors(tmp_path / "cut" / "tensors.parquet")[0].tolist() == [0, 2]
    assert not list((tmp_path / "cut").glob("*.fits"))
    assert [each["state"] for each in manifest.read("cut/manifest.parquet")] == ["accepted", "failed", "accepted"]
    assert "; all kept" in run(*words, *options).out


def test_a_batch_on_the_queue_is_not_disturbed(run: Run, images: Path) -> None:
    """A folder that a task works in is refused by the name of the task, until that has ended; parts go if wished."""
    params = ("positions=[[10,-20]]", "size=6", "source=images", "out=cut")
    task = run("spawn", "cutout.batch", *params, "--json").document["id"]
    with in_use(Path("cut/.parts"), batch=UUID(task)):
        pass
    words = ("cutout", "10", "-20", "6", "--source", "images", "--out", "cut", "--no-keep-parts")

    ended = run(*words)
    assert ended.code == 5
    assert f"a batch is at work in cut already: task {task}" in ended.err
    assert run("task", "cancel", task).code == 0
    assert run(*words).code == 0
    assert not Path("cut/.parts").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("10", "20", "6"), 2, "no image of the source"),
        (("400", "-20", "6"), 2, "must be .*360"),
        (("10", "-20", "0"), 2, r"Error: size: Input should be greater than 0 \(see `.* invalid_params`\)$"),
        (("10", "-20", "6", "--planes", "mask"), 2, "Error: planes are mask; FITS files and tensors need image too"),
        (("10", "-20", "1", "--bands", "z"), 3, "no image in band z"),
        (("10", "-20", "1", "--source", "absent"), 3, "there is no file or folder absent"),
        (("10", "-20"), 2, "Give RA, DEC and SIZE, or --positions"),
        (("10", "-20", "6", "--positions", "p.csv"), 2, "Give either"),
        (("10", "-20", "6", "--size", "5"), 2, "--size is for --positions"),
        (("--positions", "p.csv"), 3, "there is no file p.csv"),
        (("10", "-20", "6", "--sorce", "x"), 2, "--sorce"),
        (("10", "-20", "6", "--out", "images/g.fits/x"), 2, "images/g.fits/x is no folder"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, images: Path, words: tuple[str, ...], code: int, message: str) -> None:
    """With the exit code of its kind."""
    source = () if "--source" in words else ("--source", "images")
    ended = run("cutout", "--out", "cut", *words, *source)

    assert ended.code == code, ended.err
    (line,) = [each for each in ended.err.splitlines() if each.startswith("Error")]
    assert re.search(message, line)
