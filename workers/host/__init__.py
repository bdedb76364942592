"""The host: what it has, what processes use of it, and the limits set to them."""
