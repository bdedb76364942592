"""Stages that make images, mosaics and tables, as they are killed: whole files under final names, and their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from killed_stages import Inputs, Stage
from radio_skies import Field, Source, draw, scattered, write
from single_run import run

from absurd import SyncAbsurdClient

FIELDS = tuple(Field(ra, 54.6, side=160, noise=0.001) for ra in (359.4, 0.8))
"""Of tiles."""
EPOCHS = 4
START = datetime(2026, 1, 1, tzinfo=UTC)


def make_images(folder: Path) -> None:
    """Two tiles, four epochs of one field, the sources that are found in the first, and measurements of all."""
    rng = np.random.default_rng(12)
    for number, field in enumerate(FIELDS):
        write(folder / f"tile{number}.fits", field, draw(field, [(0.1, 54.6, 0.5)], rng))
    field = Field(150.0, 40.0, side=200, cell_arcsec=3.0, noise=0.0005, attenuated=False)
    sources: list[Source] = [
        (*place, 0.05) for place in scattered(rng, 150.0, 40.0, 12, across=0.06, up=0.06, apart=0.015)
    ]
    for epoch in range(EPOCHS):
        write(folder / f"epoch{epoch}.fits", field, draw(field, sources, rng), START + timedelta(minutes=5 * epoch))
    run("photometry.detect", {"image": str(folder / "epoch0.fits"), "out": str(folder / "sources.parquet")})
    run("photometry.forced", forced(folder) | {"out": str(folder / "measured.parquet")})


def forced(folder: Path) -> dict[str, Any]:
    """All epochs at the places of all sources."""
    images = [str(folder / f"epoch{each}.fits") for each in range(EPOCHS)]
    return {"images": images, "positions": str(folder / "sources.parquet")}


class Products(Stage):
    """Files of which each is absent or whole, and those of them that are rows."""

    names: tuple[str, ...] = ()
    """The first is a row of the database."""

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: digest(self.folder / name) for name in self.names}
        return found | {"row": self.client.find_product(str(self.folder / self.names[0])) is not None}

    def check(self) -> None:
        """There is nothing under any other name, and a file is there only if its row is."""
        assert {each.name for each in self.folder.glob("[!.]*") if each.is_file()} <= set(self.names)
        now = self.state()
        assert now["row"] or now[self.names[0]] is None


class Image(Products):
    """An image with all that belongs to it."""

    executor = "imaging.image"
    names = (*(f"a-{kind}.fits" for kind in ("image", "model", "residual", "psf", "pb", "pbcor")), "a.png")

    def prepare(self) -> dict[str, Any]:
        return {
            "ms": self.inputs.ms("night"), "out": str(self.folder / "a.fits"),
            "image_size": 64, "cell_size": "20arcsec", "niter": 50, "threshold": "0.1Jy",
        }  # fmt: skip


class Mosaic(Products):
    """Two tiles on both sides of right ascension 0."""

    executor = "imaging.mosaic"
    names = ("m.fits", "m-noise.fits")

    def prepare(self) -> dict[str, Any]:
        tiles = [str(self.inputs.folder / f"tile{each}.fits") for each in range(len(FIELDS))]
        return {"tiles": tiles, "out": str(self.folder / "m.fits")}


class Detect(Products):
    """A catalogue."""

    executor = "photometry.detect"
    names = ("s.parquet",)

    def prepare(self) -> dict[str, Any]:
        return {"image": str(self.inputs.folder / "epoch0.fits"), "out": str(self.folder / "s.parquet")}


class Forced(Products):
    """Measurements."""

    executor = "photometry.forced"
    names = ("f.parquet",)

    def prepare(self) -> dict[str, Any]:
        return forced(self.inputs.folder) | {"out": str(self.folder / "f.parquet")}


class Variability(Products):
    """What became of sources, and their light curves."""

    executor = "photometry.variability"
    names = ("v.parquet", "c.parquet")

    def prepare(self) -> dict[str, Any]:
        told = {"out": str(self.folder / "v.parquet"), "light_curves": str(self.folder / "c.parquet")}
        return {"photometry": [str(self.inputs.folder / "measured.parquet")], **told}


class Night(Products):
    """All measurements of a night that the database has."""

    executor = "photometry.export_night"
    names = ("photometry-2026-01-01.parquet",)

    def prepare(self) -> dict[str, Any]:
        measured = forced(self.inputs.folder) | {"out": str(self.inputs.folder / "night.parquet")}
        self.client.wait(self.client.spawn("photometry.forced", measured, key="the night"), timeout=240)
        return {"folder": str(self.folder), "night": "2026-01-01", "begins": 0}


PRODUCTS: dict[str, Callable[[Path, Inputs, SyncAbsurdClient], Stage]] = {
    "imaging.image": Image,
    "imaging.mosaic": Mosaic,
    "photometry.detect": Detect,
    "photometry.forced": Forced,
    "photometry.variability": Variability,
    "photometry.export_night": Night,
}


def digest(path: Path) -> str | None:
    """Of a file's content; None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
