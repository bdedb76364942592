"""A client process of the total-queue proof: spawns under keys until each is acknowledged, and writes both down.

Killed and started again, it goes on with what was not acknowledged: an insert whose fate is unknown is made
again under its key.  With SPAWN_ASK_AGAIN=0 it is not: nobody ever learns whether it happened.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

from absurd import SyncAbsurdClient
from absurd.errors import DatabaseUnavailableError
from absurd.executor import load_modules

ASK_AGAIN = os.environ.get("SPAWN_ASK_AGAIN") != "0"


def main(url: str, history: str, journal: str, name: str, seed: str, count: str) -> None:
    """Spawn `count` tasks whose kinds and keys follow from `seed`."""
    known = [json.loads(line) for line in Path(history).read_text().splitlines()] if Path(history).exists() else []
    done = {each["key"] for each in known if each["event"] == "acknowledged" or not ASK_AGAIN}
    chance = random.Random(int(seed))
    with Path(history).open("a", buffering=1) as file, SyncAbsurdClient(url) as client:
        for n in range(int(count)):
            kind = chance.choices(("loop", "process", "flaky", "hopeless"), (10, 2, 3, 1))[0]
            seconds, key = chance.choice((0.0, 0.0, 0.01, 0.05)), f"{name}-{n}"
            while key not in done:
                file.write(json.dumps({"event": "attempted", "key": key, "kind": kind}) + "\n")
                try:
                    params = {"key": key, "journal": journal, "seconds": seconds}
                    task = client.spawn(f"journal.{kind}", params, key=key)
                except DatabaseUnavailableError:
                    time.sleep(0.05)
                    continue
                file.write(json.dumps({"event": "acknowledged", "key": key, "task": str(task)}) + "\n")
                done.add(key)
            time.sleep(float(os.environ.get("SPAWN_PAUSE", "0")))


if __name__ == "__main__":
    load_modules(["journal_executors"])  # so that their retry policies are known
    main(*sys.argv[1:])
