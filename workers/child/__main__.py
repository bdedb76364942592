"""The process that a worker starts for its runs: ``python -m absurd.workers.child CHANNEL LIFELINE``."""

from __future__ import annotations

import os
import sys

from absurd.workers.host.guard import guard


def main() -> None:
    """Part into guard and run's process, and serve runs in the latter."""
    channel, lifeline = map(int, sys.argv[1:3])
    for inherited in (channel, lifeline):
        os.set_inheritable(inherited, False)  # by what executors start
    guard(lifeline, channel)
    from absurd.workers.child.serving import serve  # loaded behind the fork: the guard stays small

    serve(channel)


if __name__ == "__main__":
    main()
