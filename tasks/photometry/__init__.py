"""Flux densities of sources in images, and how they change."""
