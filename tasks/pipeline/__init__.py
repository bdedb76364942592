"""The radio pipeline on top of the queue: its configuration, its simulator, and what to do next."""
