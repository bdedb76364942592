"""Visibilities: read, grouped, converted and flagged."""
