"""FITS files of many cut-outs: the cards of an image are made once, by astropy, and each file changes what differs.

A header of a hundred cards takes astropy ten times as long to make, to check and to write as its pixels take to cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.bare import BareCutout
from absurd.tasks.cutout.geometry import Box
from absurd.tasks.cutout.header import moving
from absurd.tasks.cutout.output import whereabouts, write_fits, write_hdus
from absurd.tasks.cutout.request import IMAGE
from absurd.tasks.quiet import quiet

CARD, BLOCK = 80, 2880
MOST_FORMS = 64
"""That are kept by one writer."""
_NO_SUM = "CHECKSUM= '0000000000000000'   / HDU checksum updated {}"
_EXCLUDED = range(0x3A, 0x41), range(0x5B, 0x61)
"""Punctuation between digits and letters, which a checksum must not have."""


class FitsWriter:
    """Writes cut-outs of any images as FITS files; for one thread."""

    def __init__(self, task_id: UUID | str | None = None) -> None:
        self._task_id = task_id
        self._forms: dict[tuple[Any, ...], FitsForm | None] = {}

    def write(self, cutout: BareCutout, path: Path) -> None:
        """Write a file, as `write_fits` does, under its own name; it is not on the disk before it is synced.

        Raises OSError, NotOnSkyError.
        """
        # the file itself is in the key, so that no other takes its place in memory as long as it is known by that
        kinds = tuple((name, pixels.dtype) for name, pixels in cutout.pixels.items())
        key = (cutout.file, cutout.band, kinds, len(cutout.stitched))
        if key not in self._forms:
            if len(self._forms) == MOST_FORMS:
                self._forms.pop(next(iter(self._forms)))
            self._forms[key] = FitsForm.of(cutout, self._task_id)
        form = self._forms[key]
        if form is None:
            write_fits(cutout.cutout(), path, task_id=self._task_id, private=True)
        else:
            path.write_bytes(form.filled(cutout))


@dataclass(frozen=True, slots=True)
class _Hdu:
    """The cards of a header up to END, each with what continues it, and the places of those that are changed."""

    cards: tuple[str, ...]
    places: Mapping[str, int]
    comments: Mapping[str, str]

    @classmethod
    def of(cls, cards: list[str], changing: Mapping[str, Any]) -> _Hdu | None:
        """None if a card that is to be changed is not there."""
        from astropy.io import fits

        keywords = [each[:8].rstrip() for each in cards]
        if not keywords or not {*changing, "CHECKSUM", "DATASUM"} <= {*keywords}:
            return None
        places = {key: keywords.index(key) for key in (*changing, "CHECKSUM", "DATASUM")}
        return cls(
            tuple(cards), places, {key: fits.Card.fromstring(cards[place]).comment for key, place in places.items()}
        )

    def filled(self, values: Mapping[str, Any], pixels: NDArray[Any], now: str) -> bytes:
        """The HDU with other values and pixels, and its checksums."""
        from astropy.io import fits

        data = _stored(pixels)
        data_sum = ones_sum(data)
        cards = list(self.cards)
        for key, value in values.items():
            cards[self.places[key]] = str(fits.Card(key, value, self.comments[key]))
        cards[self.places["DATASUM"]] = str(fits.Card("DATASUM", str(data_sum), f"data unit checksum updated {now}"))
        place = self.places["CHECKSUM"]
        cards[place] = _NO_SUM.format(now).ljust(CARD)
        text = _padded("".join(cards).encode("ascii"), b" ")
        cards[place] = cards[place].replace("0" * 16, encoded(ones_sum(text, data_sum)), 1)
        return _padded("".join(cards).encode("ascii"), b" ") + data


@dataclass(frozen=True, slots=True)
class FitsForm:
    """The files of all cut-outs of an image that have the same planes, of the same types."""

    hdus: Mapping[str, _Hdu]
    """By plane, in the order of the file."""
    moves: Mapping[str, tuple[float, int]]
    """As `moving`."""

    @classmethod
    def of(cls, cutout: BareCutout, task_id: UUID | str | None) -> FitsForm | None:
        """What there is to change in files of cut-outs like this; None if that is more than is known here.

        So it is of images whose lookup tables of distortions move with the box.
        """
        if cutout.file.tables:
            return None
        moves = moving(cutout.file.header)
        changing = _values(cutout, moves)
        (ny, nx), (x, y) = cutout.box.shape, cutout.box.origin
        pixels = {name: np.zeros((ny + 1, nx + 2), each.dtype) for name, each in cutout.pixels.items()}
        box = Box((ny + 1, nx + 2), (x + 3, y + 5), cutout.box.image_shape)
        headers = _headers(cutout, task_id)
        others = _headers(replace(cutout, pixels=pixels, box=box, position=(0.25, 0.5)), task_id)
        hdus = {}
        for name, cards in headers.items():
            hdu = _Hdu.of(cards, changing[name])
            rest = [
                [each for each in some if each[:8].rstrip() not in (*changing[name], "CHECKSUM", "DATASUM")]
                for some in (cards, others[name])
            ]
            if hdu is None or rest[0] != rest[1]:
                return None
            hdus[name] = hdu
        return cls(hdus, moves)

    def filled(self, cutout: BareCutout) -> bytes:
        """The file of a cut-out."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        values = _values(cutout, self.moves)
        with quiet():  # long names leave no room for their comments
            return b"".join(hdu.filled(values[name], cutout.pixels[name], now) for name, hdu in self.hdus.items())


def _values(cutout: BareCutout, moves: Mapping[str, tuple[float, int]]) -> dict[str, dict[str, Any]]:
    """What differs between the files of cut-outs of an image, by plane and keyword."""
    (ny, nx), origin = cutout.box.shape, cutout.box.origin
    size = {"NAXIS1": nx, "NAXIS2": ny}
    moved = {key: value - origin[axis] for key, (value, axis) in moves.items()}
    x, y = (float(first) - start for first, start in zip(cutout.file.wcs.wcs.crpix, origin, strict=True))
    found = {name: size | {"CRPIX1": x, "CRPIX2": y} for name in cutout.pixels}
    found[IMAGE] = size | moved | {key: value for key, value, _ in whereabouts(cutout)}
    return found


def _headers(cutout: BareCutout, task_id: UUID | str | None) -> dict[str, list[str]]:
    """The cards of each plane as astropy writes them, END as the last."""
    file = BytesIO()
    write_hdus(cutout.cutout(), file, task_id=task_id)
    content, start = file.getvalue(), 0
    found: dict[str, list[str]] = {}
    for name in (IMAGE, *(each for each in cutout.pixels if each != IMAGE)):
        cards: list[str] = []
        while not cards or cards[-1].rstrip() != "END":
            card = content[start : start + CARD].decode("ascii")
            start += CARD
            if card.startswith("CONTINUE"):
                cards[-1] += card
            else:
                cards.append(card)
        found[name] = cards
        start += -start % BLOCK
        start += len(_stored(cutout.pixels[name]))
    return found


def _stored(pixels: NDArray[Any]) -> bytes:
    """The data of an image: big-endian, unsigned integers (of 8 bits: signed) from the middle of their range on."""
    kind = pixels.dtype
    if (kind.kind == "u" and kind.itemsize > 1) or kind == np.int8:
        pixels = pixels.view(f"u{kind.itemsize}") ^ np.array(1 << (8 * kind.itemsize - 1), f"u{kind.itemsize}")
    return _padded(pixels.astype(pixels.dtype.newbyteorder(">")).tobytes(), b"\0")


def _padded(content: bytes, filling: bytes) -> bytes:
    return content + filling * (-len(content) % BLOCK)


def ones_sum(content: bytes, before: int = 0) -> int:
    """The sum of big-endian words of 32 bits in one's complement, after another (FITS standard 4.0, J.1)."""
    total = int(np.frombuffer(content, ">u4").sum(dtype=np.uint64)) + before
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def encoded(total: int) -> str:
    """What brings the sum of an HDU to -0 when it stands in its CHECKSUM, as letters and digits (J.2)."""
    letters = [_letters(each) for each in (total ^ 0xFFFFFFFF).to_bytes(4, "big")]
    text = "".join(letters[byte][place] for place in range(4) for byte in range(4))
    return text[-1] + text[:-1]  # the value begins at the last byte of a word


@cache
def _letters(byte: int) -> str:
    """Four signs whose sum is the byte and four times the sign 0."""
    quotient, rest = divmod(byte, 4)
    signs = [0x30 + quotient + rest, *[0x30 + quotient] * 3]
    while any(each in excluded for each in signs for excluded in _EXCLUDED):
        for pair in (0, 2):
            if any(each in excluded for each in signs[pair : pair + 2] for excluded in _EXCLUDED):
                signs[pair] += 1
                signs[pair + 1] -= 1
    return "".join(map(chr, signs))
