"""Catalogues of sources: read, and told which of their sources are the same."""
