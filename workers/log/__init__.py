"""What runs print: gathered, bounded, and brought to the database."""
