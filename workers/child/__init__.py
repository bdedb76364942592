"""Runs in child processes: warm, reused, limited, and read to their last line."""
