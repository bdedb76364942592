"""What is wrong with one file, one tile or one position is an error of its own rows, and of no others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from skies import make_wcs, pixels_of, write_image

from absurd.tasks.cutout import ImageRef, ImageUnreadableError, RippleError, compiled, parsed
from absurd.tasks.cutout.batch import Batch, cut_batch
from absurd.tasks.cutout.boxes import Boxes, boxes_at
from absurd.tasks.cutout.gather import PlainPixels, _Local
from absurd.tasks.cutout.sources.exposure import LAYOUT
from absurd.tasks.cutout.targets import Targets

CENTRE = (10.0, 20.0)
SIZE = (9, 12)


def grid(n: int = 40) -> NDArray[np.float64]:
    """Positions all over an image of 120 x 160 pixels."""
    rng = np.random.default_rng(4)
    there = wide().pixel_to_world(rng.uniform(0, 160, n), rng.uniform(0, 120, n)).icrs
    return np.column_stack([there.ra.deg, there.dec.deg])


def wide() -> Any:
    """A WCS whose image has 120 x 160 pixels."""
    return make_wcs(crpix=(80.5, 60.5))


def compressed(path: Path, tile: tuple[int, int] = (1, 160)) -> Path:
    """An image and a mask in tiles."""
    header = wide().to_header()
    pixels = pixels_of((120, 160))
    hdus = [
        fits.CompImageHDU(pixels, header, name="IMAGE", tile_shape=tile, quantize_method=2, dither_seed=5),
        fits.CompImageHDU((pixels > 100).astype(np.int32), header, name="MASK", tile_shape=tile),
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)
    return path


def cut(path: Path) -> Batch:
    """All positions out of one file, which is read anew."""
    parsed.forget()
    return cut_batch(Targets.on(grid(), [ImageRef(str(path), "r", {})]), SIZE, ("image", "mask"))


def test_broken_files_fail_their_rows_alone(tmp_path: Path) -> None:
    """Of seven files five cannot be used: each row tells why, and the others are as without them."""
    good = write_image(tmp_path / "good.fits", pixels_of(), make_wcs())
    packed = tmp_path / "packed.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels_of(), make_wcs().to_header())]).writeto(packed)
    for whole, name in ((good, "short.fits"), (packed, "packed_short.fits")):
        content = whole.read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) - 2 * 2880])
    (tmp_path / "text.fits").write_text("not an image")
    fits.PrimaryHDU(pixels_of()).writeto(tmp_path / "nowhere.fits")
    names = ("good", "gone", "short", "packed", "packed_short", "text", "nowhere")
    refs = [ImageRef(str(tmp_path / f"{name}.fits"), "r", {}) for name in names]
    which = np.repeat(np.arange(len(refs), dtype=np.int32), 3)[:, None]
    asked = np.array([CENTRE] * len(which))

    batch = cut_batch(Targets(asked, refs, which, ("r",)), (8, 8))

    codes: dict[str, set[str]] = {name: set() for name in names}
    for (place, _), error in batch.errors.items():
        codes[names[which[place, 0]]].add(error.code)
    assert codes == {
        "good": set(),
        "gone": {"cutout_source_not_found"},
        "short": {"cutout_image_unreadable"},
        "packed": set(),
        "packed_short": {"cutout_image_unreadable"},
        "text": {"cutout_image_unreadable"},
        "nowhere": {"cutout_no_wcs"},
    }
    alone = cut_batch(Targets.on(asked[:3], refs[:1]), (8, 8))
    assert np.array_equal(batch.pixels["image"][:3], alone.pixels["image"])
    assert np.isnan(batch.pixels["image"][3:9]).all()


def test_bad_positions_fail_alone() -> None:
    """NaN, out of range and outside: each its own error, with the position in it; no file needs to be there."""
    asked = np.array([(np.nan, 0.0), (400.0, 0.0), (0.0, 91.0), (0.0, -np.inf), CENTRE])

    batch = cut_batch(Targets.on(asked, [ImageRef("/nowhere.fits", "r", {})]), (8, 8))

    assert [batch.errors[i, 0].code for i in range(5)] == ["cutout_position_invalid"] * 4 + ["cutout_source_not_found"]
    assert "400" in str(batch.errors[1, 0])
    with pytest.raises(type(batch.errors[1, 0])):
        batch.cutout(1, 0)


def test_a_missing_plane_is_told(tmp_path: Path) -> None:
    """A plane that is not there, and one of another shape."""
    image = fits.PrimaryHDU(pixels_of(), make_wcs().to_header())
    other = fits.ImageHDU(pixels_of((5, 5)), name="MASK")
    fits.HDUList([image, other]).writeto(tmp_path / "a.fits")
    targets = Targets.on(np.array([CENTRE]), [ImageRef(str(tmp_path / "a.fits"), "r", {})])

    for plane, reason in (("mask", "has the shape"), ("weight", "no plane called 'weight'")):
        batch = cut_batch(targets, (8, 8), ("image", plane))
        assert batch.errors[0, 0].code == "cutout_plane_not_found"
        assert reason in str(batch.errors[0, 0])


@pytest.mark.parametrize("order", [("IMAGE", "VARIANCE", "MASK"), ("VARIANCE", "MASK", "IMAGE"), ("", "", "")])
def test_what_a_file_says_of_its_planes_goes_before_a_guess(tmp_path: Path, order: tuple[str, str, str]) -> None:
    """EXTNAME tells which plane an HDU is, in any order; without names a reference does."""
    values = dict(zip((name or told for name, told in zip(order, LAYOUT, strict=True)), (1, 2, 3), strict=True))
    header = make_wcs().to_header()
    hdus = [fits.ImageHDU(np.full((30, 40), n, np.int16), header, name=name) for n, name in enumerate(order, 1)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    targets = Targets.on(np.array([CENTRE]), [ImageRef(str(tmp_path / "a.fits"), "r", LAYOUT)])
    batch = cut_batch(targets, (4, 4), tuple(LAYOUT))

    assert not batch.errors
    assert {name: int(batch.pixels[name].max()) for name in LAYOUT} == {k.lower(): n for k, n in values.items()}


def test_a_file_that_changes_after_its_header_was_read_is_told(tmp_path: Path) -> None:
    """Pixels are read of the file whose header was read, or not at all."""
    path = write_image(tmp_path / "a.fits", pixels_of((120, 160)), wide())
    file = parsed.parse(ImageRef(str(path), "r", {}), ("image",))
    pixels = file.planes["image"]
    assert isinstance(pixels, PlainPixels)
    os.utime(path, ns=(1, 1))
    boxes = boxes_at(np.array([(80.0, 60.0)]), SIZE, (120, 160))

    with pytest.raises(ImageUnreadableError, match="was changed while it was read"):
        pixels.cut(boxes, np.zeros((1, *SIZE), np.float32), np.array([0]))


@pytest.mark.parametrize("kind", ["plain", "RICE_1", "GZIP_2"])
def test_a_file_that_is_rewritten_while_it_is_read_gives_no_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Pixels of two versions are in no cut-out: the file is looked at again when they are read."""
    path, header, pixels = tmp_path / "a.fits", wide().to_header(), pixels_of((120, 160)).astype(np.int16)
    plain = kind == "plain"
    hdu = fits.ImageHDU(pixels, header) if plain else fits.CompImageHDU(pixels, header, compression_type=kind)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    file = parsed.parse(ImageRef(str(path), "r", {}), ("image",))
    sections = Boxes.sections

    def rewritten(boxes: Boxes) -> Any:
        os.utime(path, ns=(1, 1))
        return sections(boxes)

    monkeypatch.setattr(_Local, "need", lambda *_: os.utime(path, ns=(1, 1)))
    monkeypatch.setattr(Boxes, "sections", rewritten)
    boxes = boxes_at(np.array([(80.0, 60.0)]), SIZE, (120, 160))
    found = file.planes["image"]
    assert not isinstance(found, RippleError)

    with pytest.raises(ImageUnreadableError, match="was changed while it was read"):
        found.cut(boxes, np.zeros((1, *SIZE), found.dtype), np.array([0]))


def test_a_damaged_tile_fails_the_rows_that_need_it(tmp_path: Path) -> None:
    """One tile of noughts, that no code begins with: boxes over it fail, all others are unharmed."""
    path = compressed(tmp_path / "a.fits")
    whole = cut(path)
    with fits.open(path, disable_image_compression=True) as hdus:
        length, offset = _descriptor(path, 1, 60)
        start = hdus[1].fileinfo()["datLoc"] + hdus[1].header["NAXIS1"] * hdus[1].header["NAXIS2"]
    content = bytearray(path.read_bytes())
    content[start + offset + 8 : start + offset + length] = bytes(length - 8)
    path.write_bytes(content)

    damaged = cut(path)

    over = {i for i in range(40) if whole.origins[i, 0, 1] <= 60 < whole.origins[i, 0, 1] + SIZE[0]}
    assert over
    assert {place for place, _ in damaged.errors} == over
    if compiled.library():
        assert all("tile 60 is damaged" in str(error) for error in damaged.errors.values())
    for i in set(range(40)) - over:
        assert np.array_equal(damaged.pixels["image"][i], whole.pixels["image"][i], equal_nan=True)


def _descriptor(path: Path, hdu: int, row: int) -> tuple[int, int]:
    with fits.open(path, disable_image_compression=True) as hdus:
        start, width = hdus[hdu].fileinfo()["datLoc"], hdus[hdu].header["NAXIS1"]
    length, offset = np.frombuffer(path.read_bytes(), ">i4", 2, start + row * width)
    return int(length), int(offset)


@pytest.mark.skipif(not compiled.library(), reason="the kernels in C are not built here")
@pytest.mark.parametrize("tile", [(1, 160), (50, 70)])
def test_no_damage_ends_the_process(tmp_path: Path, tile: tuple[int, int]) -> None:
    """Whatever bytes stand in tables and tiles, each row has pixels or an error; seeds are fixed and told."""
    path = compressed(tmp_path / "a.fits", tile)
    with fits.open(path, disable_image_compression=True) as hdus:
        starts = [hdu.fileinfo()["datLoc"] for hdu in hdus[1:]]
    whole = path.read_bytes()
    for seed in range(60):
        print(f"seed {seed}")
        rng = np.random.default_rng(seed)
        content = np.frombuffer(whole, np.uint8).copy()
        table = rng.random() < 0.5
        for start in starts:  # within the table, or anywhere behind
            places = start + rng.integers(0, 400 if table else 20_000, 30)
            places = places[places < len(content)]
            headers = [(starts[0] - 2880 * 4, starts[0]), (starts[1] - 2880 * 4, starts[1])]
            places = places[[not any(low <= each < high for low, high in headers) for each in places]]
            content[places] = rng.choice([0, 0xFF, 0x80, 0x7F, 1], len(places))
        path.write_bytes(content.tobytes())

        batch = cut(path)

        assert len(batch) == 40
        assert all(error.code in ("cutout_image_unreadable", "cutout_outside") for error in batch.errors.values())


def test_a_stream_is_bounded_in_memory(tmp_path: Path) -> None:
    """100,000 cut-outs of 410 MB pass through a process that never holds more than two chunks beside its images."""
    path = write_image(tmp_path / "a.fits", pixels_of((400, 500)), make_wcs(crpix=(250, 200)))

    told = subprocess.run(
        [sys.executable, "-c", _STREAM, str(path)], check=True, capture_output=True, text=True, timeout=600
    )

    found = json.loads(told.stdout)
    assert found["rows"] == 100_000
    assert found["grown"] < 120 << 20


_STREAM = """
import json, os, sys
from pathlib import Path
import numpy as np
from absurd.tasks.cutout import ImageRef
from absurd.tasks.cutout.batch import cut_batch, cut_stream
from absurd.tasks.cutout.targets import Targets
rng = np.random.default_rng(1)
positions = np.column_stack([rng.uniform(9.99, 10.01, 100_000), rng.uniform(19.99, 20.01, 100_000)])
targets = Targets.on(positions, [ImageRef(sys.argv[1], "r", {"image": 0})])
held = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
cut_batch(Targets.on(positions[:10], targets.images), (32, 32))
before, most, rows = held(), 0, 0
for batch in cut_stream(targets, (32, 32), chunk=16 << 20):
    rows += len(batch)
    most = max(most, held())
print(json.dumps({"rows": rows, "grown": most - before}))
"""
