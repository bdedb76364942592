"""The WCS of images, such that threads can use several of them at once."""

from __future__ import annotations

from typing import Any

from astropy.wcs import WCS


class SkyWCS(WCS):  # type: ignore[misc] # astropy.wcs has no types
    """As `astropy.wcs.WCS`, but a copy changes no filter of warnings.

    astropy begins each copy with a WCS without a header, mends that, and swaps the filters of the whole process
    meanwhile; it copies in `pixel_to_skycoord` and for each `sub`.  Of two threads that do so at once one may put back
    what the other had for the time.  In an empty WCS there is nothing to mend.
    """

    def __init__(self, header: Any = None, *args: Any, fix: bool = True, **options: Any) -> None:
        super().__init__(header, *args, fix=fix and header is not None, **options)
