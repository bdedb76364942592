"""``python -m absurd`` is the command ``absurd``."""

from __future__ import annotations

from absurd.cli import main

if __name__ == "__main__":
    main()
