"""What is read of large files, and what becomes of files that are damaged in their headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from skies import make_wcs, pixels_of

from absurd.tasks.cutout import ImageRef, ImageUnreadableError, NotOnSkyError, compiled, extract, parsed
from absurd.tasks.cutout.batch import cut_batch
from absurd.tasks.cutout.boxes import Boxes
from absurd.tasks.cutout.gather import Pixels
from absurd.tasks.cutout.sources.folder import read_images
from absurd.tasks.cutout.targets import Targets

ROWS, COLUMNS, TALL = 90_000, 16_000, 2_000
RA, DEC = 150.0, 2.5
KERNELS = ("compiled", "numpy") if compiled.library() else ("numpy",)


def write_hollow(path: Path, shape: tuple[int, int], lit: dict[tuple[int, int], float]) -> Path:
    """An image of noughts that takes no room on the disk, but for a few pixels, by (y, x)."""
    header = fits.PrimaryHDU(np.zeros((1, 1), np.float32), make_wcs(crpix=(8000.0, 100.0)).to_header()).header
    header["NAXIS1"], header["NAXIS2"] = shape[::-1]
    header.tofile(path)
    with path.open("r+b") as file:
        file.seek(0, 2)
        start = file.tell()
        file.truncate(start + -(-shape[0] * shape[1] * 4 // 2880) * 2880)
        for (y, x), value in lit.items():
            file.seek(start + (y * shape[1] + x) * 4)
            file.write(np.array(value, ">f4").tobytes())
    return path


def pixels_in(uri: str) -> Pixels:
    parsed.forget()
    found = parsed.parse(ImageRef(uri, "r", {}), ("image",)).planes["image"]
    assert not isinstance(found, Exception)
    return found


def bytes_read() -> int:
    """Bytes that this process has asked the system to read."""
    return int(Path("/proc/self/io").read_text(encoding="ascii").split()[1])


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_tall_box_is_read_alone(kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three columns of 2,000 rows of 64 kB, behind 5.6 GB of others: a tenth of what lies between is read at most."""
    if kernels == "numpy":
        monkeypatch.setattr(compiled, "library", lambda: None)
    first = ROWS - TALL
    lit = {(first, 0): 1.0, (first + 999, 1): 2.0, (ROWS - 1, 2): 3.0, (ROWS - 1, COLUMNS - 1): 4.0}
    pixels = pixels_in(str(write_hollow(tmp_path / "hollow.fits", (ROWS, COLUMNS), lit)))
    out = np.zeros((2, TALL, 3), np.float32)
    boxes = Boxes((TALL, 3), (ROWS, COLUMNS), np.array([(0, first), (COLUMNS - 2, first + 5)]))
    before = bytes_read()

    assert pixels.cut(boxes, out, np.arange(2)) == {}

    assert bytes_read() - before < TALL * COLUMNS * 4 / 10
    assert [(*each,) for each in np.argwhere(out)] == [(0, 0, 0), (0, 999, 1), (0, TALL - 1, 2), (1, TALL - 6, 1)]
    assert out[out > 0].tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("kind", "card"),
    [
        ("plain", "BSCALE  = 'none'"),
        ("plain", "NAXIS1  = ("),
        ("plain", "BITPIX  = ("),
        ("RICE_1", "TTYPE1  = ("),
        ("RICE_1", "THEAP   = 'none'"),
        ("RICE_1", "GCOUNT  = -1"),
        ("GZIP_1", "ZNAXIS1 = ("),
    ],
)
def test_a_damaged_card_is_the_error_of_its_file(tmp_path: Path, kind: str, card: str) -> None:
    """Whatever astropy makes of it: an error that names the file, of one position and of many."""
    header, pixels = make_wcs(RA, DEC, crpix=(40.0, 30.0)).to_header(), pixels_of((60, 80))
    header["BSCALE"], header["BUNIT"] = 1.0, "Jy"
    hdu = fits.ImageHDU(pixels, header) if kind == "plain" else fits.CompImageHDU(pixels, header, compression_type=kind)
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    whole = path.read_bytes()
    at = whole.find(f"{card[:8]}= ".encode(), 2880)
    if at < 0:  # in place of one that means nothing
        at = whole.index(b"LATPOLE =", 2880)
    path.write_bytes(whole[:at] + card.ljust(80).encode() + whole[at + 80 :])

    with pytest.raises((ImageUnreadableError, NotOnSkyError), match=r"a\.fits"):
        extract(path, (RA, DEC), 20, unit="pixel")
    batch = cut_batch(Targets.on(np.array([(RA, DEC)]), [ImageRef(str(path), "r", {})]), (20, 20))
    assert "a.fits" in batch.errors[0, 0].message
    assert isinstance(read_images(path, ""), list | ImageUnreadableError | NotOnSkyError)
