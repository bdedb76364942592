"""The simulated sky: catalogue and images tell of the same sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest
from astropy.io import fits
from psycopg import RawCursor

from absurd.tasks.cutout import extract, find_images
from absurd.tasks.simulate import AT_EDGE, BANDS, NOISE, SATURATED, SATURATION, Sky, load_catalogue_sql, simulate_sky


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """The sky of the demo."""
    return simulate_sky(tmp_path_factory.mktemp("sky"))


def test_sources_are_where_the_catalogue_says(sky: Sky) -> None:
    """At the position of a bright star that stands alone, the pixel is far above the sky, in each band."""
    stars = [each for each in sky.sources if each.kind == "star" and not each.flags][:8]
    assert len(stars) == 8
    for star in stars:
        found = find_images(sky.folder, star.ra, star.dec)
        assert [each.band for each in found] == list(BANDS)
        for each in found:
            pixels = extract(each.path, (star.ra, star.dec), 3, unit="pixel").image.pixels
            assert np.nanmax(pixels) > 10 * NOISE


def test_bright_stars_saturate(sky: Sky) -> None:
    """Full pixels exist, none is fuller, and the sources that fill them are flagged."""
    assert max(float(fits.getdata(path).max()) for path in sky.images) == SATURATION
    assert 2 <= sum(bool(each.flags & SATURATED) for each in sky.sources) < 20
    assert any(each.flags & AT_EDGE for each in sky.sources)
    assert [each.id for each in sky.sources] == list(range(1, len(sky.sources) + 1))
    fluxes = [each.flux for each in sky.sources]
    assert fluxes == sorted(fluxes, reverse=True)


def test_the_same_seed_gives_the_same_sky(sky: Sky, tmp_path: Path) -> None:
    """Byte for byte; another seed gives another one."""
    again = simulate_sky(tmp_path / "again")
    other = simulate_sky(tmp_path / "other", seed=13, stars=20)

    assert again.sources == sky.sources
    assert [path.read_bytes() for path in again.images] == [path.read_bytes() for path in sky.images]
    assert other.sources[5:] != sky.sources[5:]


def test_the_catalogue_loads(sky: Sky, connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """The table has a row for each source, in every run anew, with NULLs, NaN and exact decimals."""
    for _ in range(2):
        for statement, arguments in load_catalogue_sql(sky, "stars"):
            RawCursor(connection).execute(statement, arguments)

    row = connection.execute(
        "select count(*), count(flux_error), count(*) filter (where flux_error = 'NaN'), count(note),"
        " count(*) filter (where note = ''), bool_and(cardinality(band_fluxes) = 3), max(scale(magnitude)) from stars"
    ).fetchone()
    assert row is not None
    rows, errors, nan, notes, empty, arrays, scale = row
    assert rows == len(sky.sources)
    assert 0 < errors < rows  # type: ignore[operator]
    assert nan == sum(bool(each.flags & SATURATED) for each in sky.sources)
    assert 0 < empty < notes < rows  # type: ignore[operator]
    assert (arrays, scale) == (True, 4)
