"""Runs on a Dask cluster, as safe there as here."""
