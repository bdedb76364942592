"""Where antennas of DSA-110 stand, and coordinates of their baselines as pyuvdata reckons them."""

from __future__ import annotations

import numpy as np
from astropy.time import Time
from numpy.typing import NDArray

from absurd.tasks.quiet import quiet
from absurd.tasks.radio.telescope import load_telescope
from absurd.tasks.visibility.visibilities import Array

TELESCOPE = load_telescope("dsa110")
NEAR = 1e-5
"""Radians: pyuvdata takes north between places half a degree away, at the lower of which it looks: 5 cm of u and v."""


def array() -> Array:
    """The whole telescope: baselines of up to 2.7 km."""
    return Array(
        TELESCOPE.name, TELESCOPE.antenna_names, TELESCOPE.positions_m, TELESCOPE.dish_diameter_m, TELESCOPE.position_m
    )


def pyuvdata_uvw(
    time: Time, ra: float, dec: float, one: NDArray[np.int64], two: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What pyuvdata gives, turned round."""
    from pyuvdata.utils import phasing

    rows = len(one)
    times = np.full(rows, time.jd)
    with quiet():
        from astropy.coordinates import EarthLocation

        site = EarthLocation.from_geocentric(*TELESCOPE.position_m, unit="m")
        lst = np.full(rows, time.sidereal_time("apparent", longitude=site.lon).rad)
        app_ra, app_dec = phasing.calc_app_coords(
            lon_coord=ra, lat_coord=dec, coord_frame="icrs", time_array=times, lst_array=lst, telescope_loc=site
        )
        angle = phasing.calc_frame_pos_angle(
            time_array=times, app_ra=app_ra, app_dec=app_dec, telescope_loc=site, ref_frame="icrs", offset_pos=NEAR
        )
        found: NDArray[np.float64] = phasing.calc_uvw(
            app_ra=app_ra,
            app_dec=app_dec,
            frame_pa=angle,
            lst_array=lst,
            use_ant_pos=True,
            antenna_positions=TELESCOPE.positions_m - TELESCOPE.position_m,
            antenna_numbers=np.arange(len(TELESCOPE.stations)),
            ant_1_array=one,
            ant_2_array=two,
            telescope_lat=site.lat.rad,
            telescope_lon=site.lon.rad,
        )
    return -found
