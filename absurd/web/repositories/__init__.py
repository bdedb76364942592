"""Data access: what services need of each kind of record, and how it is read through a `DatabaseAdapter`."""
