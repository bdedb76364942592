"""The rings sky map, against records of real repositories, published numbers and its own geometry."""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from absurd.tasks.cutout.coordinates import CoordinateConverter
from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.patches import CellPatches, LegacyPatches, PixelBox
from absurd.tasks.cutout.regions import Circle
from absurd.tasks.cutout.sky_map import KNOWN, RingsSkyMap, sky_map_named, sky_map_of
from absurd.tasks.cutout.sphere import positions_of, separation

HSC, CELLS = KNOWN["hsc_rings_v1"], KNOWN["lsst_cells_v1"]
EXPORTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "butler"
HSC_HASH = base64.b64decode("4p/p8QCONZ82o2d+fWnMQ5N20eY=")
"""Of the record of hsc_rings_v1 in the exports."""

ra = st.floats(0, 360, exclude_max=True)
dec = st.floats(-90, 90)


class _Loader(yaml.SafeLoader):
    """Reads a Butler's export; lsst.sphgeom itself makes regions of what is marked as such."""


_Loader.add_multi_constructor("!", lambda *_: None)


def vertices(region: Any) -> Any:
    return positions_of(np.array([tuple(vertex) for vertex in region.getVertices()]))


@cache
def export_of(file: str) -> Any:
    return yaml.load((EXPORTS / file).read_text(), _Loader)["data"]  # noqa: S506 - a subclass of the safe one


def records_of(file: str, element: str) -> list[dict[str, Any]]:
    pytest.importorskip("lsst.sphgeom", reason="the extra [butler] is not installed")
    if not (EXPORTS / file).is_file():
        pytest.skip("the folder shared/ with exports of repositories is not beside this checkout")
    return [dict(record) for part in export_of(file) if part.get("element") == element for record in part["records"]]


def everywhere(count: int = 20_000) -> Any:
    """Positions all over the sphere, always the same."""
    return positions_of(np.random.default_rng(20).normal(size=(count, 3)))


@pytest.mark.parametrize("file", ["hsc-rc2-subset.yaml", "registry_data/hsc-rc2-subset-v0.yaml"])
def test_tracts_and_patches_are_those_of_a_real_repository(file: str) -> None:
    """Number, index and region of each tract and patch in the exports: vertices agree to 0.1 microarcseconds."""
    tracts, patches = records_of(file, "tract"), records_of(file, "patch")

    assert len(tracts) == 2 and len(patches) == 2
    for record in tracts:
        tract = HSC.tract(record["id"])
        assert separation(tract.corners(tract.box), vertices(record["region"])).max() * 3600 < 1e-7
    for record in patches:
        tract = HSC.tract(record["tract"])
        assert tract.patch_index(record["id"]) == (record["cell_x"], record["cell_y"])
        assert separation(tract.corners(tract.outer_box(record["id"])), vertices(record["region"])).max() * 3600 < 1e-7


def test_the_record_of_a_real_repository_names_its_parameters() -> None:
    """The hash in the record is that of the parameters; with it go number of tracts and of patches."""
    (record,) = records_of("hsc-rc2-subset.yaml", "skymap")
    record["name"] = "another name"  # names are given by whoever registers it

    found = sky_map_of(SimpleNamespace(**record))

    assert found == HSC and found.name == "another name"
    assert HSC.sha1 == record["hash"] == HSC_HASH


def test_a_repository_is_asked_by_regions_and_answers_by_records(tmp_path: Path) -> None:
    """In a real Butler: its record gives the sky map, and a circle of ours finds the patches that ours touches."""
    records_of("hsc-rc2-subset.yaml", "skymap")
    from lsst.daf.butler import Butler

    Butler.makeRepo(str(tmp_path / "repo"))
    circle = Circle(216.1, 0.18, 0.05)
    with Butler.from_config(str(tmp_path / "repo"), writeable=True) as butler:
        butler.import_(filename=str(EXPORTS / "hsc-rc2-subset.yaml"), without_datastore=True)
        (record,) = butler.query_dimension_records("skymap")
        with butler.query() as query:
            near = query.where("skymap='hsc_rings_v1' AND patch.region OVERLAPS r", bind={"r": circle.to_sphgeom()})
            found = [(row["tract"], row["patch"]) for row in near.data_ids(["patch"])]

    converter = CoordinateConverter(sky_map_of(record))

    assert converter.sky_map == HSC
    assert converter.radec_to_tract_patch(circle.ra, circle.dec) == (9615, 14)
    assert found == [(9615, 14)]  # the other patch of the export is far away
    touched = converter.radec_to_tract_patch_radius(circle.ra, circle.dec, circle.radius)
    assert 14 in dict(touched)[9615]


def test_a_record_of_something_else_is_refused() -> None:
    """A discrete sky map has a hash of its own; counts that do not fit the hash are told, not used."""
    (record,) = records_of("registry_data/ci_hsc-subset-skymap.yaml", "skymap")
    wrong = SimpleNamespace(name="x", hash=HSC_HASH, tract_max=18938, patch_nx_max=9, patch_ny_max=8)

    with pytest.raises(DataIdValidationError, match=r"discrete/ci_hsc.*that of none known here"):
        sky_map_of(SimpleNamespace(**record))
    with pytest.raises(DataIdValidationError, match="9 x 8 patches by its record, but 18938 of 9 x 9"):
        sky_map_of(wrong)


def test_own_parameters_are_found_by_hash() -> None:
    """Candidates that are given count before the known ones."""
    own = RingsSkyMap(3, 0.5, 0.2, CellPatches((100, 100), 10, 8, 2), ra_start=12.5)
    nx, ny = own.n_patches
    record = SimpleNamespace(name="own", hash=own.sha1, tract_max=own.n_tracts, patch_nx_max=nx, patch_ny_max=ny)

    assert sky_map_of(record, own) == own


def test_inner_boxes_of_cell_patches_are_those_published() -> None:
    """Patch 56 of tract 1234 of the Rubin sky map, written by lsst.skymap: lincc-frameworks/skymap-convert, README."""
    published = [
        (353.19436746094334, -61.733705740129906),
        (353.5462936615678, -61.73505840062234),
        (353.54818789227375, -61.568395336612376),
        (353.19815518019567, -61.567052069980534),
    ]
    tract = CELLS.tract(1234)

    corners = tract.corners(tract.inner_box(56))

    assert separation(corners, np.array(published)).max() * 3600 < 1e-7


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("DC2", (55.745834, -32.269167), (4431, 17)),  # data preview 0.2: tests of lsst.cst, test_conversions.py
        ("lsst_cells_v1", (53.06700454971479, -28.221957930172174), (5063, 5)),  # field ECDFS: scripts of DM-48050
        ("lsst_cells_v1", (53.12277768, -27.73640709), (5063, 34)),  # as above
    ],
)
def test_published_positions_are_in_their_patches(
    name: str, place: tuple[float, float], expected: tuple[int, int]
) -> None:
    """Positions that were published with the tract and patch that lsst.skymap finds are in them."""
    sky_map = sky_map_named(name)
    positions = np.array([place])

    tracts = sky_map.tract_of(positions)

    assert (tracts[0], sky_map.patch_at(sky_map.to_pixel(positions, tracts))[0]) == expected


def test_patches_around_abell_360_are_among_those_published() -> None:
    """Those within half a degree are 58 of the 64 that a technote lists; the others touch the square round the circle.

    "Testing the implementation of Metadetection and Cell-Based Coadds on Abell 360 ComCam data", Rubin Observatory.
    """
    published = {
        10463: {10 * row + column for row in range(3, 10) for column in range(5)},
        10464: {10 * row + column for row in range(3, 10) for column in (7, 8, 9)},
        10704: set(range(6)),
        10705: {8, 9},
    }
    ra, dec = 37.865017, 6.982205

    found = CoordinateConverter(CELLS).radec_to_tract_patch_radius(ra, dec, 0.5)

    assert CELLS.tract_of(np.array([[ra, dec]])).tolist() == [10463]
    assert sorted(published) == [tract for tract, _ in found]
    left_out = {(tract, patch) for tract, patches in found for patch in published[tract] ^ set(patches)}
    assert left_out == {(10463, 34), (10464, 37), (10464, 38), (10464, 47), (10464, 97), (10705, 8)}


@pytest.mark.parametrize("sky_map", KNOWN.values(), ids=KNOWN)
def test_every_centre_is_in_its_own_tract(sky_map: RingsSkyMap) -> None:
    """All 18938 tracts of 120 rings map to themselves, and their centres to the reference pixel."""
    numbers = np.arange(18938)

    assert sky_map.n_tracts == 18938
    assert np.array_equal(sky_map.tract_of(sky_map.centres), numbers)
    assert np.abs(sky_map.to_pixel(sky_map.centres, numbers) - sky_map.reference_pixel).max() < 1e-9
    assert sky_map.tract_of(np.array([(0.0, -90.0), (77.0, -90.0), (0.0, 90.0), (360.0, 90.0)])).tolist() == [
        0,
        0,
        18937,
        18937,
    ]


def test_grids_have_the_published_sizes() -> None:
    """9 x 9 patches in HSC, 10 x 10 in data previews 1 and 2, 7 x 7 in DC2; images of cell patches have 3400 pixels."""
    assert [each.n_patches for each in KNOWN.values()] == [(9, 9), (10, 10), (10, 10), (7, 7)]
    assert HSC.box == PixelBox(0, 0, 36000, 36000)
    assert CELLS.tract(0).outer_box(0) == PixelBox(-200, -200, 3200, 3200)
    assert KNOWN["lsst_cells_v2"].tract(0).outer_box(0) == PixelBox(-150, -150, 3150, 3150)
    assert HSC.tract(0).outer_box(0) == PixelBox(0, 0, 4100, 4100)
    assert HSC.tract(0).outer_box(80) == PixelBox(31900, 31900, 36000, 36000)


@given(
    rings=st.integers(1, 200),
    start=st.floats(0, 360, exclude_max=True),
    version=st.sampled_from([0, 1]),
    ra=ra,
    dec=dec,
)
@settings(max_examples=200, deadline=None)
def test_rings_by_definition(rings: int, start: float, version: int, ra: float, dec: float) -> None:
    """Any sky map: a position's tract is the one by the definition, worked out with Python's own numbers."""
    sky_map = RingsSkyMap(rings, 10.0, 1.0, ra_start=start, version=version)
    height = 180 / (rings + 1)
    ring = int((dec + 90 - height / 2) // height)

    tract = int(sky_map.tract_of(np.array([(ra, dec)]))[0])

    centre_ra, centre_dec = sky_map.centres[tract]
    if version == 0 and tract == sky_map.n_tracts - 1 and dec < 90 - height / 2:
        return  # the first tract of the last ring has no number of its own
    assert abs(dec - centre_dec) <= height / 2 + 1e-9
    if 0 <= ring < rings:
        width = 360 / sky_map.ring_sizes[ring]
        assert abs((ra - centre_ra + 180) % 360 - 180) <= width / 2 + 1e-9


def test_numbers_of_version_0() -> None:
    """The first tract of a ring has the number after the ring's last; tract 1 is there twice, one is missing."""
    old, new = replace(CELLS, version=0), CELLS
    positions = everywhere()

    first, second = old.tract_of(positions), new.tract_of(positions)

    changed = first != second
    at_start = new.centres[second, 0] == 0.0
    inner = (second > new.ring_sizes[0]) & (second < new.n_tracts - 1)
    assert np.array_equal(changed, at_start & inner)
    sizes = np.concatenate([[1], new.ring_sizes])
    ring = np.searchsorted(np.cumsum(sizes), second[changed], side="right") - 1
    assert np.array_equal(first[changed], second[changed] + new.ring_sizes[ring])
    assert np.array_equal(old.centres[1], old.centres[1 + new.ring_sizes[0]])
    numbers = np.delete(np.arange(old.n_tracts), 1 + new.ring_sizes[0])
    assert np.array_equal(old.tract_of(old.centres[numbers]), numbers)


@pytest.mark.parametrize("number", [0, 1, 10, 5063, 9615, 18000, 18936, 18937])
def test_pixels_are_those_of_the_wcs(number: int) -> None:
    """Caps, last rings and others: the vectorised projection is astropy's of the tract's FITS header, both ways."""
    tract = CELLS.tract(number)
    pixels = np.random.default_rng(number).uniform(-500, 30500, (500, 2))

    positions = tract.to_sky(pixels)

    wcs = tract.wcs()
    assert separation(positions, np.column_stack(wcs.all_pix2world(*pixels.T, 0))).max() * 3600 < 1e-8
    assert np.abs(np.column_stack(wcs.all_world2pix(*positions.T, 0)) - tract.to_pixel(positions)).max() < 1e-6
    assert np.abs(tract.to_pixel(positions) - pixels).max() < 1e-6
    header = tract.header()
    if number != 18937:  # LONPOLE says what FITS would take by default anyway
        del header["LONPOLE"]
    assert isinstance(wcs, WCS) and wcs.wcs.crpix.tolist() == [header["CRPIX1"], header["CRPIX2"]]


def test_the_default_of_lonpole_is_what_the_header_says() -> None:
    """At the north pole, where FITS's default changes, a header without LONPOLE gives the same positions."""
    from astropy.io.fits import Header

    for number in (0, 5063, 18937):
        header = CELLS.tract(number).header()
        pixels = np.array([(100.0, 200.0), (20000.0, 300.0)])
        del header["LONPOLE"]

        positions = np.column_stack(WCS(Header(header)).all_pix2world(*pixels.T, 0))

        assert separation(positions, CELLS.tract(number).to_sky(pixels)).max() * 3600 < 1e-8


@given(ra=ra, dec=dec, name=st.sampled_from(list(KNOWN)))
@settings(max_examples=300, deadline=None)
def test_round_trips(ra: float, dec: float, name: str) -> None:
    """Any position, poles and 0h too: to its tract's pixels and back within a nanoarcsecond, inside the tract."""
    sky_map, positions = KNOWN[name], np.array([(ra, dec)])
    tracts = sky_map.tract_of(positions)

    pixels = sky_map.to_pixel(positions, tracts)

    assert sky_map.patch_at(pixels)[0] >= 0 or (name == "DC2" and abs(dec) > 89)  # see the test below
    assert separation(positions, sky_map.to_sky(pixels, tracts))[0] * 3600 < 1e-8


def test_tracts_hold_their_positions_with_room_to_spare() -> None:
    """Tracts are padded to whole patches: around a position 900 pixels are in its tract; not so near DC2's poles.

    There a ring's tract is a wedge whose corners by the cap its square does not reach; the cap holds them.
    """
    positions = np.concatenate([everywhere(200_000), [(18.0 + 36 * turn, -89.2552) for turn in range(10)]])
    room = {}
    for name, sky_map in KNOWN.items():
        pixels = sky_map.to_pixel(positions, sky_map.tract_of(positions))
        room[name] = float(np.minimum(pixels, np.array((sky_map.box.x1, sky_map.box.y1)) - 1 - pixels).min())

    assert room["hsc_rings_v1"] > 1200 and room["lsst_cells_v1"] > 900 and -100 < room["DC2"] < 0
    corner = np.array([(18.0, -89.2552)])
    dc2 = KNOWN["DC2"]
    assert dc2.patch_at(dc2.to_pixel(corner, dc2.tract_of(corner)))[0] == -1
    assert dc2.patch_at(dc2.to_pixel(corner, np.array([0])))[0] >= 0


@given(dec=dec)
@settings(max_examples=100, deadline=None)
def test_360_is_0(dec: float) -> None:
    """Right ascension 360 is the same place as 0, and comes back as less than 360."""
    ends = np.array([(0.0, dec), (360.0, dec)])

    tracts = CELLS.tract_of(ends)
    pixels = CELLS.to_pixel(ends, tracts)

    assert tracts[0] == tracts[1]
    assert np.abs(pixels[0] - pixels[1]).max() < 1e-6
    assert CELLS.to_sky(pixels, tracts)[:, 0].max() < 360


def test_inner_boxes_tile_the_tract_and_outer_boxes_hold_them() -> None:
    """Each pixel of a tract is in one inner box; `patch_at` and `patches_in` name it; outer boxes reach further."""
    for sky_map in (HSC, CELLS):
        tract = sky_map.tract(7)
        boxes = [tract.inner_box(patch) for patch in range(tract.n_patches)]
        assert sum(ny * nx for ny, nx in (box.shape for box in boxes)) == sky_map.box.x1 * sky_map.box.y1
        for patch, box in enumerate(boxes):
            corners = np.array([(box.x0, box.y0), (box.x1 - 1, box.y1 - 1), (box.x0 - 0.5, box.y0)])
            assert sky_map.patch_at(corners).tolist() == [patch] * 3
            assert tract.patches_in(box).tolist() == [patch]
            assert tract.outer_box(patch).contains(box)
        assert tract.patches_in(PixelBox(-10, -10, 10**6, 10**6)).tolist() == list(range(tract.n_patches))
        assert tract.patches_in(PixelBox(-10, 5, 0, 10)).size == 0
        assert sky_map.patch_at(np.array([(-0.6, 5.0), (np.nan, 5.0), (5.0, sky_map.box.y1 - 0.4)])).max() == -1


def test_cells_tile_a_patch_with_its_border() -> None:
    """22 x 22 cells of 150 pixels, from one cell before the inner box; outer boxes of cells are 250 pixels."""
    tract, patches = CELLS.tract(5063), CELLS.patches
    assert isinstance(patches, CellPatches) and patches.cells_across == 22
    inner = tract.inner_box(14)

    assert patches.cell_box(inner, 0) == PixelBox(inner.x0 - 150, inner.y0 - 150, inner.x0, inner.y0)
    assert patches.cell_box(inner, 483) == PixelBox(inner.x1, inner.y1, inner.x1 + 150, inner.y1 + 150)
    assert patches.cell_box(inner, 24, outer=True) == PixelBox(
        inner.x0 + 100, inner.y0 - 50, inner.x0 + 350, inner.y0 + 200
    )
    assert tract.outer_box(14).contains(patches.cell_box(inner, 483, outer=True))
    with pytest.raises(DataIdValidationError, match="cell is 484; a patch has the cells 0 to 483"):
        patches.cell_box(inner, 484)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_rings": 0}, "num_rings is 0"),
        ({"pixel_scale": 0.0}, "pixel_scale is 0"),
        ({"pixel_scale": float("nan")}, "pixel_scale is nan"),
        ({"ra_start": 360.0}, "ra_start is 360"),
        ({"version": 2}, "version is 2"),
        ({"tract_overlap": -1.0}, "tract_overlap is -1"),
        ({"num_rings": 1, "tract_overlap": 45.0}, "no gnomonic projection"),
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, Any], message: str) -> None:
    """Each parameter that no sky map can have is named with its value."""
    with pytest.raises(DataIdValidationError, match=message):
        RingsSkyMap(**{"num_rings": 120, "pixel_scale": 0.2} | wrong)


def test_wrong_patches_are_refused() -> None:
    """Patches without pixels, borders below 0 and cells that are not square are named."""
    with pytest.raises(DataIdValidationError, match=r"\(0, 5\)"):
        LegacyPatches((0, 5))
    with pytest.raises(DataIdValidationError, match="border is -1"):
        LegacyPatches(border=-1)
    with pytest.raises(DataIdValidationError, match="must be square"):
        CellPatches((100, 150))
    with pytest.raises(DataIdValidationError, match="cells_per_patch is 0"):
        CellPatches(cells_per_patch=0)
    with pytest.raises(DataIdValidationError, match="known by name are hsc_rings_v1, lsst_cells_v1"):
        sky_map_named("nowhere")
    with pytest.raises(DataIdValidationError, match="tract is 18938; this sky map has the tracts 0 to 18937"):
        HSC.tract(18938)
