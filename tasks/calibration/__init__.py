"""Gains of antennas: solved against a model of the sky, kept, and applied."""
