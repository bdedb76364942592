"""Images combined to mosaics."""
