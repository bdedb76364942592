"""What is to be known of a measured flux density: bits of one number."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """Bits of the column ``flags``; 0 is nothing."""

    OUTSIDE = 1
    """The position is not on the image, or has no value there: there is no flux density."""
    BLANK = 2
    """Pixels within the beam have no value: the others tell the flux density."""
    BLENDED = 4
    """Another source is so near that both were fitted together."""
    INSEPARABLE = 8
    """Sources are nearer to one another than can be told apart: there is no flux density of either alone."""
    NO_NOISE = 16
    """Too few pixels around it for a noise: there is no error."""
