"""Files of cut-outs that share the cards of their image: what astropy writes, and no more of astropy's work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skies import make_wcs, no_index, pixels_of

from absurd.tasks.artifact import sync
from absurd.tasks.cutout import ImageRef, fits_form, parsed, part, write_fits
from absurd.tasks.cutout.bare import BareCutout
from absurd.tasks.cutout.batch import cut_batch
from absurd.tasks.cutout.cutting import cut_here
from absurd.tasks.cutout.fits_form import BLOCK, FitsForm, FitsWriter, encoded, ones_sum
from absurd.tasks.cutout.header import moving
from absurd.tasks.cutout.params import BatchParams
from absurd.tasks.cutout.targets import Targets

TASK = UUID("0199c0de-0000-7000-8000-000000000001")
SIDE = 80
TYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
MASK = ("i4", "f4")
CHECKED = ("CHECKSUM", "DATASUM")


def numbers(kind: str) -> NDArray[Any]:
    """The whole range of a type, so that nothing of it is lost on the way."""
    random = np.random.default_rng(TYPES.index(kind))
    if kind[0] == "f":
        return random.normal(0, 1e6, (SIDE, SIDE)).astype(kind)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return random.integers(low, high, (SIDE, SIDE), dtype=kind, endpoint=True)


def header_of(distortion: str) -> fits.Header:
    """A WCS with cards that take care: a second WCS, a place on the detector, long words, no value, comments."""
    header = make_wcs(10.0, 20.0, crpix=(40.25, 38.125), angle=20).to_header()
    if distortion == "SIP":
        header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"})
        header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 3e-5, "A_1_1": -1e-5, "B_0_2": 2e-5})
    elif distortion == "TPV":
        header.update({"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV2_1": 1.0, "PV1_4": 1e-3})
    elif distortion == "lookup":
        for axis in (1, 2):
            header[f"CPDIS{axis}"] = "LOOKUP"
            for key, value in (("EXTVER", float(axis)), ("NAXES", 2.0), ("AXIS.1", 1.0), ("AXIS.2", 2.0)):
                header.append((f"DP{axis}", f"{key}: {value}"), end=True)
    header.update({"CTYPE1A": "X", "CTYPE2A": "Y", "CRPIX1A": 1, "CRPIX2A": 1.5, "LTV1": -20, "LTV2": 3.5})
    header.update({"BAND": "r", "BUNIT": "nJy", "EXPTIME": 30.1, "ORIGINX": 7, "STITCH1": "of an earlier cut"})
    header["LONG"] = ("a value that is so long that it goes on " * 4, "and a comment")
    header["HIERARCH ESO DET NAME"] = "a name with spaces"
    header["COMMENT"] = "words"
    header["NOTHING"] = None
    return header


def write_source(path: Path, distortion: str = "none", planes: tuple[str, ...] = TYPES, image: str = "f4") -> Path:
    """An image with a plane of each type, called as the type is."""
    header = header_of(distortion)
    hdus: list[Any] = [fits.PrimaryHDU(), fits.ImageHDU(pixels_of((SIDE, SIDE)).astype(image), header, name="IMAGE")]
    for kind in planes:
        own = header_of("none") if distortion == "lookup" else header.copy()
        own.update({"MP_BAD": 0, "HIERARCH MP_DETECTED": 5, "BUNIT": "count"})
        hdus.append(fits.ImageHDU(numbers(kind), own, name=kind))
    if distortion == "lookup":
        for axis in (1, 2):
            table = np.random.default_rng(axis).normal(0, 0.5, (9, 9)).astype(np.float32)
            hdus.append(fits.ImageHDU(table, name="WCSDVARR", ver=axis))
            hdus[-1].header.update(dict.fromkeys(("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2"), 1.0))
            hdus[-1].header.update({"CDELT1": 10.0, "CDELT2": 10.0})
    fits.HDUList(hdus).writeto(path)
    return path


def cut(path: Path, shape: tuple[int, int], planes: tuple[str, ...] = (), n: int = 6) -> list[BareCutout]:
    """Cut-outs of an image, some of them over its edge."""
    ref = ImageRef(str(path), "r", {"image": 1})
    spread = 0.5 * SIDE * 0.5 / 3600
    asked = np.array([10.0, 20.0]) + np.random.default_rng(1).uniform(-spread, spread, (n, 2))
    batch = cut_batch(Targets.on(asked, [ref]), shape, ("image", *planes))
    made = [batch.bare(place, 0) for place in range(n) if (place, 0) not in batch.errors]
    assert 0 < sum(each.n_outside > 0 for each in made) < len(made)
    return made


def check_same(path: Path, other: Path) -> None:
    """Ours is valid, its checksums are right, and each card and each pixel is astropy's."""
    with fits.open(path, checksum=True) as ours, fits.open(other) as theirs:  # a wrong sum warns: an error
        ours.verify("exception")
        assert len(ours) == len(theirs)
        for one, reference in zip(ours, theirs, strict=True):
            assert list(one.header) == list(reference.header)
            for card, known in zip(one.header.cards, reference.header.cards, strict=True):
                if card.keyword in CHECKED:
                    assert card.comment.partition(" updated ")[0] == known.comment.partition(" updated ")[0]
                elif one is not ours[0] and card.keyword in ("CRPIX1", "CRPIX2"):  # wcslib rounds them
                    assert card.value == pytest.approx(known.value, rel=1e-11)
                else:
                    assert (card.keyword, card.value, card.comment) == (known.keyword, known.value, known.comment)
            assert one.header["DATASUM"] == reference.header["DATASUM"]
            assert one.data.dtype == reference.data.dtype
            assert one.data.tobytes() == reference.data.tobytes()
    assert path.stat().st_size == other.stat().st_size
    assert path.stat().st_size % BLOCK == 0


@pytest.mark.parametrize(
    ("distortion", "image", "planes"),
    [("none", "f4", TYPES), ("none", "f8", ()), ("none", "i2", ()), ("SIP", "f4", MASK), ("TPV", "f4", MASK),
     ("lookup", "f4", MASK)],
)  # fmt: skip
def test_files_are_those_of_astropy(tmp_path: Path, distortion: str, image: str, planes: tuple[str, ...]) -> None:
    """Whatever the types of the planes and the distortions of the WCS, for one size after another."""
    source = write_source(tmp_path / "source.fits", distortion, planes, image)
    writer = FitsWriter(TASK)
    for shape in ((9, 12), (30, 1)):
        for place, each in enumerate(cut(source, shape, planes, n=4)):
            ours, theirs = tmp_path / f"{shape[0]}_{place}.fits", tmp_path / f"{shape[0]}_{place}_astropy.fits"
            writer.write(each, ours)
            write_fits(each.cutout(), theirs, task_id=TASK)
            check_same(ours, theirs)
            assert fits.getval(ours, "TASKID") == str(TASK)
    forms = list(writer._forms.values())
    assert len(forms) == 1
    assert (forms[0] is None) == (distortion == "lookup")


def test_what_is_stitched_tells_of_what(tmp_path: Path) -> None:
    """Names, also those longer than a card, however many; a card of an earlier cut gives way."""
    source = write_source(tmp_path / "source.fits", planes=())
    writer = FitsWriter()
    for names in (("a.fits", "b.fits"), (), ("x" * 100 + ".fits", "it's.fits"), ("c.fits",)):
        each = replace(cut(source, (12, 9))[0], stitched=names, n_missing=4)
        writer.write(each, tmp_path / "ours.fits")
        write_fits(each.cutout(), tmp_path / "theirs.fits")
        check_same(tmp_path / "ours.fits", tmp_path / "theirs.fits")


def test_astropy_makes_the_cards_of_an_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of forty files of two images it writes two each, by which it is known what changes; in a batch as well."""
    written: list[Any] = []
    write = fits.HDUList.writeto

    def counted(self: fits.HDUList, *rest: Any, **options: Any) -> None:
        written.append(self)
        write(self, *rest, **options)

    for name in "ab":
        write_source(tmp_path / f"{name}.fits", "SIP", planes=("i4", "f4"))
    monkeypatch.setattr(fits.HDUList, "writeto", counted)
    writer = FitsWriter()
    for place, each in enumerate([*cut(tmp_path / "a.fits", (9, 9), n=20), *cut(tmp_path / "b.fits", (9, 9), n=20)]):
        writer.write(each, tmp_path / f"{place}_.fits")
    assert len(written) == 4
    written.clear()

    positions: list[Any] = [(10.0 + number * 1e-4, 20.0) for number in range(20)]
    options: dict[str, Any] = {
        "source": str(tmp_path / "a.fits"),
        "size": 9,
        "unit": "pixel",
        "out": str(tmp_path / "out"),
    }
    assert cut_here(BatchParams(positions=positions, **options), no_index).accepted == 20
    assert len(written) == 2


def test_what_changes_beyond_what_is_known_is_left_to_astropy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another card that differs between two cut-outs of an image makes no form, and no wrong file."""
    source = write_source(tmp_path / "source.fits", planes=())
    each = cut(source, (9, 12))[0]
    assert FitsForm.of(each, None) is not None

    def incomplete(header: Any) -> dict[str, tuple[float, int]]:
        return {key: value for key, value in moving(header).items() if key != "CRPIX2A"}

    monkeypatch.setattr(fits_form, "moving", incomplete)
    assert FitsForm.of(each, None) is None
    FitsWriter().write(each, tmp_path / "ours.fits")
    write_fits(each.cutout(), tmp_path / "theirs.fits")
    check_same(tmp_path / "ours.fits", tmp_path / "theirs.fits")


def test_an_image_of_the_same_name_has_cards_of_its_own(tmp_path: Path) -> None:
    """A file that is written anew while a writer lives is another image to it."""
    writer, path = FitsWriter(), tmp_path / "source.fits"
    for distortion in ("SIP", "TPV"):
        path.unlink(missing_ok=True)
        parsed.forget()
        each = cut(write_source(path, distortion, planes=()), (9, 12))[0]
        writer.write(each, tmp_path / "ours.fits")
        assert fits.getval(tmp_path / "ours.fits", "CTYPE1") == f"RA---{'TAN-SIP' if distortion == 'SIP' else 'TPV'}"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files of a part are synced, then renamed, then their folder is synced; only then is the part's own file."""
    done: list[tuple[str, str]] = []
    replace_ = Path.replace

    def synced(path: Path) -> None:
        done.append(("sync", path.name))
        sync(path)

    def renamed(self: Path, target: Path) -> Path:
        done.append(("name", target.name))
        return replace_(self, target)

    monkeypatch.setattr(part, "sync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    source = write_source(tmp_path / "a.fits", planes=())
    positions: list[Any] = [(10.0 + number * 1e-4, 20.0) for number in range(3)]
    out = tmp_path / "out"
    cut_here(BatchParams(positions=positions, source=str(source), size=9, unit="pixel", out=str(out)), no_index)

    files = {f"00000{number}_r.fits" for number in range(3)}
    first = next(place for place, (how, name) in enumerate(done) if how == "name" and name in files)
    assert {name for how, name in done[:first] if how == "sync"} == files
    after = done[first : first + 5]
    assert {name for _, name in after[:3]} == files
    assert after[3] == ("sync", "out")
    assert after[4][0] == "name" and after[4][1].endswith(".arrow")


@given(st.binary(max_size=200), st.integers(0, 0xFFFFFFFF))
def test_checksums_are_those_of_the_standard(content: bytes, number: int) -> None:
    """The sum in one's complement, and its letters: as astropy computes them."""
    hdu = fits.PrimaryHDU()
    words = content + bytes(-len(content) % 4)
    assert ones_sum(words) == int(hdu._compute_checksum(np.frombuffer(words, np.uint8)))
    assert encoded(number) == hdu._char_encode(~np.uint32(number))
    assert encoded(number).isalnum()
