"""One run: its body, its surroundings, its end, and how it crosses to another process."""
