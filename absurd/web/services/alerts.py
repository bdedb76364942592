"""An alert tried: measured now, and its targets sent a message that says it is a test."""

from __future__ import annotations

import asyncio
from typing import Any

from absurd import alerts, targets
from absurd.web.desk import Desk


async def send_trial(desk: Desk, name: str, *, dry_run: bool = False) -> dict[str, Any]:
    """What it sees now, its `targets`, and `sent`: each target with the error or None; nothing with `dry_run`.

    Disks are those of this machine, and addresses those of its settings.  Raises AlertNotFoundError.
    """
    rule = await desk.read(alerts.get_alert(name))
    disks = await asyncio.to_thread(alerts.free_shares, [rule["folder"]] if "folder" in rule else [])
    found = await desk.change(alerts.measure_alert(name, disks=disks))
    sent = [] if dry_run else await asyncio.to_thread(targets.try_all, desk.settings, rule, found["message"])
    return {"name": name} | found | {"targets": rule["targets"], "sent": sent}
