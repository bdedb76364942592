"""Makes due work appear, once: the rounds that keep a queue going beside its workers."""
