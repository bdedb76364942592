"""Catalogues by region and column: of Butler repositories, of Parquet files and of HATS trees."""
